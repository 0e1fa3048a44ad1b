"""The packed graph store (contract preprocess → train_gnn, evaluate): one safetensors file per split, memory-mapped.

W windows with ΣN nodes and ΣE edges lie one after another; graph i owns nodes `node_ptr[i]:node_ptr[i+1]` and edges
`edge_ptr[i]:edge_ptr[i+1]`, whose ends are counted from its own first node. A batch is a gather from these arrays; no
Python object stands for a graph. The header's digest covers each tensor by its XXH3 of 128 bits: damage and edits show, and hashing
costs little beside building the graphs.

| tensor | type, shape | content |
|---|---|---|
| `node_ptr`, `edge_ptr` | i64 [W+1] | where each graph begins |
| `x` | f32 [ΣN, F] | node features, raw: who learns also learns the scaling |
| `node_id` | u32 [ΣN] | arbitration ID (bit 31: extended). For the window baselines and for attribution; the detectors never read it |
| `node_count` | i32 [ΣN] | frames of that ID in the window |
| `edge_index` | i16 [2, ΣE] | source and target node |
| `edge_attr` | f32 [ΣE, D] | edge features, raw |
| `y` | i8 [W] | 1 attacked, 0 not, -1 unknown |
| `n_attacked` | i32 [W] | attacked frames |
| `attack`, `capture`, `vehicle` | i16 [W] | index into the header's `attacks` (0: none), `captures`, `vehicles` |
| `window` | i32 [W] | number within its capture and block |
| `t_start`, `t_end` | f64 [W] | times of first and last frame, seconds |
| `statistics` | f32 [W, S] | window statistics for the window baselines |
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open
from xxhash import xxh3_128

from canids_shared.contracts.arrays.graph_layout import (
    CODES,
    CONTRACT,
    POINTERS,
    TYPES,
    UNITS,
    check_layout,
    check_values,
    shapes,
)
from canids_shared.contracts.tables import KEYS
from canids_shared.contracts.whole import (
    DIGEST,
    check_contract,
    check_identity,
    digest_of,
    parse_json,
    reading,
    sealed,
)
from canids_shared.files import HEADER_KEY, canonical_json, written_whole

_UNKNOWN = "0" * 64
"""Where the digest goes when all is written."""


class GraphWriter:
    """Writes the graphs of a store chunk by chunk, each array straight to its place in the file; made by `writing`."""

    def __init__(self, stream: BinaryIO, header: dict[str, Any], rows: dict[str, int]) -> None:
        self._stream = stream
        self._rows = rows
        self._appended = dict.fromkeys(rows, 0)
        self._ends = {"node": 0, "edge": 0}
        self._hashes = {name: xxh3_128() for name in [*chain(*UNITS.values()), *POINTERS]}
        tensors = shapes(header, rows)
        self._shapes = {name: shape for name, (_, shape) in tensors.items()}
        # All sizes are known, so each tensor gets its place now, and chunks are written in any order of tensors.
        # Wide types come first: safetensors wants no holes, and so every tensor stays aligned.
        self._header = {**sealed(stream.name, header, CONTRACT), DIGEST: _UNKNOWN}
        layout: dict[str, Any] = {"__metadata__": {HEADER_KEY: canonical_json(self._header)}}
        size = 0
        for name in sorted(tensors, key=lambda n: (-np.dtype(tensors[n][0]).itemsize, n)):
            kind, shape = tensors[name]
            begin, size = size, size + math.prod(shape) * np.dtype(kind).itemsize
            layout[name] = {"dtype": CODES[kind], "shape": shape, "data_offsets": [begin, size]}
        text = json.dumps(layout, sort_keys=True, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.flush()
        self._digest_at = 8 + text.index(_UNKNOWN.encode())
        # Byte at which the next rows of each array go. Sources and targets are the two rows of `edge_index`.
        self._next = {name: 8 + len(text) + layout[name]["data_offsets"][0] for name in tensors}
        self._next["edge_source"] = self._next["edge_index"]
        self._next["edge_target"] = self._next["edge_index"] + rows["edge"] * 2
        for unit in self._ends:
            self._write(f"{unit}_ptr", np.zeros(1), "<i8")

    def append(self, chunk: Mapping[str, np.ndarray]) -> None:
        """Add the arrays of some windows: all of `PER_WINDOW`, `PER_NODE`, `PER_EDGE`, `node_counts`, `edge_counts`.

        Raises `ValueError` if they disagree with each other or with the numbers that `writing` got.
        """
        rows = {"window": len(chunk["y"]), "node": len(chunk["x"]), "edge": len(chunk["edge_attr"])}
        # The rows of the chunk go behind those of the chunks before, each array at its own place in the file.
        for unit, columns in UNITS.items():
            self._appended[unit] += rows[unit]
            if self._appended[unit] > self._rows[unit]:
                raise ValueError(f"more than the {self._rows[unit]} {unit}s that were announced")
            for name, column in columns.items():
                shape = (rows[unit], *(self._shapes[name][1:] if column.width else []))
                if chunk[name].shape != shape:
                    raise ValueError(f"'{name}' has the shape {chunk[name].shape}, not {shape}")
                self._write(name, chunk[name], column.kind)
        # Pointers count through the whole store: sizes within the chunk, summed up from where the last chunk ended.
        for unit in self._ends:
            counts = chunk[f"{unit}_counts"]
            if counts.shape != (rows["window"],) or counts.sum() != rows[unit]:
                raise ValueError(f"'{unit}_counts' disagrees with the {rows[unit]} {unit}s of {rows['window']} windows")
            self._write(f"{unit}_ptr", self._ends[unit] + np.cumsum(counts, dtype="<i8"), "<i8")
            self._ends[unit] += rows[unit]

    def _write(self, name: str, values: np.ndarray, kind: str) -> None:
        # Without a seek, since arrays alternate; a write may take fewer bytes than it is given.
        data = memoryview(np.ascontiguousarray(values, dtype=kind).reshape(-1).view(np.uint8).data)
        self._hashes[name].update(data)
        while data:
            written = os.pwrite(self._stream.fileno(), data, self._next[name])
            self._next[name] += written
            data = data[written:]

    def complete(self) -> None:
        """Write the digest; raises `ValueError` unless as much was appended as `writing` announced."""
        for unit, count in self._appended.items():
            if count != self._rows[unit]:
                raise ValueError(f"{count} {unit}s instead of the {self._rows[unit]} that were announced")
        digest = digest_of(self._header, {name: part.hexdigest() for name, part in self._hashes.items()})
        os.pwrite(self._stream.fileno(), digest.encode(), self._digest_at)


@contextmanager
def writing(path: str | Path, header: dict[str, Any], *, windows: int, nodes: int, edges: int) -> Iterator[GraphWriter]:
    """Write a graph store in constant memory, with its digest in the header. An exception leaves no file behind.

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
        writer.complete()


