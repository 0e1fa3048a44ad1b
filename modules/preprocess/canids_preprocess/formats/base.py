"""Contract of the readers of capture formats: batches of frames, and of rows that cannot be read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from canids_shared.contracts import tables

_WITHOUT_ATTACK = {name: kind for name, kind in tables.FRAMES.columns.items() if name != "attack"}
FRAME_COLUMNS = {"line": pl.UInt64, **_WITHOUT_ATTACK}
"""As `canids_shared.contracts.tables.FRAMES`, without `attack`, and with the line of the file (from 1; or the number of the record
in a binary file). `timestamp` in seconds, or in the unit that the manifest states; `label` null where the file has none."""

REJECT_COLUMNS = tables.REJECTS.columns
"""Line (or record), reason why it is no frame, and its text, at most `MAX_TEXT` characters on one line."""

BOM = b"\xef\xbb\xbf"
"""Byte order mark of UTF-8, with which some copies of captures begin."""
MAX_TEXT = 160
MAX_STANDARD_ID = 0x7FF
MAX_EXTENDED_ID = 0x1FFFFFFF
MAX_BYTES = {False: 8, True: 64}
"""Payload bytes of classical CAN and of CAN FD (ISO 11898-1:2015)."""
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Units of timestamps, by the names that a manifest uses (`timestamp_unit`)."""
ROWS_A_BATCH = 1 << 18
LONGEST_LINE = 1 << 20
"""Bytes; a file in which a piece read at once ends with a longer line is no capture in a text format."""


class Piece(NamedTuple):
    """Whole lines of a file: the number of the first (from 1), and how many there are at most."""

    line: int
    most: int
    text: bytes | bytearray


class Batch(NamedTuple):
    """Some rows of a capture, in the file's order: frames (`FRAME_COLUMNS`) and rejects (`REJECT_COLUMNS`).

    `trimmed` of the frames had white space or quotes around a field where the format has none.
    """

    frames: pl.DataFrame
    rejects: pl.DataFrame
    trimmed: int = 0


@dataclass(frozen=True)
class Format:
    """A capture format.

    Attributes:
        read: yields the batches of a file, in constant memory, at most about `ROWS_A_BATCH` rows each. It is given the
            file and the manifest's entry (`attack`, `content`, …). Every row of data becomes either a frame or a
            reject; a header, empty lines at the end and comments of the format are no rows. Raises `CanidsError` naming
            the file if it is absent or not in this format at all.
        matches: whether the file looks like this format, from its name and its first bytes (4 KiB).
        labelled: whether files in the format can have labels.
        untimed: whether files in the format may lack times; they are read with the manifest's `assume_rate` only.
        unit_known: whether the format itself has the unit of its timestamps, so that no manifest may state one.
    """

    read: Callable[[Path, dict[str, Any]], Iterator[Batch]]
    matches: Callable[[Path, bytes], bool]
    labelled: bool
    untimed: bool = False
    unit_known: bool = False


def printable(text: str, length: int = MAX_TEXT) -> str:
    """The text on one line of bounded length: a damaged capture may hold anything."""
    return "".join(c if c.isprintable() else "�" for c in text[:length])
