"""Entries of the cache between workflows: trusted from whom, and checked for what was made."""

import asyncio
import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import CacheMissException, WorkflowError

from canids_shared import cache_entries
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.planning.deployment import use_cache
from canids_shared.planning.output_cache import CheckedCache, check_links

MADE = 32 * "ab"


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """An entry of a cache, as it is stored."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    return stored(cache, None)


def stored(cache: Path, group: int | None) -> Path:
    entry = cache / f"{MADE}.csv"
    entry.write_text("what was made\n")
    cache_entries.record(entry, entry, group)
    cache_entries.seal(entry, group)
    cache_entries.settle(entry)
    return entry


def written_since(entry: Path) -> None:
    entry.chmod(0o600)
    entry.write_text("what was planted\n")
    entry.chmod(0o400)


def replaced_by_a_link(entry: Path) -> None:
    entry.rename(entry.with_name("elsewhere"))
    entry.symlink_to(entry.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda entry: os.truncate(entry, 3), "is damaged"),
        (written_since, "is damaged"),
        (Path.unlink, "is gone"),
        (lambda entry: entry.chmod(0o460), "may be written by others (mode 460)"),
        (lambda entry: entry.chmod(0o602), "may be written by others (mode 602)"),
        (lambda entry: entry.with_name(f"{MADE}.csv.sha256").unlink(), "has no digest"),
        (lambda entry: entry.with_name(f"{MADE}.csv.sha256").chmod(0o666), "may be written by others"),
        (replaced_by_a_link, "may be written by others (mode 777)"),
    ],
)
def test_an_entry_is_used_only_as_it_was_made(entry: Path, harm: Callable[[Path], None], reason: str) -> None:
    assert entry.stat().st_mode & 0o777 == 0o400
    assert not cache_entries.fault(entry, None, whole=True)
    harm(entry)
    assert cache_entries.fault(entry, None, whole=False).startswith(reason)


def test_an_entry_is_read_again_only_if_it_was_written_since(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    digest = cache_entries.sha256_of
    monkeypatch.setattr(cache_entries, "sha256_of", lambda path: read.append(path) or digest(path))
    assert not cache_entries.fault(entry, None, whole=False)
    assert not read
    os.utime(entry, (0, 1_000_000_000))  # a copy that was put back, the clock of another machine
    assert not cache_entries.fault(entry, None, whole=False)
    assert read == [entry]
    assert not cache_entries.fault(entry, None, whole=False)
    assert read == [entry], "once"


def test_sha256sum_reads_the_digests(entry: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", f"{MADE}.csv.sha256"], cwd=entry.parent, capture_output=True, check=False)
    assert done.returncode == 0
    os.truncate(entry, 3)
    done = subprocess.run(["sha256sum", "-c", f"{MADE}.csv.sha256"], cwd=entry.parent, capture_output=True, check=False)
    assert done.returncode == 1


def test_entries_of_other_users_are_taken_from_the_group_that_shares_the_folder_alone(
    tmp_path: Path, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    group = cache_entries.group_of(shared)
    assert group == shared.stat().st_gid
    assert cache_entries.group_of(entry.parent) is None
    of_group = stored(shared, group)
    assert of_group.stat().st_mode & 0o777 == 0o440
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 4321)  # another member, or a stranger
    monkeypatch.setattr(cache_entries, "_ROOT", -1)
    assert not cache_entries.fault(of_group, group, whole=True)
    assert cache_entries.fault(entry, None, whole=True) == f"belongs to another user (number {me})"


@pytest.mark.parametrize(("folder_mode", "mode"), [(0o700, 0o400), (0o755, 0o400), (0o2770, 0o440)])
def test_snakemake_stores_for_those_whom_the_folder_is_for_and_fetches_what_was_made(
    tmp_path: Path, folder_mode: int, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "cache").mkdir()
    if os.geteuid() == 0 and folder_mode & 0o2000:
        os.chown(folder, -1, 4321)  # results are of another group than the cache
    folder.chmod(folder_mode)
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(folder))
    cache, output, entry = CheckedCache(), tmp_path / "result.csv", folder / f"{MADE}.csv"

    async def files(job: object) -> list[tuple[Path, Path]]:
        return [(output, entry)]

    monkeypatch.setattr(cache, "get_outputfiles_and_cachefiles", files)
    for content in ("what was made\n", "the same again\n"):  # the second replaces the first
        output.unlink(missing_ok=True)
        output.write_text(content)
        asyncio.run(cache.store(None))
        assert output.readlink() == entry
        assert entry.read_text() == content
        assert [p.stat().st_mode & 0o777 for p in sorted(folder.iterdir())] == [mode, mode]
        assert {p.stat().st_gid for p in folder.iterdir()} == {folder.stat().st_gid}
    assert asyncio.run(cache.exists(None))
    output.unlink()
    asyncio.run(cache.fetch(None))
    assert output.readlink() == entry
    output.unlink()
    os.truncate(entry, 3)
    assert not asyncio.run(cache.exists(None))
    with pytest.raises(CacheMissException):
        asyncio.run(cache.fetch(None))
    assert not output.exists()


def test_a_cache_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path))

    async def full(job: object) -> list[tuple[Path, Path]]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = CheckedCache()
    monkeypatch.setattr(cache, "get_outputfiles_and_cachefiles", full)
    with pytest.raises(
        WorkflowError, match=f"^cache between workflows: {tmp_path}: No space left on device; delete files"
    ):
        asyncio.run(cache.store(None))


@pytest.mark.parametrize(("mode", "refused"), [(0o700, False), (0o755, False), (0o777, True), (0o1777, True), (0o775, True), (0o2770, False), (0o2777, True)])  # fmt: skip
def test_a_folder_that_others_may_write_is_no_cache(
    tmp_path: Path, mode: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path / "cache"))
    workflow = SimpleNamespace(workflow_settings=SimpleNamespace(cache=[]), is_main_process=False)
    use_cache(workflow)
    assert (tmp_path / "cache").stat().st_mode & 0o7777 & ~0o2000 == 0o700
    (tmp_path / "cache").chmod(mode)
    if not refused:
        use_cache(workflow)
        return
    with pytest.raises(CanidsError, match=f"cache may be written by others \\(mode {mode:o}\\), .* chmod 2770"):
        use_cache(workflow)


def test_links_to_faulty_entries_are_removed_and_others_stay(
    tmp_path: Path, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/d/frames"
    folder.mkdir(parents=True)
    links = {name: folder / name for name in ("good", "gone", "moved", "foreign")}
    links["good"].symlink_to(entry)
    links["gone"].symlink_to(entry.with_name(f"{32 * 'cd'}.csv"))
    links["moved"].symlink_to(tmp_path / f"another-cache/{MADE}.csv")
    links["foreign"].symlink_to(tmp_path / "of/somebody")
    (folder / "file").touch()
    check_links(entry.parent, remove=False)
    assert {path.name for path in folder.iterdir()} == {"good", "gone", "moved", "foreign", "file"}, "as on a dry run"
    check_links(entry.parent, remove=True)
    assert {path.name for path in folder.iterdir()} == {"good", "foreign", "file"}
    os.truncate(entry, 3)
    check_links(entry.parent, remove=True)
    assert {path.name for path in folder.iterdir()} == {"foreign", "file"}
    assert entry.exists(), "other checkouts link to it: it is replaced once it is made again"


def test_a_users_own_link_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    raw, long = tmp_path / "archive/drive.csv", tmp_path / "archive" / ("x" * 250)
    raw.write_text("1")
    raw.with_name("drive.csv.sha256").write_text("another one's\n")
    raw.chmod(0o664)
    for link, target in ((tmp_path / "a.csv", raw), (tmp_path / "b.csv", long)):
        link.symlink_to(target)
        assert cache_entries.unlink_damaged([link]) == ""
        assert link.is_symlink()


def test_a_reader_that_finds_an_entry_damaged_removes_the_link(
    tmp_path: Path, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, good = tmp_path / "frames.csv", tmp_path / "good"
    link.symlink_to(entry)
    good.write_text("kept")

    raised: list[Exception] = [CanidsError("not a whole table"), ValueError("what came of the damage")]

    def main(call: entry_point.Call) -> None:
        raise raised.pop(0)

    arguments = ["--output", str(tmp_path / "out"), "--frames", str(link), str(good)]
    monkeypatch.setattr("sys.argv", ["entry", "--spec", json.dumps({}), *arguments])

    def failed() -> object:
        with pytest.raises(SystemExit) as caught:
            entry_point.run(main, inputs=["frames"])
        return caught.value.code

    assert failed() == "error: not a whole table"
    assert entry.exists(), "it is what was made: the fault lies elsewhere"
    os.truncate(entry, 3)
    assert failed() == (
        f"error: {link}: its file in the cache between workflows, {entry}, is damaged (not the bytes that were made); "
        "run again: it is made again"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "good"}
