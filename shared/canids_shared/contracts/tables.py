"""The Parquet contracts between the stages: `frames`, `states`, `decisions`.

Each is written and read by one pair of functions and checked on both sides: a wrong version, a missing column, a null, a NaN or
a number out of bounds, windows out of order, a truncated or an edited file is a `CanidsError` that names the file. A table of windows
has the digest of every capture's rows in its metadata (`digests`); every file has check sums of its pages.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from canids_shared.contracts.detectors import declared
from canids_shared.contracts.whole import (
    AGAIN,
    check_contract,
    check_digest,
    check_identity,
    parse_json,
    reading,
    sealed,
)
from canids_shared.errors import CanidsError
from canids_shared.files import HEADER_KEY, canonical_json, written_whole

_LARGE = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
"""Arrow has two representations of text and of bytes; either may stand in a file."""
_PLAIN = (
    *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean),
    *(pa.types.is_null, pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary),
)
"""Types that a column may have in a file of any of these contracts."""

KEYS: dict[str, Any] = {
    "capture": pl.String,
    "vehicle": pl.String,
    "window": pl.Int32,
    "t_start": pl.Float64,
    "t_end": pl.Float64,
    "label": pl.UInt8,
    "attack": pl.String,
}
"""Identity of a window: number within its capture (and block), seconds, 0/1 or null, the attack's name (empty: none)."""


def digests(frame: pl.DataFrame) -> dict[str, str]:
    """SHA-256 of the rows of each capture in a table of windows, by the capture's name; of a table without captures under no name.

    `states` and `decisions` carry them in their metadata (`digests`), and `read` refuses rows changed or exchanged between captures.
    """
    by_capture = {}
    parts = frame.group_by("capture", maintain_order=True) if "capture" in frame.columns else [(("",), frame)]
    for (capture,), rows in parts:
        sha256 = hashlib.sha256()
        for name in frame.columns:
            # Of a column: its name and type, which rows are null, and the values of the others, in the rows' order.
            column = rows[name]
            known = column.is_not_null()
            values = column.filter(known)
            sha256.update(f"{name} {column.dtype}\n".encode() + known.to_numpy().tobytes())
            sha256.update("\n".join(values).encode() if column.dtype == pl.String else values.to_numpy().tobytes())
        by_capture[str(capture)] = sha256.hexdigest()
    return by_capture


@dataclass(frozen=True)
class Table:
    """A table contract: its name and version, columns with types, which of them may be null, and open column families.

    Attributes:
        prefixes: further columns allowed, by prefix; they are float32 and finite.
        of_detector: columns required of every detector that the header declares: names of `Detector`'s attributes.
        outputs_of_detectors: whether further columns of these detectors are allowed.
        any_numbers: whether the columns are any ones of numbers, null and NaN included.
        bounds: lowest and highest value of columns, by their name, or by its end where that begins with `_`.
    """

    contract: str
    columns: dict[str, Any]
    nullable: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    of_detector: tuple[str, ...] = ()
    outputs_of_detectors: bool = False
    any_numbers: bool = False
    bounds: tuple[tuple[str, float, float], ...] = ()

    @property
    def of_windows(self) -> bool:
        """Whether a row is a window, with the columns of `KEYS`."""
        return self.columns.keys() >= KEYS.keys()

    @property
    def is_digested(self) -> bool:
        """Whether the metadata have digests of the rows; frames, which are read in pieces, have check sums alone."""
        return self.of_windows or self.any_numbers

    def with_detectors(self, header: Mapping[str, Any], path: str | Path) -> "Table":
        """The table with the columns of the detectors that a file's header declares; itself where it has none.

        Raises `CanidsError` naming the file if the header does not declare them.
        """
        if not self.of_detector:
            return self
        detectors = declared(header, path)
        required = {getattr(detector, column): pl.Float32 for detector in detectors for column in self.of_detector}
        prefixes = tuple(detector.prefix for detector in detectors) if self.outputs_of_detectors else ()
        return replace(self, columns={**self.columns, **required}, prefixes=(*self.prefixes, *prefixes))


