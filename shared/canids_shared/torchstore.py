"""The graph store as torch tensors: dense batches gathered without a Python object per graph."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphStore


@dataclass(frozen=True)
class DenseGraphs:
    """A batch of B graphs padded to N nodes.

    Attributes:
        x: [B, N, F] raw node features, zero where padded.
        mask: [B, N] bool, True for nodes.
        adjacency: [B, N, N] bool; `[b, i, j]` is the edge from node i to node j.
        edge: [B, N, N, D] raw edge features, zero where there is no edge.
        y: [B] int64 label, -1 if unknown.
    """

    x: Tensor
    mask: Tensor
    adjacency: Tensor
    edge: Tensor
    y: Tensor


class TorchStore:
    """A `GraphStore` on a device; `batch` gathers any windows of it."""

    def __init__(self, store: GraphStore, device: torch.device) -> None:
        def tensor(name: str) -> Tensor:
            return torch.from_numpy(np.array(store[name])).to(device)

        self.header = store.header
        self.x, self.edge_attr = tensor("x"), tensor("edge_attr")
        self.edge_index = tensor("edge_index").long()
        self.node_ptr, self.edge_ptr = tensor("node_ptr"), tensor("edge_ptr")
        self.y = tensor("y").long()
        self.device = device

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, windows: Tensor) -> DenseGraphs:
        """The windows with these numbers ([B] int64) as one dense batch."""
        first, count = self.node_ptr[windows], self.node_ptr[windows + 1] - self.node_ptr[windows]
        n = int(count.max())
        place = torch.arange(n, device=self.device)
        mask = place < count[:, None]
        x = torch.zeros(len(windows), n, self.x.shape[1], device=self.device)
        x[mask] = self.x[(first[:, None] + place)[mask]]

        first, count = self.edge_ptr[windows], self.edge_ptr[windows + 1] - self.edge_ptr[windows]
        place = torch.arange(int(count.max()), device=self.device)
        real = place < count[:, None]
        flat = (first[:, None] + place)[real]
        graph = torch.arange(len(windows), device=self.device)[:, None].expand_as(real)[real]
        source, target = self.edge_index[:, flat]
        adjacency = torch.zeros(len(windows), n, n, dtype=torch.bool, device=self.device)
        adjacency[graph, source, target] = True
        edge = torch.zeros(len(windows), n, n, self.edge_attr.shape[1], device=self.device)
        edge[graph, source, target] = self.edge_attr[flat]
        return DenseGraphs(x, mask, adjacency, edge, self.y[windows])


def device_of(accelerator: str, key: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; raises `CanidsError` naming the config's `key` if there is no GPU as asked for."""
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise CanidsError(f"{key}: no GPU that torch can use; set it to auto or cpu")
    return torch.device(accelerator)
