"""CSV as python-can's `CSVWriter` writes it: `timestamp,arbitration_id,extended,remote,error,dlc,data`.

Seconds, hexadecimal ID with `0x`, 0 or 1 three times, bytes in decimal, payload in base64. Rows of error frames are no
frames. Payloads longer than eight bytes are CAN FD: the format has no field for it. Source: python-can, `can.CSVWriter`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess.formats import spreadsheet
from canids_preprocess.formats.base import MAX_BYTES, Batch, Format, printable
from canids_preprocess.formats.text import first_bytes, head_lines, quoted, read_rows
from canids_shared.errors import CanidsError

HEADER = "timestamp,arbitration_id,extended,remote,error,dlc,data"
_ROW = r"^([^,]*),([^,]*),([^,]*),([^,]*),([^,]*),([^,]*),([^,]*)$"
_NAMES = ["seconds", "identifier", "is_extended", "is_remote", "is_error", "length", "data"]


def _fields(table: pl.DataFrame) -> pl.DataFrame:
    flags = [pl.col(name) for name in ("is_extended", "is_remote", "is_error")]
    bad_flag = pl.any_horizontal(flag.is_in(["0", "1"]).not_() for flag in flags)
    rows = table.with_columns(f=pl.col("text").str.extract_groups(_ROW).struct.rename_fields(_NAMES)).unnest("f")
    return rows.with_columns(
        pl.col("identifier").str.strip_prefix("0x"),
        announced=pl.col("length").cast(pl.Int64, strict=False),
        payload=pl.col("data").str.decode("base64", strict=False),
        extended=pl.col("is_extended") == "1",
        remote=(pl.col("is_remote") == "1").fill_null(False),
        event=(pl.col("is_error") == "1") & ~bad_flag,
        reason=pl.when(bad_flag)
        .then(pl.lit("extended, remote and error must be 0 or 1"))
        .when(pl.col("length").str.contains("^[0-9]{1,2}$").not_())
        .then(quoted("dlc", "length", "is not a number of bytes")),
    ).with_columns(fd=(pl.col("payload").bin.size() > MAX_BYTES[False]).fill_null(False))


def _first_line(beginning: bytes) -> str:
    text: str = head_lines(beginning)[0]
    return text.strip()


def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read python-can's CSV; labels are null.

    Raises `CanidsError` if the header is another, or a spreadsheet has saved the file.
    """
    first = _first_line(first_bytes(path))
    if first != HEADER:
        raise CanidsError(f"{path}, line 1: header is '{printable(first, 80)}', not '{HEADER}'")
    spreadsheet.refuse(path, header=True)
    return read_rows(path, _fields, f"'{HEADER}'", header=True, trim=True)


PYTHON_CAN_CSV = Format(read, lambda path, beginning: _first_line(beginning) == HEADER, labelled=False)
