"""What a training rule does around the training itself: open the splits and the teacher, then write the run."""

import copy
import logging
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point, latency
from canids_shared.jobs.run_folder import Checkpoint
from canids_train_gnn import modelfile, processes
from canids_train_gnn.attention import Passing
from canids_train_gnn.batching import scores_of
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


def _look_at_own(fit: TorchStore) -> None:
    """Say so where auxiliary_captures alone hold a class, since what is learnt of it is learnt from simulation."""
    labels, has_auxiliary_captures = fit.y.cpu()[fit.own], not bool(fit.own.all())
    if has_auxiliary_captures and not bool((labels == 0).any()):
        raise CanidsError(
            f"{fit.graphs.path}: no attack-free window but those of auxiliary_captures: what is usual on these vehicles cannot be "
            "learnt; add an attack-free capture, or change leave_out"
        )
    if has_auxiliary_captures and not bool((labels == 1).any()):
        log.warning(
            "the dataset has no attacked training window of its own: attacks are learnt from auxiliary_captures alone"
        )


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


def few(store: TorchStore, count: int) -> TorchStore:
    """The store with the labels of all but `count` windows hidden: half of them attacked, as far as there are, spread evenly."""
    labels = store.y.cpu()
    attacked, free = (torch.nonzero(labels == label).squeeze(1) for label in (1, 0))
    most = min(count // 2, len(attacked))
    chosen = torch.cat([spread(attacked, most), spread(free, count - most)])
    hidden = torch.full_like(labels, -1)
    hidden[chosen] = labels[chosen]
    reduced = copy.copy(store)
    reduced.y = hidden.to(store.device)
    return reduced


def spread(windows: Tensor, count: int) -> Tensor:
    """`count` of the windows (all, if they are fewer), evenly from the first to the last."""
    return windows[torch.linspace(0, len(windows) - 1, min(count, len(windows))).round().long()]


def _seconds_a_window(model: Detector, store: TorchStore) -> list[float]:
    """Inference latency, from a window's arrays to its score, window by window."""
    model.eval()
    with torch.inference_mode():
        return latency.measure(lambda w: model.score(store.batch(torch.tensor([w]))).item(), len(store))


def run(call: entry_point.Call, kind: type[Detector], section: str, train: Train[Detector]) -> None:
    """Train a detector of this kind as `section` of the config says, and write model, config, history and latency."""
    fabric = processes.start(call.config)
    fit, select = (TorchStore(GraphStore(p), fabric.device) for p in call.inputs["graphs"])
    passing = Passing.of(call.config, fabric.device)
    _look_at_own(fit)
    if count := call.config["overfit_windows"]:
        fit = select = few(fit, count)
    teacher = None
    if call.inputs["teacher"]:
        teacher = modelfile.load(call.inputs["teacher"][0], kind, fit.header, Passing(passing.backend)).to(
            fabric.device
        )
    scale, config = call.constants["scale"], call.config[section]
    how = {"device": fabric.device.type, "backend": passing.backend, "compiled": passing.compiled}
    checkpoint = Checkpoint(call, call.output["model"].parent, **how)
    model, history = train(fabric, fit, select, scale, config, call.config["seed"], teacher, checkpoint, passing)
    if not fabric.is_global_zero:
        return  # one process writes
    model.encoder.use(Passing.of(call.config, fabric.device, training=False))  # from here on as it will be applied
    scores = scores_of(model, select, torch.arange(len(select)), 256)
    select_facts = {**modelfile.facts(select), "auroc": auroc(scores, select.y)}
    best = min(row["select_loss"] for row in history)
    log.info("%s %s: %d parameters, best select loss %.5f", section, scale, parameter_count(model), best)
    modelfile.write_run(call, model, config[scale], fit, select_facts, history)
    latency.write(call.output["latency"], _seconds_a_window(model, select), fabric.device.type)
    checkpoint.remove()
