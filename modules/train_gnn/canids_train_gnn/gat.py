"""Train a GAT: `python -m canids_train_gnn.gat --spec JSON --model … --config … --history … --run … --graphs FIT SELECT [--teacher MODEL] [--curriculum_vgae MODEL]`."""

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.jobs import entry_point
from canids_train_gnn.models.gat_vgae import GAT
from canids_train_gnn.training import distillation, rule
from canids_train_gnn.training.curriculum import difficulty, paced
from canids_train_gnn.training.job import History, TrainingJob
from canids_train_gnn.training.loop import Objective, TrainingLoop
from canids_train_gnn.training.outliers import exposed


def _labelled(store: TorchStore) -> Tensor:
    return torch.nonzero(store.y >= 0).squeeze(1).cpu()


def train(job: TrainingJob[GAT]) -> tuple[GAT, History]:
    """Train on the labelled windows of `fit`, choose the epoch on those of `select`; a teacher distils logits and embeddings.

    Raises `CanidsError` for a split without attacked or without attack-free windows.
    """
    job.require({0: "attack-free", 1: "attacked"}, "GAT")
    fit, teacher, config = job.fit, job.teacher, job.config
    model = job.new_model(GAT, fit.x, fit.edge_attr)
    windows = _labelled(fit)
    # Balanced classes: both weigh the same in the loss, however rare attacked windows are.
    attacked = float((fit.y[windows] == 1).float().mean())
    weight = torch.tensor([0.5 / (1.0 - attacked), 0.5 / attacked], device=job.device)  # [2]
    criterion = nn.CrossEntropyLoss(weight=weight, label_smoothing=config["label_smoothing"])
    student = nn.ModuleDict({"gat": model})
    taught = None
    if teacher is not None:
        taught = distillation.TeacherOutputs(
            teacher.logits_and_embedding, fit, windows, config["batch"], job.autocast, by_node=False
        )
        student["projection"] = distillation.projection(model.classify.in_features, teacher.classify.in_features)
        student.to(job.device)

    def loss(recorded: Graphs, windows: Tensor) -> Tensor:
        # Outlier exposure: a share of the attack-free windows is disturbed, and attacked from here on.
        exposure, encoder = config["exposure"], model.encoder
        strength = exposure["lowest"], exposure["highest"]
        graphs = exposed(recorded, encoder.node_scaling, encoder.feature_dropout, exposure["rate"], strength)
        logits, embedding = model(graphs)  # [B, 2], [B, width]
        total: Tensor = criterion(logits, graphs.y)
        if taught is None:
            return total
        # The teacher judges disturbed windows as they are in this batch; of all others its outputs are known.
        outputs = taught.of(windows, graphs, graphs.y != recorded.y)
        teacher_logits, teacher_embedding = outputs[:, :2], outputs[:, 2:]
        weights = config["distillation"]
        soft = distillation.soft_logits(logits, teacher_logits, weights["temperature"])
        near = distillation.embeddings(embedding, teacher_embedding, student["projection"])
        total = total + weights["logits"] * soft + weights["embeddings"] * near
        return total

    def select_loss(graphs: Graphs) -> tuple[Tensor, Tensor]:
        # Without disturbance and label smoothing, so that epochs and trainings can be compared.
        losses = nn.functional.cross_entropy(model(graphs)[0].float(), graphs.y, weight=weight, reduction="none")
        return losses.sum(), weight[graphs.y].sum()

    curriculum = None
    if job.curriculum_vgae is not None:
        hardness = difficulty(job.curriculum_vgae.to(job.device), fit, windows, config["batch"])
        curriculum = paced(windows, hardness, config["curriculum"], config["epochs"])
    losses = Objective(windows, _labelled(job.select), loss, select_loss, curriculum)
    return model, TrainingLoop(student, losses, job).run()


def main(call: entry_point.Call) -> None:
    """Entry point."""
    rule.run(call, GAT, "gat", train)


if __name__ == "__main__":
    entry_point.run(main, inputs=rule.INPUTS, outputs=rule.OUTPUTS, alone="model")
