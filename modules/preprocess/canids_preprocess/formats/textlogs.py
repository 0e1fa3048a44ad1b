"""TRC (PEAK), line by line through python-can.

python-can passes over lines that it does not understand. So it gets the lines that must hold a frame, and only those; a line
for which no message comes back is a reject. Each piece of a file has a reader of its own, with a header of its own: so frames of
a log that is still being written come as they are written. Comments, headers, and lines about the bus or the logger are no
rows: error frames, statistics, status, triggers, messages of transport protocols.

Times count from the start of the measurement. Rows without any header, as people paste them, are of version 1.0 or 1.1. Source:
PEAK-System, "PEAK CAN TRC File Format" (versions 1.0, 1.1, 1.3, 2.0, 2.1); python-can, `can.TRCReader`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import polars as pl

from canids_preprocess.formats.base import BOM, MAX_BYTES, Batch, Format, printable
from canids_preprocess.formats.objects import Row, batches
from canids_preprocess.formats.text import first_bytes, head_lines, lines, mostly, report_events
from canids_shared.errors import CanidsError

if TYPE_CHECKING:
    import can

_TRC_EVENT = {"1.1": (2, {"Warng", "Error"}), "1.3": (3, {"Warng", "Error"}), "2": (2, {"ST", "EC", "ER", "EV"})}
"""By version: the column of a row's type, and the types that are no frames (of version 1.0: the ID FFFFFFFF)."""


class _Feed:
    """A text file for python-can: hands out lines one at a time, and remembers those handed out."""

    def __init__(self, header: list[str], rows: Iterator[tuple[int, str]]) -> None:
        self._header = list(header)
        self._rows = rows
        self.taken: list[tuple[int, str]] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if self._header:
            return self._header.pop(0) + "\n"
        self.taken.append(next(self._rows))
        return self.taken[-1][1] + "\n"

    def close(self) -> None:
        """Nothing to close: the rows outlive a reader that has given up."""


def _rows(
    make: Callable[[TextIO], Iterator[can.Message]], header: list[str], rows: Iterator[tuple[int, str]]
) -> Iterator[Row]:
    """A `Row` for every line of `rows`; behind a line that it fails at, python-can starts again with the header."""
    while True:
        feed = _Feed(header, rows)
        failure = None
        try:
            for message in make(cast(TextIO, feed)):
                # The message is that of the line taken last; those before it gave none.
                *passed_over, (line, text) = feed.taken
                feed.taken.clear()
                yield from (Row(n, "no frame that python-can knows", t) for n, t in passed_over)
                yield Row(line, message, text)
        except CanidsError:
            raise
        except Exception as error:  # a damaged line raises whatever its fields lead to
            if not feed.taken:
                raise CanidsError(f"python-can cannot read its header: {' '.join(str(error).split())}") from None
            failure = f"python-can cannot read it: {' '.join(str(error).split())}"
        for n, t in feed.taken[:-1] if failure else feed.taken:
            yield Row(n, "no frame that python-can knows", t)
        if failure is None:
            return
        yield Row(feed.taken[-1][0], failure, feed.taken[-1][1])


def _read(
    path: Path,
    make: Callable[[TextIO], Iterator[can.Message]],
    header: list[str],
    is_event: Callable[[str], bool | None],
) -> Iterator[Batch]:
    """Batches of a log.

    Args:
        path: the log.
        make: python-can's reader.
        header: lines that the reader needs ahead of every piece of the log.
        is_event: whether a line is an event of the logger, or a frame's row; None: neither, such as a comment.
    """
    events = 0

    def rows(table: pl.DataFrame) -> Iterator[tuple[int, str]]:
        nonlocal events
        for line, content in table.iter_rows():
            event = is_event(content)
            events += event is True
            if event is False:
                yield line, content

    try:
        for table in lines(path):
            yield from batches(_rows(make, header, rows(table)))
    except CanidsError as error:
        text = str(error)
        raise CanidsError(text if text.startswith(str(path)) else f"{path}: {printable(text)}") from None
    report_events(path, events)


def _trc_messages(file: TextIO) -> Iterator[can.Message]:
    import can  # noqa: PLC0415 (it takes two seconds to import, and is needed for a few formats alone)

    for message in can.TRCReader(file):
        if message.is_fd:  # python-can leaves the DLC's code where other readers give the length
            message.dlc = can.util.dlc2len(message.dlc)
        elif MAX_BYTES[False] < message.dlc <= 15:  # of a classical frame: eight bytes all the same
            message.dlc = MAX_BYTES[False]
        yield message


def read_trc(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a PEAK TRC log.  Raises `CanidsError` if its version is unknown."""
    version, columns = "1.0", ["N", "O", "T"]
    first = head_lines(first_bytes(path)).to_list()
    # Without any header, a direction behind the time shows version 1.1.
    if not any(t.lstrip().startswith(";") for t in first) and mostly(first_bytes(path), _DIRECTED):
        first = [";$FILEVERSION=1.1"]
    header = [t for t in first if re.match(r";\$(FILEVERSION|STARTTIME|COLUMNS)=", t)]
    for text in header:
        key, _, value = text.partition("=")
        version = value.strip() if key == ";$FILEVERSION" else version
        columns = value.strip().split(",") if key == ";$COLUMNS" else columns
    if version not in ("1.0", "1.1", "1.3", "2.0", "2.1"):
        raise CanidsError(
            f"{path}: version {printable(version, 20)} of the TRC format; 1.0, 1.1, 1.3, 2.0 and 2.1 are known"
        )
    # Without a start time python-can counts from zero, as the other logs do.
    header = [t for t in header if not t.startswith(";$STARTTIME")]
    place, kinds = _TRC_EVENT.get(version.split(".")[0] if version >= "2" else version, (2, {"FFFFFFFF"}))
    place = columns.index("T") if version >= "2" and "T" in columns else place

    def is_event(content: str) -> bool | None:
        fields = content.split(None, place + 1)
        if content.lstrip().startswith(";") or not fields:
            return None
        return len(fields) > place and fields[place] in kinds

    return _read(path, _trc_messages, header, is_event)


_DIRECTED = r"^\s*\d+\)\s+[0-9.]+\s+(Rx|Tx)\s"
_NUMBERED = r"^\s*\d+\)\s+[0-9.]+\s+((Rx|Tx)\s+)?[0-9A-Fa-f]{4,8}\s+\d\s"
_TRC_ROW = r"^(;.*|\s*\d+\)?\s+[0-9.]+\s+[0-9A-Za-z]+\s.*)$"


def _is_trc(path: Path, beginning: bytes) -> bool:
    return mostly(beginning, _TRC_ROW if beginning.removeprefix(BOM).startswith(b";") else _NUMBERED)


TRC = Format(read_trc, _is_trc, labelled=False, unit_known=True)
