"""The graph store as torch tensors: batches gathered from packed arrays without a Python object per graph.

On the CPU the arrays stay mapped from the file, so that only windows that are asked for are read; on a GPU the store
lives on the device, and a batch is gathered there without waiting for it: how large it becomes is known on the host.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError


@dataclass(frozen=True)
class Graphs:
    """A batch of B graphs with ΣN nodes and ΣE edges, packed one after another.

    Attributes:
        x: [ΣN, F] raw node features.
        source, target: [ΣE] int64, nodes of every edge, counted through the batch.
        edge: [ΣE, D] raw edge features.
        y: [B] int64 label, -1 if unknown.
        ptr: [B+1] int64, graph i owns nodes `ptr[i]:ptr[i+1]`.
        graph: [ΣN] int64, the graph of every node.
        widest: nodes of the largest graph.
        sizes: [B] int64, nodes of every graph.
        place: [ΣN] int64, number of every node within its graph.
    """

    x: Tensor
    source: Tensor
    target: Tensor
    edge: Tensor
    y: Tensor
    ptr: Tensor
    graph: Tensor
    widest: int
    sizes: Tensor
    place: Tensor

    @classmethod
    def of(
        cls, x: Tensor, source: Tensor, target: Tensor, edge: Tensor, y: Tensor, sizes: Tensor, widest: int
    ) -> "Graphs":
        """A batch from what its graphs hold; derives what follows from their sizes."""
        ptr = torch.zeros(len(sizes) + 1, dtype=torch.int64, device=x.device)
        torch.cumsum(sizes, 0, out=ptr[1:])
        graph = torch.repeat_interleave(torch.arange(len(sizes), device=x.device), sizes, output_size=len(x))
        place = torch.arange(len(x), device=x.device) - ptr[graph]
        return cls(x, source, target, edge, y, ptr, graph, widest, sizes, place)


class TorchStore:
    """A `GraphStore` on a device; `batch` gathers any windows of it.

    Attributes:
        graphs: the store itself.
        header: its header.
        device: where `x`, `edge_attr`, `edge_index`, `y`, `node_ptr` and `edge_ptr` live.
    """

    def __init__(self, store: GraphStore, device: torch.device) -> None:
        self.header = store.header
        self.device = device
        self.x, self.edge_attr, self.edge_index = (
            torch.from_numpy(_writable(store[name])).to(device) for name in ("x", "edge_attr", "edge_index")
        )
        self.y = torch.from_numpy(store["y"].astype(np.int64)).to(device)
        # On the host as well: sizes of a batch are computed there.
        self._host = {name: torch.from_numpy(np.array(store[name])) for name in ("node_ptr", "edge_ptr")}
        self.node_ptr, self.edge_ptr = (self._host[name].to(device) for name in ("node_ptr", "edge_ptr"))
        self.graphs = store

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, windows: Tensor) -> Graphs:
        """The windows with these numbers ([B] int64, on the host) as one batch."""
        nodes, _, widest = self._rows("node_ptr", windows)
        edges, n_edges, _ = self._rows("edge_ptr", windows)
        there = windows.to(self.device, non_blocking=True)
        sizes = self.node_ptr[there + 1] - self.node_ptr[there]
        degrees = self.edge_ptr[there + 1] - self.edge_ptr[there]
        first = torch.repeat_interleave(sizes.cumsum(0) - sizes, degrees, output_size=n_edges)
        source, target = self.edge_index[:, edges].long() + first
        return Graphs.of(self.x[nodes], source, target, self.edge_attr[edges], self.y[there], sizes, widest)

    def _rows(self, ptr: str, windows: Tensor) -> tuple[Tensor, int, int]:
        """Rows that the windows own, on the device; how many in all, and of the largest."""
        host = self._host[ptr]
        begin = host[windows]
        counts = host[windows + 1] - begin
        total = int(counts.sum())
        shift = begin - (counts.cumsum(0) - counts)
        on_device = [t.to(self.device, non_blocking=True) for t in (shift, counts)]
        rows = torch.repeat_interleave(*on_device, output_size=total)
        return rows + torch.arange(total, device=self.device), total, int(counts.max())

    @property
    def own(self) -> Tensor:
        """Which windows are of the dataset's own captures, no auxiliary_captures: [W] bool, on the host."""
        captures, auxiliary_captures = self.header["captures"], self.header.get("auxiliary_captures", [])
        return torch.from_numpy(~np.isin(self.graphs["capture"], [captures.index(name) for name in auxiliary_captures]))

    def names(self, windows: Tensor) -> list[str]:
        """Capture and number of windows, for messages."""
        captures = self.header["captures"]
        pairs = zip(self.graphs["capture"][windows], self.graphs["window"][windows], strict=True)
        return [f"{captures[capture]} window {number}" for capture, number in pairs]


def _writable(array: np.ndarray) -> np.ndarray:
    """The same memory-mapped array as torch wants it: writable, though what is written never reaches the file."""
    if not isinstance(array, np.memmap) or array.filename is None:
        return np.array(array)
    mapped: np.ndarray = np.memmap(array.filename, array.dtype, "c", offset=array.offset, shape=array.shape)
    return mapped


def device_of(accelerator: str, key: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; raises `CanidsError` naming the config's `key` if there is no GPU as asked for."""
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise CanidsError(f"{key}: no GPU that torch can use; set it to auto or cpu")
    return torch.device(accelerator)
