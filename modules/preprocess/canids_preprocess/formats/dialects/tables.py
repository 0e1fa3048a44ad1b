"""Logs as tables with a header: a dialect is a declaration of what its columns mean.

- GVRET, as SavvyCAN saves it: `Time Stamp,ID,Extended,Dir,Bus,LEN,D1,…,D8` (older: without `Dir`), µs of a counter that may have 32
  bits and begin again. Source: SavvyCAN, `framefileio.cpp`.
- tab-log: `ParserFlags  Ch  Counter  T/R  Time  Flags  CAN ID  Len  Data …` with tabs, time in ms, bytes in one field behind 0x.
- HCRL Car Hacking: Attack & Defense Challenge: `Timestamp,Arbitration_ID,DLC,Data,Class,SubClass`. Source: Kang, Kwak, Lee, Lee,
  Lee, Kim 2021, "Car Hacking and Defense Competition on In-Vehicle Network".
- DAGA: `timestamp,CAN_ID,DLC,PAYLOAD_HEX,PAYLOAD_BIN,ANOMALY`, the DLC in bits or bytes, IDs that a tool took for numbers with `.0`
  behind them. Source: Stabili, Ferretti, Andreolini, Marchetti 2022, "DAGA: Detecting Attacks to in-vehicle networks via n-Gram Analysis".
- CICIoV2024: `ID,DATA_0,…,DATA_7,label,category,specific_class`, all in decimal, without times. Source: Neto et al. 2024, "CICIoV2024:
  Advancing realistic IDS approaches against DoS and spoofing attack in IoV CAN bus".

Columns are found by their names, whatever their case, order and punctuation. Columns that no declaration names are not read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess.formats.base import MAX_BYTES, MAX_STANDARD_ID, Batch, Format, printable
from canids_preprocess.formats.dialects.clock import Clock, assumed_rate
from canids_preprocess.formats.dialects.numerals import BYTES_IN_HEX, in_hex
from canids_preprocess.formats.text import first_bytes, head_lines, quoted, read_rows
from canids_shared.errors import CanidsError

_HEAD = 1 << 16
_COUNTER_S = 2**32 / 1e6
"""Seconds after which a counter of 32 bits in µs begins again."""
_NORMAL = ("0", "r", "false", "normal", "benign", "attack-free")
_ATTACKED = ("1", "t", "true", "attack", "attacked", "anomaly")
"""Labels in small letters."""


@dataclass(frozen=True)
class Table:
    """What the columns of a table mean; names in small letters and digits, without anything else.

    Attributes:
        columns: names by which it is recognised.
        identifier: column of the arbitration ID.
        time: column of the time; absent from the file where it has none.
        per_second: units of time in a second.
        counter: seconds after which the time begins again at 0, or None.
        length: column of the payload's length; None: it has as many bytes as are there.
        data: column of the whole payload in hexadecimal, or the name that a number follows in a column for each byte.
        bytes_apart: whether each byte has a column.
        decimal: whether IDs and bytes are decimal.
        extended, channel, label: columns of these, or None.
    """

    columns: frozenset[str]
    identifier: str
    data: str
    time: str = "timestamp"
    per_second: float = 1.0
    counter: float | None = None
    length: str | None = "dlc"
    bytes_apart: bool = False
    decimal: bool = False
    extended: str | None = None
    channel: str | None = None
    label: str | None = None


GVRET_TABLE = Table(
    columns=frozenset({"timestamp", "id", "extended", "bus", "len", "d1"}),
    identifier="id",
    data="d",
    per_second=1e6,
    counter=_COUNTER_S,
    length="len",
    bytes_apart=True,
    extended="extended",
    channel="bus",
)
TAB_LOG_TABLE = Table(
    columns=frozenset({"ch", "tr", "time", "flags", "canid", "len", "data"}),
    identifier="canid",
    data="data",
    time="time",
    per_second=1e3,
    length="len",
    channel="ch",
)
CHALLENGE_TABLE = Table(
    columns=frozenset({"timestamp", "arbitrationid", "dlc", "data", "class"}),
    identifier="arbitrationid",
    data="data",
    label="class",
)
DAGA_TABLE = Table(
    columns=frozenset({"timestamp", "canid", "dlc", "payloadhex"}),
    identifier="canid",
    data="payloadhex",
    label="anomaly",
)
CICIOV_TABLE = Table(
    columns=frozenset({"id", "data0", "data7", "label"}),
    identifier="id",
    data="data",
    length=None,
    bytes_apart=True,
    decimal=True,
    label="label",
)


def _header(text: str) -> tuple[str, list[str]]:
    """The delimiter of a header, and the names between."""
    delimiter = max(("\t", ";", ","), key=text.count)
    return delimiter, [re.sub("[^a-z0-9]", "", name.lower()) for name in text.split(delimiter)]


def _matches(table: Table, beginning: bytes) -> bool:
    return table.columns <= set(_header(head_lines(beginning)[0])[1])


def _as_written(identifier: pl.Expr, rows: pl.DataFrame) -> pl.Expr:
    """IDs of 11 bits such as 1E5 again, which a tool took for 100000.0; 1E2 and less may be others."""
    if not rows.select(identifier.str.ends_with("000.0").any()).item():
        return identifier
    for zeros in range(3, 10):
        identifier = identifier.str.replace(rf"^([1-9])0{{{zeros}}}\.0$", f"${{1}}E{zeros}")
    return identifier


class _Reader:
    """Fields of the rows of one file, for `read_rows`."""

    def __init__(self, table: Table, delimiter: str, names: list[str], clock: Clock) -> None:
        self._table, self._delimiter, self._clock = table, delimiter, clock
        # As many fields as the header has, and what is beyond them.
        self._fields = [*(f"{number}" for number in range(len(names))), "beyond"]
        self._place = {name: f"{number}" for number, name in reversed(list(enumerate(names))) if name}
        numbered = re.compile(rf"{table.data}(\d+)")
        apart = {int(m[1]): self._place[name] for name in names if (m := numbered.fullmatch(name))}
        self._bytes = [apart[number] for number in sorted(apart)] if table.bytes_apart else []

    def fields(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The columns that `frames_and_rejects` reads."""
        d, table = re.escape(self._delimiter), self._table
        rows = rows.with_columns(
            f=pl.col("text").str.splitn(self._delimiter, len(self._fields)).struct.rename_fields(self._fields)
        ).unnest("f")
        used = {place for name, place in self._place.items() if name in self._names()} | set(self._bytes)
        rows = rows.with_columns(
            # Behind a tab a blank is part of some layouts, and not remarkable.
            trimmed=pl.col("text").str.contains(rf"[ \t]{d}|{d}[ \t]|^[ \t]|[ \t]$") if d == "," else pl.lit(False),
            **{place: pl.col(place).str.strip_chars(' \t"') for place in used},
        )
        time, label, identifier = (self._column(name) for name in (table.time, table.label, table.identifier))
        written = rows.with_columns(written=time.cast(pl.Float64, strict=False))["written"]
        # NumPy rounds a quotient correctly; polars multiplies by the reciprocal.
        written = pl.Series(written.to_numpy() / table.per_second, nan_to_null=True)
        text = label.str.to_lowercase()
        rows = rows.with_columns(
            timestamp=self._clock.seconds(written),
            seconds=pl.when(identifier.is_not_null()).then(time.fill_null("-")),
            identifier=_as_written(identifier, rows).str.replace("^0[xX]", "").str.replace(r"\.0$", ""),
            channel=self._column(table.channel),
            written_label=label,
            label=pl.when(text.is_in(_ATTACKED)).then(1).when(text.is_in(_NORMAL)).then(0).cast(pl.UInt8),
            length=self._column(table.length),
        )
        rows = rows.with_columns(in_hex(rows["identifier"], pl.repeat(table.decimal, len(rows), eager=True)))
        return self._checked(self._with_payload(rows.with_columns(extended=self._extended())))

    def _names(self) -> set[str | None]:
        t = self._table
        return {t.time, t.identifier, t.data, t.length, t.extended, t.channel, t.label}

    def _column(self, name: str | None) -> pl.Expr:
        place = self._place.get(name or "")
        return pl.lit(None, dtype=pl.String) if place is None else pl.col(place)

    def _extended(self) -> pl.Expr:
        if self._table.extended in self._place:
            return self._column(self._table.extended).str.to_lowercase().is_in(["true", "1"]).fill_null(False)
        number = pl.col("identifier").str.to_integer(base=16, dtype=pl.Int64, strict=False)
        return (number > MAX_STANDARD_ID).fill_null(False)

    def _with_payload(self, rows: pl.DataFrame) -> pl.DataFrame:
        written = pl.col("length").cast(pl.Int64, strict=False)
        if not self._table.bytes_apart:
            text = self._column(self._table.data).fill_null("").str.replace("^0[xX]", "")
            whole = text.str.contains(r"^(?:[0-9A-Fa-f]{2} *)*$")
            payload = pl.when(whole).then(text.str.replace_all(" ", "").str.decode("hex", strict=False))
            rows = rows.with_columns(payload=payload, data=text)
            size = pl.col("payload").bin.size().cast(pl.Int64)
            in_bits = (written == 8 * size) & (size > 0)
            return rows.with_columns(
                announced=pl.when(in_bits).then(size).otherwise(written), beyond_length=pl.lit(False)
            )
        # A column a byte: those within the length make the payload, the others hold nothing, or zeros of copies that pad.
        columns = [pl.col(place).fill_null("") for place in self._bytes]
        within = [(written > number).fill_null(self._table.length is None) for number in range(len(columns))]
        spelt = [
            c.replace_strict(BYTES_IN_HEX, default="?") if self._table.decimal else c.str.zfill(2) for c in columns
        ]
        digits = [
            pl.when(inside & (column != "")).then(text).otherwise(pl.lit(""))
            for inside, column, text in zip(within, columns, spelt, strict=True)
        ]
        more = [~inside & column.is_in(["", "0", "00"]).not_() for inside, column in zip(within, columns, strict=True)]
        return rows.with_columns(
            payload=pl.concat_str(digits).str.decode("hex", strict=False),
            data=pl.concat_str(columns, separator=" ").str.strip_chars_end(" "),
            announced=written,
            beyond_length=pl.any_horizontal(more),
        )

    def _checked(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Reasons of the faults that only a table has."""
        beyond = pl.col("beyond").fill_null("").str.strip_chars(f" \t{self._delimiter}") != ""
        size = pl.col("payload").bin.size()
        reason: Any = pl.when(beyond).then(pl.lit("more fields than the header has"))
        if self._table.length:
            not_a_length = pl.col("length").str.contains("^[0-9]{1,3}$").fill_null(False).not_()
            reason = reason.when(not_a_length).then(quoted("length", "length", "is not a number of bytes"))
            reason = reason.when("beyond_length").then(quoted("payload", "data", "has more bytes than the length says"))
        if self._table.label in self._place:
            bad = pl.col("label").is_null()
            reason = reason.when(bad).then(quoted("label", "written_label", "is neither normal nor attack"))
        return rows.with_columns(
            reason=pl.when(pl.col("seconds").is_not_null()).then(reason),
            fd=(size > MAX_BYTES[False]).fill_null(False),
        )


def _refuse_backwards(path: Path, table: Table, delimiter: str, place: int) -> None:
    """Raise `CanidsError` if most of the first times are smaller than the one above."""
    rows = head_lines(first_bytes(path, _HEAD))[1:].str.split(delimiter).list.get(place, null_on_oob=True)
    steps = rows.str.strip_chars().cast(pl.Float64, strict=False).drop_nulls().diff().drop_nulls()
    if len(steps) > 3 and 10 * int((steps < 0).sum()) > 9 * len(steps):
        raise CanidsError(
            f"{path}: times count backwards, the newest frame comes first; turn the rows round below the header (tac)"
        )


def reader_of(table: Table) -> Any:
    """The reader of a dialect.

    It raises `CanidsError` if the header lacks a column, times count backwards from row to row, or there are none and the manifest
    has no `assume_rate`.
    """

    def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
        first = head_lines(first_bytes(path, _HEAD))[0]
        delimiter, names = _header(first)
        if lacking := sorted(table.columns - set(names)):
            raise CanidsError(f"{path}, line 1: no column {', '.join(lacking)} in the header '{printable(first, 80)}'")
        rate = assumed_rate(path, entry, timed=table.time in names)
        if rate is None:
            _refuse_backwards(path, table, delimiter, names.index(table.time))
        reader = _Reader(table, delimiter, names, Clock(period=table.counter, rate=rate))
        return read_rows(path, reader.fields, f"'{printable(first, 80)}'", header=True)

    return read


def _format(table: Table, untimed: bool = False, unit_known: bool = False) -> Format:
    return Format(
        reader_of(table),
        lambda path, beginning: _matches(table, beginning),
        labelled=bool(table.label),
        untimed=untimed,
        unit_known=unit_known,
    )


GVRET, TAB_LOG = (_format(table, unit_known=True) for table in (GVRET_TABLE, TAB_LOG_TABLE))
HCRL_CHALLENGE, DAGA = map(_format, (CHALLENGE_TABLE, DAGA_TABLE))
CICIOV = _format(CICIOV_TABLE, untimed=True)
