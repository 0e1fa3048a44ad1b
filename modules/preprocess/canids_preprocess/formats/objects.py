"""From python-can's messages to batches: shared by the readers of TRC, BLF and buses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from canids_preprocess.formats.base import (
    FRAME_COLUMNS,
    MAX_BYTES,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    REJECT_COLUMNS,
    ROWS_A_BATCH,
    Batch,
    printable,
)
from canids_preprocess.formats.text import FD_LENGTHS

if TYPE_CHECKING:
    import can


class Row(NamedTuple):
    """A line or record of a log: its number from 1, the message in it or the reason why there is none, and its text."""

    line: int
    message: can.Message | str
    text: str


def fault(message: can.Message) -> str | None:
    """Why a message cannot be a frame, or None.

    The same conditions as those of `text.frames_and_rejects`, which takes milliseconds a batch: a bus brings one every 5 ms.
    """
    size, remote = len(message.data), message.is_remote_frame
    limit = MAX_EXTENDED_ID if message.is_extended_id else MAX_STANDARD_ID
    if not math.isfinite(message.timestamp):
        return "the timestamp is not a number of seconds"
    if not 0 <= message.arbitration_id <= limit:
        return f"arbitration ID {message.arbitration_id:X} has more than {29 if message.is_extended_id else 11} bits"
    if not 0 <= message.dlc <= MAX_BYTES[message.is_fd]:
        return f"a length of {message.dlc} bytes"
    if not remote and size != message.dlc:
        return f"{size} payload bytes, but a length of {message.dlc}"
    if message.is_fd and not remote and size not in FD_LENGTHS:
        return f"no CAN FD frame has {size} payload bytes"
    return None


def batches(rows: Iterable[Row]) -> Iterator[Batch]:
    """Batches of rows; labels are null, `dlc` is the payload's length (of a remote frame: the one asked for)."""
    frames: list[tuple[Any, ...]] = []
    rejects: list[tuple[int, str, str]] = []
    for line, message, text in rows:
        reason = message if isinstance(message, str) else fault(message)
        if reason is not None or isinstance(message, str):
            rejects.append((line, printable(str(reason)), printable(text)))
        else:
            remote = message.is_remote_frame
            frames.append(
                (
                    line,
                    message.timestamp,
                    message.arbitration_id,
                    message.is_extended_id,
                    remote,
                    message.is_fd and not remote,
                    message.dlc,
                    b"" if remote else bytes(message.data),
                    None if message.channel is None else str(message.channel),
                    None,
                )
            )
        if len(frames) + len(rejects) >= ROWS_A_BATCH:
            yield _batch(frames, rejects)
            frames, rejects = [], []
    if frames or rejects:
        yield _batch(frames, rejects)


def _batch(frames: list[tuple[Any, ...]], rejects: list[tuple[int, str, str]]) -> Batch:
    return Batch(
        pl.DataFrame(frames, schema=FRAME_COLUMNS, orient="row"),
        pl.DataFrame(rejects, schema=REJECT_COLUMNS, orient="row"),
    )
