"""The record of a policy's training (`run.json`)."""

from typing import Any

from canids_shared.contracts import training_run
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.jobs.entry_point import Call


def write(
    call: Call,
    history: list[dict[str, Any]],
    best: int,
    *,
    parameters: int,
    data: dict[str, Any],
    latency: dict[str, Any],
) -> None:
    """Write the output `run` of a training.

    Args:
        history: a row for each evaluation.
        best: the row whose weights were kept.
        parameters: number of weights of the network.
        data: split → its windows (`fusion_data.split_summary`).
        latency: of a decision (`canids_shared.jobs.latency.summary`).
    """
    variant = call.constants["variant"]
    kept = history[best]
    run = TrainingRun(
        kind="dqn",
        label="DQN",
        detectors=[],
        variant=variant,
        scale="large" if variant == "large" else "small",
        dataset=call.wildcards["dataset"],
        instance=call.wildcards["instance"],
        seed=call.config["seed"],
        code=call.constants["code"],
        config=call.config,
        inputs={name: [str(path) for path in paths] for name, paths in call.inputs.items() if paths},
        parameters=parameters,
        best=best,
        history=training_run.history_columns(history),
        select={"reward": kept["select_reward"], "f1": kept["select_f1"]},
        data=data,
        latency=latency,
        sizes={"model": call.output["model"].stat().st_size},
    )
    training_run.write(call.output["run"], run)
