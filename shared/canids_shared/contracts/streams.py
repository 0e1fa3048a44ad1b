"""The Arrow IPC stream on the pipes between the stages that follow a bus (contract `follow/2`).

A row is a window. Every stage passes on the columns that it read and adds its own:

| columns | type | added by |
|---|---|---|
| the keys (`canids_shared.contracts.tables.KEYS`) | | preprocess |
| `x`, `edge_attr` | list of f32: node and edge features, raw, row by row | preprocess |
| `node_id`, `node_count` | list of u32, i32: arbitration ID (bit 31: extended) and frames of each node | preprocess |
| `edge_source`, `edge_target` | list of i16: nodes of each edge | preprocess |
| `{detector}_*` | f32, as in `states/3` | train_gnn |
| `{detector}_score`, `unlike_{detector}`, `fusion_score`, `alarm`, `action` | as in `decisions/4` | train_drl |

The stream's metadata is the header of a graph store (names of features, window, stride), with `profiles`, vehicle → digest, where the past begins
with a profile; train_gnn adds the detectors (`canids_shared.contracts.detectors.KEY`). It precedes the first window, so that a stage
can load its models, or refuse, before there is traffic.
"""

import argparse
import gc
import io
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from canids_shared.contracts.tables import KEYS
from canids_shared.contracts.whole import check_contract, reading
from canids_shared.errors import CanidsError
from canids_shared.files import HEADER_KEY, canonical_json

CONTRACT = "follow/2"
GONE = 3
"""Exit status of a stage whose neighbour has ended or sends no windows: the fault is not its own."""
CHAINED = "CANIDS_CHAINED"
"""The environment variable with which who starts all stages takes over to say whose end ended the chain."""
GRACE_S = 5.0
"""Seconds after SIGTERM in which a stage still takes windows; usually the stage before it ends sooner, by the same signal."""
_BUFFER = 1 << 12
"""Bytes read ahead: windows that wait here are not decided on together (`canids_shared.scoring.following`)."""
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""The end of an Arrow IPC stream that was closed."""
_INPUT = "standard input"
_RESTART = "start all stages of one version of canids"
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
    """The schema of the stream that preprocess sends; `header` is JSON with `node_features`, `edge_features`, `window`, `stride`, …"""
    keys = pl.DataFrame(schema=KEYS).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    fields = [*keys, *(pa.field(name, kind) for name, kind in GRAPHS.items())]
    return pa.schema(fields, {HEADER_KEY: canonical_json({**header, "contract": CONTRACT})})


def lists(values: np.ndarray, counts: np.ndarray) -> pa.ListArray:
    """The rows of `values` [Σn, …] as one list a window, of `counts` [W] rows each."""
    # A list holds its window's rows one after another: a graph of n nodes with F features is n · F numbers.
    width = int(np.prod(values.shape[1:], dtype=np.int64))
    ends = np.concatenate([[0], np.cumsum(counts)]) * width
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(np.ascontiguousarray(values).reshape(-1)))


def flat(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """All values of a column of lists, one window behind the other; a column of numbers as it is."""
    column = batch.column(name)
    values: np.ndarray = (column.flatten() if pa.types.is_list(column.type) else column).to_numpy(zero_copy_only=False)
    return values


def counts(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Number of values in each window's list, int64 [W]."""
    lengths: np.ndarray = batch.column(name).value_lengths().to_numpy().astype(np.int64)
    return lengths


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
        metadata = {
            **metadata,
            HEADER_KEY.encode(): canonical_json({**json.loads(metadata[HEADER_KEY.encode()]), **header}),
        }
    return pa.schema([*schema, *(pa.field(name, kind) for name, kind in columns.items())], metadata)


class NeighbourError(CanidsError):
    """The stage before or behind this one has ended, or sends a stream that this one cannot read."""


