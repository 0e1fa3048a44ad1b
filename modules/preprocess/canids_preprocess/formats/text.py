"""Shared by the readers of text formats: lines in constant memory, and rows of fields to frames and rejects."""

import logging
import re
from collections.abc import Callable, Iterator
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from canids_preprocess.formats.base import (
    BOM,
    FRAME_COLUMNS,
    LONGEST_LINE,
    MAX_BYTES,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    MAX_TEXT,
    PER_SECOND,
    REJECT_COLUMNS,
    ROWS_A_BATCH,
    Batch,
    Piece,
)
from canids_preprocess.formats.compressed import open_capture
from canids_preprocess.formats.growing import Growing
from canids_preprocess.formats.plain_lines import plain_frames
from canids_shared.errors import CanidsError

FD_LENGTHS = (*range(9), 12, 16, 20, 24, 32, 48, 64)
"""Payload bytes that a CAN FD frame can have (ISO 11898-1:2015, table 5)."""
_CHUNK = 1 << 23
_EXCERPT = 40
_DEFAULTS: dict[str, pl.Expr] = {
    **dict.fromkeys(("extended", "remote", "fd"), pl.lit(False)),
    **dict.fromkeys(("channel", "reason"), pl.lit(None, dtype=pl.String)),
    "announced": pl.lit(None, dtype=pl.Int64),
    "label": pl.lit(None, dtype=pl.UInt8),
}
"""Fields of a format that does not write them."""
log = logging.getLogger(__name__)


def first_bytes(path: Path, size: int = 1 << 12) -> bytes:
    """Beginning of a file, `size` bytes at most. Raises `CanidsError` if the file is absent or empty."""
    if not path.is_file():
        raise CanidsError(f"{path}: no such file; is data_root right?")
    with open_capture(path) as stream:
        beginning = stream.read(size)
    if not beginning:
        raise CanidsError(f"{path}: the file is empty")
    return beginning


def _pieces(path: Path) -> Iterator[Piece]:
    """As `chunks`, with the empty lines that the file ends with."""
    if isinstance(path, Growing):
        yield from path.pieces()
        return
    with open_capture(path) as stream:
        if stream.peek(len(BOM)).startswith(BOM):
            stream.read(len(BOM))
        line = 1
        while True:
            # One buffer for a piece and the rest of its last line: neither is copied.
            piece = bytearray(_CHUNK + LONGEST_LINE + 1)
            size = stream.readinto(memoryview(piece)[:_CHUNK])
            if not size:
                return
            if piece[size - 1] != ord("\n"):
                tail = stream.readline(LONGEST_LINE + 1)
                piece[size : size + len(tail)] = tail
                size += len(tail)
            del piece[size:]
            begun = piece.rfind(b"\n", 0, len(piece) - 1) + 1
            if len(piece) - begun - piece.endswith(b"\n") > LONGEST_LINE:
                line += piece.count(b"\n", 0, begun)
                raise CanidsError(f"{path}, line {line}: longer than {LONGEST_LINE} bytes; this is no capture in text")
            # Where lines are short, many times as fast as `bytes.count`.
            ends = int(np.count_nonzero(np.frombuffer(piece, np.uint8) == ord("\n")))
            yield Piece(line, ends + 1, piece)
            line += ends


def _end_of_content(piece: bytes | bytearray) -> int:
    """Where the empty lines begin that a piece ends with; its length if it ends with none."""
    end = len(piece)
    while end:
        begin = piece.rfind(b"\n", 0, end - 1) + 1
        if piece[begin:end] not in (b"\n", b"\r\n", b"\r"):
            break
        end = begin
    return end


