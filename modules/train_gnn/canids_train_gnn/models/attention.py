"""Message passing in four ways that give the same numbers: `dense`, `csr`, `pyg`, `dgl`.

| backend | how | fast |
|---|---|---|
| `dense` | scores in a padded [graphs, heads, n, n] array, softmax, matrix products | on a GPU |
| `csr` | products with sparse matrices of torch, which store no messages | on a CPU |
| `pyg` | softmax of PyTorch Geometric over the edges of a target, and sums by index | nowhere; the reference |
| `dgl` | fused kernels of the Deep Graph Library, which store no messages | where its package is installed |

Shapes: B graphs, N nodes and E edges in the whole batch, n nodes of the widest graph (padded), H heads, C channels a head,
D edge features.
"""

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs
from canids_shared.errors import CanidsError
from canids_train_gnn.models import sparse

Aggregate = Callable[[Tensor, Tensor], Tensor]
"""Projected nodes [N, H, C] and scores [E, H] to the sums over neighbours [N, H, C], weighted by the softmax of the scores."""
_BUCKET = 8
"""Padded sizes are multiples of this, so that compiled code meets few different shapes."""
_MASKED = -1e9
"""Score where there is no edge. Finite, since rows of padding have no edge at all; exp of it is 0 in every precision."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edges:
    """The edges along which messages pass: those of the batch, and one self-loop of every node.

    A self-loop that the batch already has is masked, and the added one carries its features; other added self-loops have
    features 0. No shape here depends on the values of tensors, so the host need not wait for a GPU.

    Attributes:
        source, target: [E'] int64, E' = E + N.
        features: [E', D].
        live: [E'] bool, False where the batch's own self-loop was replaced.
    """

    source: Tensor
    target: Tensor
    features: Tensor
    live: Tensor

    @classmethod
    def of(cls, graphs: Graphs, features: Tensor) -> "Edges":
        """The edges of a batch with their (scaled) features [E, D]."""
        nodes = torch.arange(len(graphs.x), device=graphs.x.device)  # [N]
        is_loop = graphs.source == graphs.target  # [E]
        # Features of each node's own self-loop, 0 for nodes without one.
        loop_features = features.new_zeros(len(nodes), features.shape[1])  # [N, D]
        loop_features = loop_features.index_add(0, graphs.source, features * is_loop[:, None])
        return cls(
            torch.cat([graphs.source, nodes]),
            torch.cat([graphs.target, nodes]),
            torch.cat([features, loop_features]),
            torch.cat([~is_loop, torch.ones_like(nodes, dtype=torch.bool)]),
        )


def dense(graphs: Graphs, edges: Edges) -> Aggregate:
    """Padded batches and masked attention."""
    # Rounded up without a negative number: ONNX, to which this is exported, rounds their quotients differently.
    b, n = len(graphs.y), (graphs.widest + _BUCKET - 1) // _BUCKET * _BUCKET
    row = graphs.graph * n + graphs.place  # [N] row of every node in the padded [B·n]
    cell = row[edges.target] * n + graphs.place[edges.source]  # [E'] cell of every edge in the padded [B·n·n]
    # Replaced self-loops are written to one cell behind the others, which is cut off again.
    cell = torch.where(edges.live, cell, b * n * n)

    # Indices depend on the graph alone and serve all layers; what follows is done once a layer.
    def aggregate(nodes: Tensor, scores: Tensor) -> Tensor:
        _, heads, channels = nodes.shape
        padded = nodes.new_zeros(b * n, heads * channels).index_copy(0, row, nodes.flatten(1))
        padded = padded.view(b, n, heads, channels).transpose(1, 2)  # [B, H, n, C]
        full = scores.new_full((b * n * n + 1, heads), _MASKED).index_copy(0, cell, scores)[:-1]  # [B·n·n, H]
        # Rows are targets and columns sources, so the softmax is over the neighbours of a target.
        weights = full.view(b, n, n, heads).permute(0, 3, 1, 2).softmax(-1)  # [B, H, n, n]
        gathered = weights.to(padded.dtype) @ padded  # [B, H, n, C]
        return gathered.transpose(1, 2).reshape(b * n, heads, channels)[row]  # [N, H, C]

    return aggregate


class _WeightedSum(torch.autograd.Function):
    """Sums of weighted neighbours by index.

    The numbers are autograd's own. It would keep and read the messages [E, H, C], the largest tensor of a layer, once more
    than needed; this backward pass reuses the gathered sources for both gradients.
    """

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, weights: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Nodes [N, H, C] and weights [E, H] to the sums [N, H, C]."""
        gathered = nodes.index_select(0, source)  # [E, H, C]
        ctx.save_for_backward(gathered, weights, source, target)
        # Flat rows: PyTorch Geometric's own sum, by an index of every element, takes twice as long.
        messages = (gathered * weights[..., None]).flatten(1)  # [E, H·C]
        return torch.zeros_like(nodes).flatten(1).index_add_(0, target, messages).view_as(nodes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of nodes [N, H, C] and weights [E, H]."""
        gathered, weights, source, target = ctx.saved_tensors
        (grad,) = grads  # [N, H, C]
        # A message is weight · source, so its gradient (that of its target) goes to the weight times the source, and to the
        # source times the weight, summed over all edges that leave it.
        messages = grad.flatten(1).index_select(0, target).view_as(gathered)  # [E, H, C]
        grad_weights = (messages * gathered).sum(-1)  # [E, H]
        messages = messages.mul_(weights[..., None]).flatten(1)  # [E, H·C]
        grad_nodes = torch.zeros_like(grad).flatten(1).index_add_(0, source, messages).view_as(grad)
        return grad_nodes, grad_weights, None, None


def pyg(graphs: Graphs, edges: Edges) -> Aggregate:
    """Softmax of PyTorch Geometric (Fey and Lenssen 2019) over the edges of a target, and sums by index."""
    from torch_geometric.utils import softmax  # noqa: PLC0415 (not installed where only dgl is)

    count = len(graphs.x)

    def aggregate(nodes: Tensor, scores: Tensor) -> Tensor:
        weights: Tensor = softmax(scores, edges.target, num_nodes=count).to(nodes.dtype)  # [E', H]
        summed: Tensor = _WeightedSum.apply(nodes, weights, edges.source, edges.target)  # type: ignore[no-untyped-call]
        return summed

    return aggregate


def csr(graphs: Graphs, edges: Edges) -> Aggregate:
    """Products with sparse matrices, in float32 or wider, on a CPU."""
    # One layout serves all layers; which heads they have is known with the first one.
    layouts: dict[int, sparse.EdgeMatrices] = {}
    count = len(graphs.x)

    def aggregate(nodes: Tensor, scores: Tensor) -> Tensor:
        heads = scores.shape[1]
        if heads not in layouts:
            layouts[heads] = sparse.EdgeMatrices.of(edges.source, edges.target, count, heads)
        wide = nodes.to(torch.promote_types(nodes.dtype, torch.float32)).contiguous()
        summed: Tensor = sparse.Attention.apply(wide, scores, layouts[heads])  # type: ignore[no-untyped-call]
        return summed.to(nodes.dtype)

    return aggregate


def dgl(graphs: Graphs, edges: Edges) -> Aggregate:
    """Fused kernels of the Deep Graph Library (Wang et al. 2019), in float32."""
    import dgl as library  # noqa: PLC0415 (in an extra of its own)
    from dgl.ops import edge_softmax, u_mul_e_sum  # noqa: PLC0415

    graph = library.graph((edges.source, edges.target), num_nodes=len(graphs.x))

    def aggregate(nodes: Tensor, scores: Tensor) -> Tensor:
        weights = edge_softmax(graph, scores.float()[..., None])  # [E', H, 1]
        gathered: Tensor = u_mul_e_sum(graph, nodes.float(), weights)
        return gathered.to(nodes.dtype)

    return aggregate


BACKENDS: dict[str, Callable[[Graphs, Edges], Aggregate]] = {"dense": dense, "csr": csr, "pyg": pyg, "dgl": dgl}
_PACKAGES = {"pyg": ("torch_geometric", "train-gnn"), "dgl": ("dgl", "dgl")}


@dataclass(frozen=True)
class MessagePassing:
    """How messages pass: it changes the time, and numbers by no more than rounding.

    Attributes:
        backend: one of `BACKENDS`.
        compiled: whether `torch.compile` fuses the operations around them.
    """

    backend: str = "dense"
    compiled: bool = False

    @classmethod
    def of(cls, config: dict[str, Any], device: torch.device, training: bool = True) -> "MessagePassing":
        """The choice of the config's `backend` and `compile`; `auto` is what is fastest on the device.

        A detector that is only applied is never compiled: compiling would take longer than applying it.

        Raises `CanidsError` if the backend's package is not installed, or cannot use the device.
        """
        name = config["backend"]
        if name == "auto":
            # A rule and no measurement: the same files give the same bytes, whatever else the machine was doing.
            name = "csr" if device.type == "cpu" else "dense"
        if name in _PACKAGES and importlib.util.find_spec(_PACKAGES[name][0]) is None:
            package, extra = _PACKAGES[name]
            raise CanidsError(
                f"train_gnn.backend: '{name}' needs {package}, which is not installed here: "
                f"pip install 'canids[{extra}]', or set backend to dense"
            )
        if name == "csr" and device.type != "cpu":
            raise CanidsError("train_gnn.backend: 'csr' computes on a CPU; set accelerator to cpu, or backend to dense")
        if name == "dgl" and device.type != "cpu":
            raise CanidsError(
                "train_gnn.backend: 'dgl' 1.1.3 from PyPI has no support for GPUs; set accelerator to cpu, or backend to dense"
            )
        if not training:
            return cls(name)
        compiler = any(shutil.which(c) for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c)
        if config["compile"] == "auto" and device.type == "cuda" and not compiler:
            log.warning(
                "no C compiler (cc, gcc, clang), which torch.compile needs: training is slower than it could be"
            )
        compiled = {"never": False, "always": True, "auto": device.type == "cuda" and name == "dense" and compiler}
        return cls(name, compiled[config["compile"]])


class GraphAttention(nn.Module):
    """Graph attention (Veličković et al. 2018, section 2.1, eq. 1–6) with edge features in the score.

    Node i attends to itself and to every j with an edge j → i:
    `e_ij = LeakyReLU(a_target · W h_i + a_source · W h_j + a_edge · edge_ji)`, `alpha_i = softmax_j(e_ij)`,
    `h'_i = concat over heads of sum_j alpha_ij W h_j + bias`.
    As in the original, the ranking of neighbours by the node terms is the same for every target (static attention; Brody et
    al. 2022 change this in GATv2); here the edge features make it differ.
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

    def forward(self, h: Tensor, edges: Edges, aggregate: Aggregate) -> Tensor:
        """[N, width_in] to [N, H·C].

        Args:
            h: node embeddings.
            edges: along which messages pass.
            aggregate: of one of the `BACKENDS`, for these edges.
        """
        # a · W h = (a W) h: one matrix product gives the projections and both node terms of the score.
        per_head = self.project.weight.view(self.heads, self.channels, -1)  # [H, C, width_in]
        score_rows = [(per_head * a[..., None]).sum(1) for a in (self.target, self.source)]  # [H, width_in] each
        out = nn.functional.linear(h, torch.cat([self.project.weight, *score_rows]))  # [N, H·C + 2·H]
        projected, of_target, of_source = torch.split(out, [self.heads * self.channels, self.heads, self.heads], 1)
        w = projected.view(-1, self.heads, self.channels)  # [N, H, C]
        # index_select, whose gradient is a sum; that of indexing sorts the edges first.
        ends = of_target.index_select(0, edges.target) + of_source.index_select(0, edges.source)  # [E', H]
        raw = ends + self.edge(edges.features)
        # In float32 whatever the precision: the softmax is of differences, of which bfloat16 keeps two or three digits.
        scores = nn.functional.leaky_relu(raw.float(), 0.2).masked_fill(~edges.live[:, None], _MASKED)
        return aggregate(w, scores).flatten(1) + self.bias
