"""The training loop of both detectors: Lightning Fabric, cosine schedule, clipping, early stopping, checkpoint and resume."""

import copy
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from canids_shared.errors import CanidsError
from canids_shared.runs import Arrays, Checkpoint
from canids_shared.torchstore import DenseGraphs, TorchStore
from canids_train_gnn.batching import batches, repeatable
from canids_train_gnn.modelfile import from_arrays, to_arrays

log = logging.getLogger(__name__)


def start(config: dict[str, Any]) -> Fabric:
    """Threads and device as the config says; kernels that give the same bytes every time."""
    repeatable(config["torch_threads"])
    return Fabric(accelerator=config["accelerator"], devices=1, precision=config["precision"])


def seeded(seed: int, epoch: int) -> None:
    """Seed torch for one epoch, so that a resumed training draws what the uninterrupted one did."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1))


class _Progress:
    """What is saved between epochs beside weights and moments."""

    def __init__(self) -> None:
        self.epoch = 0
        self.best = math.inf
        self.since_best = 0
        self.history: list[dict[str, Any]] = []


def _snapshot(model: nn.Module, best: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> Arrays:
    arrays = {**to_arrays(model.state_dict(), "model."), **to_arrays(best, "best.")}
    for index, moments in optimizer.state_dict()["state"].items():
        arrays |= to_arrays(moments, f"optimizer.{index}.")
    return arrays


def _restore(arrays: Arrays, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    model.load_state_dict(from_arrays(arrays, "model."))
    state = optimizer.state_dict()
    for name, value in from_arrays(arrays, "optimizer.").items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)
    return from_arrays(arrays, "best.")


def fit(
    fabric: Fabric,
    model: nn.Module,
    store: TorchStore,
    windows: Tensor,
    loss_of: Callable[[DenseGraphs], Tensor],
    select_loss: Callable[[], float],
    config: dict[str, Any],
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> list[dict[str, Any]]:
    """Train until the loss on `select` no longer falls; leaves the best weights in `model`.

    Args:
        store, windows: what to train on: these windows of the store, [n] int64.
        loss_of: mean loss of a batch, with gradient through every parameter of `model`.
        select_loss: loss on the split `select`; lower is better.
        config: `epochs`, `patience` (epochs), `batch`, `learning_rate`, `weight_decay`, `clip` (gradient norm).
        checkpoint: saved after every epoch, resumed if one matches.

    Returns:
        One row an epoch for `history.parquet`.

    Raises:
        CanidsError: fewer windows than a batch, or a loss that is no number; the message names epoch and batch.
    """
    size = config["batch"]
    if len(windows) < size:
        raise CanidsError(
            f"{len(windows)} windows to train on, fewer than one batch of {size}; lower 'batch' or add captures"
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"])
    steps = math.ceil(len(windows) / size)
    progress = _Progress()
    best = copy.deepcopy(model.state_dict())
    if checkpoint and (saved := checkpoint.load()):
        best = _restore(saved[0], model, optimizer)
        vars(progress).update(saved[1])
        log.info("resumed after epoch %d", progress.epoch)
    wrapped, optimizer = fabric.setup(model, optimizer)
    while progress.epoch < config["epochs"] and progress.since_best < config["patience"]:
        begin = time.perf_counter()
        seeded(seed, progress.epoch)
        model.train()
        total = 0.0
        for number, graphs in enumerate(batches(store, windows, size, shuffle=True)):
            done = (progress.epoch * steps + number) / (config["epochs"] * steps)
            for group in optimizer.param_groups:
                group["lr"] = config["learning_rate"] * 0.5 * (1.0 + math.cos(math.pi * done))
            with fabric.autocast():
                loss = loss_of(graphs)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise CanidsError(
                    f"loss is {value} in epoch {progress.epoch + 1}, batch {number + 1}; lower learning_rate"
                )
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(wrapped, optimizer, max_norm=config["clip"])
            optimizer.step()
            total += value
        model.eval()
        with torch.inference_mode():
            selected = select_loss()
        seconds = time.perf_counter() - begin
        progress.epoch += 1
        progress.since_best += 1
        if selected < progress.best:
            progress.best, progress.since_best = selected, 0
            best = copy.deepcopy(model.state_dict())
        row = {
            "epoch": progress.epoch,
            "fit_loss": total / steps,
            "select_loss": selected,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "graphs_per_s": len(windows) / seconds,
        }
        progress.history.append(row)
        log.info("epoch %(epoch)d: fit %(fit_loss).5f, select %(select_loss).5f, %(graphs_per_s).0f graphs/s", row)
        if checkpoint:
            checkpoint.save(_snapshot(model, best, optimizer), vars(progress))
    model.load_state_dict(best)
    model.eval()
    return progress.history
