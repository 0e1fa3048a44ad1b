"""What the stages of a chain that follows a bus tell each other: an Arrow IPC stream on their pipes (contract `follow/1`).

A row is a window. Every stage hands on what it read and adds columns of its own:

| columns | type | added by |
|---|---|---|
| the keys (`canids_shared.contracts.tables.KEYS`) | | preprocess |
| `x`, `edge_attr` | list of f32: node and edge features, raw, row by row | preprocess |
| `node_id`, `node_count` | list of u32, i32: arbitration ID (bit 31: extended) and frames of each node | preprocess |
| `edge_source`, `edge_target` | list of i16: nodes of each edge | preprocess |
| `vgae_*`, `gat_*` | f32, as in `states/1` | train_gnn |
| `vgae_score`, `gat_score`, `fusion_score`, `alarm`, `action` | as in `decisions/1` | train_drl |

The stream's metadata says what the header of a graph store says: names of features, window, stride. It goes ahead of the first
window, so that a stage can load its models, or refuse, before there is traffic.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from canids_shared.contracts.tables import KEYS
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json

CONTRACT = "follow/1"
GONE = 3
"""Exit status of a part whose neighbour is gone, or says something else than windows: the fault is not its own."""
_KEY = "canids"
log = logging.getLogger(__name__)
GRAPHS: dict[str, Any] = {
    "x": pa.list_(pa.float32()),
    "node_id": pa.list_(pa.uint32()),
    "node_count": pa.list_(pa.int32()),
    "edge_source": pa.list_(pa.int16()),
    "edge_target": pa.list_(pa.int16()),
    "edge_attr": pa.list_(pa.float32()),
}
"""Columns of a window's graph."""


def schema_of_graphs(header: dict[str, Any]) -> pa.Schema:
    """The schema of what preprocess sends; `header` is JSON with `node_features`, `edge_features`, `window`, `stride`, …"""
    keys = pl.DataFrame(schema=KEYS).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    fields = [*keys, *(pa.field(name, kind) for name, kind in GRAPHS.items())]
    return pa.schema(fields, {_KEY: canonical_json({**header, "contract": CONTRACT})})


def lists(values: np.ndarray, counts: np.ndarray) -> pa.ListArray:
    """The rows of `values` [Σn, …] as one list a window, of `counts` [W] rows each."""
    width = int(np.prod(values.shape[1:], dtype=np.int64))
    ends = np.concatenate([[0], np.cumsum(counts)]) * width
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(np.ascontiguousarray(values).reshape(-1)))


def flat(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """All values of a column of lists, one window behind the other; a column of numbers as it is."""
    column = batch.column(name)
    values: np.ndarray = (column.flatten() if pa.types.is_list(column.type) else column).to_numpy(zero_copy_only=False)
    return values


def counts(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """How many values each window's list holds, int64 [W]."""
    found: np.ndarray = batch.column(name).value_lengths().to_numpy().astype(np.int64)
    return found


def keys(batch: pa.RecordBatch) -> pl.DataFrame:
    """The key columns of some windows."""
    frame = pl.from_arrow(pa.Table.from_batches([batch.select(list(KEYS))]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def extended(batch: pa.RecordBatch, schema: pa.Schema, columns: dict[str, np.ndarray]) -> pa.RecordBatch:
    """A batch with further columns [W]; `schema` is that of `widened`."""
    new = [pa.array(columns[field.name], field.type) for field in list(schema)[batch.num_columns :]]
    return pa.RecordBatch.from_arrays([*batch.columns, *new], schema=schema)


def widened(schema: pa.Schema, columns: dict[str, Any], **header: Any) -> pa.Schema:
    """A schema with further columns, of Arrow types, and further keys in the JSON of its metadata."""
    metadata = schema.metadata
    if header:
        metadata = {**metadata, _KEY.encode(): canonical_json({**json.loads(metadata[_KEY.encode()]), **header})}
    return pa.schema([*schema, *(pa.field(name, kind) for name, kind in columns.items())], metadata)


class NeighbourError(CanidsError):
    """The part of the chain before this one, or behind it, is gone or says something that this one does not know."""


class Received(NamedTuple):
    """What comes on a stream: its header, its schema, and the windows, some at a time."""

    header: dict[str, Any]
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def received(stream: BinaryIO, *prefixes: str) -> Received:
    """Read a stream of windows.

    Args:
        stream: read with blocking calls, so a batch is there as soon as it was sent.
        prefixes: beginnings of names of columns that must be there beside those of the graphs.

    Raises `CanidsError` if it is of another contract or lacks columns, `NeighbourError` if it is no such stream at all; also
    later, where it breaks off.
    """
    try:
        reader = pa.ipc.open_stream(stream)
        header: dict[str, Any] = json.loads(reader.schema.metadata[_KEY.encode()])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        raise NeighbourError(f"standard input: not a stream of windows (contract {CONTRACT})") from None
    if header.get("contract") != CONTRACT:
        raise CanidsError(f"standard input: contract {header.get('contract')}, not {CONTRACT}")
    for wanted in (*KEYS, *GRAPHS, *prefixes):
        if not any(name.startswith(wanted) for name in reader.schema.names):
            raise CanidsError(f"standard input: no column '{wanted}' (contract {CONTRACT})")
    pa.array([0]).to_numpy()  # imports pandas where it is installed, for which the first window would wait

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from filter(len, reader)
        except (pa.ArrowException, OSError) as error:
            raise NeighbourError(f"standard input: breaks off: {' '.join(str(error).split())}") from None

    return Received(header, reader.schema, batches())


@contextmanager
def sending(stream: BinaryIO, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Write a stream of windows; what is yielded sends some of them at once."""
    with pa.ipc.new_stream(stream, schema) as writer:
        # The writer holds the schema back until there is a batch; who reads it would load its models only then.
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema))
        stream.flush()

        def send(batch: pa.RecordBatch) -> None:
            writer.write_batch(batch)
            stream.flush()

        yield send
    stream.flush()


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Run an entry of the chain: a `CanidsError` becomes one line and exit status 1 (or `GONE`), messages go to standard error.

    Only the first part answers Ctrl-C itself; the others end with what they read, so no window is lost.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numexpr").setLevel(logging.WARNING)  # which pandas imports; it says how many threads there are
    try:
        main(parser.parse_args())
        sys.stdout.flush()
    except (NeighbourError, BrokenPipeError) as error:
        # Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = "the next part of the chain is gone" if isinstance(error, BrokenPipeError) else error
        log.warning("%s: %s", parser.prog, what)
        sys.exit(GONE)
    except CanidsError as error:
        sys.exit(f"error: {error}")
