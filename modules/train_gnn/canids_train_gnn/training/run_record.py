"""The files of a training, `run.json` (contract `run/1`) among them; also those of a stand-in, so nothing here imports torch."""

from typing import Any

import numpy as np

from canids_shared.contracts import model_file
from canids_shared.contracts.detectors import DETECTORS
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.model_file import Arrays
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.jobs import latency, run_folder
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
    weights: Arrays,
    parameters: int,
    history: list[dict[str, Any]],
    auroc: float | None,
    seconds: list[float],
    device: str,
) -> TrainingRun:
    """Write the files of a training: model, config, history and `run.json`.

    Args:
        call: of the rule.
        name: of the detector.
        weights: what the model file holds beside the header that builds and applies the model.
        parameters: numbers that were learnt.
        history: a row for each epoch.
        auroc: on `select`, with the weights that were kept.
        seconds: measurements of the inference latency, each in seconds a window.
        device: kind of device on which they were taken.
    """
    fit, select = (GraphStore(path) for path in call.inputs["graphs"])
    header = {
        "contract": model_file.DETECTOR,
        "kind": name.upper(),
        "size": call.config[name][scale_of(call)],
        **{key: fit.header[key] for key in ("node_features", "edge_features", "window", "stride", "window_unit")},
    }
    model_file.save_arrays(call.output["model"], weights, header)
    losses = [row["select_loss"] for row in history]
    best = losses.index(min(losses))
    return run_folder.write_run(
        call,
        history,
        _MEASURED,
        kind=name,
        label=_LABELS[name],
        detectors=[name],
        parameters=parameters,
        best=best,
        select={"auroc": auroc, "loss": losses[best]},
        data={"fit": split_summary(fit), "select": split_summary(select)},
        latency=latency.summary(seconds, device),
    )
