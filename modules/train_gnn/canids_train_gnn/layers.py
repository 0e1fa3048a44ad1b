"""Layers on dense batches of graphs (shapes: B graphs, N nodes, H heads, C channels a head, D edge features)."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from canids_shared.torchstore import DenseGraphs


class Scaling(nn.Module):
    """Standardises raw features with the mean and spread of the training nodes and clips what lies far out.

    The statistics are buffers, so they travel in the model file: who learns also learns the scaling.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, clip: float = 5.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def learn(self, rows: Tensor) -> None:
        """Set mean and spread from `rows` [n, width]; a constant feature keeps its unit."""
        spread = rows.std(0, correction=0)
        self.mean.copy_(rows.mean(0))
        self.scale.copy_(torch.where(spread > 1e-4, spread, torch.ones_like(spread)))

    def forward(self, x: Tensor) -> Tensor:
        """[…, width] to the same shape, within ±`clip`."""
        return ((x - self.mean) / self.scale).clamp(-self.clip, self.clip)


class FeatureDropout(nn.Module):
    """While training, sets whole features of a graph to their mean (0 after scaling), for all its nodes alike.

    A detector that may lean on one telling feature of the attacks it knows misses those that do not show in it; with
    features missing at random it has to learn from all of them (the idea of random subspaces: Ho 1998).
    """

    group: Tensor

    def __init__(self, names: list[str], rate: float) -> None:
        """Columns that aggregate one quantity (`name_mean`, `name_min`, `name_max`) are dropped together."""
        super().__init__()
        stems = [re.sub("_(mean|min|max)$", "", name) for name in names]
        order = {stem: i for i, stem in enumerate(dict.fromkeys(stems))}
        self.rate, self.groups = rate, len(order)
        self.register_buffer("group", torch.tensor([order[s] for s in stems]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, …, width] to the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.rand(len(x), self.groups, device=x.device) >= self.rate
        kept = kept[:, self.group].view(len(x), *(1,) * (x.dim() - 2), -1)
        return x * kept


class GraphAttention(nn.Module):
    """Graph attention (Veličković et al. 2018, eq. 1–6) with edge features in the score, masked to the neighbourhood.

    Node i attends to itself and to every j with an edge j → i:
    `e_ij = LeakyReLU(a_target · W h_i + a_source · W h_j + a_edge · edge_ji)`, `alpha_i = softmax_j(e_ij)`,
    `h'_i = concat over heads of sum_j alpha_ij W h_j + bias`.
    """

    def __init__(self, width_in: int, channels: int, heads: int, edge_width: int) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels
        self.project = nn.Linear(width_in, heads * channels, bias=False)
        self.source = nn.Parameter(torch.empty(heads, channels))
        self.target = nn.Parameter(torch.empty(heads, channels))
        self.edge = nn.Linear(edge_width, heads, bias=False)
        self.bias = nn.Parameter(torch.zeros(heads * channels))
        for weight in (self.project.weight, self.source, self.target, self.edge.weight):
            nn.init.xavier_uniform_(weight)

    def forward(self, h: Tensor, neighbours: Tensor, edge: Tensor) -> Tensor:
        """[B, N, width_in] to [B, N, H·C].

        Args:
            h: node embeddings.
            neighbours: [B, N, N] bool; `[b, i, j]`: i attends to j. Every row has at least one True.
            edge: [B, N, N, D]; `[b, i, j]`: features of the edge j → i.
        """
        b, n, _ = h.shape
        w = self.project(h).view(b, n, self.heads, self.channels).transpose(1, 2)  # [B, H, N, C]
        towards = (w * self.target[:, None]).sum(-1)[..., :, None]  # [B, H, N, 1]
        away = (w * self.source[:, None]).sum(-1)[..., None, :]  # [B, H, 1, N]
        score = nn.functional.leaky_relu(towards + away + self.edge(edge).permute(0, 3, 1, 2), 0.2)
        attention = score.masked_fill(~neighbours[:, None], float("-inf")).softmax(-1)
        gathered: Tensor = attention @ w
        return gathered.transpose(1, 2).reshape(b, n, -1) + self.bias


class Encoder(nn.Module):
    """Raw graphs to node embeddings: scaling, a linear map, and attention layers with residuals and layer norm.

    The outputs of all layers are concatenated (jumping knowledge: Xu et al. 2018, section 5.2).
    """

    def __init__(self, node_features: list[str], edge_features: list[str], size: dict[str, Any]) -> None:
        """Size options: `channels` a head, `heads`, `layers`, `dropout`, `feature_dropout`."""
        super().__init__()
        width = size["channels"] * size["heads"]
        nodes, edges = len(node_features), len(edge_features)
        self.node_scaling, self.edge_scaling = Scaling(nodes), Scaling(edges)
        self.feature_dropout = FeatureDropout(node_features, size["feature_dropout"])
        self.edge_dropout = FeatureDropout(edge_features, size["feature_dropout"])
        self.enter = nn.Linear(nodes, width)
        self.layers = nn.ModuleList(
            GraphAttention(width, size["channels"], size["heads"], edges) for _ in range(size["layers"])
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(size["layers"]))
        self.dropout = nn.Dropout(size["dropout"])
        self.width = width * (size["layers"] + 1)

    def forward(self, graphs: DenseGraphs) -> Tensor:
        """Node embeddings [B, N, width]; rows of padding hold values that mean nothing."""
        x = self.dropout(self.feature_dropout(self.node_scaling(graphs.x)))
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        neighbours = graphs.adjacency.transpose(1, 2) | itself
        edge = self.edge_dropout(self.edge_scaling(graphs.edge)) * graphs.adjacency[..., None]
        edge = edge.transpose(1, 2)
        h = self.enter(x)
        kept = [h]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = h + nn.functional.elu(norm(layer(h, neighbours, edge)))
            kept.append(h)
        return torch.cat(kept, -1)


def pooled(h: Tensor, mask: Tensor) -> Tensor:
    """Mean and maximum over the nodes of each graph: [B, N, width] to [B, 2·width]."""
    count = mask.sum(1, keepdim=True)
    mean = (h * mask[..., None]).sum(1) / count
    highest = h.masked_fill(~mask[..., None], float("-inf")).amax(1)
    return torch.cat([mean, highest], -1)
