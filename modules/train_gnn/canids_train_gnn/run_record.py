"""The `run.json` of a training (contract `run/1`), also of a stand-in, which imports no torch."""

from typing import Any

import numpy as np

from canids_shared.contracts import training_run
from canids_shared.contracts.detectors import DETECTORS
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.jobs.entry_point import Call

_LABELS = {detector.name: detector.label for detector in DETECTORS}
_MEASURED = ("epoch", "seconds", "graphs_per_s", "peak_rss_mb", "peak_gpu_mb")
"""Columns of a history that `run.json` leaves out: times and memory, and the number of the row."""


def scale_of(call: Call) -> str:
    """`large` or `small`, from the variant that a training rule names."""
    return str(call.constants["variant"]).partition("_")[0]


def auxiliary(graphs: GraphStore) -> np.ndarray:
    """Whether each window is of an auxiliary capture rather than of the dataset's own: bool [W]."""
    header = graphs.header
    indices = [header["captures"].index(name) for name in header.get("auxiliary_captures", [])]
    return np.isin(graphs["capture"], indices)


def split_summary(graphs: GraphStore) -> dict[str, Any]:
    """Contents of a split: `windows`, how many are `attacked` and `auxiliary`, windows by vehicle and by attack, captures."""
    header, attacked = graphs.header, graphs["y"] == 1

    def counts(names: list[str], indices: np.ndarray) -> dict[str, int]:
        amounts = np.bincount(indices, minlength=len(names))
        return {name: int(n) for name, n in zip(names, amounts, strict=True) if name and n}

    return {
        "windows": len(graphs),
        "attacked": int(attacked.sum()),
        "auxiliary": int(auxiliary(graphs).sum()),
        "vehicles": counts(header["vehicles"], graphs["vehicle"]),
        "attacks": counts(header["attacks"], graphs["attack"][attacked]),
        "captures": list(header["captures"]),
    }


def write(
    call: Call,
    name: str,
    *,
    parameters: int,
    history: list[dict[str, Any]],
    auroc: float | None,
    splits: tuple[GraphStore, GraphStore],
    latency: dict[str, Any],
) -> TrainingRun:
    """Write the record of a training whose other files are written.

    Args:
        call: of the rule.
        name: of the detector.
        parameters: numbers that were learnt.
        history: a row for each epoch.
        auroc: on `select`, with the weights that were kept.
        splits: `fit` and `select`.
        latency: of `canids_shared.jobs.latency.summary`.
    """
    losses = [row["select_loss"] for row in history]
    best = losses.index(min(losses))
    record = TrainingRun(
        kind=name,
        label=_LABELS[name],
        detectors=[name],
        variant=call.constants["variant"],
        scale=scale_of(call),
        dataset=call.wildcards["dataset"],
        instance=call.instance,
        seed=call.config["seed"],
        code=call.constants["code"],
        config=call.config,
        inputs={port: [str(path) for path in paths] for port, paths in call.inputs.items()},
        parameters=parameters,
        best=best,
        history=training_run.history_columns(history, leave_out=_MEASURED),
        select={"auroc": auroc, "loss": losses[best]},
        data={split: split_summary(graphs) for split, graphs in zip(("fit", "select"), splits, strict=True)},
        latency=latency,
        sizes={file: call.output[file].stat().st_size for file in ("model", "config")},
    )
    training_run.write(call.output["run"], record)
    return record
