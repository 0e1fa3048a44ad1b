"""Distillation: what a student is told by its teacher (Hinton, Vinyals and Dean 2015)."""

import torch
from torch import Tensor, nn

from canids_train_gnn.models import Reconstruction


def soft_logits(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence between softened class distributions, times T² (section 2), mean over the batch.

    Args:
        student, teacher: [B, 2] logits; no gradient flows into the teacher.
    """
    log_student = (student / temperature).log_softmax(-1)
    target = (teacher.detach() / temperature).softmax(-1)
    return nn.functional.kl_div(log_student, target, reduction="batchmean") * temperature**2


def embeddings(student: Tensor, teacher: Tensor, projection: nn.Module) -> Tensor:
    """Mean squared distance of projected student embeddings from the teacher's, [..., width] each."""
    return nn.functional.mse_loss(projection(student), teacher.detach())


def reconstructions(student: Reconstruction, teacher: Reconstruction, projection: nn.Module) -> tuple[Tensor, Tensor]:
    """Distances of latents (projected to the teacher's width) and of decoded features, mean over nodes."""
    latent = nn.functional.mse_loss(projection(student.mean), teacher.mean.detach())
    decoded = nn.functional.mse_loss(student.decoded, teacher.decoded.detach())
    return latent, decoded


def projection(student_width: int, teacher_width: int) -> nn.Module:
    """Learned map between widths; the identity where they agree would forbid a rotation, so it is always learned."""
    layer = nn.Linear(student_width, teacher_width, bias=False)
    torch.nn.init.orthogonal_(layer.weight)
    return layer
