"""Knowledge distillation: losses by which a student learns its teacher's outputs (Hinton, Vinyals and Dean 2015).

Gradients flow into the student and the projection alone.
"""

import torch
from torch import Tensor, nn

from canids_train_gnn.models.gat_vgae import Reconstruction


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


def reconstructions(student: Reconstruction, teacher: Reconstruction, projection: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean squared distances of latents (projected to the teacher's width) and of decoded features [N, F]."""
    latent = nn.functional.mse_loss(projection(student.mean), teacher.mean.detach())  # of [N, Z of the teacher]
    decoded = nn.functional.mse_loss(student.decoded, teacher.decoded.detach())
    return latent, decoded


def projection(student_width: int, teacher_width: int) -> nn.Module:
    """A learnt linear map between widths. It is learnt for equal widths too: the identity would forbid the student a rotation."""
    layer = nn.Linear(student_width, teacher_width, bias=False)
    torch.nn.init.orthogonal_(layer.weight)
    return layer
