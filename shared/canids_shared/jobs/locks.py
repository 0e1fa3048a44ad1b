"""Locks that end with the process that holds them, whatever ends it: `flock` on a file.

On one machine they always hold. Over NFS the kernel turns them into locks of the server (NFS 4, or 3 with lockd), over Lustre
they reach other nodes where it is mounted with `flock`; with `localflock` they hold on each node alone. On a file system
without locks a warning says so, and the work goes on.
"""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from canids_shared.errors import BusyError

WAIT_S = 60.0
"""Longest wait of a run for the process that works on its folder; one of a killed workflow ends within seconds."""
POLL_S = 0.2
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
log = logging.getLogger(__name__)


def _holder() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f"process {os.getpid()} on {socket.gethostname()}" + (f" (Slurm job {job})" if job else "")


def try_lock(path: Path) -> IO[str] | None:
    """The open file that holds the lock until it is closed or the process ends; None if another process has it.

    The file names its holder. Raises `OSError` where the file system has no locks, the folder cannot be written, or the file
    is a link: its target would be overwritten, whatever it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Again if the file was removed between opening and locking: a lock on it would keep nobody out.
    while True:
        stream = open(path, "a+", encoding="utf-8", opener=_open)  # noqa: SIM115 (the lock lives as long as it is open)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return None
        except BaseException:
            stream.close()
            raise
        if _is_at(stream, path):
            stream.truncate(0)
            stream.write(_holder())
            stream.flush()
            return stream
        stream.close()


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _is_at(stream: IO[str], path: Path) -> bool:
    """Whether the open file is still the one at `path`: the last holder may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def release(path: Path, stream: IO[str]) -> None:
    """Release a lock and remove its file; processes that wait for it try again."""
    path.unlink(missing_ok=True)
    stream.close()


def holder_of(path: Path) -> str:
    """The holder of the lock, in words."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") or "another process"
    except FileNotFoundError:
        return "another process"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a run's folder, so that no other process writes there meanwhile.

    A process of a workflow that was killed may still hold it; it ends by itself, so this waits, at most `WAIT_S` seconds.

    Raises `BusyError` naming the process and its host if it still works after that.
    """
    path = folder / ".lock"
    until, logged = time.monotonic() + WAIT_S, False
    try:
        while (stream := try_lock(path)) is None:
            if time.monotonic() > until:
                raise BusyError(
                    f"{folder}: {holder_of(path)} still works on this run; let it finish or end it (kill, or scancel for "
                    f"a Slurm job), or delete {path} if that machine is down, and run again"
                )
            if not logged:
                log.info("waiting for %s, which works on %s", holder_of(path), folder)
                logged = True
            time.sleep(POLL_S)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning(
            "%s: no locks on this file system (%s): run no second workflow in this folder", folder, error.strerror
        )
        yield
        return
    try:
        yield
    finally:
        release(path, stream)
