"""Captures in every format for the tests of the readers: files of our own, those made by python-can, and samples in the wild."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import can
import polars as pl
import pytest

from canids_preprocess.formats import FORMATS
from canids_preprocess.formats.base import FRAME_COLUMNS, REJECT_COLUMNS
from canids_shared.errors import CanidsError

OWN = Path(__file__).parents[1] / "data/formats"
WILD = Path(__file__).parents[3] / "shared/data/formats"
in_the_wild = pytest.mark.skipif(not WILD.is_dir(), reason=f"no samples of captures in {WILD}")

MESSAGES = [
    can.Message(timestamp=1.0, arbitration_id=0x123, is_extended_id=False, data=b"\x01\x02\x03", channel=0),
    can.Message(timestamp=1.001, arbitration_id=0x18EF1234, data=bytes(range(8)), channel=1),
    can.Message(timestamp=1.5, arbitration_id=0x7FF, is_extended_id=False, is_remote_frame=True, dlc=4, channel=0),
    can.Message(timestamp=1.75, arbitration_id=0, is_extended_id=False, channel=0),
    can.Message(timestamp=2.0, arbitration_id=0x1FFFFFFF, is_fd=True, data=bytes(range(64)), channel=0),
    can.Message(timestamp=2.5, arbitration_id=0x100, is_extended_id=False, is_fd=True, data=bytes(12), channel=0),
]


def read(path: Path, name: str, **entry: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All frames and all rejects of a file in a format, checked against the columns that readers owe."""
    frames, rejects = [pl.DataFrame(schema=FRAME_COLUMNS)], [pl.DataFrame(schema=REJECT_COLUMNS)]
    for batch in FORMATS[name].read(path, {"content": "unlabelled", "attack": None, **entry}):
        assert dict(batch.frames.schema) == FRAME_COLUMNS
        assert dict(batch.rejects.schema) == REJECT_COLUMNS
        frames.append(batch.frames)
        rejects.append(batch.rejects)
    return pl.concat(frames), pl.concat(rejects)


def written(folder: Path, content: str | bytes, name: str = "capture") -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, name: str, **entry: Any) -> str:
    """The complaint about a file, without its path."""
    with pytest.raises(CanidsError) as caught:
        read(path, name, **entry)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(str(path))


def said(frames: pl.DataFrame) -> list[tuple[Any, ...]]:
    """What the frames say, without line, time, channel and label."""
    return frames.select("can_id", "extended", "remote", "fd", "dlc", "payload").rows()


def by_python_can(messages: list[can.Message]) -> list[tuple[Any, ...]]:
    """The same of python-can's messages; `dlc` is the length, which some of its readers leave as a code."""
    return [
        (m.arbitration_id, m.is_extended_id, m.is_remote_frame, m.is_fd and not m.is_remote_frame)
        + ((m.dlc, b"") if m.is_remote_frame else (len(m.data), bytes(m.data)))
        for m in messages
        if not m.is_error_frame
    ]


def record(path: Path, messages: list[can.Message]) -> Path:
    """A log written by python-can, in the format of the path's suffix."""
    with can.Logger(str(path)) as logger:
        for message in messages:
            logger.on_message_received(message)
    return path


class TooLong(BaseException):
    """Not an `Exception`: the readers turn those into complaints."""


@contextmanager
def limited(seconds: int = 20) -> Iterator[None]:
    """Fail what runs for ever."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
