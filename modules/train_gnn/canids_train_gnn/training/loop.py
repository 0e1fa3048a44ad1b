"""The training loop of both detectors: AdamW, cosine schedule, clipped gradients, early stopping, checkpoint and resume."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from canids_shared.contracts.model_file import Arrays, save_arrays
from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs import job_usage
from canids_shared.jobs.interruption import Interruption, deferred_signals
from canids_shared.jobs.torch_state import (
    EagerAdamW,
    from_arrays,
    moments,
    random_state,
    restore_moments,
    set_random_state,
    to_arrays,
)
from canids_train_gnn.training.job import History, TrainingJob

EXPLODED = 1e3
"""A loss that is this many times the first one (or 1, if that is larger) does not recover."""
CHECK_EVERY = {"cpu": 1, "cuda": 32}
"""Steps after which losses are checked; reading them makes the host wait for a GPU."""
REPORT_S, CHECKPOINT_S = 15.0, 60.0
"""Seconds between two lines of progress, and between two checkpoints, within an epoch."""
log = logging.getLogger(__name__)


@dataclass
class _Progress:
    """The part of a checkpoint beside weights, moments and random state; `step` is the next one of the epoch."""

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    seconds: float = 0.0
    first: float | None = None
    best: float | None = None
    since_best: int = 0
    history: History = field(default_factory=list)


@dataclass(frozen=True)
class Objective:
    """The losses, and the windows on which they are computed.

    Attributes:
        fit_windows, select_windows: numbers of windows of the job's stores, [n] int64 on the host.
        loss: loss of a batch of `fit` and the numbers of its windows ([B] int64, on the host), a scalar with a gradient for every parameter.
        select_loss: loss of a batch of `select` as (sum, weight); the loss on all of them is the ratio of the sums.
        curriculum: the windows that an epoch, counted from 0, uses ([m] int64); None uses all in every epoch.
    """

    fit_windows: Tensor
    select_windows: Tensor
    loss: Callable[[Graphs, Tensor], Tensor]
    select_loss: Callable[[Graphs], tuple[Tensor, Tensor]]
    curriculum: Callable[[int], Tensor] | None = None


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed torch for one epoch, so that a resumed training draws the same numbers as an uninterrupted one."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1))


def peak_memory_mb(device: torch.device) -> dict[str, float | None]:
    """Largest memory of this process so far, MiB: `peak_rss_mb` on the host, `peak_gpu_mb` (None without a GPU)."""
    host = job_usage.peak_memory()
    gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"peak_rss_mb": host and host / 2**20, "peak_gpu_mb": gpu}


class TrainingLoop:
    """One training; `run` does it. Its whole state is in attributes, so that it can be saved between any two steps."""

    def __init__(self, model: nn.Module, objective: Objective, job: TrainingJob[Any]) -> None:
        """Prepare; resumes from the job's checkpoint if one matches.

        Args:
            model: what is trained: the detector, and a projection where it learns from a teacher.
            objective: losses and windows.
            job: its config holds `epochs`, `patience` (epochs), `batch`, `learning_rate`, `weight_decay`, `clip` (gradient
                norm). The checkpoint is saved after every epoch, every minute and on a signal.

        Raises `CanidsError` for fewer windows than a batch.
        """
        self.model, self.objective, self.job, self.config = model, objective, job, job.config
        if len(objective.fit_windows) < self.config["batch"]:
            raise CanidsError(
                f"{len(objective.fit_windows)} windows to train on, fewer than one batch of {self.config['batch']}; lower "
                "'batch' or add captures"
            )
        self.optimizer = EagerAdamW(
            model.parameters(), lr=self.config["learning_rate"], weight_decay=self.config["weight_decay"], fused=True
        )
        self.progress = _Progress()
        self.best = copy.deepcopy(model.state_dict())
        self.resumed: Arrays | None = None
        # The checkpoint's key holds config, data and code, so one that is found is of this very training.
        if job.checkpoint and (saved := job.checkpoint.load()):
            arrays, progress = saved
            model.load_state_dict(from_arrays(arrays, "model."))
            restore_moments(self.optimizer, arrays)
            self.best = from_arrays(arrays, "best.")
            self.progress = _Progress(**progress)
            self.resumed = arrays
            log.info("resumed after epoch %d, step %d", self.progress.epoch, self.progress.step)
        self.saved_at = time.perf_counter()
        self.interruption = Interruption()
        # Number, windows, loss and gradient norm of steps whose losses were not checked yet.
        self.unchecked: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def run(self) -> History:
        """Train until the loss on `select` stops falling; leaves the best weights in the model.

        Returns:
            One row for each epoch of `history.parquet`.

        Raises:
            CanidsError: a loss or gradient that is not finite, or a loss that explodes; the message names epoch, batch and
                the file that holds the batch and the weights. On a GPU up to `CHECK_EVERY` steps may have followed: the
                weights are those after them.
            SystemExit: after SIGTERM or SIGUSR1, with a checkpoint saved.
        """
        progress, config = self.progress, self.config
        with deferred_signals() as self.interruption, self.job.matrix_products():
            while progress.epoch < config["epochs"] and progress.since_best < config["patience"]:
                self._epoch()
                self._save_if_due()
        self.model.load_state_dict(self.best)
        self.model.eval()
        return progress.history

    def _epoch(self) -> None:
        progress, objective = self.progress, self.objective
        begin = time.perf_counter() - progress.seconds  # of an epoch that was interrupted: its seconds before that
        # Every draw of an epoch follows from seed and epoch alone. Within an epoch a resumed training shuffles as before, then
        # takes over the random state of the step at which it was saved.
        seed_epoch(self.job.seed, progress.epoch)
        windows = objective.curriculum(progress.epoch) if objective.curriculum else objective.fit_windows
        windows = windows[torch.randperm(len(windows))]
        if self.resumed is not None and progress.step:
            set_random_state(self.resumed, self.job.device)
        self.resumed = None
        batches = torch.split(windows, self.config["batch"])
        self._fit(batches, begin)
        selected = self._select_loss()
        # Early stopping: the weights of the lowest loss are kept, and `run` ends after `patience` epochs without a lower one.
        progress.seconds = time.perf_counter() - begin
        progress.epoch += 1
        progress.since_best += 1
        if progress.best is None or selected < progress.best:
            progress.best, progress.since_best = selected, 0
            self.best = copy.deepcopy(self.model.state_dict())
        row = {
            "epoch": progress.epoch,
            "fit_loss": progress.total / len(batches),
            "select_loss": selected,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": progress.seconds,
            "graphs_per_s": len(windows) / progress.seconds,
            **peak_memory_mb(self.job.device),
        }
        progress.history.append(row)
        # The epoch's own counters begin again before the state is saved: a resumed training starts with the next epoch.
        progress.step, progress.total, progress.seconds = 0, 0.0, 0.0
        self._save()
        log.info("epoch %(epoch)d: fit %(fit_loss).5f, select %(select_loss).5f, %(graphs_per_s).0f graphs/s", row)

    def _fit(self, batches: tuple[Tensor, ...], begin: float) -> None:
        """All steps of an epoch that are not done yet; `begin` is when the epoch would have begun without interruptions."""
        progress = self.progress
        self.model.train()
        reported = time.perf_counter()
        while progress.step < len(batches):
            self._step(batches[progress.step], (progress.epoch + progress.step / len(batches)) / self.config["epochs"])
            progress.step += 1
            if len(self.unchecked) >= CHECK_EVERY[self.job.device.type] or progress.step == len(batches):
                self._check_losses()
            now = time.perf_counter()
            progress.seconds = now - begin
            self._save_if_due()
            if now - reported > REPORT_S:
                reported = now
                self._report(len(batches))

    def _step(self, windows: Tensor, share_done: float) -> None:
        """One step of the optimiser, on a batch of these windows; `share_done` of the whole training lies behind."""
        # Cosine schedule without restarts: from the full learning rate to 0 (Loshchilov and Hutter 2017, eq. 5).
        for group in self.optimizer.param_groups:
            group["lr"] = self.config["learning_rate"] * 0.5 * (1.0 + math.cos(math.pi * share_done))
        with self.job.autocast():
            loss = self.objective.loss(self.job.fit.batch(windows), windows)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        # The norm before clipping: infinite or NaN if any gradient is.
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config["clip"])
        self.unchecked.append((self.progress.step, windows, loss.detach(), norm.detach()))
        if CHECK_EVERY[self.job.device.type] == 1:
            self._check_losses()  # before the weights change, so that those that failed are kept
        self.optimizer.step()

    def _check_losses(self) -> None:
        """Add up the losses of the last steps, and fail if one of them, or a gradient, is not what it should be."""
        if not self.unchecked:
            return
        steps, windows, losses, norms = zip(*self.unchecked, strict=True)
        self.unchecked.clear()
        # One transfer for all of them, so the host waits for a GPU once.
        values = torch.stack([torch.stack(losses).float(), torch.stack(norms).float()], 1).tolist()
        progress = self.progress
        for step, chunk, (loss, norm) in zip(steps, windows, values, strict=True):
            if progress.first is None and math.isfinite(loss):
                progress.first = loss
            # Relative to the first loss, since its scale is that of the features; at least 1, since it may be near zero.
            ceiling = EXPLODED * max(1.0, abs(progress.first or 0.0))
            if not math.isfinite(loss) or loss > ceiling:
                self._fail(self.job.fit, chunk, f"loss is {loss:.6g}", f"batch {step + 1}")
            if not math.isfinite(norm):
                self._fail(self.job.fit, chunk, "a gradient is not finite", f"batch {step + 1}")
            progress.total += loss

    def _fail(self, store: TorchStore, windows: Tensor, what: str, where: str) -> NoReturn:
        """Keep the batch and the weights beside the run, then raise `CanidsError` naming them."""
        kept = ""
        if self.job.checkpoint:
            graphs, path = store.batch(windows), self.job.checkpoint.failed_batch
            tensors = {k: getattr(graphs, k) for k in ("x", "source", "target", "edge", "y", "ptr")}
            arrays = to_arrays({"windows": windows, **tensors}) | to_arrays(self.model.state_dict(), "model.")
            save_arrays(path, arrays, {"contract": "failed-batch/1", "windows": store.names(windows), "reason": what})
            kept = f"; batch and weights are in {path}"
        names = store.names(windows[:3])
        raise CanidsError(
            f"{what} in epoch {self.progress.epoch + 1}, {where} ({', '.join(names)}, …); "
            f"lower learning_rate or clip{kept}"
        )

    def _select_loss(self) -> float:
        """The loss on all of `select`: the ratio of the sums of losses and of weights."""
        self.model.eval()
        chunks = torch.split(self.objective.select_windows, self.config["batch"])
        parts = []
        with torch.inference_mode(), self.job.autocast():
            for windows in chunks:
                self._save_if_due()
                loss, weight = self.objective.select_loss(self.job.select.batch(windows))
                parts.append(torch.stack([loss.double(), weight.double().to(loss.device)]))
        # One transfer for all batches; each is checked, so that the message names the one that fails.
        sums = torch.stack(parts).cpu()  # [batches, 2]
        for number, windows in enumerate(chunks):
            if not math.isfinite(loss_sum := float(sums[number, 0])):
                self._fail(
                    self.job.select, windows, f"loss on select is {loss_sum:.6g}", f"batch {number + 1} of select"
                )
        total, weight = sums.sum(0)
        return float(total / weight)

    def _save(self) -> None:
        if self.job.checkpoint:
            weights = to_arrays(self.model.state_dict(), "model.") | to_arrays(self.best, "best.")
            arrays = weights | moments(self.optimizer) | random_state(self.job.device)
            self.job.checkpoint.save(arrays, asdict(self.progress))
        self.saved_at = time.perf_counter()

    def _save_if_due(self) -> None:
        """Save a checkpoint if the last one is a minute old or a signal came; after a signal, end the process."""
        # A signal is acted on here alone, between two steps, when weights, moments and random state belong together.
        signalled = self.interruption.signal is not None
        if signalled or time.perf_counter() - self.saved_at > CHECKPOINT_S:
            self._check_losses()
            self._save()
        if signalled:
            kept = "checkpoint saved, the same command goes on from there" if self.job.checkpoint else "nothing saved"
            log.info("signal %s in epoch %d: %s", self.interruption.signal, self.progress.epoch + 1, kept)
            self.interruption.exit()

    def _report(self, steps: int) -> None:
        progress = self.progress
        log.info(
            "epoch %d of at most %d: %.0f %%, %.0f graphs/s, %.0f s to its end",
            progress.epoch + 1,
            self.config["epochs"],
            100 * progress.step / steps,
            progress.step * self.config["batch"] / progress.seconds,
            (steps - progress.step) * progress.seconds / progress.step,
        )
