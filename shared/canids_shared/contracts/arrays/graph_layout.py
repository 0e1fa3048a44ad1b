"""What a graph store must be (contract graphs/3): type, shape and bounds of every tensor, and the check of a file against them.

The table of tensors stands in `canids_shared.contracts.graph_store`; the header's schema is `graphs.schema.yaml`.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from xxhash import xxh3_128

from canids_shared.contracts.whole import AGAIN, check_digest
from canids_shared.errors import CanidsError

CONTRACT = "graphs/3"
TYPES = {"F32": "<f4", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U32": "<u4"}
CODES = {v: k for k, v in TYPES.items()}


class Column(NamedTuple):
    """One array of a store, with a row for each window, node or edge.

    Attributes:
        kind: NumPy's type; numbers that are not finite are refused.
        width: list of the header whose names are the array's columns; None: it has one dimension.
        low, high: bounds of every value, where it has some.
        names: list of the header that the values are indices into.
    """

    kind: str
    width: str | None = None
    low: int | None = None
    high: int | None = None
    names: str | None = None


PER_WINDOW = {
    "y": Column("<i1", low=-1, high=1),
    "n_attacked": Column("<i4", low=0),
    "attack": Column("<i2", low=0, names="attacks"),
    "capture": Column("<i2", low=0, names="captures"),
    "vehicle": Column("<i2", low=0, names="vehicles"),
    "window": Column("<i4", low=0),
    "t_start": Column("<f8"),
    "t_end": Column("<f8"),
    "statistics": Column("<f4", width="statistics"),
}
PER_NODE = {"x": Column("<f4", width="node_features"), "node_id": Column("<u4"), "node_count": Column("<i4", low=0)}
PER_EDGE = {
    "edge_source": Column("<i2", low=0),
    "edge_target": Column("<i2", low=0),
    "edge_attr": Column("<f4", width="edge_features"),
}
UNITS = {"window": PER_WINDOW, "node": PER_NODE, "edge": PER_EDGE}
POINTERS = {"node_ptr": "node", "edge_ptr": "edge"}
"""Arrays with a row for each window and one more: where the window's nodes or edges begin."""
_PIECE = 1 << 22
"""Values that are checked at once: the check must not hold a store in memory that is mapped because it is large."""


def shapes(header: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of every tensor of a file with so many windows, nodes and edges."""
    tensors = {
        name: (column.kind, [rows[unit], *([len(header[column.width])] if column.width else [])])
        for unit, columns in UNITS.items()
        for name, column in columns.items()
        if name not in ("edge_source", "edge_target")
    }
    pointers = {name: ("<i8", [rows["window"] + 1]) for name in POINTERS}
    return {**tensors, **pointers, "edge_index": ("<i2", [2, rows["edge"]])}


def check_layout(path: Path, header: Mapping[str, Any], layout: dict[str, Any]) -> None:
    """Raise `CanidsError` naming the tensor that is missing, unknown, not in its place, or of another type or shape.

    Args:
        path: the file.
        header: lists with the names of features, which give the widths.
        layout: name → `dtype`, `shape`, `data_offsets` of every tensor, as safetensors has them.
    """
    first = (("window", "y"), ("node", "x"), ("edge", "edge_attr"))
    expected = shapes(header, {unit: layout[name]["shape"][0] if name in layout else 0 for unit, name in first})
    for name in sorted(expected.keys() | layout.keys()):
        if name not in layout or name not in expected:
            raise _broken(path, name, "is missing" if name in expected else "is unknown")
        kind, shape = expected[name]
        tensor = layout[name]
        if (TYPES.get(tensor["dtype"]), tensor["shape"]) != (kind, shape):
            raise _broken(path, name, f"is {tensor['dtype']} {tensor['shape']}, not {CODES[kind]} {shape}")
        if tensor["data_offsets"][0] % np.dtype(kind).itemsize:
            raise _broken(path, name, "is not aligned")


def check_values(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Check all values against the contract and the header's digest, in one pass over the file.

    Raises `CanidsError` naming the tensor with a value out of bounds, or the file if its content was changed.
    """
    ends = dict(zip(("edge_source", "edge_target"), arrays["edge_index"], strict=True))
    columns = {name: column for unit in UNITS.values() for name, column in unit.items()}
    columns |= dict.fromkeys(POINTERS, Column("<i8", low=0))
    digests = {}
    for name, column in columns.items():
        high = len(header[column.names]) - 1 if column.names else column.high
        digests[name] = _digest(path, name, ends[name] if name in ends else arrays[name], column.low, high)
    for name, unit in POINTERS.items():
        pointer, rows = arrays[name], len(arrays["x" if unit == "node" else "edge_attr"])
        # Every window has a frame, hence a node; it may have no edge.
        if pointer[0] != 0 or pointer[-1] != rows or (np.diff(pointer) < (unit == "node")).any():
            raise _broken(path, name, f"does not rise from 0 to {rows}, the number of {unit}s")
    if (arrays["t_end"] < arrays["t_start"]).any():
        raise _broken(path, "t_end", "lies before t_start")
    _check_edges(path, arrays)
    check_digest(path, header, digests)


def _digest(path: Path, name: str, values: np.ndarray, low: int | None, high: int | None) -> str:
    """XXH3 of an array, whose values are checked to be finite and within bounds on the way."""
    digest, flat = xxh3_128(), values.reshape(-1)
    for first in range(0, len(flat), _PIECE):
        piece = flat[first : first + _PIECE]
        digest.update(piece.view(np.uint8).data)
        lowest, highest = piece.min(), piece.max()  # NaN, if one is NaN
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise _broken(path, name, "holds NaN or infinity")
        if (low is not None and lowest < low) or (high is not None and highest > high):
            raise _broken(path, name, f"holds {lowest} to {highest}, not {low} to {'any' if high is None else high}")
    return digest.hexdigest()


def _check_edges(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise `CanidsError` if an edge leaves its window: its ends are counted from the window's first node."""
    nodes, edges = (np.diff(arrays[name]) for name in POINTERS)
    pointer = arrays["edge_ptr"]
    # Some windows at a time, with about as many edges as are checked at once.
    starts = np.searchsorted(pointer, np.arange(0, pointer[-1], _PIECE), "right") - 1
    for first, last in pairwise(np.unique(np.append(starts, len(nodes)))):
        limit = np.repeat(nodes[first:last], edges[first:last])
        if (arrays["edge_index"][:, pointer[first] : pointer[last]] >= limit).any():
            raise _broken(path, "edge_index", "names a node that its window does not have")


def _broken(path: Path, name: str, problem: str) -> CanidsError:
    return CanidsError(f"{path}: tensor '{name}' {problem} (contract {CONTRACT}); {AGAIN}")
