"""Knowledge distillation: a teacher's outputs, and losses by which a student learns them (Hinton, Vinyals and Dean 2015).

A teacher is applied without dropout and without noise, so its outputs for a window are the same in every epoch: they are
computed once. Gradients flow into the student and the projection alone.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_train_gnn.models.gat_vgae import Reconstruction

MOST_BYTES = 1 << 30
"""Outputs that take more memory are computed batch by batch, in every epoch."""
log = logging.getLogger(__name__)


class TeacherOutputs:
    """A teacher's outputs for the windows of a store: a row for each window, or for each of their nodes."""

    def __init__(
        self,
        outputs: Callable[[Graphs], Tensor],
        store: TorchStore,
        windows: Tensor,
        size: int,
        autocast: Callable[[], torch.autocast],
        *,
        by_node: bool,
    ) -> None:
        """Compute them, in batches of at most `size` windows, unless they take more than `MOST_BYTES`.

        Args:
            outputs: of a batch: [N, width] (`by_node`) or [B, width].
            store: on the device that trains.
            windows: those to be learnt from, [n] int64 on the host.
            autocast: the precision in which the student learns.
        """
        self._outputs, self._store, self._by_node = outputs, store, by_node
        self._kept: Tensor | None = None
        rows = len(store.x) if by_node else len(store)
        for chunk in torch.split(windows, size):
            with torch.no_grad(), autocast():
                some = outputs(store.batch(chunk)).float()
            if self._kept is None:
                if rows * some.shape[1] * some.element_size() > MOST_BYTES:
                    log.info("outputs of the teacher take more than %d MiB: computed in every epoch", MOST_BYTES >> 20)
                    break
                # Rows of windows that are not learnt from are never touched, and so take no memory of the host.
                self._kept = some.new_empty(rows, some.shape[1])
            self._kept[self._rows(chunk)] = some

    def _rows(self, windows: Tensor) -> Tensor:
        return self._store.node_rows(windows) if self._by_node else windows.to(self._store.device)

    def of(self, windows: Tensor, graphs: Graphs, disturbed: Tensor | None = None) -> Tensor:
        """Outputs [N, width] or [B, width] of a batch.

        Args:
            windows: [B] int64 on the host.
            graphs: these windows as the student sees them.
            disturbed: bool [B], windows that are no longer as in the store; these are given to the teacher. It takes a store of
                outputs by window.
        """
        with torch.no_grad():
            if self._kept is None:
                return self._outputs(graphs).float()
            made = self._kept[self._rows(windows)]
            if disturbed is not None and bool(disturbed.any()):
                made[disturbed] = self._outputs(graphs.select(disturbed)).float()
            return made


def soft_logits(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of softened class distributions, mean over the batch.

    Args:
        student, teacher: logits [B, 2].
        temperature: T, by which both are divided. The gradient shrinks as 1/T², so the loss is multiplied by T² (section 2).
    """
    log_student = (student / temperature).log_softmax(-1)  # [B, 2]
    target = (teacher.detach() / temperature).softmax(-1)  # [B, 2]
    return nn.functional.kl_div(log_student, target, reduction="batchmean") * temperature**2


def embeddings(student: Tensor, teacher: Tensor, projection: nn.Module) -> Tensor:
    """Mean squared distance of the projected student embeddings [B, width] from the teacher's [B, its width]."""
    return nn.functional.mse_loss(projection(student), teacher.detach())


def reconstructions(student: Reconstruction, teacher: Tensor, projection: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean squared distances of latents (projected to the teacher's width) and of decoded features.

    Args:
        student: of N nodes, with F features.
        teacher: [N, Z + F], its latents and decoded features (`VGAE.latent_and_decoded`).
        projection: to Z, the teacher's latent width.
    """
    width = teacher.shape[1] - student.decoded.shape[1]
    latent = nn.functional.mse_loss(projection(student.mean), teacher[:, :width].detach())
    decoded = nn.functional.mse_loss(student.decoded, teacher[:, width:].detach())
    return latent, decoded


def projection(student_width: int, teacher_width: int) -> nn.Module:
    """A learnt linear map between widths. It is learnt for equal widths too: the identity would forbid the student a rotation."""
    layer = nn.Linear(student_width, teacher_width, bias=False)
    torch.nn.init.orthogonal_(layer.weight)
    return layer
