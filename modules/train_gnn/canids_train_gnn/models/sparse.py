"""Message passing and pooling on a CPU as products with sparse matrices, which store no message of an edge.

A layer's messages [E, H, C] are its largest tensor by far. torch multiplies a matrix in compressed sparse rows (CSR) with nodes
row by row, so that the messages of an edge never leave the processor's registers.

Shapes: B graphs, N nodes and E edges in the whole batch, H heads, C channels a head.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# What is used of them has been the same since torch 2.1; the tests of the backends would notice a change.
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", r"index_reduce\(\) is in beta")


@dataclass(frozen=True)
class EdgeMatrix:
    """The layout of a matrix [N·H, N·H] with one entry for each edge and head; values come with every product.

    Row and column n·H + h stand for head h of node n, so nodes [N, H, C] are [N·H, C] without being moved.

    Attributes:
        start: [N·H + 1] int64, where the entries of each row begin.
        column: [E·H] int64, column of each entry.
        entry: [E, H] int64, number of the entry of each edge and head.
    """

    start: Tensor
    column: Tensor
    entry: Tensor

    @classmethod
    def of(cls, row: Tensor, column: Tensor, nodes: int, heads: int) -> "EdgeMatrix":
        """The layout for edges in these rows and columns, [E] int64 each, counted in nodes."""
        # Number of an entry: those of the nodes before, those of the same node's heads before, then the edges in their order.
        order = row.argsort(stable=True)
        rank = torch.empty_like(row).index_copy_(0, order, torch.arange(len(row)))  # [E] place among all edges by row
        degree = torch.zeros(nodes, dtype=torch.int64).index_add_(0, row, torch.ones_like(row))  # [N]
        before, head = degree.cumsum(0) - degree, torch.arange(heads)
        start = before[:, None] * heads + degree[:, None] * head  # [N, H]
        within = rank - before[row]  # [E] place among the edges of its node
        entry = start[row] + within[:, None]  # [E, H]
        columns = torch.empty(entry.numel(), dtype=torch.int64)
        columns[entry.flatten()] = (column[:, None] * heads + head).flatten()
        return cls(torch.cat([start.flatten(), torch.tensor([len(columns)])]), columns, entry)

    def _matrix(self, values: Tensor) -> Tensor:
        size = len(self.start) - 1
        return torch.sparse_csr_tensor(self.start, self.column, values, (size, size), check_invariants=False)

    def product(self, weights: Tensor, nodes: Tensor) -> Tensor:
        """Sums [N, H, C] over the edges of each row: weights [E, H] times nodes [N, H, C] of the columns."""
        values = torch.empty(weights.numel(), dtype=weights.dtype)
        values[self.entry.flatten()] = weights.flatten()
        summed: Tensor = torch.sparse.mm(self._matrix(values), nodes.flatten(0, 1), reduce="sum")
        return summed.view_as(nodes)

    def inner_products(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Inner products [E, H] of `rows` [N, H, C] at each edge's row and `columns` [N, H, C] at its column."""
        nothing = self._matrix(rows.new_zeros(len(self.column)))
        sampled = torch.sparse.sampled_addmm(nothing, rows.flatten(0, 1), columns.flatten(0, 1).T, beta=0)
        values: Tensor = sampled.values()
        return values[self.entry]


@dataclass(frozen=True)
class EdgeMatrices:
    """Both layouts of a batch's edges: by target for sums over neighbours, by source for the gradients of nodes."""

    target: Tensor
    by_target: EdgeMatrix
    by_source: EdgeMatrix

    @classmethod
    def of(cls, source: Tensor, target: Tensor, nodes: int, heads: int) -> "EdgeMatrices":
        """The layouts of edges from `source` to `target`, [E] int64 each."""
        by_target, by_source = (EdgeMatrix.of(a, b, nodes, heads) for a, b in ((target, source), (source, target)))
        return cls(target, by_target, by_source)


class Attention(torch.autograd.Function):
    """Softmax of scores over the edges of each target, and the weighted sums over its neighbours."""

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, scores: Tensor, edges: EdgeMatrices) -> Tensor:
        """Nodes [N, H, C], contiguous, and scores float32 [E, H] to the sums [N, H, C]; every node is some edge's target."""
        target = edges.target
        highest = scores.new_full((len(nodes), scores.shape[1]), -torch.inf).index_reduce_(0, target, scores, "amax")
        weights = (scores - highest.index_select(0, target)).exp_()  # [E, H]
        total = torch.zeros_like(highest).index_add_(0, target, weights)  # [N, H]
        weights = (weights / total.index_select(0, target)).to(nodes.dtype)
        ctx.save_for_backward(nodes, weights)
        ctx.edges = edges
        return edges.by_target.product(weights, nodes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of nodes [N, H, C] and scores [E, H]."""
        (nodes, weights), edges, grad = ctx.saved_tensors, ctx.edges, grads[0].contiguous()
        # The gradient of a weight is the inner product of its target's gradient and its source. The softmax takes from it the
        # mean over the target's edges: w · (g − Σ w g).
        weighted = edges.by_target.inner_products(grad, nodes).mul_(weights)  # [E, H]
        mean = weights.new_zeros(len(nodes), weights.shape[1]).index_add_(0, edges.target, weighted)  # [N, H]
        grad_scores = weighted - weights * mean.index_select(0, edges.target)
        return edges.by_source.product(weights, grad), grad_scores.float(), None


class Highest(torch.autograd.Function):
    """Largest value over the nodes of each graph; of equal ones the first has the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ptr: Tensor) -> Tensor:
        """Values [N, width] to [B, width]; graph i owns the rows `ptr[i]:ptr[i + 1]`, one at least."""
        count, graphs = len(values), len(ptr) - 1
        ones, columns = torch.ones(count, dtype=values.dtype), torch.arange(count)
        members = torch.sparse_csr_tensor(ptr, columns, ones, (graphs, count), check_invariants=False)
        # torch.sparse.mm does the same, but keeps for itself which row was the largest. This one, too, looks only for a gradient.
        with torch.enable_grad():
            wanted = values.detach().contiguous().requires_grad_(ctx.needs_input_grad[0])
            highest, row = torch.ops.aten._sparse_mm_reduce_impl(members, wanted, "amax")
        if ctx.needs_input_grad[0]:
            # Where a training diverges, a column of -inf has no largest row.
            ctx.save_for_backward(row.clamp(max=count - 1))
        ctx.count = count
        result: Tensor = highest.detach()
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Gradient of the values."""
        (row,), (grad,) = ctx.saved_tensors, grads
        return grad.new_zeros(ctx.count, grad.shape[1]).scatter_(0, row, grad), None
