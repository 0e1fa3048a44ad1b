"""What ends a job early: a request to stop between two steps, and the end of the Snakemake that started it.

SIGTERM and SIGUSR1 (what Slurm sends before a time limit or a preemption) are the request. A Snakemake that is killed
passes nothing on, and the shell between the two keeps the kernel from doing so: therefore each job watches it.
"""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SNAKEMAKE = "CANIDS_SNAKEMAKE_PID"
"""The environment variable in which a Snakefile names the process that reads it (`canids_shared.planning.stage.Stage`)."""
log = logging.getLogger(__name__)


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


@contextmanager
def orderly() -> Iterator[None]:
    """Within, SIGTERM ends the process as an exception does, with 128 + its number: temporary files and locks are removed."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_running(process: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _wait_for_end_of(process: int) -> None:
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # not Linux, or a sandbox that forbids it
        while is_running(process):
            time.sleep(1.0)
        return
    select.select([handle], [], [])


def _end_after(process: int, what: str, number: signal.Signals) -> None:
    def watch() -> None:
        _wait_for_end_of(process)
        log.warning("%s (process %d) has ended, so this job does", what, process)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, name=f"watch-{process}", daemon=True).start()


def helps() -> bool:
    """Whether this process was started by the first of several that do one job (as Lightning Fabric counts them)."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def end_with_parent() -> None:
    """Send this process SIGTERM as soon as the Snakemake that started it has ended; does nothing without one.

    On a cluster that is the innermost Snakemake, within the job: on the same machine as this process. A process that helps
    the first one of a job ends with that, at once: it could wait for it for ever.
    """
    if helps():
        _end_after(os.getppid(), "the first process of this job", signal.SIGKILL)
    elif process := int(os.environ.get(SNAKEMAKE, "0")):
        _end_after(process, "Snakemake", signal.SIGTERM)