FRAMES = Table(
    "frames/2",
    {
        "timestamp": pl.Float64,
        "can_id": pl.UInt32,
        "extended": pl.Boolean,
        "remote": pl.Boolean,
        "fd": pl.Boolean,
        "dlc": pl.UInt8,
        "payload": pl.Binary,
        "channel": pl.String,
        "label": pl.UInt8,
        "attack": pl.String,
    },
    nullable=frozenset({"label", "channel"}),
    bounds=(("label", 0, 1), ("dlc", 0, 64)),
)
REJECTS = Table("rejects/2", {"line": pl.UInt64, "reason": pl.String, "text": pl.String})
"""Rows of a raw capture that are no frames: line (or record), reason and text."""
_OF_KEYS = (("window", 0, math.inf), ("label", 0, 1))
STATES = Table(
    "states/3",
    KEYS,
    nullable=frozenset({"label"}),
    of_detector=("score",),
    outputs_of_detectors=True,
    bounds=_OF_KEYS,
)
DECISIONS = Table(
    "decisions/4",
    {**KEYS, "fusion_score": pl.Float32, "alarm": pl.Boolean, "action": pl.Int16},
    nullable=frozenset({"label"}),
    prefixes=("baseline_", "q_", "unlike_"),
    of_detector=("decided",),
    bounds=(*_OF_KEYS, ("action", 0, math.inf), ("_score", 0, 1), ("_alarm", 0, 1)),
)
"""Scores of fusions are after the evidence that their rule asks for, and alarms are held to it (`alarm_rule`, metadata `rules`)."""


def _check(frame: pl.DataFrame, table: Table, path: Path, wanted: list[str] | None = None) -> None:
    if table.any_numbers:
        if odd := [name for name, kind in frame.schema.items() if not (kind.is_numeric() or kind == pl.Null)]:
            raise CanidsError(f"{path}: column '{odd[0]}' holds no numbers (contract {table.contract})")
        return
    absent = [c for c in wanted or table.columns if c not in frame.columns]
    if absent:
        raise CanidsError(f"{path}: column '{absent[0]}' is missing (contract {table.contract})")
    # Every column is one of the contract or of an open family, of its type, without nulls and NaN where none may be.
    for name, kind in frame.schema.items():
        expected = table.columns.get(name)
        if expected is None:  # a column of an open family, such as a further output of a detector
            if not name.startswith(table.prefixes):
                raise CanidsError(f"{path}: unknown column '{name}' (contract {table.contract})")
            expected = pl.Float32
        if kind != expected:
            raise CanidsError(f"{path}: column '{name}' is {kind}, not {expected} (contract {table.contract})")
        if name not in table.nullable and frame[name].null_count():
            raise CanidsError(f"{path}: column '{name}' has nulls")
        if kind.is_float() and not frame[name].is_finite().all():
            raise CanidsError(f"{path}: column '{name}' holds NaN or infinity")
        for end, low, high in table.bounds:
            if (name == end or (end[0] == "_" and name.endswith(end))) and not frame[name].is_between(low, high).all():
                raise CanidsError(f"{path}: column '{name}' leaves {low:g} to {high:g}; {AGAIN}")
    if table.of_windows and KEYS.keys() <= frame.schema.keys():
        _check_order(frame, path)


def _check_order(frame: pl.DataFrame, path: Path) -> None:
    """Raise `CanidsError` unless windows end after they begin, captures lie in one piece, and each one's windows are in order."""
    capture = frame["capture"].rle_id()
    again = (capture.diff() != 0) & ~frame["capture"].is_first_distinct()
    wrong = again | ((frame["window"].diff() < 0) & (capture.diff() == 0))
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise CanidsError(f"{path}: row {row} ({frame['capture'][row]}): windows are not in order; {AGAIN}")
    if (frame["t_end"] < frame["t_start"]).any():
        raise CanidsError(f"{path}: column 't_end' lies before t_start; {AGAIN}")


def check_columns(path: Path, table: Table, schema: pa.Schema, columns: list[str]) -> None:
    """Raise `CanidsError` naming file and column if one of `columns` is missing in an Arrow schema, or of another type."""
    wanted = pl.DataFrame(schema=table.columns).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    for name in columns:
        if name not in schema.names:
            raise CanidsError(f"{path}: column '{name}' is missing (contract {table.contract})")
        kind, expected = schema.field(name).type, wanted.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if _LARGE.get(kind, kind) != _LARGE.get(expected, expected):
            raise CanidsError(f"{path}: column '{name}' is {kind}, not {expected} (contract {table.contract})")


def _sealed(path: str | Path, table: Table, metadata: dict[str, Any], frame: pl.DataFrame | None = None) -> bytes:
    """The JSON of a table's metadata with its contract and digests; raises `CanidsError` naming a key that breaks the schema."""
    of_rows = {"digests": digests(frame)} if frame is not None and table.is_digested else {}
    return canonical_json(sealed(path, {**metadata, **of_rows}, table.contract)).encode()


