"""Entries of the cache between workflows: whom they are trusted from, and whether they still are what was made.

Snakemake moves a file into the cache under the hash of what it depends on, and leaves a link. Beside each entry lies its
digest, `{entry}.sha256`, as `sha256sum` writes it: `sha256sum -c *.sha256` checks a whole cache. The digest's own time of
change is set to that of the entry, so an entry that was written since is noticed without reading it.

The folder's mode says who shares it. With setgid and writable for the group (2770) the group does: entries are 0440 and belong to
it. Any other folder is the user's own, and entries are 0400.
"""

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from canids_shared.files import sha256_of, written_whole

ENTRY = re.compile("[0-9a-f]{64}")
"""How the name of an entry begins: with the hash of what it depends on."""
_ROOT = 0
_SHARED = stat.S_ISGID | stat.S_IWGRP


def group_of(folder: Path) -> int | None:
    """ID of the group that shares a cache's folder, None if it is one user's own."""
    status = folder.stat()
    return status.st_gid if status.st_mode & _SHARED == _SHARED else None


def distrust(path: Path, group: int | None) -> str:
    """Why others than this user, root and `group` may have written a file or folder of the cache; empty if they cannot.

    Raises `OSError` if it is absent. A link is not followed.
    """
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (os.geteuid(), _ROOT) and (group is None or status.st_gid != group):
        return f"belongs to another user (number {status.st_uid})"
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and group is None):
        return f"may be written by others (mode {mode:o})"
    return ""


def _digest_file(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.sha256")


def seal(path: Path, group: int | None) -> None:
    """Let those who share the cache read a file, and nobody write it."""
    if group is not None:
        os.chown(path, -1, group)
    os.chmod(path, 0o400 if group is None else 0o440)


def record(entry: Path, content: Path, group: int | None) -> None:
    """Write the digest of the file `content`, which is going to be `entry`."""
    with written_whole(_digest_file(entry)) as temporary:
        temporary.write_text(f"{sha256_of(content)}  {entry.name}\n", encoding="utf-8")
        # Before it is there: another member of the group may replace it at any time.
        seal(temporary, group)


def settle(entry: Path) -> None:
    """Note that an entry has the digest that is recorded, as long as it is not written again."""
    time = entry.stat().st_mtime_ns
    with suppress(OSError):  # another member of the group recorded it: then it is read again next time
        os.utime(_digest_file(entry), ns=(time, time))


def fault(entry: Path, group: int | None, whole: bool) -> str:
    """Why an entry cannot be used; empty if it can.

    Args:
        entry: the file in the cache.
        group: the group that shares the cache.
        whole: read it in any case, rather than only if it was written since its digest was last compared.
    """
    digest = _digest_file(entry)
    try:
        if reason := distrust(entry, group) or distrust(digest, group):
            return reason
        if not whole and entry.stat().st_mtime_ns == digest.stat().st_mtime_ns:
            return ""
        if digest.read_text(encoding="utf-8").split() != [sha256_of(entry), entry.name]:
            return "is damaged (not the bytes that were made)"
    except FileNotFoundError as error:
        return "is gone" if str(error.filename) == str(entry) else "has no digest"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    settle(entry)
    return ""


def unlink_damaged(paths: Iterable[Path]) -> str:
    """Remove the links among `paths` to entries of a cache that are damaged, so that the next run makes these again.

    For a job that failed on its inputs. Returns a line about the first one; empty if none is damaged.
    """
    damaged = ""
    for link in filter(Path.is_symlink, paths):
        entry = Path(os.path.realpath(link))
        # A user's own links lead elsewhere; what is merely not trusted was read all the same, and is no cause.
        if not ENTRY.match(entry.name):
            continue
        with suppress(OSError):
            group = group_of(entry.parent)
            if _digest_file(entry).exists() and not distrust(entry, group) and (why := fault(entry, group, whole=True)):
                link.unlink()
                text = f"{link}: its file in the cache between workflows, {entry}, {why}; run again: it is made again"
                damaged = damaged or text
    return damaged