def chunks(path: Path) -> Iterator[Piece]:
    """Pieces of a file that end at line borders.

    The byte order mark, and empty lines at the end of the file, are left out. Pieces of a log that is still being written
    (`Growing`) come as they are written. Raises `CanidsError` if the file is absent or empty, or the last line of a piece
    is longer than `LONGEST_LINE`.
    """
    first_bytes(path)
    content, empty = False, b""
    for line, most, piece in _pieces(path):
        end = _end_of_content(piece)
        # Empty lines are held back until a line with content follows: only then are they rows, which cannot be read.
        if end:
            if empty:
                yield Piece(line - empty.count(b"\n"), empty.count(b"\n"), empty)
            yield Piece(line, most, piece[:end] if end < len(piece) else piece)
            content, empty = True, b""
        empty += piece[end:]
    if not content:
        raise CanidsError(f"{path}: nothing but empty lines")


def lines(path: Path) -> Iterator[pl.DataFrame]:
    """Columns `line` (from 1) and `text` of a file, at most `ROWS_A_BATCH` lines at a time, line ends left out.

    What follows the last line end is a line if it is not empty. Bytes that are no ASCII become characters that no format
    allows, so their lines end up as rejects. Raises as `chunks`.
    """
    for first, _, piece in chunks(path):
        yield from _tables(first, piece)


def _tables(first: int, piece: bytes | bytearray) -> Iterator[pl.DataFrame]:
    """As `lines`, of a piece whose first line has the number `first`."""
    raw = piece if piece.endswith(b"\n") else piece + b"\n"
    raw = raw if raw.isascii() else raw.decode("latin-1").encode()
    ends = np.flatnonzero(np.frombuffer(raw, np.uint8) == ord("\n"))
    borders = np.concatenate([[0], ends + 1]).astype(np.int64)
    # Arrow strings that share the piece's memory: ten times as fast as splitting it.
    strings = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(borders), pa.py_buffer(raw))
    table = (
        pl.DataFrame({"text": pl.Series(strings, dtype=pl.String)})
        .with_row_index("line", offset=first)
        .select(pl.col("line").cast(pl.UInt64), pl.col("text").str.strip_suffix("\n").str.strip_suffix("\r"))
    )
    for start in range(0, len(table), ROWS_A_BATCH):
        yield table[start : start + ROWS_A_BATCH]


def head_lines(beginning: bytes) -> pl.Series:
    """The whole lines among the first bytes of a file (the first one, whole or not, if there is no other)."""
    parts = beginning.removeprefix(BOM).split(b"\n")
    whole = parts[:-1] or parts
    return pl.Series("text", [line.removesuffix(b"\r").decode("latin-1") for line in whole], dtype=pl.String)


def mostly(beginning: bytes, pattern: str) -> bool:
    """Whether more than half of the first lines that are not empty match a regular expression."""
    first = head_lines(beginning)
    first = first.filter(first != "")
    return len(first) > 0 and 2 * int(first.str.contains(pattern).sum()) > len(first)


def plain(text: pl.Expr, length: int = MAX_TEXT) -> pl.Expr:
    """`text` on one line of bounded length in printable ASCII."""
    return text.str.slice(0, length).str.replace_all(r"[^\x20-\x7e]", "�")


def quoted(what: str, column: str, complaint: str) -> pl.Expr:
    """A reason that quotes a column: `what 'text' complaint`."""
    return pl.format(f"{what} '{{}}' {complaint}", pl.col(column).fill_null("").str.slice(0, _EXCERPT))