class GraphStore:
    """A graph store opened read-only; its tensors are memory-mapped NumPy arrays.

    Attributes:
        path: the file.
        header: window, stride, names of features, attacks, captures and vehicles (see `writing`).
        arrays: the tensors by name.
    """

    def __init__(self, path: str | Path, **wanted: str) -> None:
        """Open and check a store.

        Args:
            path: the file.
            wanted: what its header must say: `dataset`, `split`.

        Raises `CanidsError` naming the file if it is absent, cut off, edited, of another contract, a stand-in, or another one than
        `wanted`; and naming the tensor whose type, shape or values are not those of the contract.
        """
        self.path = Path(path)
        with reading(path, "graph store", struct.error, SafetensorError):
            with safe_open(path, "numpy"):  # refuses tensors that overlap, leave holes or the file
                pass
            with open(path, "rb") as stream:
                # Eight bytes with the length of the layout, the layout as JSON, then the tensors.
                (length,) = struct.unpack("<Q", stream.read(8))
                layout = parse_json(stream.read(length))
            header = parse_json(layout.pop("__metadata__")[HEADER_KEY])
            self.header = check_contract(path, header, CONTRACT)
            check_identity(path, header, **wanted)
            check_layout(self.path, self.header, layout)
            self.arrays = {name: self._mapped(tensor, 8 + length) for name, tensor in layout.items()}
        check_values(self.path, self.header, self.arrays)

    def _mapped(self, tensor: dict[str, Any], begin: int) -> np.ndarray:
        """A tensor mapped from the file, whose data begins at the byte `begin`."""
        kind, shape = TYPES[tensor["dtype"]], tuple(tensor["shape"])
        if 0 in shape:  # an empty range of a file cannot be mapped
            return np.zeros(shape, kind)
        return np.memmap(self.path, kind, "r", offset=begin + tensor["data_offsets"][0], shape=shape)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.arrays["y"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def is_auxiliary(self) -> np.ndarray:
        """Whether each window is of an auxiliary capture rather than of the dataset's own, bool [W]."""
        return self._is_of(self.header.get("auxiliary_captures", []))

    @property
    def is_injected(self) -> np.ndarray:
        """Whether each window is of a capture into whose host attacks were injected, bool [W]."""
        return self._is_of([name for name, source in self.header.get("sources", {}).items() if source.get("host")])

    def _is_of(self, captures: list[str]) -> np.ndarray:
        return np.isin(self["capture"], [k for k, name in enumerate(self.header["captures"]) if name in captures])

    def counts(self, chosen: np.ndarray | None = None) -> dict[str, Any]:
        """Contents of the store, or of the windows `chosen` (bool [W]), as `run.json` has them for a split.

        Returns numbers of `windows`, of them `attacked` and `auxiliary`, windows by `vehicles`, attacked windows by `attacks`
        (names without a window are left out), and the names of all `captures`.
        """
        chosen = np.ones(len(self), dtype=bool) if chosen is None else chosen
        attacked = chosen & (self["y"] == 1)

        def by_name(listed: str, indices: np.ndarray) -> dict[str, int]:
            amounts = np.bincount(indices, minlength=len(self.header[listed]))
            return {name: int(n) for name, n in zip(self.header[listed], amounts, strict=True) if name and n}

        return {
            "windows": int(chosen.sum()),
            "attacked": int(attacked.sum()),
            "auxiliary": int((chosen & self.is_auxiliary).sum()),
            "vehicles": by_name("vehicles", self["vehicle"][chosen]),
            "attacks": by_name("attacks", self["attack"][attacked]),
            "captures": list(self.header["captures"]),
        }

    def keys(self) -> pl.DataFrame:
        """The key columns of every window (`canids_shared.contracts.tables.KEYS`)."""
        # Indices into the header's lists become names.
        names = {
            name: np.asarray(self.header[listed], dtype=object)[self[name]]
            for name, listed in (("capture", "captures"), ("vehicle", "vehicles"), ("attack", "attacks"))
        }
        numbers = {name: np.array(self[name]) for name in ("window", "t_start", "t_end")}
        columns = {**names, **numbers, "label": [None if y < 0 else int(y) for y in self["y"]]}
        return pl.DataFrame({name: pl.Series(name, list(columns[name]), dtype=kind) for name, kind in KEYS.items()})
