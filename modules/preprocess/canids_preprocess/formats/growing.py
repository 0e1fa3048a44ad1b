"""A log that is still being written, read as far as it goes, line by line, like `tail -f`."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PosixPath
from typing import NamedTuple

from canids_preprocess.formats.base import BOM, LONGEST_LINE, Piece
from canids_shared.errors import CanidsError

POLL = 0.002
"""Seconds between two looks at a log, or at a bus: a fifth of what a window of 100 frames lasts on a full bus of 1 Mbit/s."""
_AT_ONCE = 1 << 18
"""Bytes read at once; some sixty windows."""
_TAIL = 256
"""Bytes before the position in a log that have to stay as they were; some five lines, each with its time."""
SILENT_S = 10.0
"""Seconds without anything new after which that is said."""
_NO_WINDOW_S = 60.0
"""Seconds in which something comes, but no window is whole, after which that is said."""
log = logging.getLogger(__name__)


@dataclass
class IdleTimeout:
    """When to stop waiting for more frames.

    Attributes:
        at_end: whether to stop where there is nothing more for now.
        idle: seconds without anything new after which to stop; None: never.
        stopped: whether someone asked to stop, or the process that started this one is gone: nobody listens any more.
        source: what is waited for, for messages.
    """

    at_end: bool = False
    idle: float | None = None
    stopped: bool = False
    source: str = ""
    _since: float = field(default_factory=time.monotonic)
    _window: float = field(default_factory=time.monotonic)
    _parent: int = field(default_factory=os.getppid)
    _silent: bool = False

    def begin(self, source: str) -> None:
        """Start to count seconds: `source` is waited for from now on."""
        self.source, self._since, self._window = source, time.monotonic(), time.monotonic()

    def renew(self) -> None:
        """Start again to count idle seconds, since something new has come."""
        if self._silent:
            log.info("%s: goes on after %.0f s of silence", self.source, time.monotonic() - self._since)
        self._since, self._silent = time.monotonic(), False
        if self._since - self._window >= _NO_WINDOW_S:
            log.warning("%s: frames come, but no whole window for %.0f s", self.source, self._since - self._window)
            self._window = self._since

    def window_sent(self) -> None:
        """Start again to count the seconds without a window."""
        self._window = time.monotonic()

    def over(self) -> bool:
        """Whether to stop waiting."""
        silence = time.monotonic() - self._since
        if silence >= SILENT_S and not self._silent:
            log.warning("%s: silent for %.0f s; still waiting", self.source, silence)
            self._silent = True
        self.stopped = self.stopped or os.getppid() != self._parent
        return self.stopped or self.at_end or (self.idle is not None and silence >= self.idle)


class Enough(NamedTuple):
    """What is read together: so many frames, or those that have come within so many seconds."""

    frames: int
    seconds: float


Wanted = Callable[[], Enough]
"""What to read together next. To read a hundred lines takes hardly longer than to read one."""


class Growing(PosixPath):
    """The path of a log that may still grow; the readers of text formats get its lines as they are written."""

    timeout: IdleTimeout
    wanted: Wanted

    @classmethod
    def of(cls, path: Path, timeout: IdleTimeout, wanted: Wanted = lambda: Enough(1, 0.0)) -> "Growing":
        """`path`, as a log that may still grow."""
        growing = cls(path)
        growing.timeout, growing.wanted = timeout, wanted
        return growing

    def arrive(self, most: int) -> bool:
        """Wait for the first line; returns whether more than that, up to `most` bytes, can still come.

        Returns at once with False where waiting is over; the file may then be absent, empty, or without a line end.
        """
        logged = False
        while not self.timeout.over():
            if self.is_file():
                with open(self, "rb") as stream:
                    beginning = stream.read(most)
                # A first line that is whole: the format shows from here on.
                if b"\n" in beginning:
                    return len(beginning) < most
            if not logged:
                log.info("%s: %s; waiting for it", self, "has no line yet" if self.is_file() else "not there yet")
                logged = True
            time.sleep(POLL)
        return False

    def pieces(self) -> Iterator[Piece]:
        """Whole lines, once as many as are `wanted` are there; what follows the last line end may be half of a line, and is left out.

        Raises `CanidsError` naming file and line if the log is cut short, rewritten, replaced or removed, or a line never ends.
        """
        held: list[Piece] = []
        since, failure = 0.0, None
        arrivals = self._arrivals()
        while True:
            try:
                piece = next(arrivals, None)
            except CanidsError as error:
                piece, failure = None, error
            if piece and piece.text:
                since = since if held else time.monotonic()
                held.append(piece)
            count, (frames, seconds) = sum(part.most for part in held), self.wanted()
            if held and (piece is None or count >= frames or time.monotonic() - since >= seconds):
                yield Piece(held[0].line, count, b"".join(part.text for part in held))
                held = []
            if failure:
                raise failure
            if piece is None:
                return

    def _arrivals(self) -> Iterator[Piece]:
        """Whole lines as they are written; a piece without lines where there are none for now. Raises as `pieces`."""
        line, begun, tail = 1, b"", b""
        with open(self, "rb", buffering=0) as stream:
            while True:
                data = stream.read(_AT_ONCE)
                # A log that was cut and has grown again beyond the position goes on amid other lines.
                self._check(stream.fileno(), stream.tell() - len(data), tail, line)
                tail = (tail + data[-_TAIL:])[-_TAIL:]
                if data:
                    # Whole lines go on at once; the beginning of a line waits for its end.
                    self.timeout.renew()
                    data = data.removeprefix(BOM) if stream.tell() == len(data) else data
                    whole, end, rest = data.rpartition(b"\n")
                    if end:
                        text = begun + whole + end
                        count = text.count(b"\n")
                        yield Piece(line, count, text)
                        line, begun = line + count, rest
                    else:
                        begun += rest
                    if len(begun) > LONGEST_LINE:
                        raise CanidsError(
                            f"{self}, line {line}: longer than {LONGEST_LINE} bytes; this is no capture in text"
                        )
                    if self.timeout.stopped:
                        return
                    continue
                # Nothing new: the log may have been replaced, or waiting be over.
                self._check_name(stream.fileno(), line)
                if self.timeout.over():
                    if begun:
                        log.warning("%s, line %d: has no line end, so it may be half a line; left out", self, line)
                    return
                yield Piece(line, 0, b"")
                time.sleep(POLL)

    def _check(self, opened: int, position: int, tail: bytes, line: int) -> None:
        """Raise `CanidsError` unless the log still holds what was read of it: `tail` before `position`."""
        if os.fstat(opened).st_size < position:
            raise CanidsError(f"{self}: cut short behind line {line - 1}; follow the log again")
        if os.pread(opened, len(tail), position - len(tail)) != tail:
            raise CanidsError(f"{self}: cut and rewritten behind line {line - 1}; follow the log again")

    def _check_name(self, opened: int, line: int) -> None:
        # The file that is open may have another name by now, or none: compare it with what the path leads to.
        here = os.fstat(opened)
        try:
            there = self.stat()
        except FileNotFoundError:
            raise CanidsError(f"{self}: removed or moved away behind line {line - 1}; follow the new log") from None
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise CanidsError(f"{self}: replaced by another file behind line {line - 1}; follow the log again")
