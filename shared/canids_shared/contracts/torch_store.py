"""The graph store as torch tensors: batches gathered from packed arrays without a Python object per graph.

On the CPU the arrays stay mapped from the file, so that only the requested windows are read; on a GPU the store lives on the
device, and a batch is gathered there without the host waiting for it: the batch's sizes are computed on the host.
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
        """A batch from the attributes of these names; `sizes` [B] and `widest` give the other ones."""
        # From the sizes: where each graph begins, which graph each node belongs to, and its number within it.
        ptr = torch.zeros(len(sizes) + 1, dtype=torch.int64, device=x.device)
        torch.cumsum(sizes, 0, out=ptr[1:])
        graph = torch.repeat_interleave(torch.arange(len(sizes), device=x.device), sizes, output_size=len(x))
        place = torch.arange(len(x), device=x.device) - ptr[graph]
        return cls(x, source, target, edge, y, ptr, graph, widest, sizes, place)

    def select(self, which: Tensor) -> "Graphs":
        """The graphs at `which` (bool [B]) as a batch of their own, padded as wide as this one; the host waits for the device."""
        nodes = which[self.graph]  # [ΣN]
        edges = nodes[self.source]  # [ΣE]
        number = nodes.cumsum(0) - 1  # [ΣN] number of every chosen node in the new batch
        ends = number[self.source[edges]], number[self.target[edges]]
        sizes = self.sizes[which]
        return Graphs.of(self.x[nodes], *ends, self.edge[edges], self.y[which], sizes, self.widest)

    @classmethod
    def unlabelled(
        cls,
        x: np.ndarray,
        edge_index: np.ndarray,
        edge_attr: np.ndarray,
        sizes: np.ndarray,
        degrees: np.ndarray,
        device: torch.device | str = "cpu",
    ) -> "Graphs":
        """A batch of graphs that come as packed arrays, not from a store.

        Args:
            x, edge_attr: raw features, [ΣN, F] and [ΣE, D] float32.
            edge_index: [2, ΣE] source and target of every edge, nodes counted from 0 within each graph.
            sizes, degrees: [B] int64, nodes and edges of every graph.
            device: where the batch lies.
        """
        first = np.repeat(np.cumsum(sizes) - sizes, degrees)  # [ΣE] the batch's number of each graph's first node
        nodes, ends, edges, labels, counts = (
            torch.from_numpy(np.array(array)).to(device)
            for array in (x, edge_index + first, edge_attr, np.full(len(sizes), -1), sizes)
        )
        return cls.of(nodes, ends[0], ends[1], edges, labels, counts, int(sizes.max()))


class TorchStore:
    """A `GraphStore` on a device; `batch` gathers any windows of it.

    Attributes:
        graphs: the store itself.
        header: its header.
        device: where `x`, `edge_attr`, `edge_index`, `y`, `node_ptr` and `edge_ptr` live.
    """

    def __init__(self, store: GraphStore, device: torch.device) -> None:
        """Open a store's arrays on a device."""
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
        # Row numbers first, then one gather for each array; all totals are known on the host, so nothing waits for the device.
        nodes, _, widest = self._rows("node_ptr", windows)  # [ΣN]
        edges, n_edges, _ = self._rows("edge_ptr", windows)  # [ΣE]
        chosen = windows.to(self.device, non_blocking=True)
        sizes = self.node_ptr[chosen + 1] - self.node_ptr[chosen]  # [B] nodes of every graph
        degrees = self.edge_ptr[chosen + 1] - self.edge_ptr[chosen]  # [B] edges of every graph
        # Ends of edges are counted within their graph: add the batch's number of its first node.
        first = torch.repeat_interleave(sizes.cumsum(0) - sizes, degrees, output_size=n_edges)  # [ΣE]
        source, target = self.edge_index[:, edges].long() + first
        return Graphs.of(self.x[nodes], source, target, self.edge_attr[edges], self.y[chosen], sizes, widest)

    def node_rows(self, windows: Tensor) -> Tensor:
        """Rows of `x` that the nodes of these windows ([B] int64, on the host) have, [ΣN] int64, as `batch` orders them."""
        return self._rows("node_ptr", windows)[0]

    def _rows(self, ptr: str, windows: Tensor) -> tuple[Tensor, int, int]:
        """The packed rows of the windows, [total] on the device; their total, and the most of one window.

        Row r of the batch is row `r + shift` of the store, where `shift` is constant within a window: where its rows begin in
        the store less where they begin in the batch.
        """
        host = self._host[ptr]
        begin = host[windows]  # [B]
        counts = host[windows + 1] - begin  # [B]
        total = int(counts.sum())
        # A cumulative sum less the counts themselves: where each window's rows begin in the batch.
        shift = begin - (counts.cumsum(0) - counts)  # [B]
        shift, counts_there = (t.to(self.device, non_blocking=True) for t in (shift, counts))
        rows = torch.repeat_interleave(shift, counts_there, output_size=total)  # the size spares a look at the device
        return rows + torch.arange(total, device=self.device), total, int(counts.max())

    def names(self, windows: Tensor) -> list[str]:
        """Capture and number of windows, for messages."""
        captures = self.header["captures"]
        pairs = zip(self.graphs["capture"][windows], self.graphs["window"][windows], strict=True)
        return [f"{captures[capture]} window {number}" for capture, number in pairs]


def _writable(array: np.ndarray) -> np.ndarray:
    """The same array, writable as torch wants it: mapped copy-on-write, so that nothing written reaches the file."""
    if not isinstance(array, np.memmap) or array.filename is None:
        return np.array(array)
    mapped: np.ndarray = np.memmap(array.filename, array.dtype, "c", offset=array.offset, shape=array.shape)
    return mapped


def device_of(accelerator: str, key: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; raises `CanidsError` naming the config's `key` if there is no GPU for `cuda`."""
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise CanidsError(f"{key}: no GPU that torch can use; set it to auto or cpu")
    return torch.device(accelerator)
