"""Early ends of a job: a request to stop between two steps, and the end of the Snakemake that started it.

The request is SIGTERM or SIGUSR1, which Slurm sends before a time limit or a preemption. A Snakemake that is killed passes no
signal on, and because of the shell between the two the kernel does not either: therefore each job watches its Snakemake.
"""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SNAKEMAKE = "CANIDS_SNAKEMAKE_PID"
"""The environment variable in which a Snakefile names the process that reads it (`canids_shared.planning.stage.Stage`)."""
log = logging.getLogger(__name__)


class Interruption:
    """A request to stop: `signal` is the number of the signal that came, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def exit(self) -> NoReturn:
        """End the process with 128 + the signal's number, as a shell reports it."""
        raise SystemExit(128 + (self.signal or 0))


@contextmanager
def _handled(numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` handle these signals within."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def deferred_signals() -> Iterator[Interruption]:
    """Note the signals within instead of ending the process at once."""
    interruption = Interruption()
    with _handled(SIGNALS, interruption._note):
        yield interruption


def sigterm_as_exit() -> AbstractContextManager[None]:
    """Turn SIGTERM within into `SystemExit` with 128 + its number, so that temporary files and locks are removed."""

    def raise_exit(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    return _handled([signal.SIGTERM], raise_exit)


def is_running(process: int) -> bool:
    """Whether a process with this number runs on this machine."""
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
    select.select([handle], [], [])  # readable once the process has ended


def end_with_snakemake() -> None:
    """Send this process SIGTERM as soon as the Snakemake that started it has ended; does nothing without one.

    On a cluster that is the innermost Snakemake, within the job, hence on the same machine as this process.
    """
    if not (snakemake := int(os.environ.get(SNAKEMAKE, "0"))):
        return

    def watch() -> None:
        _wait_for_end_of(snakemake)
        log.warning("Snakemake (process %d) has ended, so this job ends", snakemake)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch-snakemake", daemon=True).start()