def write(path: str | Path, table: Table, frame: pl.DataFrame, metadata: dict[str, Any]) -> None:
    """Check `frame` against the contract and write it whole; `metadata` must be JSON."""
    _check(frame, table.with_detectors(metadata, path), Path(path))
    arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    arrow = arrow.replace_schema_metadata({HEADER_KEY: _sealed(path, table, metadata, frame)})
    with written_whole(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd", row_group_size=1 << 18, write_page_checksum=True)


def _as_arrow(frame: pl.DataFrame) -> pa.Table:
    """The Arrow table of a frame, without a copy: text and bytes in polars's own representation."""
    return frame.to_arrow(compat_level=pl.CompatLevel.newest())


class TableWriter:
    """Writes a table piece by piece; made by `writing`."""

    def __init__(self, path: Path, temporary: Path, table: Table) -> None:
        self._path, self._table = path, table
        # Columns that are never null need no levels; times and payloads hardly compress, and take the longest to.
        arrow = _as_arrow(pl.DataFrame(schema=table.columns)).schema
        self._schema = pa.schema([field.with_nullable(field.name in table.nullable) for field in arrow])
        plain = (pl.Float64, pl.Binary)
        self._writer = pq.ParquetWriter(
            temporary,
            self._schema,
            compression={name: "none" if kind in plain else "lz4" for name, kind in table.columns.items()},
            use_dictionary=[name for name, kind in table.columns.items() if kind == pl.String],
            write_statistics=False,
            write_batch_size=1 << 16,
            store_schema=False,  # text and bytes are views here, and plain for a reader
            write_page_checksum=True,
        )

    def append(self, frame: pl.DataFrame) -> None:
        """Check some rows against the contract and write them as a row group."""
        frame = frame.select([name for name in self._table.columns if name in frame.columns])
        _check(frame, self._table, self._path)
        if len(frame):
            self._writer.write_table(pa.Table.from_arrays(_as_arrow(frame).columns, schema=self._schema))

    def close(self, metadata: dict[str, Any]) -> None:
        """Complete the file; `metadata` must be JSON."""
        self._writer.add_key_value_metadata({HEADER_KEY: _sealed(self._path, self._table, metadata)})
        self._writer.close()

    def abandon(self) -> None:
        """Release the file, whether it was completed or not."""
        self._writer.close()


@contextmanager
def writing(path: str | Path, table: Table) -> Iterator[TableWriter]:
    """Write a table in constant memory; `close` it before leaving. An exception leaves no file behind."""
    with written_whole(path) as temporary:
        writer = TableWriter(Path(path), temporary, table)
        try:
            yield writer
        finally:
            writer.abandon()


def opened(path: str | Path, **how: Any) -> pq.ParquetFile:
    """A Parquet file whose pages are checked as they are read; `how` as pyarrow's `ParquetFile` takes it."""
    return pq.ParquetFile(path, page_checksum_verification=True, **how)


def read_metadata(path: str | Path, table: Table, **wanted: str) -> dict[str, Any]:
    """The metadata of a table file.

    Args:
        path: the file.
        table: its contract.
        wanted: what it must say: `dataset`, `split`, `variant`.

    Raises `CanidsError` if the file is truncated, not Parquet, of another contract, a stand-in, or another one than `wanted`.
    """
    with reading(path, "canids table", pa.ArrowException), opened(path) as file:
        header = check_contract(path, parse_json(file.metadata.metadata[HEADER_KEY.encode()]), table.contract)
        check_digest(path, header)
        check_identity(path, header, **wanted)
        return header


def _as_polars(table: pa.Table) -> pl.DataFrame:
    """The frame of an Arrow table; raises `ValueError` or `ArrowException` for what polars would panic on: odd types, text that is none."""
    if not all(any(is_plain(kind) for is_plain in _PLAIN) for kind in table.schema.types):
        raise ValueError("types")
    table.validate(full=True)
    # Without the metadata of schema and columns, and with names that are text.
    return pl.DataFrame(pa.Table.from_arrays(table.columns, names=table.column_names))


def read(
    path: str | Path, table: Table, columns: list[str] | None = None, **wanted: str
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read and check a table; returns it with its metadata. With `columns`, only these are read and checked; `wanted` as above."""
    header = read_metadata(path, table, **wanted)
    with reading(path, "canids table", pa.ArrowException, pl.exceptions.PolarsError), opened(path) as file:
        present = file.schema_arrow.names  # a column that is missing is named by `_check`
        frame = _as_polars(file.read(columns and [name for name in columns if name in present]))
    _check(frame, table.with_detectors(header, path), Path(path), columns)
    if columns is None and table.is_digested:
        now, written = digests(frame), header["digests"]
        if changed := sorted(c for c in now.keys() | written.keys() if now.get(c) != written.get(c)):
            raise CanidsError(f"{path}: the rows of '{changed[0]}' are not those that were made; {AGAIN}")
    return frame, header
