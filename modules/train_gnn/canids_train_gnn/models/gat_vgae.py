"""The two detectors: VGAE (unsupervised) and GAT (supervised).

Shapes: B graphs, N nodes in the whole batch, n nodes of the widest graph (padded), F node features, Z latent dimensions.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn.models.columns import ERROR_TERMS
from canids_train_gnn.models.layers import Encoder, node_max, node_mean, padded, pooled


class GAT(nn.Module):
    """Graph attention network that classifies a window as attack-free or attacked.

    Attention: Veličković et al. 2018, section 2.1. Jumping knowledge, by concatenation of all layers: Xu et al. 2018.
    The graph's embedding is read out from mean and maximum over its nodes.
    """

    def __init__(self, node_features: list[str], edge_features: list[str], size: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = Encoder(node_features, edge_features, size)
        width = size["channels"] * size["heads"]
        self.embed = nn.Sequential(nn.Linear(2 * self.encoder.width, width), nn.ELU())
        self.classify = nn.Linear(width, 2)

    def forward(self, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Logits [B, 2] (attack-free, attacked) and graph embeddings [B, channels·heads]."""
        embedding = self.embed(pooled(self.encoder(graphs), graphs))
        return self.classify(embedding), embedding

    def score(self, graphs: Graphs) -> Tensor:
        """Log-odds that a window is attacked [B]: difference of the logits."""
        logits: Tensor = self(graphs)[0]
        return logits[:, 1] - logits[:, 0]

    def logits_and_embedding(self, graphs: Graphs) -> Tensor:
        """Both outputs side by side, [B, 2 + channels·heads]."""
        return torch.cat(self(graphs), 1)

    def outputs(self, graphs: Graphs) -> dict[str, Tensor]:
        """The columns of states, each [B]: `gat_logit` (attacked minus attack-free), both logits, norm and mean of the embedding."""
        logits, embedding = self(graphs)
        return {
            "gat_logit": logits[:, 1] - logits[:, 0],
            "gat_logit_free": logits[:, 0],
            "gat_logit_attacked": logits[:, 1],
            "gat_embedding_norm": embedding.norm(dim=-1),
            "gat_embedding_mean": embedding.mean(-1),
        }


SCORE_WEIGHTS = (1.0, 1.0, 0.5, 0.5, 0.0, 0.0)
"""Weight of each of the `ERROR_TERMS` in the anomaly score. On folds (EXPERIMENTS.md) the edges ranked worse than the nodes, during
a flood even below usual traffic, but the sum was better with half of them; the divergences only made it worse."""


@dataclass(frozen=True)
class Reconstruction:
    """The VGAE's posterior and reconstruction of a batch.

    Attributes:
        mean, log_var: [N, Z] of the latent q(z|x).
        decoded: [N, F] expected scaled node features.
        node_error: [N] negative log likelihood of a node's features, per feature, in nats up to a constant.
        edge_error: [N] binary cross-entropy of a node's outgoing edges, per possible edge, edges and non-edges balanced.
        divergence: [N] KL(q(z|x) || N(0, 1)) per latent dimension.
    """

    mean: Tensor
    log_var: Tensor
    decoded: Tensor
    node_error: Tensor
    edge_error: Tensor
    divergence: Tensor

    def terms(self, graphs: Graphs) -> Tensor:
        """The `ERROR_TERMS` of every graph, [B, 6]."""
        values = torch.stack([self.node_error, self.edge_error, self.divergence], -1)  # [N, 3]
        return torch.stack([node_mean(values, graphs), node_max(values, graphs)], -1).flatten(1)