class _Input(io.RawIOBase):
    """A stream that ends by itself `GRACE_S` after SIGTERM; it tells whether the writer closed it.

    Attributes:
        last: the last bytes.
        stopped: whether it ended because of the signal.
    """

    until = float("inf")
    """When to end; set by the signal, which may come before there is a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self.last, self.stopped, self._stream = b"", False, stream
        try:
            self._file: int | None = stream.fileno()
        except OSError:
            self._file = None  # not a pipe but bytes in memory

    @classmethod
    def end_soon(cls, *_: Any) -> None:
        """Answer SIGTERM."""
        cls.until = min(cls.until, time.monotonic() + GRACE_S)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # A signal does not end a wait, so waits are short.
        while self._file is not None and not select.select([self._file], [], [], 0.1)[0] and not self._over():
            pass
        if self._over():
            return 0
        data = self._stream.read(len(buffer)) if self._file is None else os.read(self._file, len(buffer))
        buffer[: len(data)] = data
        self.last = (self.last + data[-len(_END) :])[-len(_END) :]
        return len(data)

    def _over(self) -> bool:
        self.stopped = time.monotonic() >= self.until
        return self.stopped


class Received(NamedTuple):
    """A stream that is read: its header, its schema, and its windows in batches."""

    header: dict[str, Any]
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def received(stream: BinaryIO, *prefixes: str) -> Received:
    """Read a stream of windows.

    Args:
        stream: read with blocking calls, so that a batch is available as soon as it was sent.
        prefixes: prefixes of columns that are required beside those of the graphs.

    Raises `CanidsError` if it is of another contract or lacks columns, `NeighbourError` if it is no such stream, or breaks off
    later.
    """
    source = _Input(stream)
    try:
        with reading(_INPUT, "stream of windows", pa.ArrowException, again=_RESTART):
            reader = pa.ipc.open_stream(io.BufferedReader(source, _BUFFER))
            content, columns = json.loads(reader.schema.metadata[HEADER_KEY.encode()]), reader.schema.names
    except CanidsError:
        what = "not a stream of windows" if source.last else "empty; the stage before has ended"
        raise NeighbourError(f"{_INPUT}: {what} (contract {CONTRACT})") from None
    header = check_contract(_INPUT, content, CONTRACT, again=_RESTART)
    for wanted in (*KEYS, *GRAPHS, *prefixes):
        if not any(name.startswith(wanted) for name in columns):
            raise CanidsError(f"{_INPUT}: no column '{wanted}' (contract {CONTRACT})")
    pa.array([0]).to_numpy()  # imports pandas where it is installed, for which the first window would wait

    def batches() -> Iterator[pa.RecordBatch]:
        # Models are loaded: the garbage collector would go through all their objects again and again, a tenth of a second each time.
        gc.freeze()
        try:
            for batch in filter(len, reader):
                # Arrow trusts the offsets of lists and texts: a wrong one would end the process.
                batch.validate(full=True)
                yield batch
        except (pa.ArrowException, OSError, MemoryError) as error:  # a wrong length may be any number
            if not source.stopped:  # else it ends amid a window
                raise NeighbourError(f"{_INPUT}: breaks off: {' '.join(str(error).split())}") from None
        # Between two windows a stream may also end because its writer was killed.
        if source.last != _END and not source.stopped:
            raise NeighbourError(f"{_INPUT}: breaks off: the stage before has failed")

    return Received(header, reader.schema, batches())


@contextmanager
def sending(stream: BinaryIO, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Write a stream of windows; yields a function that sends a batch at once. It is closed unless an error ends it."""
    writer = pa.ipc.new_stream(stream, schema)
    # The writer holds the schema back until there is a batch; the next stage would load its models only then.
    writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema))
    stream.flush()

    def send(batch: pa.RecordBatch) -> None:
        writer.write_batch(batch)
        stream.flush()

    yield send
    writer.close()
    stream.flush()


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Run a stage of the chain: an error becomes one line and exit status 1 (or `GONE`), messages go to standard error.

    Only the first stage responds to Ctrl-C and SIGTERM; the others end with their input, so no window is lost, but at the latest
    `GRACE_S` after SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _Input.end_soon)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numexpr").setLevel(logging.WARNING)  # pandas imports it, and it logs the number of threads
    try:
        if sys.stdout is None:
            sys.exit("error: standard output is closed: there is nowhere to write to")
        sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 (an empty stream, if it is closed)
        main(parser.parse_args())
        sys.stdout.flush()
    except (NeighbourError, BrokenPipeError) as error:
        # Python would report the broken pipe again when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reason = "the next stage has ended" if isinstance(error, BrokenPipeError) else error
        if CHAINED not in os.environ:
            log.warning("%s: %s", parser.prog, reason)
        sys.exit(GONE)
    except CanidsError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or parser.prog}: {error.strerror or error}")
    finally:
        # While Python shuts down the signal would have its default effect again.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
