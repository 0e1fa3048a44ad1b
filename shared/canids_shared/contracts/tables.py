"""The Parquet contracts between the stages: `frames`, `states`, `decisions`.

Each is written and read by one pair of functions and checked on both sides: a wrong version, a missing column, a null
or a NaN where none may be, or a truncated file is a `CanidsError` that names the file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from canids_shared.contracts.detectors import declared
from canids_shared.contracts.whole import AGAIN, check_contract, reading
from canids_shared.errors import CanidsError
from canids_shared.files import HEADER_KEY, canonical_json, written_whole

_LARGE = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
"""Arrow has two representations of text and of bytes; either may stand in a file."""

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
    """SHA-256 of the rows of each capture in a table of windows, by the capture's name.

    `decisions` carry them in their metadata (`digests`), and `read` refuses rows changed or exchanged between captures.
    """
    by_capture = {}
    for (capture,), rows in frame.group_by("capture", maintain_order=True):
        sha256 = hashlib.sha256()
        for name in sorted(frame.columns):
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
    """

    contract: str
    columns: dict[str, Any]
    nullable: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    of_detector: tuple[str, ...] = ()
    outputs_of_detectors: bool = False

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
    "frames/1",
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
)
REJECTS = Table("rejects/1", {"line": pl.UInt64, "reason": pl.String, "text": pl.String})
"""Rows of a raw capture that are no frames: line (or record), reason and text."""
STATES = Table("states/2", KEYS, nullable=frozenset({"label"}), of_detector=("score",), outputs_of_detectors=True)
DECISIONS = Table(
    "decisions/2",
    {**KEYS, "fusion_score": pl.Float32, "alarm": pl.Boolean, "action": pl.Int16},
    nullable=frozenset({"label"}),
    prefixes=("baseline_", "q_"),
    of_detector=("decided",),
)


def _check(frame: pl.DataFrame, table: Table, path: Path, wanted: list[str] | None = None) -> None:
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


def write(path: str | Path, table: Table, frame: pl.DataFrame, metadata: dict[str, Any]) -> None:
    """Check `frame` against the contract and write it whole; `metadata` must be JSON."""
    _check(frame, table.with_detectors(metadata, path), Path(path))
    header = canonical_json({**metadata, "contract": table.contract})
    with written_whole(path) as temporary:
        frame.write_parquet(temporary, metadata={HEADER_KEY: header}, row_group_size=1 << 18)


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
        )

    def append(self, frame: pl.DataFrame) -> None:
        """Check some rows against the contract and write them as a row group."""
        frame = frame.select([name for name in self._table.columns if name in frame.columns])
        _check(frame, self._table, self._path)
        if len(frame):
            self._writer.write_table(pa.Table.from_arrays(_as_arrow(frame).columns, schema=self._schema))

    def close(self, metadata: dict[str, Any]) -> None:
        """Complete the file; `metadata` must be JSON."""
        self._writer.add_key_value_metadata(
            {HEADER_KEY: canonical_json({**metadata, "contract": self._table.contract})}
        )
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


def read_metadata(path: str | Path, table: Table) -> dict[str, Any]:
    """The metadata of a table file.

    Raises `CanidsError` if the file is truncated, not Parquet, of another contract, or a stand-in.
    """
    with reading(path, "canids table", pl.exceptions.PolarsError):
        return check_contract(path, json.loads(pl.read_parquet_metadata(path)[HEADER_KEY]), table.contract)


def read(path: str | Path, table: Table, columns: list[str] | None = None) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read and check a table; returns it with its metadata. With `columns`, only these are read and checked."""
    header = read_metadata(path, table)
    with reading(path, "canids table", pl.exceptions.PolarsError):
        present = pl.read_parquet_schema(path)  # polars would not name a column that is missing: `_check` does
        frame = pl.read_parquet(path, columns=columns and [name for name in columns if name in present])
    _check(frame, table.with_detectors(header, path), Path(path), columns)
    if columns is None and "digests" in header:
        with reading(path, "canids table", pl.exceptions.PolarsError):
            now, written = digests(frame), dict(header["digests"])
        if changed := sorted(c for c in now.keys() | written.keys() if now.get(c) != written.get(c)):
            raise CanidsError(f"{path}: the rows of '{changed[0]}' are not those that were made; {AGAIN}")
    return frame, header
