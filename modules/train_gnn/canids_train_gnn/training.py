"""What a training rule does around the training itself: open the splits and the teacher, then write the run."""

import logging
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from canids_shared import cli, latency
from canids_shared.graphstore import GraphStore
from canids_shared.runs import Checkpoint
from canids_shared.torchstore import TorchStore
from canids_train_gnn import loop, modelfile
from canids_train_gnn.attention import Passing
from canids_train_gnn.batching import batches
from canids_train_gnn.modelfile import Detector
from canids_train_gnn.models import parameter_count

OUTPUTS = ["model", "config", "history", "latency"]
log = logging.getLogger(__name__)


class Train(Protocol[Detector]):
    """How a detector is trained."""

    def __call__(
        self,
        fabric: Fabric,
        fit: TorchStore,
        select: TorchStore,
        scale: str,
        config: dict[str, Any],
        seed: int,
        teacher: Detector | None = None,
        checkpoint: Checkpoint | None = None,
        passing: Passing | None = None,
    ) -> tuple[Detector, list[dict[str, Any]]]:
        """Train on `fit`, choose the epoch on `select`; returns the detector and its history."""
        ...


def _select_scores(model: Detector, select: TorchStore) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        parts = [model.score(graphs) for graphs in batches(select, torch.arange(len(select)), 256)]
    return torch.cat(parts), select.y


def auroc(scores: Tensor, labels: Tensor) -> float | None:
    """Share of pairs of an attacked and an attack-free window that the scores [n] put in order, ties half; None without pairs.

    Args:
        labels: [n], 1 attacked, 0 attack-free; others count nowhere.
    """
    attacked, free = scores[labels == 1].double(), scores[labels == 0].double().sort().values
    if not len(attacked) or not len(free):
        return None
    below, upto = torch.searchsorted(free, attacked), torch.searchsorted(free, attacked, right=True)
    return float((below + upto).double().mean() / (2 * len(free)))


def _seconds_a_window(model: Detector, store: TorchStore) -> list[float]:
    """Inference latency, from a window's arrays to its score, window by window."""
    model.eval()
    with torch.inference_mode():
        return latency.measure(lambda w: model.score(store.batch(torch.tensor([w]))).item(), len(store))


def run(call: cli.Call, kind: type[Detector], section: str, train: Train[Detector]) -> None:
    """Train a detector of this kind as `section` of the config says, and write model, config, history and latency."""
    fabric = loop.start(call.config)
    fit, select = (TorchStore(GraphStore(p), fabric.device) for p in call.inputs["graphs"])
    passing = Passing.of(call.config, fabric.device)
    teacher = None
    if call.inputs["teacher"]:
        teacher = modelfile.load(call.inputs["teacher"][0], kind, fit.header, Passing(passing.backend)).to(
            fabric.device
        )
    scale, config = call.constants["scale"], call.config[section]
    checkpoint = Checkpoint(call, call.output["model"].parent)
    model, history = train(fabric, fit, select, scale, config, call.config["seed"], teacher, checkpoint, passing)
    select_facts = {**modelfile.facts(select), "auroc": auroc(*_select_scores(model, select))}
    best = min(row["select_loss"] for row in history)
    log.info("%s %s: %d parameters, best select loss %.5f", section, scale, parameter_count(model), best)
    modelfile.write_run(call, model, config[scale], fit, select_facts, history)
    latency.write(call.output["latency"], _seconds_a_window(model, select), fabric.device.type)
    checkpoint.remove()
