"""`can-train-and-test`: CSV with header `timestamp,arbitration_id,data_field,attack` (Lampe and Meng 2023).

Seconds, hexadecimal identifier, packed hexadecimal payload, 0 or 1. This is the format of the large captures, so rows in
the usual spelling are read by a compiled loop at the speed of memory; all others as in the other text formats.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit

from canids_preprocess.formats import spreadsheet
from canids_preprocess.formats.base import (
    FRAME_COLUMNS,
    MAX_BYTES,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    REJECT_COLUMNS,
    Batch,
    Format,
    printable,
)
from canids_preprocess.formats.text import FD_LENGTHS, chunks, frames_and_rejects, head_lines, quoted, trimmed
from canids_shared.errors import CanidsError

HEADER = "timestamp,arbitration_id,data_field,attack"
_ROW = "^([^,]*),([^,]*),([^,]*),([^,]*)$"
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)$"
_EXACT = 1 << 53  # integers up to here are exact in float64

_HEX = np.full(256, 255, np.uint8)
for _digits, _first in ((b"0123456789", 0), (b"abcdef", 10), (b"ABCDEF", 10)):
    _HEX[np.frombuffer(_digits, np.uint8)] = np.arange(_first, _first + len(_digits))
_POWERS = 10.0 ** np.arange(16)  # exact
_LARGEST = (MAX_STANDARD_ID, MAX_EXTENDED_ID)
_LENGTHS = np.isin(np.arange(MAX_BYTES[True] + 1), FD_LENGTHS)


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _parse(  # noqa: PLR0912, PLR0915 (one compiled loop)
    text: np.ndarray,
    timestamp: np.ndarray,
    can_id: np.ndarray,
    extended: np.ndarray,
    label: np.ndarray,
    offset: np.ndarray,
    payload: np.ndarray,
    row: np.ndarray,
    odd: np.ndarray,
    largest: tuple[int, int],
    lengths: np.ndarray,
) -> tuple[int, int]:
    """Parse whole lines; returns the number of frames, and of lines that are not in the usual spelling.

    Frame i lies in line `row[i]` (from 0) and has the bytes `payload[offset[i]:offset[i + 1]]`; line `odd[j, 0]` is
    `text[odd[j, 1]:odd[j, 2]]`. A decimal of at most 15 digits behind the point whose digits make an integer below 2^53
    is that integer divided by a power of ten, both exact, so the quotient is rounded correctly (Clinger 1990).

    `text` ends with a line end. `largest` are the largest IDs of 11 and of 29 bits, `lengths[n]` whether a payload can
    have n bytes: arguments, since Numba's cache does not see that the constants of another file have changed.
    """
    at, lines, frames, others, size = 0, 0, 0, 0, 0
    offset[0] = 0
    # What follows a line's last character is its line end, which no loop over digits passes: none needs to look for the
    # end of the text.
    while at < len(text):
        # Seconds: all digits make one integer, and those behind the point count its power of ten.
        begin = at
        decimals, value = 0, np.int64(0)
        digit = np.int64(text[at]) - 48
        while 0 <= digit <= 9:
            value = value * 10 + digit
            at += 1
            digit = np.int64(text[at]) - 48
        digits = at - begin
        if text[at] == 46:
            at += 1
            digit = np.int64(text[at]) - 48
            while 0 <= digit <= 9:
                value = value * 10 + digit
                at += 1
                decimals += 1
                digit = np.int64(text[at]) - 48
        # Nineteen digits could overflow; more are an odd row.
        good = digits > 0 and digits + decimals <= 18 and decimals < 16 and value < _EXACT and text[at] == 44
        if good:
            at += 1
            # Identifier: up to nine digits are looked at, so that one too many shows.
            first = at
            number = np.int64(0)
            while at - first < 9 and _HEX[text[at]] < 16:
                number = number * 16 + _HEX[text[at]]
                at += 1
            width = at - first
            good = 0 < width <= 8 and number <= largest[1] and text[at] == 44
        if good:
            at += 1
            # Payload: straight to its place behind those of the frames before; an odd row's bytes are overwritten.
            first = at
            while at - first <= 128 and _HEX[text[at]] < 16 and _HEX[text[at + 1]] < 16:
                payload[size + (at - first) // 2] = 16 * _HEX[text[at]] + _HEX[text[at + 1]]
                at += 2
            length = (at - first) // 2
            good = length < len(lengths) and lengths[length] and text[at] == 44 and 48 <= text[at + 1] <= 49
        if good:
            attacked = text[at + 1] - 48
            at += 2
            if text[at] == 13:
                at += 1
            good = text[at] == 10
        if good:
            at += 1
            timestamp[frames] = value / _POWERS[decimals]
            can_id[frames] = number
            # 11-bit identifiers are written with three digits; a longer one is a 29-bit identifier, however small.
            extended[frames] = width > 3 or number > largest[0]
            label[frames] = attacked
            size += length
            row[frames] = lines
            frames += 1
            offset[frames] = size
        else:
            at = begin
            while text[at] != 10:
                at += 1
            odd[others, 0] = lines
            odd[others, 1] = begin
            odd[others, 2] = at
            others += 1
            at += 1
        lines += 1
    return frames, others


def _fields(table: pl.DataFrame) -> pl.DataFrame:
    """Fields of oddly spelt rows, for `frames_and_rejects`."""
    names = ["seconds", "identifier", "data", "attack"]
    rows = table.with_columns(f=pl.col("text").str.extract_groups(_ROW).struct.rename_fields(names)).unnest("f")
    wide = pl.col("identifier").str.to_integer(base=16, strict=False) > MAX_STANDARD_ID
    payload = pl.col("data").str.decode("hex", strict=False)
    return rows.with_columns(
        payload=payload,
        extended=(pl.col("identifier").str.len_bytes() > 3) | wide.fill_null(False),
        fd=(payload.bin.size() > MAX_BYTES[False]).fill_null(False),
        label=pl.col("attack").cast(pl.UInt8, strict=False),
        reason=pl.when(pl.col("seconds").str.contains(_NUMBER).not_())
        .then(quoted("timestamp", "seconds", "is not a number of seconds"))
        .when(pl.col("attack").is_in(["0", "1"]).not_())
        .then(quoted("attack", "attack", "is neither 0 nor 1")),
    )


def _batch(block: bytes | bytearray, line: int, most: int) -> Batch:
    """Batch of a block of whole lines, `most` at most, the first of which is line `line`."""
    block = block if block.endswith(b"\n") else block + b"\n"
    text = np.frombuffer(block, np.uint8)
    timestamp, label = np.empty(most), np.empty(most, np.uint8)
    can_id, extended = np.empty(most, np.uint32), np.empty(most, np.bool_)
    offset, row = np.empty(most + 1, np.int64), np.empty(most, np.int64)
    payload, odd = np.empty(len(text) // 2 + 1, np.uint8), np.empty((most, 3), np.int64)
    n, others = _parse(text, timestamp, can_id, extended, label, offset, payload, row, odd, _LARGEST, _LENGTHS)
    # Arrow's layout of binary values is that of the loop: nothing is copied.
    packed = pa.Array.from_buffers(
        pa.large_binary(), n, [None, pa.py_buffer(offset[: n + 1]), pa.py_buffer(payload[: offset[n]])]
    )
    size = np.diff(offset[: n + 1])
    columns: dict[str, Any] = {
        "line": line + row[:n],
        "timestamp": timestamp[:n],
        "can_id": can_id[:n],
        "extended": extended[:n],
        "remote": pl.repeat(False, n, eager=True),
        "fd": size > MAX_BYTES[False],
        "dlc": size,
        "payload": pl.Series(pl.from_arrow(packed)),
        "channel": pl.repeat(None, n, eager=True),
        "label": label[:n],
    }
    frames = pl.DataFrame(columns).cast(FRAME_COLUMNS)  # type: ignore[arg-type]
    if others:
        text_of = [block[begin:end].decode("latin-1").removesuffix("\r") for _, begin, end in odd[:others].tolist()]
        rows = pl.DataFrame({"line": pl.Series(line + odd[:others, 0], dtype=pl.UInt64), "text": text_of})
        odd_rows = trimmed(frames_and_rejects(_fields(rows), f"'{HEADER}'"), rows, _fields, f"'{HEADER}'")
        return odd_rows._replace(frames=pl.concat([frames, odd_rows.frames]).sort("line"))
    return Batch(frames, pl.DataFrame(schema=REJECT_COLUMNS))


def _names(header: str) -> str:
    """A header without the differences that do not matter: case, and white space around names."""
    return re.sub(r"\s*,\s*", ",", header.strip().lower())


def _read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    for line, most, piece in chunks(path):
        border = 0
        if line == 1:
            header, _, _ = piece.partition(b"\n")
            border = len(header) + 1
            written = header.decode(errors="replace").strip()
            if _names(written) != HEADER:
                raise CanidsError(f"{path}, line 1: header is '{printable(written, 80)}', not '{HEADER}'")
            spreadsheet.refuse(path, header=True)
        if border < len(piece):
            yield _batch(piece[border:] if border else piece, line + (line == 1), most)


CAN_TRAIN_AND_TEST = Format(
    read=_read,
    matches=lambda path, beginning: _names(head_lines(beginning)[0]) == HEADER,
    labelled=True,
)