class VGAE(nn.Module):
    """Variational graph autoencoder (Kipf & Welling 2016, section 1) with an attention encoder.

    Beside the directed adjacency (by a bilinear form in place of their inner product, eq. 2) it decodes the node features, as
    a Gaussian whose spread per feature is learnt: a feature that is never predictable has little weight in the score.
    """

    ordinary: Tensor
    usual_spread: Tensor

    def __init__(self, node_features: list[str], edge_features: list[str], size: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = Encoder(node_features, edge_features, size)
        latent = size["latent"]
        self.mean = nn.Linear(self.encoder.width, latent)
        self.log_var = nn.Linear(self.encoder.width, latent)
        width = size["channels"] * size["heads"]
        self.decode = nn.Sequential(nn.Linear(latent, width), nn.ELU(), nn.Linear(width, len(node_features)))
        # The logarithm of each feature's variance; model files hold it under this name.
        self.spread = nn.Parameter(torch.zeros(len(node_features)))
        self.link = nn.Linear(latent, latent, bias=False)
        self.link_bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("ordinary", torch.zeros(len(ERROR_TERMS)))
        self.register_buffer("usual_spread", torch.ones(len(ERROR_TERMS)))

    def forward(self, graphs: Graphs, noise: Tensor | None = None) -> Reconstruction:
        """Encode and decode; `noise` [N, Z] draws z from the posterior, without it z is the posterior's mean."""
        h = self._embedded(graphs)
        mean, log_var = self.mean(h).float(), self.log_var(h).float().clamp(-8.0, 4.0)  # [N, Z] each
        # The sample is a function of mean and log_var (reparametrised), so gradients reach both; log_var is clamped to keep exp finite.
        z = mean if noise is None else mean + noise * (0.5 * log_var).exp()
        # Node features: negative log likelihood under a Gaussian with one learnt variance a feature.
        decoded = self.decode(z).float()  # [N, F]
        target = self.encoder.node_scaling(graphs.x)  # [N, F]
        log_variance = self.spread.clamp(-3.0, 3.0)  # [F]
        node_error = (0.5 * (target - decoded) ** 2 * (-log_variance).exp() + 0.5 * log_variance).mean(-1)  # [N]
        edge_error = self._edge_error(z, graphs)  # [N]
        # KL divergence of N(mean, exp(log_var)) from N(0, 1), in closed form.
        divergence = 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var).mean(-1)  # [N]
        return Reconstruction(mean, log_var, decoded, node_error, edge_error, divergence)

    def _embedded(self, graphs: Graphs) -> Tensor:
        """Embeddings of the nodes, those of all layers side by side: [N, (layers + 1)·channels·heads]."""
        return torch.cat(self.encoder(graphs), -1)

    def latent_and_decoded(self, graphs: Graphs) -> Tensor:
        """The posterior's mean and the node features that it is decoded to, side by side: [N, Z + F]; no errors."""
        mean = self.mean(self._embedded(graphs)).float()
        return torch.cat([mean, self.decode(mean).float()], 1)

    def _edge_error(self, z: Tensor, graphs: Graphs) -> Tensor:
        """Cross-entropy of each node's outgoing edges [N]; edges and non-edges weigh the same, though these are many more."""
        # All pairs of nodes within each graph at once, as a product of padded matrices.
        z, mask = padded(z, graphs)  # [B, n, Z], [B, n]
        link = (self.link(z) @ z.transpose(1, 2)) / z.shape[-1] ** 0.5 + self.link_bias
        link = link.float()  # [B, n, n] logit of an edge, source by target
        is_edge = torch.zeros_like(link, dtype=torch.bool)
        is_edge[graphs.graph[graphs.source], graphs.place[graphs.source], graphs.place[graphs.target]] = True
        no_edge = mask[:, :, None] & mask[:, None, :] & ~is_edge  # between nodes, not padding
        losses = _cross_entropy(link, is_edge.to(link.dtype))  # [B, n, n]
        missed = (losses * is_edge).sum(-1) / is_edge.sum(-1).clamp(min=1)  # [B, n]
        invented = (losses * no_edge).sum(-1) / no_edge.sum(-1).clamp(min=1)
        return (0.5 * (missed + invented))[graphs.graph, graphs.place]

    def learn_ordinary(self, terms: Tensor, edges: bool = True) -> None:
        """Keep median and spread (10 % to 90 %, as of a normal distribution) of the terms [n, 6] of attack-free windows.

        Without `edges`, whose reconstruction was not learnt then, their terms are no part of the anomaly score.
        """
        # Quantiles are robust against the long tails of the terms.
        low, middle, high = torch.quantile(terms, torch.tensor([0.1, 0.5, 0.9], device=terms.device), dim=0)
        self.ordinary.copy_(middle)
        # Between the two quantiles of a normal distribution lie 2.563 standard deviations.
        self.usual_spread.copy_(((high - low) / 2.563).clamp(min=1e-6))
        if not edges:
            # So wide that no value lies above the ordinary: the file needs no flag.
            of_edges = [i for i, name in enumerate(ERROR_TERMS) if name.startswith("edge_")]
            self.usual_spread[of_edges] = 1e30

    def anomaly(self, terms: Tensor) -> Tensor:
        """Anomaly score [B] of the terms [B, 6]: weighted sum of log(1 + spreads above the ordinary).

        The logarithm keeps one exploding term from outweighing all others.
        """
        # Only what lies above the ordinary counts: a window that is easier to reconstruct than usual is no anomaly.
        above = ((terms - self.ordinary) / self.usual_spread).clamp(min=0)
        return above.log1p() @ above.new_tensor(SCORE_WEIGHTS)

    def score(self, graphs: Graphs) -> Tensor:
        """Anomaly score [B] of graphs."""
        return self.anomaly(self(graphs).terms(graphs))

    def outputs(self, graphs: Graphs) -> dict[str, Tensor]:
        """The columns of states, each [B]: `vgae_error` (the anomaly score), its `ERROR_TERMS`, mean norm of the latents."""
        made: Reconstruction = self(graphs)
        terms = made.terms(graphs)
        return {
            "vgae_error": self.anomaly(terms),
            **{f"vgae_{name}": terms[:, i] for i, name in enumerate(ERROR_TERMS)},
            "vgae_latent_norm": node_mean(made.mean.norm(dim=-1), graphs),
        }


Model = TypeVar("Model", GAT, VGAE)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, element by element."""
    if torch.compiler.is_exporting():
        # As ONNX the built-in one would become log(sigmoid), which is infinite for logits far on the wrong side.
        return logits.clamp(min=0) - logits * target + (-logits.abs()).exp().log1p()
    return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def parameter_count(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