def _checks(shape: str) -> list[tuple[pl.Expr, pl.Expr]]:
    """Conditions that make a row of fields a reject (null counts as false), each with the reason; the first one counts."""
    size = pl.col("payload").bin.size()
    return [
        (pl.col("reason").is_not_null(), pl.col("reason")),
        (pl.col("seconds").is_null(), pl.lit(f"not of the form {shape}")),
        (
            pl.col("timestamp").is_finite().fill_null(False).not_(),
            quoted("timestamp", "seconds", "is not a number of seconds"),
        ),
        (
            pl.col("identifier").str.contains("^[0-9A-Fa-f]{1,8}$").fill_null(False).not_(),
            quoted("arbitration ID", "identifier", "is not a hexadecimal number"),
        ),
        (pl.col("can_id") > MAX_EXTENDED_ID, quoted("arbitration ID", "identifier", "has more than 29 bits")),
        (
            (pl.col("can_id") > MAX_STANDARD_ID) & ~pl.col("extended"),
            quoted("arbitration ID", "identifier", "has more than 11 bits"),
        ),
        (pl.col("payload").is_null(), quoted("payload", "data", "is not a row of bytes")),
        (
            (size != pl.col("announced")) & ~pl.col("remote"),
            pl.format("{} payload bytes, but a DLC of {}", size, "announced"),
        ),
        (
            ~pl.col("fd") & (pl.max_horizontal(size, "announced") > MAX_BYTES[False]),
            pl.lit(f"more than the {MAX_BYTES[False]} payload bytes of classical CAN"),
        ),
        (
            pl.col("fd") & size.is_in(FD_LENGTHS).not_(),
            pl.format("no CAN FD frame has {} payload bytes", size),
        ),
    ]


def frames_and_rejects(rows: pl.DataFrame, shape: str) -> Batch:
    """Check rows of fields and make frames of them.

    Args:
        rows: `line`, `text` (the whole line) and the fields that the format has. Strings: `seconds` (null if the line is
            not of the format's form), `identifier` in hexadecimal, `data` as written, `channel`, `reason` (not null if
            the format knows a fault of its own). `timestamp` where `seconds` are in another unit or count from elsewhere.
            `payload` binary, null where `data` cannot be decoded; `announced` its
            length in bytes as the row states it, null where it does not; booleans `extended`, `remote`, `fd`; `label`.
            Those of `_DEFAULTS` may be absent.
        shape: the form of a row, for the reason of a line that has another.
    """
    rows = rows.with_columns(value.alias(name) for name, value in _DEFAULTS.items() if name not in rows.columns)
    if "timestamp" not in rows.columns:
        rows = rows.with_columns(timestamp=pl.col("seconds").cast(pl.Float64, strict=False))
    rows = rows.with_columns(
        can_id=pl.col("identifier").str.to_integer(base=16, dtype=pl.Int64, strict=False),
        announced=pl.col("announced").cast(pl.Int64),
    )
    checks = _checks(shape)
    # One pass finds whether any check holds; reasons are worked out for the few rows of which one does.
    wrong = rows.select(reduce(or_, (condition.fill_null(False) for condition, _ in checks))).to_series()
    rejects = pl.DataFrame(schema=REJECT_COLUMNS)
    if wrong.any():
        # From the last check to the first, so that the first one that holds gives the reason.
        reason: pl.Expr = pl.lit(None, dtype=pl.String)
        for condition, message in reversed(checks):
            reason = pl.when(condition.fill_null(False)).then(message).otherwise(reason)
        rejects = rows.filter(wrong).select("line", reason=plain(reason), text=plain(pl.col("text")))
        rows = rows.filter(~wrong)
    # A remote frame carries no payload: its DLC is the length that it asks for.
    dlc = pl.when("remote").then(pl.col("announced").fill_null(0)).otherwise(pl.col("payload").bin.size())
    payload = pl.when("remote").then(pl.lit(b"")).otherwise("payload")
    frames = rows.with_columns(dlc=dlc, payload=payload).select(
        pl.col(name).cast(kind) for name, kind in FRAME_COLUMNS.items()
    )
    return Batch(frames, rejects)


def trimmed(batch: Batch, table: pl.DataFrame, fields: Callable[[pl.DataFrame], pl.DataFrame], shape: str) -> Batch:
    """The batch with those of its rejects as frames that only white space or quotes around fields (at commas) kept from being one.

    Args:
        batch: made of `table`, whose `line` and `text` are looked at again.
        table, fields, shape: as in `read_rows`; `fields` keeps no state.
    """
    text = pl.col("text").str.replace_all(r"[ \t]*,[ \t]*", ",").str.strip_chars(" \t")
    text = text.str.replace_all(r'"([^",]*)"', "${1}")
    spaced = table.filter(pl.col("line").is_in(batch.rejects["line"].implode()) & (text != pl.col("text")))
    if spaced.is_empty():
        return batch
    found = frames_and_rejects(fields(spaced.with_columns(text)), shape).frames
    rejects = batch.rejects.filter(~pl.col("line").is_in(found["line"].implode()))
    return Batch(pl.concat([batch.frames, found]).sort("line"), rejects, len(found))


