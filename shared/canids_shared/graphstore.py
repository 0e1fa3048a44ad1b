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
import os
import shutil
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl

from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json, written_whole
from canids_shared.tables import KEYS

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
_COUNTS = {"node_counts": "<i8", "edge_counts": "<i8"}


def _copy(part: Any, out: Any) -> None:
    """Append a spooled file to another, by the kernel where it can."""
    out.flush()
    size, done = os.fstat(part.fileno()).st_size, 0
    try:
        while done < size:
            copied = os.copy_file_range(part.fileno(), out.fileno(), size - done, offset_src=done)
            if not copied:
                raise OSError("no progress")
            done += copied
        out.seek(0, os.SEEK_END)
    except OSError:  # not within, or between, some file systems
        out.seek(0, os.SEEK_END)
        part.seek(done)
        shutil.copyfileobj(part, out, 1 << 20)


class GraphWriter:
    """Appends graphs chunk by chunk in constant memory and writes the store whole on `close`.

    Use as a context manager; leaving it by an exception writes nothing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent)
        types = {**PER_WINDOW, **PER_NODE, **PER_EDGE, **_COUNTS}
        self._spools = {name: open(Path(self._folder.name) / name, "wb+") for name in types}  # noqa: SIM115
        self._types = types
        self._rows = dict.fromkeys(types, 0)

    def append(self, chunk: Mapping[str, np.ndarray]) -> None:
        """Add the arrays of some windows: all of `PER_WINDOW`, `PER_NODE`, `PER_EDGE`, `node_counts`, `edge_counts`."""
        for name, spool in self._spools.items():
            array = np.ascontiguousarray(chunk[name], dtype=self._types[name])
            self._rows[name] += len(array)
            spool.write(array.data)

    def close(self, header: dict[str, Any]) -> None:
        """Write the store.

        `header` must be JSON and hold `node_features`, `edge_features`, `statistics` (names, as many as the tensors are
        wide), `attacks`, `captures`, `vehicles` (names behind the indices), and `sources`: for each capture its
        `sha256` (of the raw file), `vehicle`, `attack`, `content` and `rows_read`.
        """
        widths = {"x": "node_features", "edge_attr": "edge_features", "statistics": "statistics"}
        for spool in self._spools.values():
            spool.flush()
        pieces: dict[str, tuple[str, list[int], list[Any]]] = {}
        for kind in ("node", "edge"):
            counts = np.fromfile(Path(self._folder.name) / f"{kind}_counts", dtype="<i8")
            pointer = np.concatenate([np.zeros(1, "<i8"), np.cumsum(counts, dtype="<i8")])
            pieces[f"{kind}_ptr"] = ("I64", [len(pointer)], [pointer])
        for name, kind in {**PER_WINDOW, **PER_NODE}.items():
            shape = [self._rows[name]] + ([len(header[widths[name]])] if name in widths else [])
            pieces[name] = (_CODES[kind], shape, [self._spools[name]])
        edges = self._rows["edge_source"]
        pieces["edge_index"] = ("I16", [2, edges], [self._spools["edge_source"], self._spools["edge_target"]])
        pieces["edge_attr"] = ("F32", [edges, len(header["edge_features"])], [self._spools["edge_attr"]])
        self._assemble(pieces, {**header, "contract": CONTRACT})

    def _assemble(self, pieces: dict[str, tuple[str, list[int], list[Any]]], header: dict[str, Any]) -> None:
        # Wide types first: safetensors wants no holes, and so every tensor stays aligned.
        order = sorted(pieces, key=lambda n: (-np.dtype(_TYPES[pieces[n][0]]).itemsize, n))
        head: dict[str, Any] = {"__metadata__": {"canids": canonical_json(header)}}
        offset = 0
        for name in order:
            code, shape, _ = pieces[name]
            size = int(np.prod(shape)) * np.dtype(_TYPES[code]).itemsize
            head[name] = {"dtype": code, "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with written_whole(self.path) as temporary, open(temporary, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                for part in pieces[name][2]:
                    if isinstance(part, np.ndarray):
                        out.write(part.tobytes())
                    else:
                        _copy(part, out)
            if out.tell() != 8 + len(text) + offset:
                raise ValueError("spooled bytes and shapes disagree: the chunks had differing widths or lengths")

    def __enter__(self) -> "GraphWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spool in self._spools.values():
            spool.close()
        self._folder.cleanup()


class GraphStore:
    """A graph store opened read-only; its tensors are memory-mapped NumPy arrays.

    Attributes:
        path: the file.
        header: window, stride, names of features, attacks, captures and vehicles (see `GraphWriter.close`).
        arrays: the tensors by name.
    """

    def __init__(self, path: str | Path) -> None:
        """Open and check a store.

        Raises `CanidsError` naming the file if it is absent, cut off, of another contract, or holds NaN.
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
        """The key columns of every window (`canids_shared.tables.KEYS`)."""
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
