"""The frame of both training rules: open splits, teacher and checkpoint, train, and write the run's files."""

import copy
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import TorchStore, device_of
from canids_shared.errors import CanidsError
from canids_shared.jobs import latency
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.run_folder import Checkpoint
from canids_shared.jobs.torch_state import to_arrays
from canids_train_gnn.models import detector_file
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.batching import repeatable, scores_of
from canids_train_gnn.models.gat_vgae import VGAE, Model, parameter_count
from canids_train_gnn.training import run_record
from canids_train_gnn.training.job import History, TrainingJob

INPUTS = ["graphs", "teacher", "curriculum_vgae"]
OUTPUTS = ["model", "config", "history", "run"]
log = logging.getLogger(__name__)


def _check_classes(fit: TorchStore) -> None:
    """Fail, or warn, where no recording holds a class, so that what is learnt of it is learnt from simulation."""
    auxiliary, injected = (torch.from_numpy(rows) for rows in (fit.graphs.is_auxiliary, fit.graphs.is_injected))
    if not bool((auxiliary | injected).any()):
        return
    labels = fit.y.cpu()
    if not bool((labels[~auxiliary] == 0).any()):  # of the dataset's own windows
        raise CanidsError(
            f"{fit.graphs.path}: all attack-free windows are of auxiliary captures: what is usual on these vehicles cannot be "
            "learnt; add an attack-free capture, or change leave_out"
        )
    if bool((labels == 1).any()) and not bool((labels[~(auxiliary | injected)] == 1).any()):
        origins = {"auxiliary captures": auxiliary, "attacks injected into recordings": injected}
        used = " and ".join(name for name, rows in origins.items() if bool((labels[rows] == 1).any()))
        log.warning(
            "the dataset has no recorded attack in its training windows: attacks are learnt from %s alone", used
        )


def auroc(scores: Tensor, labels: Tensor) -> float | None:
    """Share of pairs of an attacked and an attack-free window that the scores [n] put in order, ties half; None without pairs.

    Args:
        scores: [n], larger for an attack.
        labels: [n], 1 attacked, 0 attack-free; windows with other labels are left out.
    """
    attacked, free = scores[labels == 1].double(), scores[labels == 0].double().sort().values
    if not len(attacked) or not len(free):
        return None
    # For each attacked window: how many attack-free ones score less, and how many no more; half of both counts ties half.
    below, upto = torch.searchsorted(free, attacked), torch.searchsorted(free, attacked, right=True)
    return float((below + upto).double().mean() / (2 * len(free)))


def few(store: TorchStore, count: int) -> TorchStore:
    """The store with the labels of all but `count` windows hidden: half of those attacked if there are enough, spread evenly."""
    labels = store.y.cpu()
    attacked, free = (torch.nonzero(labels == label).squeeze(1) for label in (1, 0))
    most = min(count // 2, len(attacked))

    def spread(windows: Tensor, number: int) -> Tensor:
        return windows[torch.linspace(0, len(windows) - 1, min(number, len(windows))).round().long()]

    chosen = torch.cat([spread(attacked, most), spread(free, count - most)])
    hidden = torch.full_like(labels, -1)
    hidden[chosen] = labels[chosen]
    reduced = copy.copy(store)
    reduced.y = hidden.to(store.device)
    return reduced


def run(call: Call, kind: type[Model], name: str, train: Callable[[TrainingJob[Model]], tuple[Model, History]]) -> None:
    """Train a detector and write its model, config, history and `run.json`.

    Args:
        call: of the rule.
        kind: GAT or VGAE.
        name: of the detector, and of its section of the config.
        train: trains it.
    """
    config = call.config
    device = device_of(config["accelerator"], "train_gnn.accelerator")
    repeatable(config["torch_threads"], device)
    dataset = call.wildcards["dataset"]
    fit, select = (
        TorchStore(GraphStore(path, dataset=dataset, split=split), device)
        for split, path in zip(("fit", "select"), call.inputs["graphs"], strict=True)
    )
    message_passing = MessagePassing.of(config, device)
    _check_classes(fit)
    if count := config["overfit_windows"]:
        fit = select = few(fit, count)
    # A teacher is applied batch by batch and never compiled, which would take longer; so is the trained model.
    applied = MessagePassing.of(config, device, training=False)
    teachers = [detector_file.load(path, kind, fit.header, applied).to(device) for path in call.inputs["teacher"]]
    # There is one teacher at most, and one VGAE for the curriculum; the rule hands over an empty list where there is none.
    rankers = [detector_file.load(path, VGAE, fit.header) for path in call.inputs["curriculum_vgae"]]
    how = {"device": device.type, "backend": message_passing.backend, "compiled": message_passing.compiled}
    checkpoint = Checkpoint(call, call.output["model"].parent, **how)
    job = TrainingJob(
        fit,
        select,
        call.scale,
        config[name],
        config["seed"],
        config["precision"],
        message_passing,
        teacher=next(iter(teachers), None),
        curriculum_vgae=next(iter(rankers), None),
        checkpoint=checkpoint,
    )
    model, history = train(job)
    model.encoder.use(applied)
    scores = scores_of(model, select, torch.arange(len(select)), 256)  # [W]
    with torch.inference_mode():  # from a window's arrays to its score, window by window
        seconds = latency.measure(lambda w: model.score(select.batch(torch.tensor([w]))).item(), len(select))
    record = run_record.write(
        call,
        name,
        fit.graphs,
        select.graphs,
        weights=to_arrays(model.state_dict()),
        parameters=parameter_count(model),
        history=history,
        auroc=auroc(scores, select.y),
        seconds=seconds,
        device=device.type,
    )
    log.info("%s %s: %d parameters, best select loss %.5f", name, job.scale, record.parameters, record.select["loss"])
    checkpoint.remove()
