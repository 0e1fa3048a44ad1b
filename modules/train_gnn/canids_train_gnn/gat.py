"""Train a GAT: `python -m canids_train_gnn.gat --spec JSON --model … --config … --history … --graphs FIT SELECT [--teacher MODEL]`."""

from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.jobs.run_folder import Checkpoint
from canids_train_gnn import distillation, loop, modelfile, training
from canids_train_gnn.attention import Passing
from canids_train_gnn.curriculum import difficulty, paced
from canids_train_gnn.models import GAT, VGAE
from canids_train_gnn.outliers import exposed
from canids_train_gnn.processes import Terms


def _labelled(store: TorchStore) -> Tensor:
    return torch.nonzero(store.y >= 0).squeeze(1).cpu()


def train(
    fabric: Fabric,
    fit: TorchStore,
    select: TorchStore,
    scale: str,
    config: dict[str, Any],
    seed: int,
    teacher: GAT | None = None,
    checkpoint: Checkpoint | None = None,
    passing: Passing | None = None,
    judge: VGAE | None = None,
) -> tuple[GAT, list[dict[str, Any]]]:
    """Train on the labelled windows of `fit`, choose the epoch on those of `select`.

    Args:
        scale: `large` or `small`.
        config: the section `gat` of the module's config.
        teacher: distils its softened logits and its embeddings into this model.
        passing: how messages pass between nodes.
        judge: tells how hard the windows are, for a curriculum.

    Raises:
        CanidsError: a split without attacked or without attack-free windows.
    """
    for name, store in (("fit", fit), ("select", select)):
        for label, what in ((0, "attack-free"), (1, "attacked")):
            if not bool((store.y == label).any()):
                raise CanidsError(
                    f"split '{name}' has no {what} window: a GAT cannot be trained; change blocks.shares or the captures"
                )
    torch.manual_seed(seed)
    model = GAT(fit.header["node_features"], fit.header["edge_features"], config[scale]).to(fabric.device)
    model.encoder.use(passing or Passing())
    model.encoder.node_scaling.learn(fit.x)
    model.encoder.edge_scaling.learn(fit.edge_attr)
    windows = _labelled(fit)
    positive = float((fit.y[windows] == 1).float().mean())
    weight = torch.tensor([0.5 / (1.0 - positive), 0.5 / positive], device=fabric.device)
    criterion = nn.CrossEntropyLoss(weight=weight, label_smoothing=config["label_smoothing"])
    student = nn.ModuleDict({"gat": model})
    if teacher is not None:
        student["projection"] = distillation.projection(model.classify.in_features, teacher.classify.in_features)
        student.to(fabric.device)

    def loss_of(graphs: Graphs) -> Terms:
        exposure = config["exposure"]
        graphs = exposed(
            graphs,
            model.encoder.node_scaling,
            model.encoder.feature_dropout,
            exposure["rate"],
            (exposure["lowest"], exposure["highest"]),
        )
        logits, embedding = model(graphs)
        terms: list[tuple[Tensor, Tensor | int]] = [(criterion(logits, graphs.y), weight[graphs.y].sum())]
        if teacher is None:
            return terms
        with torch.no_grad():
            told, meant = teacher(graphs)
        weights = config["distillation"]
        soft = weights["logits"] * distillation.soft_logits(logits, told, weights["temperature"])
        near = weights["embeddings"] * distillation.embeddings(embedding, meant, student["projection"])
        return [*terms, (soft, len(graphs.y)), (near, len(graphs.y))]

    def select_loss(graphs: Graphs) -> tuple[Tensor, Tensor]:
        losses = nn.functional.cross_entropy(model(graphs)[0].float(), graphs.y, weight=weight, reduction="none")
        return losses.sum(), weight[graphs.y].sum()

    order = None
    if judge is not None:
        hardness = difficulty(judge.to(fabric.device), fit, windows, config["batch"])
        order = paced(windows, hardness, config["curriculum"], config["epochs"])
    objective = loop.Objective(fit, windows, loss_of, select, _labelled(select), select_loss, order)
    history = loop.Training(fabric, student, objective, config, seed, checkpoint).run()
    return model, history


def main(call: entry_point.Call) -> None:
    """Entry point."""
    judge = [modelfile.load(path, VGAE) for path in call.inputs["judge"]]
    training.run(call, GAT, "gat", partial(train, judge=judge[0] if judge else None))


if __name__ == "__main__":
    entry_point.run(main, inputs=["graphs", "teacher", "judge"], outputs=training.OUTPUTS, alone="model")
