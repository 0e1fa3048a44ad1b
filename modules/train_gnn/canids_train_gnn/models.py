"""The two detectors: VGAE (unsupervised) and GAT (supervised)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn.columns import ERROR_TERMS
from canids_train_gnn.layers import Encoder, node_max, node_mean, padded, pooled


class GAT(nn.Module):
    """Graph attention network with jumping knowledge that classifies a window as attack-free or attacked."""

    def __init__(self, node_features: list[str], edge_features: list[str], size: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = Encoder(node_features, edge_features, size)
        width = size["channels"] * size["heads"]
        self.embed = nn.Sequential(nn.Linear(2 * self.encoder.width, width), nn.ELU())
        self.classify = nn.Linear(width, 2)

    def forward(self, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Logits [B, 2] and graph embeddings [B, channels·heads]."""
        embedding = self.embed(pooled(self.encoder(graphs), graphs))
        return self.classify(embedding), embedding

    def score(self, graphs: Graphs) -> Tensor:
        """Log-odds that a window is attacked [B]: difference of the logits."""
        logits: Tensor = self(graphs)[0]
        return logits[:, 1] - logits[:, 0]


SCORE_WEIGHTS = (1.0, 1.0, 0.5, 0.5, 0.0, 0.0)
"""What each of them weighs in the anomaly score. On folds (EXPERIMENTS.md) the edges ranked worse than the nodes, a flood's
even below usual traffic's, but the sum was better with half of them; the divergences only harm it."""


@dataclass(frozen=True)
class Reconstruction:
    """What the VGAE makes of a batch.

    Attributes:
        mean, log_var: [ΣN, Z] of the latent q(z|x).
        decoded: [ΣN, F] expected scaled node features.
        node_error: [ΣN] negative log likelihood of a node's features, per feature, in nats up to a constant.
        edge_error: [ΣN] binary cross-entropy of a node's outgoing edges, per possible edge, edges and non-edges balanced.
        divergence: [ΣN] KL(q(z|x) || N(0, 1)) per latent dimension.
    """

    mean: Tensor
    log_var: Tensor
    decoded: Tensor
    node_error: Tensor
    edge_error: Tensor
    divergence: Tensor

    def terms(self, graphs: Graphs) -> Tensor:
        """The `ERROR_TERMS` of every graph, [B, 6]."""
        values = torch.stack([self.node_error, self.edge_error, self.divergence], -1)
        return torch.stack([node_mean(values, graphs), node_max(values, graphs)], -1).flatten(1)


class VGAE(nn.Module):
    """Variational graph autoencoder (Kipf & Welling 2016) with an attention encoder.

    Beside the directed adjacency (a bilinear form of their inner-product decoder, eq. 2) it decodes the node features,
    as a Gaussian whose spread per feature is learnt: a feature that is never predictable weighs little in the score.
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
        # The logarithm of each feature's variance; its name is one in the model files.
        self.spread = nn.Parameter(torch.zeros(len(node_features)))
        self.link = nn.Linear(latent, latent, bias=False)
        self.link_bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("ordinary", torch.zeros(len(ERROR_TERMS)))
        self.register_buffer("usual_spread", torch.ones(len(ERROR_TERMS)))

    def forward(self, graphs: Graphs, noise: Tensor | None = None) -> Reconstruction:
        """Encode and decode; `noise` [ΣN, Z] draws z from the posterior, without it z is its mean."""
        h = torch.cat(self.encoder(graphs), -1)
        mean, log_var = self.mean(h).float(), self.log_var(h).float().clamp(-8.0, 4.0)
        z = mean if noise is None else mean + noise * (0.5 * log_var).exp()
        decoded = self.decode(z).float()
        target = self.encoder.node_scaling(graphs.x)
        log_variance = self.spread.clamp(-3.0, 3.0)
        node_error = (0.5 * (target - decoded) ** 2 * (-log_variance).exp() + 0.5 * log_variance).mean(-1)
        z, mask = padded(z, graphs)
        link = (self.link(z) @ z.transpose(1, 2)) / z.shape[-1] ** 0.5 + self.link_bias
        link = link.float()  # [B, n, n]
        true = torch.zeros_like(link, dtype=torch.bool)
        true[graphs.graph[graphs.source], graphs.place[graphs.source], graphs.place[graphs.target]] = True
        other = mask[:, :, None] & mask[:, None, :] & ~true
        wrong = _cross_entropy(link, true.to(link.dtype))
        hit = (wrong * true).sum(-1) / true.sum(-1).clamp(min=1)
        miss = (wrong * other).sum(-1) / other.sum(-1).clamp(min=1)
        edge_error = (0.5 * (hit + miss))[graphs.graph, graphs.place]
        divergence = 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var).mean(-1)
        return Reconstruction(mean, log_var, decoded, node_error, edge_error, divergence)

    def learn_ordinary(self, terms: Tensor) -> None:
        """Keep median and spread (10 % to 90 %, as of a normal distribution) of the terms [n, 6] of attack-free windows."""
        low, middle, high = torch.quantile(terms, torch.tensor([0.1, 0.5, 0.9], device=terms.device), dim=0)
        self.ordinary.copy_(middle)
        self.usual_spread.copy_(((high - low) / 2.563).clamp(min=1e-6))

    def anomaly(self, terms: Tensor) -> Tensor:
        """Anomaly score [B]: weighted sum over the terms of log(1 + how many spreads it lies above the ordinary).

        The logarithm keeps one exploding term from hiding that all others agree.
        """
        above = ((terms - self.ordinary) / self.usual_spread).clamp(min=0)
        return above.log1p() @ above.new_tensor(SCORE_WEIGHTS)

    def score(self, graphs: Graphs) -> Tensor:
        """Anomaly score [B] of graphs."""
        return self.anomaly(self(graphs).terms(graphs))


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, element by element."""
    if torch.compiler.is_exporting():
        # As ONNX the built-in one would become log(sigmoid), which is infinite for logits that are far from wrong.
        return logits.clamp(min=0) - logits * target + (-logits.abs()).exp().log1p()
    return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def parameter_count(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
