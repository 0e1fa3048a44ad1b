"""Few plain lines of a followed log to frames, without polars.

Polars hands each of some twenty steps to another thread: for the hundred lines of a window that takes milliseconds, many on a
machine whose cores are busy with the other stages.
"""

import re
from binascii import unhexlify
from typing import Any

import numpy as np
import polars as pl

from canids_preprocess.formats.base import FRAME_COLUMNS, REJECT_COLUMNS, Batch

_FEW = 1000
"""Lines up to which this is faster."""


def plain_frames(first: int, most: int, piece: bytes | bytearray, plain: re.Pattern[str]) -> Batch | None:
    """The frames of a piece all of whose lines are plain, the same as those of the format's reader; None for any other piece.

    Args:
        first: number of the first line.
        most: number of lines, at most.
        piece: the lines.
        plain: a line, with its end, that is certainly a classical frame: groups for seconds, channel, identifier (of eight digits
            if it is extended) and data, the last two in hexadecimal.
    """
    rows = plain.findall(piece.decode("latin-1")) if most <= _FEW else []
    if not rows or len(rows) != piece.count(b"\n") or not piece.endswith(b"\n"):
        return None
    seconds, channels, identifiers, data = zip(*rows, strict=True)
    count, payloads = len(rows), list(map(unhexlify, data))
    columns: dict[str, Any] = {
        "line": np.arange(first, first + count, dtype=np.uint64),
        "timestamp": np.array(list(map(float, seconds))),
        "can_id": np.array([int(digits, 16) for digits in identifiers], np.uint32),
        "extended": np.array(list(map(len, identifiers))) == 8,
        "dlc": np.array(list(map(len, payloads)), np.uint8),
        "payload": payloads,
        "channel": channels,
        "label": [None] * count,
        **dict.fromkeys(("remote", "fd"), np.zeros(count, dtype=np.bool_)),
    }
    frames = pl.DataFrame([pl.Series(name, columns[name], kind) for name, kind in FRAME_COLUMNS.items()])
    return Batch(frames, pl.DataFrame(schema=REJECT_COLUMNS))
