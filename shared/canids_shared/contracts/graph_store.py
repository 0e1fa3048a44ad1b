"""The packed graph store (contract preprocess → train_gnn, evaluate): one safetensors file per split, memory-mapped.

W windows with ΣN nodes and ΣE edges lie one after another; graph i owns nodes `node_ptr[i]:node_ptr[i+1]` and edges
`edge_ptr[i]:edge_ptr[i+1]`, whose ends are counted from its own first node. A batch is a gather from these arrays; no
Python object stands for a graph.

| tensor | type, shape | content |
|---|---|---|
| `node_ptr`, `edge_ptr` | i64 [W+1] | where each graph begins |
| `x` | f32 [ΣN, F] | node features, raw: who learns also learns the scaling |
| `node_id` | u32 [ΣN] | arbitration ID (bit 31: extended). For rules and explanations; the detectors never read it |
| `node_count` | i32 [ΣN] | frames of that ID in the window |
| `edge_index` | i16 [2, ΣE] | source and target node |
| `edge_attr` | f32 [ΣE, D] | edge features, raw |
| `y` | i8 [W] | 1 attacked, 0 not, -1 unknown |
| `n_attacked` | i32 [W] | attacked frames |
| `attack`, `capture`, `vehicle` | i16 [W] | index into the header's `attacks` (0: none), `captures`, `vehicles` |
| `window` | i32 [W] | number within its capture and block |
| `t_start`, `t_end` | f64 [W] | times of first and last frame, seconds |
| `statistics` | f32 [W, S] | window statistics for the baselines |
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from canids_shared.contracts import stand_in_mark
from canids_shared.contracts.tables import KEYS
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json, written_whole

CONTRACT = "graphs/1"
_TYPES = {"F32": "<f4", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U32": "<u4"}
_CODES = {v: k for k, v in _TYPES.items()}
PER_WINDOW = {
    "y": "<i1",
    "n_attacked": "<i4",
    "attack": "<i2",
    "capture": "<i2",
    "vehicle": "<i2",
    "window": "<i4",
    "t_start": "<f8",
    "t_end": "<f8",
    "statistics": "<f4",
}
PER_NODE = {"x": "<f4", "node_id": "<u4", "node_count": "<i4"}
PER_EDGE = {"edge_source": "<i2", "edge_target": "<i2", "edge_attr": "<f4"}
_UNITS = {"window": PER_WINDOW, "node": PER_NODE, "edge": PER_EDGE}
_WIDTHS = {"x": "node_features", "edge_attr": "edge_features", "statistics": "statistics"}


class GraphWriter:
    """Writes the graphs of a store chunk by chunk, each array straight to its place in the file; made by `writing`."""

    def __init__(self, stream: BinaryIO, header: dict[str, Any], rows: dict[str, int]) -> None:
        self._stream = stream
        self._rows = rows
        self._appended = dict.fromkeys(rows, 0)
        self._ends = {"node": 0, "edge": 0}
        self._widths = {name: len(header[names]) for name, names in _WIDTHS.items()}
        tensors: dict[str, tuple[str, list[int]]] = {
            "node_ptr": ("<i8", [rows["window"] + 1]),
            "edge_ptr": ("<i8", [rows["window"] + 1]),
            "edge_index": ("<i2", [2, rows["edge"]]),
        }
        for unit, types in _UNITS.items():
            for name, kind in types.items():
                wide = [self._widths[name]] if name in self._widths else []
                tensors[name] = (kind, [rows[unit], *wide])
        del tensors["edge_source"], tensors["edge_target"]  # the rows of edge_index
        head: dict[str, Any] = {"__metadata__": {"canids": canonical_json({**header, "contract": CONTRACT})}}
        size = 0
        # Wide types first: safetensors wants no holes, and so every tensor stays aligned.
        for name in sorted(tensors, key=lambda n: (-np.dtype(tensors[n][0]).itemsize, n)):
            kind, shape = tensors[name]
            begin, size = size, size + math.prod(shape) * np.dtype(kind).itemsize
            head[name] = {"dtype": _CODES[kind], "shape": shape, "data_offsets": [begin, size]}
        text = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.flush()
        self._next = {name: 8 + len(text) + head[name]["data_offsets"][0] for name in tensors}
        self._next["edge_source"] = self._next["edge_index"]
        self._next["edge_target"] = self._next["edge_index"] + rows["edge"] * np.dtype(PER_EDGE["edge_target"]).itemsize
        for unit in self._ends:
            self._write(f"{unit}_ptr", np.zeros(1), "<i8")

    def append(self, chunk: Mapping[str, np.ndarray]) -> None:
        """Add the arrays of some windows: all of `PER_WINDOW`, `PER_NODE`, `PER_EDGE`, `node_counts`, `edge_counts`.

        Raises `ValueError` if they disagree with each other or with what `writing` was told.
        """
        rows = {"window": len(chunk["y"]), "node": len(chunk["x"]), "edge": len(chunk["edge_attr"])}
        for unit, types in _UNITS.items():
            self._appended[unit] += rows[unit]
            if self._appended[unit] > self._rows[unit]:
                raise ValueError(f"more than the {self._rows[unit]} {unit}s that were to come")
            for name, kind in types.items():
                shape = (rows[unit], *([self._widths[name]] if name in self._widths else []))
                if chunk[name].shape != shape:
                    raise ValueError(f"'{name}' has the shape {chunk[name].shape}, not {shape}")
                self._write(name, chunk[name], kind)
        for unit in self._ends:
            counts = chunk[f"{unit}_counts"]
            if counts.shape != (rows["window"],) or counts.sum() != rows[unit]:
                raise ValueError(f"'{unit}_counts' disagrees with the {rows[unit]} {unit}s of {rows['window']} windows")
            self._write(f"{unit}_ptr", self._ends[unit] + np.cumsum(counts, dtype="<i8"), "<i8")
            self._ends[unit] += rows[unit]

    def _write(self, name: str, values: np.ndarray, kind: str) -> None:
        data = memoryview(np.ascontiguousarray(values, dtype=kind).reshape(-1).view(np.uint8).data)
        while data:
            written = os.pwrite(self._stream.fileno(), data, self._next[name])
            self._next[name] += written
            data = data[written:]

    def check_complete(self) -> None:
        """Raise `ValueError` unless everything came that was to come."""
        for unit, count in self._appended.items():
            if count != self._rows[unit]:
                raise ValueError(f"{count} {unit}s instead of the {self._rows[unit]} that were to come")


@contextmanager
def writing(path: str | Path, header: dict[str, Any], *, windows: int, nodes: int, edges: int) -> Iterator[GraphWriter]:
    """Write a graph store in constant memory. An exception leaves no file behind.

    Args:
        path: the file.
        header: JSON that holds `node_features`, `edge_features`, `statistics` (names, as many as the tensors are wide),
            `attacks`, `captures`, `vehicles` (names behind the indices), and `sources`: for each capture its `sha256`
            (of the raw file), `vehicle`, `attack`, `content` and `rows_read`.
        windows, nodes, edges: how many of each are going to be appended.
    """
    with written_whole(path) as temporary, open(temporary, "wb") as stream:
        writer = GraphWriter(stream, header, {"window": windows, "node": nodes, "edge": edges})
        yield writer
        writer.check_complete()


class GraphStore:
    """A graph store opened read-only; its tensors are memory-mapped NumPy arrays.

    Attributes:
        path: the file.
        header: window, stride, names of features, attacks, captures and vehicles (see `writing`).
        arrays: the tensors by name.
    """

    def __init__(self, path: str | Path) -> None:
        """Open and check a store.

        Raises `CanidsError` naming the file if it is absent, cut off, of another contract, a stand-in, or holds NaN.
        """
        self.path = Path(path)
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                if length > size:
                    raise ValueError("header")
                head = json.loads(stream.read(length))
            self.header: dict[str, Any] = json.loads(head.pop("__metadata__")["canids"])
        except FileNotFoundError:
            raise CanidsError(f"{path}: no such file") from None
        except (struct.error, ValueError, KeyError, TypeError, AttributeError):
            raise CanidsError(f"{path}: not a whole graph store; delete it and run again") from None
        if self.header.get("contract") != CONTRACT:
            raise CanidsError(
                f"{path}: contract {self.header.get('contract')}, not {CONTRACT}; delete it and run again"
            )
        stand_in_mark.refuse(path, self.header)
        end = 8 + length + max(t["data_offsets"][1] for t in head.values())
        if end != size:
            raise CanidsError(f"{path}: cut off: {size} bytes instead of {end}; delete it and run again")
        wanted = {"node_ptr", "edge_ptr", "edge_index", "edge_attr", *PER_WINDOW, *PER_NODE}
        if absent := sorted(wanted - head.keys()):
            raise CanidsError(f"{path}: tensor '{absent[0]}' is missing (contract {CONTRACT})")
        self.arrays: dict[str, np.ndarray] = {}
        for name, t in head.items():
            shape = tuple(t["shape"])
            if 0 in shape:  # an empty file range cannot be mapped
                self.arrays[name] = np.zeros(shape, _TYPES[t["dtype"]])
                continue
            start = 8 + length + t["data_offsets"][0]
            self.arrays[name] = np.memmap(path, _TYPES[t["dtype"]], "r", offset=start, shape=shape)
        for name in ("x", "edge_attr", "statistics"):
            flat = self.arrays[name].reshape(-1)
            for first in range(0, len(flat), 1 << 24):
                if not np.isfinite(flat[first : first + (1 << 24)]).all():
                    raise CanidsError(f"{path}: tensor '{name}' holds NaN or infinity")

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.arrays["y"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def keys(self) -> pl.DataFrame:
        """The key columns of every window (`canids_shared.contracts.tables.KEYS`)."""
        header = self.header
        names = {
            "capture": np.asarray(header["captures"], dtype=object),
            "vehicle": np.asarray(header["vehicles"], dtype=object),
            "attack": np.asarray(header["attacks"], dtype=object),
        }
        label = self["y"].astype(np.int16)
        columns = {
            "capture": names["capture"][self["capture"]],
            "vehicle": names["vehicle"][self["vehicle"]],
            "window": np.array(self["window"]),
            "t_start": np.array(self["t_start"]),
            "t_end": np.array(self["t_end"]),
            "label": [None if v < 0 else int(v) for v in label],
            "attack": names["attack"][self["attack"]],
        }
        return pl.DataFrame({k: pl.Series(k, list(v), dtype=KEYS[k]) for k, v in columns.items()})
