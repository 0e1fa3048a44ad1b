"""Mutations of files that have a layout of their own: safetensors and Parquet."""

import io
import json
import struct
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.mutations import BYTES, HEADER_KEY, Mutation, Rng, changed_tree, pick

# safetensors


def parts_of(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Layout and data of a safetensors file."""
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(layout: Any, data: bytes) -> bytes:
    """A safetensors file of this layout, whether it is right or not."""
    text = json.dumps(layout).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def tensor_entry(raw: bytes, rng: Rng) -> bytes:
    """A tensor's type, shape or offsets, its name, or itself gone."""
    layout, data = parts_of(raw)
    names = [name for name in layout if name != "__metadata__"]
    name, other = pick(rng, names), pick(rng, names)
    entry = layout[name]
    match int(rng.integers(9)):
        case 0:
            entry["dtype"] = pick(rng, ["F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "X9", None, 3])
        case 1:
            entry["shape"] = pick(
                rng,
                [
                    [],
                    [0],
                    [-1],
                    [1 << 62],
                    [1 << 32, 1 << 32],
                    [2.5],
                    ["a"],
                    None,
                    entry["shape"][::-1],
                    [*entry["shape"], 1],
                    [1, *entry["shape"]],
                ],
            )
        case 2:
            begin, end = entry["data_offsets"]
            entry["data_offsets"] = pick(
                rng,
                [
                    [begin + 4, end + 4],
                    [begin - 4, end],
                    [end, begin],
                    [begin, end + (1 << 40)],
                    [-8, end],
                    [0, end - begin],
                    [begin],
                    None,
                    [begin, end, end],
                    [1.5, end],
                ],
            )
        case 3:
            entry["data_offsets"] = layout[other]["data_offsets"]
        case 4:
            layout[name], layout[other] = layout[other], layout[name]
        case 5:
            del layout[name]
        case 6:
            layout[pick(rng, ["extra", "", "x" * 300])] = layout.pop(name) if rng.random() < 0.5 else dict(entry)
        case 7:
            layout[name] = pick(rng, [None, [], "x", 3, {}])
        case _ if len(entry["shape"]) and entry["shape"][0]:
            entry["shape"] = [entry["shape"][0] + int(pick(rng, [-1, 1, 1000])), *entry["shape"][1:]]
        case _:
            del entry[pick(rng, list(entry))]
    return joined(layout, data)


def tensor_values(raw: bytes, rng: Rng) -> bytes:
    """NaN, infinity, huge, negative or zero values within a tensor of its own type."""
    layout, data = parts_of(raw)
    entries = [v for k, v in layout.items() if k != "__metadata__" and v["data_offsets"][1] > v["data_offsets"][0]]
    entry = pick(rng, entries)
    kind = {"F32": "<f4", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U32": "<u4"}[
        entry["dtype"]
    ]
    begin, end = entry["data_offsets"]
    values = np.frombuffer(data[begin:end], kind).copy()
    at = rng.integers(len(values), size=int(pick(rng, [1, 1, 3, len(values)])))
    if np.dtype(kind).kind == "f":
        values[at] = pick(rng, [np.nan, np.inf, -1e30, 1e30, -1.0, 0.0])
    else:
        most = np.iinfo(kind)
        values[at] = pick(rng, [most.min, most.max, 0, 7, max(-1, most.min)])
    return joined(layout, data[:begin] + values.tobytes() + data[end:])


def tensor_header(raw: bytes, rng: Rng) -> bytes:
    """The JSON under the metadata's one key."""
    layout, data = parts_of(raw)
    if rng.random() < 0.1:
        layout["__metadata__"] = pick(rng, [None, {}, {"canids": "{"}, {"canids": 3}, {"other": "x"}, [], "x"])
        return joined(layout, data)
    header = changed_tree(json.loads(layout["__metadata__"][HEADER_KEY]), rng)
    layout["__metadata__"][HEADER_KEY] = json.dumps(header, sort_keys=True)
    return joined(layout, data)


SAFETENSORS: list[Mutation] = [*[tensor_entry, tensor_values, tensor_header] * 2, *BYTES]


# Parquet


def _stored(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def parquet_columns(raw: bytes, rng: Rng) -> bytes:
    """A column dropped, renamed, doubled, of another type, with nulls, NaN or other values; the rows in another order or number."""
    frame = pl.from_arrow(pq.read_table(io.BytesIO(raw)))
    assert isinstance(frame, pl.DataFrame)
    metadata = pq.read_metadata(io.BytesIO(raw)).metadata or {}
    name, n = pick(rng, frame.columns), len(frame)
    column = frame[name]
    match int(rng.integers(9)):
        case 0:
            frame = frame.drop(name)
        case 1:
            frame = frame.rename({name: pick(rng, ["extra", "", name + "_", "x" * 300])})
        case 2:
            kind = pick(rng, [pl.String, pl.Float64, pl.Float32, pl.Int64, pl.Int8, pl.Boolean, pl.List(pl.Int8)])
            frame = frame.with_columns(pl.Series(name, [None] * n, dtype=kind))
        case 3:
            frame = frame.with_columns(
                pl.when(pl.int_range(n) == int(rng.integers(n))).then(None).otherwise(pl.col(name)).alias(name)
            )
        case 4 | 5 if column.dtype.is_numeric():
            value = pick(
                rng, [float("nan"), float("inf"), -1e30, 1e30, 0.0] if column.dtype.is_float() else [0, 1, 7, 100]
            )
            values = column.to_list()
            values[int(rng.integers(n))] = value
            frame = frame.with_columns(pl.Series(name, values, dtype=column.dtype, strict=False))
        case 6:
            frame = frame[rng.permutation(n).tolist()]
        case 7:
            frame = pick(rng, [frame[:0], frame[: n // 2], pl.concat([frame, frame]), frame[::-1], frame[1:]])
        case 8:
            frame = frame.select(frame.columns[::-1])
        case _:
            frame = frame.with_columns(pl.col(name).alias(pick(rng, ["extra", "gat_extra", "baseline_x_score"])))
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return _stored(table.replace_schema_metadata(metadata))


def parquet_header(raw: bytes, rng: Rng) -> bytes:
    """The JSON in the file's metadata."""
    table = pq.read_table(io.BytesIO(raw))
    metadata = pq.read_metadata(io.BytesIO(raw)).metadata or {}
    if HEADER_KEY.encode() not in metadata or rng.random() < 0.1:
        return _stored(
            table.replace_schema_metadata(pick(rng, [{}, {"canids": "{"}, {"canids": "[]"}, {"canids": "null"}]))
        )
    header = changed_tree(json.loads(metadata[HEADER_KEY.encode()]), rng)
    return _stored(table.replace_schema_metadata({HEADER_KEY: json.dumps(header, sort_keys=True)}))


PARQUET: list[Mutation] = [*[parquet_columns, parquet_header] * 2, *BYTES]
