"""`candump` on a console, as people paste it: `(seconds)  can0  123   [8]  11 22 33 44 55 66 77 88`.

Time (`-t a`, `-t z`, `-t A` with its date, or `-t d`: since the row above) and interface may be missing; `-x` adds `RX - -`, others
write `RX0 123 [8]`, `-a` adds what the bytes are in ASCII, `-S` writes them backwards with "`" between them. An ID of eight digits has 29 bits, a length of two
digits (`[08]`) is that of CAN FD, `{D}` instead of `[8]` the raw DLC of a classical frame with eight bytes. `remote request` and
`ERRORFRAME` say what they are; error messages, with their explanation in lines that begin with a tab, are no frames.

Source: can-utils, `candump.c` and `lib.c` (`sprint_long_canframe`), `man candump`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess.formats.base import MAX_BYTES, MAX_STANDARD_ID, Batch, Format
from canids_preprocess.formats.dialects.clock import Clock, assumed_rate
from canids_preprocess.formats.dialects.numerals import bytes_of
from canids_preprocess.formats.text import first_bytes, head_lines, mostly, read_rows

SHAPE = "'(seconds) interface ID [length] byte ...'"
_HEAD = 1 << 16
_DATE = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?"
_TIME = rf"\(({_DATE}|[-0-9.]+)\)|(\d+\.\d+)"
_DIRECTION = r"(?:(?i:RX|TX|--)\d*\s+(?:[-B]\s+[-E]\s+)?)?"
_LINE = (
    rf"^\s*(?:(?:{_TIME})\s+)?(?:([A-Za-z][\w.:/-]*)\s+{_DIRECTION})?"
    r"([0-9A-Fa-f]{1,8})\s+(?:\[\s*(\d{1,2})\]|\{([9A-Fa-f])\})\s*(.*)$"
)
_SNIFF = rf"^\s*(?:(?:{_TIME})\s+)?(?:[A-Za-z][\w.:/-]*\s+{_DIRECTION})?[0-9A-Fa-f]{{1,8}}\s+(?:\[\s*\d{{1,2}}\]|\{{[9A-Fa-f]\}})(?:\s|$)"
_EVENT = r"ERRORFRAME\s*$|^\t[a-z]|^DROPCOUNT|^interface = |^\S*[$#]?\s*candump\s"
_PARTS = ["bracketed", "bare", "channel", "identifier", "length", "raw_dlc", "data"]


def _is_delta(times: pl.Series) -> bool:
    """Whether times count from the row above: then as many of them are smaller as are larger than the one before."""
    steps = times.cast(pl.Float64, strict=False).drop_nulls().diff().drop_nulls()
    return len(steps) > 3 and 5 * int((steps < 0).sum()) > len(steps)


def _fields(clock: Clock) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def fields(table: pl.DataFrame) -> pl.DataFrame:
        event = table["text"].str.contains(_EVENT)
        rows = table.with_columns(event=event).filter(~pl.col("event"))
        rows = rows.with_columns(f=pl.col("text").str.extract_groups(_LINE).struct.rename_fields(_PARTS)).unnest("f")
        time = pl.coalesce("bracketed", "bare")
        date = time.str.replace("T", " ").str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
        written = rows.select(pl.coalesce(time.cast(pl.Float64, strict=False), date.dt.epoch("us") / 1e6)).to_series()
        data = pl.col("data").str.replace(r"\s+'.*'\s*$", "").str.strip_chars()
        rows = rows.with_columns(
            timestamp=clock.seconds(written),
            # The form, not the time, decides here whether a row is one.
            seconds=pl.when(pl.col("identifier").is_not_null()).then(pl.coalesce(time, pl.lit("-"))),
            extended=(pl.col("identifier").str.len_bytes() == 8)
            | (pl.col("identifier").str.to_integer(base=16, strict=False) > MAX_STANDARD_ID).fill_null(False),
            fd=(pl.col("length").str.len_bytes() == 2).fill_null(False),
            remote=data.str.starts_with("remote request").fill_null(False),
            announced=pl.coalesce(
                pl.col("length").cast(pl.Int64), pl.when(pl.col("raw_dlc").is_not_null()).then(MAX_BYTES[False])
            ),
            data=data,
            # `RX0` is a direction and the number of an interface.
            channel=pl.col("channel").str.replace(r"(?i)^(?:RX|TX)(\d*)$", "${1}").replace("", None),
        )
        data = pl.col("data")
        if rows["data"].str.contains("`", literal=True).any():
            backwards = data.str.split("`").list.reverse().list.join(" ")
            data = pl.when(data.str.contains("`", literal=True)).then(backwards).otherwise(data)
        return rows.with_columns(payload=pl.when("remote").then(pl.lit(b"")).otherwise(bytes_of(data)))

    return fields


def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read what `candump` has written on a console; labels are null.

    Raises `CanidsError` if it has no times and the manifest no `assume_rate`.
    """
    head = head_lines(first_bytes(path, _HEAD)).str.extract_groups(_LINE).struct.rename_fields(_PARTS).struct.unnest()
    rows = head.filter(pl.col("identifier").is_not_null())
    times = rows.select(pl.coalesce("bracketed", "bare")).to_series()
    rate = assumed_rate(path, entry, timed=2 * times.count() > len(rows))
    return read_rows(path, _fields(Clock(delta=_is_delta(times), rate=rate)), SHAPE)


CANDUMP_CONSOLE = Format(
    read, lambda path, beginning: mostly(beginning, rf"{_SNIFF}|{_EVENT}"), labelled=False, untimed=True
)
