"""Files written whole, hashes, and JSON whose bytes depend on its content alone."""

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from canids_shared.errors import BusyError, CanidsError

HEADER_KEY = "canids"
"""Key of the metadata, of a Parquet or safetensors file or an Arrow stream, under which its header lies as JSON."""
_REMEDIES = {
    errno.ENOSPC: "delete files on {mount} (df -h, df -i) and run again",
    errno.EDQUOT: "delete files of yours on {mount} (quota -s) and run again",
    errno.EROFS: "{mount} is mounted read-only: write elsewhere (--directory), or have it mounted writable",
    errno.EFBIG: "raise the limit (ulimit -f), or write to a file system with larger files than {mount}",
    errno.EACCES: "allow it (chmod, chown), or write elsewhere (--directory)",
    errno.EPERM: "allow it (chmod, chown, chattr), or write elsewhere (--directory)",
    errno.EIO: "the disk or the file server of {mount} fails: ask its administrator",
    errno.ESTALE: "the file server of {mount} has lost it: run again",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ENOTDIR: "a file lies where a folder is to be: move it away",
    errno.EEXIST: "a file lies where a folder is to be: move it away",
    errno.ELOOP: "a link lies where the file is to be: remove it",
    errno.EISDIR: "a folder lies where the file is to be: move it away",
}
"""What to do about a file that cannot be written."""
PASSING = (errno.ESTALE, errno.EIO, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
"""Errors of the system that may have passed at another try."""
_IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (polars, safetensors) name the error of the operating system."""


def _mount(path: Path) -> Path:
    """The mount point of the file system on which `path` lies, or would lie."""
    path = Path(os.path.realpath(path))
    return next(p for p in (path, *path.parents) if os.path.ismount(p))


def write_fault(error: Exception, path: str | Path) -> CanidsError | None:
    """A failed write as one line that names file, cause and remedy; None if `error` is something else.

    Args:
        error: what was raised, by Python or by a library.
        path: the file that was to be written; another one that the error itself names comes first.
    """
    in_text = _IN_TEXT.search(str(error))
    number = int(in_text[1]) if in_text else getattr(error, "errno", None)
    if number not in _REMEDIES:
        return None
    named = str(getattr(error, "filename", None) or path)
    path = path if named.endswith(".tmp") else named
    remedy = _REMEDIES[number].format(mount=_mount(Path(path)))
    return (BusyError if number in PASSING else CanidsError)(f"{path}: {os.strerror(number)}; {remedy}")


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure it is removed.

    A reader therefore never sees half a file, also after `kill -9`.

    Raises `CanidsError` naming the file and the file system if it cannot be written: disk full, quota, read-only, no permission.
    """
    path = Path(path)
    # Two machines, or two containers, may write the same file with the same process number.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        if fault := write_fault(error, path):
            raise fault from None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole, UTF-8, with `\\n` line ends."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys; NaN and infinity are refused (`ValueError`)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write readable JSON with sorted keys, whole."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
