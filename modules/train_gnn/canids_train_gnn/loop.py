"""The training loop of both detectors: Lightning Fabric, cosine schedule, clipping, early stopping, checkpoint and resume."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from canids_shared.contracts.model_file import Arrays, save_arrays
from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs import job_usage
from canids_shared.jobs.interruption import Interruption, deferred_signals
from canids_shared.jobs.run_folder import Checkpoint
from canids_shared.jobs.torch_state import from_arrays, moments, restore_moments, to_arrays
from canids_train_gnn.processes import (
    ShardLoss,
    Terms,
    agreed,
    random_states,
    seeded,
    set_random_states,
    shard,
    summed,
)

EXPLODED = 1e3
"""A loss that is this many times the first one (or 1, if that is larger) is not going to come back."""
CHECK_EVERY = {"cpu": 1, "cuda": 32}
"""Steps after which losses are looked at: a GPU would have to be waited for."""
REPORT_S, CHECKPOINT_S = 15.0, 60.0
"""Seconds between two lines of progress, and between two checkpoints, within an epoch."""
log = logging.getLogger(__name__)


@dataclass
class _Progress:
    """What is saved beside weights, moments and the state of the random numbers; `step` is the next one of the epoch."""

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    seconds: float = 0.0
    first: float | None = None
    best: float | None = None
    since_best: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Objective:
    """What is learnt from what.

    Attributes:
        store, windows: what to train on: these windows of the store, [n] int64.
        loss: loss of a batch as a sum of means, with gradient through every parameter.
        select, select_windows: on what the epoch is chosen.
        select_loss: loss of a batch as (sum, weight): the loss on all of them is the ratio of the sums.
        order: which of `windows` an epoch uses ([m] int64 of its number), if not all.
    """

    store: TorchStore
    windows: Tensor
    loss: Callable[[Graphs], Terms]
    select: TorchStore
    select_windows: Tensor
    select_loss: Callable[[Graphs], tuple[Tensor, Tensor]]
    order: Callable[[int], Tensor] | None = None

    def windows_of(self, epoch: int) -> Tensor:
        """The windows that this epoch uses."""
        return self.windows if self.order is None else self.order(epoch)


def peak_memory_mb(device: torch.device) -> dict[str, float | None]:
    """Largest memory of this process so far, MiB: `peak_rss_mb` on the host, `peak_gpu_mb` (None without a GPU)."""
    host = job_usage.peak_memory()
    gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"peak_rss_mb": host and host / 2**20, "peak_gpu_mb": gpu}


class Training:
    """One training; `run` does it. State lives here so that it can be saved between any two steps."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        objective: Objective,
        config: dict[str, Any],
        seed: int,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Prepare; resumes from the checkpoint if one matches.

        Args:
            config: `epochs`, `patience` (epochs), `batch`, `learning_rate`, `weight_decay`, `clip` (gradient norm).
            checkpoint: saved after every epoch, every minute and on a signal.

        Raises `CanidsError` for fewer windows than a batch.
        """
        self.fabric, self.objective, self.config, self.seed = fabric, objective, config, seed
        self.model, self.checkpoint = model, checkpoint
        if len(objective.windows) < config["batch"]:
            raise CanidsError(
                f"{len(objective.windows)} windows to train on, fewer than one batch of {config['batch']}; lower 'batch' "
                "or add captures"
            )
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            model.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"]
        )
        self.progress = _Progress()
        self.best = copy.deepcopy(model.state_dict())
        self.random: Arrays | None = None
        if checkpoint and (saved := checkpoint.load()):
            model.load_state_dict(from_arrays(saved[0], "model."))
            restore_moments(self.optimizer, saved[0])
            self.best = from_arrays(saved[0], "best.")
            self.progress = _Progress(**saved[1])
            self.random = saved[0]
            log.info("resumed after epoch %d, step %d", self.progress.epoch, self.progress.step)
        self.wrapped, self.optimizer = fabric.setup(
            ShardLoss(fabric, model, objective.store, objective.loss), self.optimizer
        )
        self.saved_at = time.perf_counter()
        # Number, windows, loss and gradient norm of steps not yet looked at.
        self.pending: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def run(self) -> list[dict[str, Any]]:
        """Train until the loss on `select` no longer falls; leaves the best weights in the model.

        Returns:
            One row an epoch for `history.parquet`.

        Raises:
            CanidsError: a loss or gradient that is no number or explodes; the message names epoch, batch and the file in
                which the batch and the weights are kept. On a GPU up to `CHECK_EVERY` steps went on meanwhile: its weights
                are later ones.
            SystemExit: after SIGTERM or SIGUSR1, with a checkpoint saved.
        """
        progress, config = self.progress, self.config
        with deferred_signals() as interruption:
            while progress.epoch < config["epochs"] and progress.since_best < config["patience"]:
                self._epoch(interruption)
                if self._asked_to_stop(interruption):
                    self._leave(interruption)
        self.model.load_state_dict(self.best)
        self.model.eval()
        return progress.history

    def _epoch(self, interruption: Interruption) -> None:
        progress, objective = self.progress, self.objective
        device = self.fabric.device
        begin = time.perf_counter() - progress.seconds
        seeded(self.seed, progress.epoch)
        windows = objective.windows_of(progress.epoch)
        windows = windows[torch.randperm(len(windows))]
        if self.fabric.global_rank:
            seeded(self.seed, progress.epoch, self.fabric.global_rank)
        if self.random is not None and progress.step:
            set_random_states(self.fabric, self.random)
        self.random = None
        chunks = torch.split(windows, self.config["batch"])
        self.model.train()
        reported = time.perf_counter()
        while progress.step < len(chunks):
            self._step(chunks[progress.step], (progress.epoch + progress.step / len(chunks)) / self.config["epochs"])
            progress.step += 1
            every, last = CHECK_EVERY[device.type], progress.step == len(chunks)
            if len(self.pending) >= every or last:
                self._look_at_losses()
            now = time.perf_counter()
            progress.seconds = now - begin
            if self.fabric.world_size == 1 or progress.step % every == 0 or last:  # several meet at the same steps
                (due,) = agreed(self.fabric, now - self.saved_at > CHECKPOINT_S)
                stop = self._asked_to_stop(interruption)
                if stop or due:
                    self._look_at_losses()
                    self._save()
                if stop:
                    self._leave(interruption)
            if now - reported > REPORT_S:
                reported = now
                self._report(len(chunks))
        selected = self._select_loss(interruption)
        progress.seconds = time.perf_counter() - begin
        progress.epoch += 1
        progress.since_best += 1
        if progress.best is None or selected < progress.best:
            progress.best, progress.since_best = selected, 0
            self.best = copy.deepcopy(self.model.state_dict())
        row = {
            "epoch": progress.epoch,
            "fit_loss": progress.total / len(chunks),
            "select_loss": selected,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": progress.seconds,
            "graphs_per_s": len(windows) / progress.seconds,
            **peak_memory_mb(device),
        }
        progress.history.append(row)
        progress.step, progress.total, progress.seconds = 0, 0.0, 0.0
        self._save()
        log.info("epoch %(epoch)d: fit %(fit_loss).5f, select %(select_loss).5f, %(graphs_per_s).0f graphs/s", row)

    def _step(self, windows: Tensor, done: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config["learning_rate"] * 0.5 * (1.0 + math.cos(math.pi * done))
        loss = self.wrapped(windows)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.wrapped, self.optimizer, max_norm=self.config["clip"], error_if_nonfinite=False
        )
        self.pending.append((self.progress.step, windows, loss.detach(), torch.as_tensor(norm).detach()))
        if CHECK_EVERY[self.fabric.device.type] == 1:
            self._look_at_losses()  # before the weights are touched
        self.optimizer.step()

    def _look_at_losses(self) -> None:
        if not self.pending:
            return
        numbers, windows, losses, norms = zip(*self.pending, strict=True)
        self.pending.clear()
        shares, processes = torch.stack(losses).float(), self.fabric.world_size
        means = summed(self.fabric, shares) / processes if processes > 1 else shares
        found = torch.stack([means, torch.stack(norms).float()], 1).tolist()  # waits once
        for number, chunk, (loss, norm) in zip(numbers, windows, found, strict=True):
            self._check(number, chunk, loss, norm)
            self.progress.total += loss

    def _check(self, step: int, windows: Tensor, loss: float, norm: float) -> None:
        progress = self.progress
        if progress.first is None and math.isfinite(loss):
            progress.first = loss
        ceiling = EXPLODED * max(1.0, abs(progress.first or 0.0))
        if not math.isfinite(loss) or loss > ceiling:
            self._give_up(self.objective.store, windows, f"loss is {loss:.6g}", f"batch {step + 1}")
        if not math.isfinite(norm):
            self._give_up(self.objective.store, windows, "a gradient is no number", f"batch {step + 1}")

    def _give_up(self, store: TorchStore, windows: Tensor, what: str, where: str) -> NoReturn:
        graphs = store.batch(windows)
        kept = ""
        if self.checkpoint and self.fabric.is_global_zero:
            tensors = {k: getattr(graphs, k) for k in ("x", "source", "target", "edge", "y", "ptr")}
            path = self.checkpoint.failed_batch
            arrays = to_arrays({"windows": windows, **tensors}) | to_arrays(self.model.state_dict(), "model.")
            header = {"contract": "failed-batch/1", "windows": store.names(windows), "reason": what}
            save_arrays(path, arrays, header)
            kept = f"; batch and weights are in {path}"
        self.fabric.barrier()
        names = store.names(windows[:3])
        raise CanidsError(
            f"{what} in epoch {self.progress.epoch + 1}, {where} ({', '.join(names)}, …); "
            f"lower learning_rate or clip{kept}"
        )

    def _select_loss(self, interruption: Interruption) -> float:
        self.model.eval()
        objective = self.objective
        parts = []
        chunks = torch.split(objective.select_windows, self.config["batch"])
        with torch.inference_mode(), self.fabric.autocast():
            for windows in chunks:
                if self._asked_to_stop(interruption):
                    self._save()
                    self._leave(interruption)
                own = shard(self.fabric, windows)
                part, count = objective.select_loss(objective.select.batch(own if len(own) else windows[:1]))
                found = torch.stack([part.double(), count.double().to(part.device)])
                parts.append(found if len(own) else torch.zeros_like(found))
        sums = summed(self.fabric, torch.stack(parts)).cpu()
        for number, windows in enumerate(chunks):
            if not math.isfinite(value := float(sums[number, 0])):
                self._give_up(
                    objective.select, windows, f"loss on select is {value:.6g}", f"batch {number + 1} of select"
                )
        total, weight = sums.sum(0)
        return float(total / weight)

    def _save(self) -> None:
        states = random_states(self.fabric)
        if self.checkpoint and self.fabric.is_global_zero:
            weights = to_arrays(self.model.state_dict(), "model.") | to_arrays(self.best, "best.")
            arrays = weights | moments(self.optimizer) | states
            self.checkpoint.save(arrays, asdict(self.progress))
        self.saved_at = time.perf_counter()

    def _asked_to_stop(self, interruption: Interruption) -> bool:
        """Whether a signal came, to any process: then all stop."""
        (number,) = agreed(self.fabric, interruption.signal or 0)
        if number:  # else one that came just now would be forgotten
            interruption.signal = int(number)
        return bool(number)

    def _leave(self, interruption: Interruption) -> NoReturn:
        kept = "checkpoint saved, the same command goes on from there" if self.checkpoint else "nothing saved"
        log.info("signal %s in epoch %d: %s", interruption.signal, self.progress.epoch + 1, kept)
        self.fabric.barrier()  # what was saved is whole
        if not self.fabric.is_global_zero:
            raise SystemExit(0)  # the first process says how it ended; it would be killed for another status
        interruption.exit()

    def _report(self, steps: int) -> None:
        progress = self.progress
        rate = progress.step * self.config["batch"] / progress.seconds
        log.info(
            "epoch %d of at most %d: %.0f %%, %.0f graphs/s, %.0f s to its end",
            progress.epoch + 1,
            self.config["epochs"],
            100 * progress.step / steps,
            rate,
            (steps - progress.step) * progress.seconds / progress.step,
        )
