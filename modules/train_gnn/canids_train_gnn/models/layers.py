"""Layers of the detectors, on packed batches (shapes: B graphs, N nodes and E edges in all, H heads, C channels a head)."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn.models import sparse
from canids_train_gnn.models.attention import BACKENDS, Edges, GraphAttention, MessagePassing


class Scaling(nn.Module):
    """Standardises raw features with the mean and spread of the training nodes, and clips outliers.

    The statistics are buffers, so the model file holds them: a model is applied with the scaling that it was trained with.
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
        # Smaller spreads are the rounding of a constant feature.
        self.scale.copy_(torch.where(spread > 1e-4, spread, torch.ones_like(spread)))

    def forward(self, x: Tensor) -> Tensor:
        """[…, width] to the same shape, within ±`clip`."""
        return ((x - self.mean) / self.scale).clamp(-self.clip, self.clip)


class FeatureDropout(nn.Module):
    """While training, sets whole features of a graph to their mean (0 after scaling), for all its nodes alike.

    A detector that relies on one characteristic feature of the known attacks misses attacks that do not show in it; with
    features missing at random it has to learn from all of them (the random subspaces of Ho 1998).
    """

    group: Tensor

    def __init__(self, names: list[str], rate: float) -> None:
        """Columns that aggregate one quantity (`name_mean`, `name_min`, `name_max`) are dropped together."""
        super().__init__()
        # Quantities are numbered in the order in which they first occur; each column has the number of its quantity.
        stems = [re.sub("_(mean|min|max)$", "", name) for name in names]
        order = {stem: i for i, stem in enumerate(dict.fromkeys(stems))}
        self.rate, self.groups = rate, len(order)
        self.register_buffer("group", torch.tensor([order[s] for s in stems]), persistent=False)  # [width]

    def forward(self, x: Tensor, graph: Tensor, graphs: int) -> Tensor:
        """[n, width] to the same shape.

        Args:
            x: rows of nodes, or of edges.
            graph: [n] the graph of every row.
            graphs: how many there are.
        """
        if not self.training or self.rate == 0.0:
            return x
        # The kept features are not scaled up, as those of ordinary dropout are: each keeps its meaning.
        kept = torch.rand(graphs, self.groups, device=x.device) >= self.rate  # [B, quantities]
        return x * kept[:, self.group][graph]  # to [B, width], then [n, width]


def rewired(graphs: Graphs, edges: str) -> Graphs:
    """A batch with its `recorded` edges, with `none`, or with others at `random`, for ablations of the graph.

    Without edges a node hears of itself alone, and windows are sets of nodes (DeepSets, Zaheer et al. 2017). At random, the
    targets of each graph change places: as many edges leave and enter nodes as before, with their features, but other nodes.
    The permutation is a fixed one for each number of nodes, so that a window has the same edges in every batch.
    """
    if edges == "recorded":
        return graphs
    if edges == "none":
        return replace(graphs, source=graphs.source[:0], target=graphs.target[:0], edge=graphs.edge[:0])
    hashed = (graphs.place * 2654435761 + graphs.sizes[graphs.graph] * 40503) % 65521  # [N]
    # Graphs lie one after another, so sorted within each of them node n becomes node `shuffled[n]` of the same graph.
    shuffled = (graphs.graph * 65521 + hashed).argsort(stable=True)  # [N]
    return replace(graphs, target=shuffled[graphs.target])


class Encoder(nn.Module):
    """Raw graphs to node embeddings: scaling, a linear map, and attention layers with residuals and layer norm.

    The outputs of all layers are returned, to be used together (jumping knowledge, by concatenation: Xu et al. 2018).

    Attributes:
        backend: how messages pass, one of `BACKENDS`; it changes no weight, and numbers by no more than rounding.
    """

    def __init__(self, node_features: list[str], edge_features: list[str], size: dict[str, Any]) -> None:
        """Size options: `channels` a head, `heads`, `layers`, `dropout`, `feature_dropout`, and for ablations `edges` (`rewired`)."""
        super().__init__()
        self.backend = "dense"
        self.edges: str = size.get("edges", "recorded")
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

    def use(self, message_passing: MessagePassing) -> None:
        """Set how messages pass; compiled code accepts batches of any size."""
        self.backend = message_passing.backend
        self._compiled_call_impl = None
        if message_passing.compiled:
            self.compile(dynamic=True)

    def forward(self, graphs: Graphs) -> list[Tensor]:
        """Embeddings of the nodes after every layer, [N, H·C] each, `layers` + 1 of them."""
        b = len(graphs.y)
        graphs = rewired(graphs, self.edges)
        x = self.dropout(self.feature_dropout(self.node_scaling(graphs.x), graphs.graph, b))  # [N, F]
        features = self.edge_dropout(self.edge_scaling(graphs.edge), graphs.graph[graphs.source], b)  # [E, D]
        # All layers share the edges, so padding, indices and the like are computed once a batch.
        edges = Edges.of(graphs, features)
        aggregate = BACKENDS[self.backend](graphs, edges)
        # Residuals let a deep encoder keep what a node is itself; the norm keeps the attention's outputs on one scale.
        h = self.enter(x)
        embeddings = [h]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = h + nn.functional.elu(norm(layer(h, edges, aggregate)))
            embeddings.append(h)
        return embeddings


def node_mean(values: Tensor, graphs: Graphs) -> Tensor:
    """Mean over the nodes of each graph: [N, …] to [B, …], in float32."""
    values = values.float()  # a sum of a hundred terms needs more than the eight bits of bfloat16
    if torch.compiler.is_exporting():  # of a single graph
        return values.mean(0, keepdim=True)
    total = values.new_zeros(len(graphs.y), *values.shape[1:]).index_add(0, graphs.graph, values)
    return total / graphs.sizes.view(-1, *(1,) * (values.dim() - 1))


def node_max(values: Tensor, graphs: Graphs) -> Tensor:
    """Largest value over the nodes of each graph: [N, …] to [B, …]."""
    if torch.compiler.is_exporting():  # of a single graph; segment_reduce has no ONNX operator
        return values.amax(0, keepdim=True)
    if values.device.type == "cpu" and values.dim() == 2:
        highest: Tensor = sparse.Highest.apply(values, graphs.ptr)  # type: ignore[no-untyped-call]
        return highest
    return torch.segment_reduce(values, "max", lengths=graphs.sizes, unsafe=True)


def pooled(layers: list[Tensor], graphs: Graphs) -> Tensor:
    """Mean, then maximum over the nodes of each graph, layer by layer: [N, width] each to [B, 2·layers·width]."""
    # Means of all layers first, then their maxima: the read-out's weights expect this order.
    means, highest = ([pool(h, graphs) for h in layers] for pool in (node_mean, node_max))
    return torch.cat([*means, *highest], -1)


def padded(values: Tensor, graphs: Graphs) -> tuple[Tensor, Tensor]:
    """Rows of nodes [N, …] as [B, n, …], zero where padded, and the mask [B, n] of nodes."""
    # Each graph gets n rows; its nodes take the first of them.
    b, n = len(graphs.y), graphs.widest
    row = graphs.graph * n + graphs.place  # [N] row of every node in [B·n]
    out = values.new_zeros(b * n, *values.shape[1:]).index_copy(0, row, values).view(b, n, *values.shape[1:])
    return out, torch.arange(n, device=values.device) < graphs.sizes[:, None]
