"""Train a VGAE: `python -m canids_train_gnn.vgae --spec JSON --model … --config … --history … --run … --graphs FIT SELECT [--teacher MODEL]`."""

from typing import Any

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.jobs import entry_point
from canids_train_gnn.models.batching import batches
from canids_train_gnn.models.gat_vgae import VGAE, Reconstruction
from canids_train_gnn.models.layers import node_mean
from canids_train_gnn.training import distillation, rule
from canids_train_gnn.training.job import History, TrainingJob
from canids_train_gnn.training.loop import Objective, TrainingLoop


def attack_free(store: TorchStore) -> Tensor:
    """Numbers of the windows that hold no attacked frame, [n] int64 on the host: all that this detector ever learns from."""
    return torch.nonzero(store.y == 0).squeeze(1).cpu()


def objective(made: Reconstruction, graphs: Graphs, config: dict[str, Any]) -> Tensor:
    """Negative evidence lower bound (Kipf & Welling 2016, eq. 3), a scalar.

    Node features, edges and divergence from the prior are weighted (`edge_weight`, `divergence_weight`); the mean is over the
    nodes of a graph, then over graphs, so that large graphs do not dominate.
    """
    terms = made.node_error + config["edge_weight"] * made.edge_error + config["divergence_weight"] * made.divergence
    return node_mean(terms, graphs).mean()


def train(job: TrainingJob[VGAE]) -> tuple[VGAE, History]:
    """Train on the attack-free windows of `fit`, choose the epoch on those of `select`; a teacher distils latents and reconstructions.

    Raises `CanidsError` for a split without attack-free windows.
    """
    job.require({0: "attack-free"}, "VGAE")
    fit, teacher, config = job.fit, job.teacher, job.config
    windows, is_free = attack_free(fit), fit.y == 0
    # The scaling is learnt from the nodes and edges of these windows alone, so that no attack widens it.
    model = job.new_model(
        VGAE,
        fit.x[torch.repeat_interleave(is_free, fit.node_ptr.diff())],
        fit.edge_attr[torch.repeat_interleave(is_free, fit.edge_ptr.diff())],
    )
    student = nn.ModuleDict({"vgae": model})
    taught = None
    if teacher is not None:
        taught = distillation.TeacherOutputs(
            teacher.latent_and_decoded, fit, windows, config["batch"], job.autocast, by_node=True
        )
        student["projection"] = distillation.projection(model.mean.out_features, teacher.mean.out_features)
        student.to(job.device)

    def loss(graphs: Graphs, windows: Tensor) -> Tensor:
        # One draw from the posterior of every node for each step, as usual for variational autoencoders.
        noise = torch.randn(len(graphs.x), config[job.scale]["latent"], device=job.device)  # [N, Z]
        made: Reconstruction = model(graphs, noise)
        total: Tensor = objective(made, graphs, config)
        if taught is None:
            return total
        latent, decoded = distillation.reconstructions(made, taught.of(windows, graphs), student["projection"])
        weights = config["distillation"]
        total = total + weights["latents"] * latent + weights["reconstructions"] * decoded
        return total

    def select_loss(graphs: Graphs) -> tuple[Tensor, Tensor]:
        count = torch.tensor(len(graphs.y))
        return objective(model(graphs), graphs, config) * count, count

    losses = Objective(windows, attack_free(job.select), loss, select_loss)
    history = TrainingLoop(student, losses, job).run()
    # What is ordinary is measured on the windows that it was trained on, with the weights that were kept.
    with torch.inference_mode():
        terms = [model(graphs).terms(graphs) for graphs in batches(fit, windows, config["batch"])]
    model.learn_ordinary(torch.cat(terms), edges=config["edge_weight"] > 0)
    return model, history


def main(call: entry_point.Call) -> None:
    """Entry point."""
    rule.run(call, VGAE, "vgae", train)


if __name__ == "__main__":
    entry_point.run(main, inputs=rule.INPUTS, outputs=rule.OUTPUTS, alone="model")
