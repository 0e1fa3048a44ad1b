"""SIGTERM and SIGUSR1 (what Slurm sends before a time limit or a preemption) as a request to stop between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Interruption:
    """Whether a signal came: `signal` is its number, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def leave(self) -> NoReturn:
        """End the process with 128 + the signal's number, as a shell reports it."""
        raise SystemExit(128 + (self.signal or 0))


@contextmanager
def noticed() -> Iterator[Interruption]:
    """Within, the signals are noted instead of ending the process at once."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption._note) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
