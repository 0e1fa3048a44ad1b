"""The files of a training beside its model, `run.json` (contract `run/1`) among them; also those of a stand-in, so nothing here imports torch."""

from typing import Any

from canids_shared.contracts import training_run
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.jobs import latency, run_folder
from canids_shared.jobs.entry_point import Call


def write(
    call: Call,
    history: list[dict[str, Any]],
    best: int,
    *,
    parameters: int,
    data: dict[str, Any],
    seconds: list[float],
) -> None:
    """Write config, history and record of a training whose model file is written.

    Args:
        history: a row for each evaluation.
        best: the row whose weights were kept.
        parameters: number of weights of the network.
        data: split → its contents (`fusion_data.split_summary`).
        seconds: measurements of the time of a decision, on the CPU.
    """
    run_folder.write_config(call.output["config"], call)
    run_folder.write_history(call.output["history"], history)
    variant = call.constants["variant"]
    record = TrainingRun(
        kind="dqn",
        label="DQN",
        detectors=[],
        variant=variant,
        scale=variant.partition("_")[0],
        dataset=call.wildcards["dataset"],
        instance=call.wildcards["instance"],
        seed=call.config["seed"],
        code=call.constants["code"],
        config=call.config,
        inputs={port: [str(path) for path in paths] for port, paths in call.inputs.items()},
        parameters=parameters,
        best=best,
        history=training_run.history_columns(history),
        select={"reward": history[best]["select_reward"], "f1": history[best]["select_f1"]},
        data=data,
        latency=latency.summary(seconds, "cpu"),
        sizes={file: call.output[file].stat().st_size for file in ("model", "config")},
    )
    training_run.write(call.output["run"], record)
