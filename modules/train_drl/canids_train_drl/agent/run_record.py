"""The files of a training beside its model, `run.json` (contract `run/2`) among them; also those of a stand-in, so nothing here imports torch."""

from typing import Any

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
    """Write the files of a training whose model file is written.

    Args:
        history: a row for each evaluation.
        best: the row whose weights were kept.
        parameters: number of weights of the network.
        data: split → its contents (`fusion_data.split_summary`).
        seconds: measurements of the time of a decision, on the CPU.
    """
    run_folder.write_run(
        call,
        history,
        kind="dqn",
        label="DQN",
        detectors=[],
        parameters=parameters,
        best=best,
        select={"reward": history[best]["select_reward"], "f1": history[best]["select_f1"]},
        data=data,
        latency=latency.summary(seconds, "cpu"),
    )
