"""Logs of one frame a line, each dialect a regular expression: OVMS CRTD, BUSMASTER, CrySyS.

- CRTD: `seconds 1R11 ID byte …`: bus (may be missing), R or T for received or sent, bits of the ID. Records `C…` are comments.
  Source: Open Vehicles, "CRTD CAN Log Format" (versions 1.0 to 3.1).
- BUSMASTER: `hh:mm:ss:tttt Rx 1 0x0C9 s 8 byte …`, the last part of the time in 100 µs; s and x are IDs of 11 and 29 bits, sr and xr
  remote frames. The header says whether numbers are hexadecimal (`***HEX***`) or decimal, and times those of the day (`SYSTEM`), of
  the measurement (`ABSOLUTE`) or since the row above (`RELATIVE MODE`). Source: BUSMASTER, `LogObjectCAN.cpp`.
- CrySyS: `seconds ID 000 DLC byte …`; the field behind the ID is 100 for a remote frame, as in OTIDS. Source: Gazdag, Ferenc,
  Buttyán 2023, "CrySyS dataset of CAN traffic logs containing fabrication and masquerade attacks".
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess.formats.base import MAX_BYTES, MAX_STANDARD_ID, Batch, Format
from canids_preprocess.formats.dialects.clock import Clock
from canids_preprocess.formats.dialects.numerals import BYTES_IN_HEX, bytes_of, in_hex
from canids_preprocess.formats.text import mostly, read_rows

_DAY_S = 86400.0
_DATA = pl.col("data").fill_null("").str.strip_chars()
_CRTD = r"^\s*(\d+(?:\.\d+)?)\s+(\d*)([RT])(11|29)\s+([0-9A-Fa-f]+)(?:\s+(.*))?$"
_CRTD_EVENT = r"^\s*\d+(?:\.\d+)?\s+\d*C[A-Z]{2}(?:\s|$)"
_BUSMASTER = r"^\s*(\d+):(\d+):(\d+):(\d+)\s+(?:Rx|Tx)\s+(\S+)\s+(\S+)\s+([sxSX][rR]?)\s+(\d+)(?:\s+(.*))?$"
_BUSMASTER_HEADER = r"^\s*\*\*\*"
_BUSMASTER_EVENT = r"(?i)^\s*[\d:]+\s+.*\b(ERR|Error)\b"
_CRYSYS = r"^\s*(\d+(?:\.\d+)?)\s+([0-9A-Fa-f]{3,8})\s+(000|100)\s+(\d{1,2})(?:\s+(.*))?$"


def _decimal_payload() -> pl.Expr:
    tokens = _DATA.str.extract_all(r"\S+")
    return (
        tokens.list.eval(pl.element().replace_strict(BYTES_IN_HEX, default="?"))
        .list.join("")
        .str.decode("hex", strict=False)
    )


def _groups(table: pl.DataFrame, pattern: str, *names: str) -> pl.DataFrame:
    return table.with_columns(f=pl.col("text").str.extract_groups(pattern).struct.rename_fields(list(names))).unnest(
        "f"
    )


def read_crtd(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a CRTD log; labels are null."""

    def fields(table: pl.DataFrame) -> pl.DataFrame:
        rows = _groups(table, _CRTD, "seconds", "channel", "direction", "bits", "identifier", "data")
        return rows.with_columns(
            channel=pl.when(pl.col("channel") != "").then("channel"),
            extended=(pl.col("bits") == "29").fill_null(False),
            event=pl.col("text").str.contains(_CRTD_EVENT),
            payload=bytes_of(_DATA),
            fd=(bytes_of(_DATA).bin.size() > MAX_BYTES[False]).fill_null(False),
        )

    return read_rows(path, fields, "'seconds 1R11 ID byte ...'")


def read_crysys(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a trace of CrySyS; labels are null."""

    def fields(table: pl.DataFrame) -> pl.DataFrame:
        rows = _groups(table, _CRYSYS, "seconds", "identifier", "flag", "length", "data")
        number = pl.col("identifier").str.to_integer(base=16, strict=False)
        return rows.with_columns(
            announced=pl.col("length").cast(pl.Int64),
            extended=(pl.col("identifier").str.len_bytes() == 8) | (number > MAX_STANDARD_ID).fill_null(False),
            remote=(pl.col("flag") == "100").fill_null(False),
            payload=bytes_of(_DATA),
        )

    return read_rows(path, fields, "'seconds ID 000 DLC byte ...'")


class _Busmaster:
    """Fields of the rows of one log of BUSMASTER, for `read_rows`; the header, wherever it stands, says how numbers are written."""

    def __init__(self) -> None:
        self._decimal = False
        self._clock = Clock(period=_DAY_S)

    def fields(self, table: pl.DataFrame) -> pl.DataFrame:
        header = table["text"].str.contains(_BUSMASTER_HEADER)
        for text in table["text"].filter(header):
            if re.match(r"\s*\*\*\*(HEX|DEC)\*\*\*", text):
                self._decimal = "DEC" in text
            elif re.match(r"\s*\*\*\*RELATIVE MODE\*\*\*", text):
                self._clock = Clock(delta=True)
        names = ["hours", "minutes", "seconds", "ticks", "channel", "identifier", "kind", "length", "data"]
        rows = _groups(table.filter(~header), _BUSMASTER, *names)
        hours, minutes, seconds = (pl.col(n).cast(pl.Float64, strict=False) for n in names[:3])
        # The last part has four digits of 100 µs, or in older logs three of a millisecond.
        fraction = pl.concat_str(pl.lit("0."), "ticks").cast(pl.Float64, strict=False)
        written = rows.select(3600 * hours + 60 * minutes + seconds + fraction).to_series()
        identifier = rows["identifier"].str.replace("^0[xX]", "")
        kind = pl.col("kind").str.to_lowercase()
        return rows.with_columns(
            in_hex(identifier, pl.repeat(self._decimal, len(rows), eager=True)),
            timestamp=self._clock.seconds(written),
            announced=pl.col("length").cast(pl.Int64),
            extended=kind.str.starts_with("x").fill_null(False),
            remote=kind.str.ends_with("r").fill_null(False),
            payload=_decimal_payload() if self._decimal else bytes_of(_DATA),
            event=pl.col("text").str.contains(_BUSMASTER_EVENT) & pl.col("seconds").is_null(),
        ).with_columns(
            fd=~pl.col("remote") & (pl.col("announced") > MAX_BYTES[False]).fill_null(False),
        )


def read_busmaster(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a log of BUSMASTER; labels are null."""
    return read_rows(path, _Busmaster().fields, "'hh:mm:ss:tttt Rx channel ID s DLC byte ...'")


CRTD = Format(
    read_crtd, lambda path, beginning: mostly(beginning, f"{_CRTD}|{_CRTD_EVENT}"), labelled=False, unit_known=True
)
CRYSYS = Format(read_crysys, lambda path, beginning: mostly(beginning, _CRYSYS), labelled=False)
BUSMASTER = Format(
    read_busmaster,
    lambda path, beginning: mostly(beginning, f"{_BUSMASTER}|{_BUSMASTER_HEADER}"),
    labelled=False,
    unit_known=True,
)
