"""The files of a training, `run.json` (contract `run/2`) among them; also those of a stand-in, so nothing here imports torch."""

from typing import Any

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


def write(
    call: Call,
    name: str,
    fit: GraphStore,
    select: GraphStore,
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
        fit, select: the splits that it learnt from, and that its epoch was chosen on.
        weights: what the model file holds beside the header that builds and applies the model.
        parameters: numbers that were learnt.
        history: a row for each epoch.
        auroc: on `select`, with the weights that were kept.
        seconds: measurements of the inference latency, each in seconds a window.
        device: kind of device on which they were taken.
    """
    header = {
        **run_folder.run_identity(call, name),
        "contract": model_file.DETECTOR,
        "kind": name.upper(),
        "size": call.config[name][call.scale],
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
        data={"fit": fit.counts(), "select": select.counts()},
        latency=latency.summary(seconds, device),
    )
