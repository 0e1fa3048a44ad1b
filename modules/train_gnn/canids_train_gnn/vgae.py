"""Train a VGAE: `python -m canids_train_gnn.vgae --spec JSON --model … --config … --history … --graphs FIT SELECT [--teacher MODEL]`."""

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.jobs.run_folder import Checkpoint
from canids_train_gnn import distillation, loop, training
from canids_train_gnn.attention import Passing
from canids_train_gnn.batching import batches
from canids_train_gnn.layers import node_mean
from canids_train_gnn.models import VGAE, Reconstruction
from canids_train_gnn.processes import Terms


def attack_free(store: TorchStore) -> Tensor:
    """Numbers of the windows that hold no attacked frame: all that this detector ever learns from."""
    return torch.nonzero(store.y == 0).squeeze(1).cpu()


def objective(made: Reconstruction, graphs: Graphs, config: dict[str, Any]) -> Tensor:
    """Negative evidence lower bound, weighted: node features, edges, and divergence from the prior; mean over nodes."""
    terms = made.node_error + config["edge_weight"] * made.edge_error + config["divergence_weight"] * made.divergence
    return node_mean(terms, graphs).mean()


def train(
    fabric: Fabric,
    fit: TorchStore,
    select: TorchStore,
    scale: str,
    config: dict[str, Any],
    seed: int,
    teacher: VGAE | None = None,
    checkpoint: Checkpoint | None = None,
    passing: Passing | None = None,
) -> tuple[VGAE, list[dict[str, Any]]]:
    """Train on the attack-free windows of `fit`, choose the epoch on those of `select`.

    Args:
        scale: `large` or `small`.
        config: the section `vgae` of the module's config.
        teacher: distils its latents and its reconstructions into this model.
        passing: how messages pass between nodes.

    Raises:
        CanidsError: a split without attack-free windows.
    """
    for name, store in (("fit", fit), ("select", select)):
        if not len(attack_free(store)):
            raise CanidsError(
                f"split '{name}' has no attack-free window: a VGAE cannot be trained; change blocks.shares or the captures"
            )
    torch.manual_seed(seed)
    size = config[scale]
    model = VGAE(fit.header["node_features"], fit.header["edge_features"], size).to(fabric.device)
    model.encoder.use(passing or Passing())
    windows = attack_free(fit)
    free = fit.y == 0
    model.encoder.node_scaling.learn(fit.x[torch.repeat_interleave(free, fit.node_ptr.diff())])
    model.encoder.edge_scaling.learn(fit.edge_attr[torch.repeat_interleave(free, fit.edge_ptr.diff())])
    student = nn.ModuleDict({"vgae": model})
    if teacher is not None:
        student["projection"] = distillation.projection(model.mean.out_features, teacher.mean.out_features)
        student.to(fabric.device)

    def loss_of(graphs: Graphs) -> Terms:
        noise = torch.randn(len(graphs.x), size["latent"], device=fabric.device)
        made: Reconstruction = model(graphs, noise)
        terms: list[tuple[Tensor, int]] = [(objective(made, graphs, config), len(graphs.y))]
        if teacher is None:
            return terms
        with torch.no_grad():
            told = teacher(graphs)
        latent, decoded = distillation.reconstructions(made, told, student["projection"])
        weights = config["distillation"]
        nodes = len(graphs.x)
        return [*terms, (weights["latents"] * latent, nodes), (weights["reconstructions"] * decoded, nodes)]

    def select_loss(graphs: Graphs) -> tuple[Tensor, Tensor]:
        count = torch.tensor(len(graphs.y))
        return objective(model(graphs), graphs, config) * count, count

    goal = loop.Objective(fit, windows, loss_of, select, attack_free(select), select_loss)
    history = loop.Training(fabric, student, goal, config, seed, checkpoint).run()
    with torch.inference_mode():
        made = [model(g).terms(g) for g in batches(fit, windows, config["batch"])]
    model.learn_ordinary(torch.cat(made))
    return model, history


def main(call: entry_point.Call) -> None:
    """Entry point."""
    training.run(call, VGAE, "vgae", train)


if __name__ == "__main__":
    entry_point.run(main, inputs=["graphs", "teacher", "judge"], outputs=training.OUTPUTS, alone="model")