def _plain_or_not(path: Path, plain: re.Pattern[str]) -> Iterator[Batch | pl.DataFrame]:
    """The pieces of a log: as frames where all of its lines are plain, else as `lines`."""
    for first, most, piece in chunks(path):
        batch = plain_frames(first, most, piece, plain)
        yield from [batch] if batch else _tables(first, piece)


def read_rows(
    path: Path,
    fields: Callable[[pl.DataFrame], pl.DataFrame],
    shape: str,
    header: bool = False,
    trim: bool = False,
    plain: re.Pattern[str] | None = None,
) -> Iterator[Batch]:
    """Batches of a text file.

    Args:
        path: the file.
        fields: adds to `line` and `text` the columns that `frames_and_rejects` reads; and `event` where the format has
            lines about something else than a frame (error frames): they are no rows, and counted in the log.
        shape: the form of a row, for messages.
            `trimmed` says of which rows it has trimmed the fields.
        header: whether the first line is a header.
        trim: whether rejects are looked at again without white space and quotes around their fields (`trimmed`).
        plain: lines that are certainly frames, for logs that are followed (`plain_lines`).

    Raises as `chunks`.
    """
    events = 0
    for table in _plain_or_not(path, plain) if plain and isinstance(path, Growing) else lines(path):
        if isinstance(table, Batch):
            yield table
            continue
        rows = table.filter(pl.col("line") > 1) if header else table
        rows = fields(rows)
        # Written by a spreadsheet, and then without the last digits.
        exponent = pl.col("seconds").str.contains("[eE]")
        if rows.select(exponent.any()).item():
            complaint = quoted("timestamp", "seconds", "is not a number of seconds")
            known = ["reason"] if "reason" in rows.columns else []
            rows = rows.with_columns(reason=pl.coalesce(*known, pl.when(exponent).then(complaint)))
        if "event" in rows.columns:
            kept = ~rows["event"].fill_null(False)
            events += len(rows) - int(kept.sum())
            rows = rows.filter(kept)
        batch = frames_and_rejects(rows, shape)
        if "trimmed" in rows.columns:
            spaced = rows.filter("trimmed")["line"].implode()
            batch = batch._replace(trimmed=int(batch.frames["line"].is_in(spaced).sum()))
        yield trimmed(batch, table, fields, shape) if trim and len(batch.rejects) else batch
    report_events(path, events)


def labelled(
    batches: Iterator[Batch], attacked: Callable[[pl.Expr], pl.Expr] | None, unit: str | None
) -> Iterator[Batch]:
    """The batches of a file with label 1 for attacked frames, else 0; as they are if `attacked` is None.

    Args:
        batches: of the whole file.
        attacked: condition, given the seconds since the first frame, to the microsecond.
        unit: of the timestamps (`timestamp_unit` of the manifest's entry).
    """
    per_second = PER_SECOND[unit or "s"]
    start: float | None = None
    for batch in batches:
        if attacked and len(batch.frames):
            start = batch.frames["timestamp"][0] if start is None else start
            label = attacked(((pl.col("timestamp") - start) / per_second).round(6)).cast(pl.UInt8)
            yield batch._replace(frames=batch.frames.with_columns(label=label))
        else:
            yield batch


def report_events(path: Path, events: int) -> None:
    """Log how many entries of a file are about something else than a frame."""
    if events:
        log.info(
            "%s: %d events of the logger (error frames, bus status, notes) are no frames and left out", path, events
        )
