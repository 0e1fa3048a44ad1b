"""How a rule calls an entry point, and how files are written."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from canids_shared import files
from canids_shared.contracts import graph_store, tables
from canids_shared.contracts.arrays import graph_layout
from canids_shared.contracts.model_file import save_arrays
from canids_shared.contracts.training_run import write_history
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point

SPEC = {"wildcards": {"instance": "@seed-1"}, "config": {"window": 5}, "code": "aa", "capture": {"name": "a"}}


def ran(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> entry_point.Call:
    calls: list[entry_point.Call] = []

    def keep(call: entry_point.Call) -> None:
        calls.append(call)

    monkeypatch.setattr("sys.argv", ["entry", "--spec", json.dumps(SPEC), *arguments])
    entry_point.run(keep, inputs=["frames", "more"])
    return calls[0]


def test_call_holds_spec_output_and_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    call = ran(monkeypatch, "--output", "out", "--frames", "a", "b")
    assert call.wildcards == SPEC["wildcards"]
    assert call.instance == "@seed-1"
    assert call.config == {"window": 5}
    assert call.constants == {"code": "aa", "capture": {"name": "a"}}
    assert call.output == {"output": Path("out")}
    assert call.inputs == {"frames": [Path("a"), Path("b")], "more": []}
    assert json.loads(call.spec) == SPEC


def test_a_job_for_several_splits_is_a_call_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[entry_point.Call] = []

    def keep(call: entry_point.Call) -> None:
        calls.append(call)

    each = [{"wildcards": {"split": "fit"}}, {"wildcards": {"split": "test"}, "capture": {"name": "b"}}]
    monkeypatch.setattr(
        "sys.argv", ["entry", "--spec", json.dumps({**SPEC, "each": each}), "--output", "f", "t", "F", "T"]
    )
    monkeypatch.setattr("sys.argv", [*sys.argv, "--graphs", "a", "b", "--model", "m"])
    entry_point.run(keep, inputs=["graphs", "model"], outputs=["output", "more"], each=["graphs"])
    assert [call.wildcards for call in calls] == [{"instance": "@seed-1", "split": s} for s in ("fit", "test")]
    assert [call.constants for call in calls] == [{"code": "aa", "capture": {"name": name}} for name in ("a", "b")]
    assert [call.output for call in calls] == [
        {"output": Path("f"), "more": Path("F")},
        {"output": Path("t"), "more": Path("T")},
    ]
    assert [call.inputs for call in calls] == [{"graphs": [Path(p)], "model": [Path("m")]} for p in ("a", "b")]
    # What such a job hands over is what a job for one split would get.
    assert json.loads(calls[0].spec) == {**SPEC, "wildcards": {"instance": "@seed-1", "split": "fit"}}
    assert json.loads(capsys.readouterr().err.rpartition("resources: ")[2])["wildcards"] == SPEC["wildcards"]
    for option, message in (
        (["--output", "f"], "--output: 1 paths, where 2 belong"),
        (["--output", "f", "t"], "--graphs: 0"),
    ):
        monkeypatch.setattr("sys.argv", ["entry", "--spec", json.dumps({**SPEC, "each": each}), *option])
        with pytest.raises(SystemExit, match=message):
            entry_point.run(keep, inputs=["graphs"], each=["graphs"])


def test_error_of_the_user_is_one_line_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(call: entry_point.Call) -> None:
        raise CanidsError("config: window is 1")

    monkeypatch.setattr("sys.argv", ["entry", "--spec", json.dumps(SPEC), "--output", "out"])
    with pytest.raises(SystemExit) as caught:
        entry_point.run(main, inputs=[])
    assert caught.value.code == "error: config: window is 1"


def test_a_request_to_end_leaves_no_temporary_file_and_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def main(call: entry_point.Call) -> None:
        with files.written_whole(call.output["output"]) as temporary:
            temporary.write_text("half")
            assert len(list(tmp_path.iterdir())) == 2
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("sys.argv", ["entry", "--spec", json.dumps(SPEC), "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        entry_point.run(main, inputs=[], alone="output")
    assert caught.value.code == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_name_as_long_as_may_be_is_written_and_a_longer_one_said(tmp_path: Path) -> None:
    files.write_text(tmp_path / ("ö" * 127), "written\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["written\n"]
    with pytest.raises(CanidsError, match=r"ööö: File name too long; give it a shorter name"):
        files.write_text(tmp_path / ("ö" * 128), "written\n")


def test_two_machines_that_write_the_same_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    with files.written_whole(tmp_path / "file") as one, files.written_whole(tmp_path / "file") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one", "the last one to end"


def test_failed_write_keeps_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep/file"
    files.write_text(path, "old\n")

    def fail() -> None:
        with files.written_whole(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old\n"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, as root may mount it."""
    if os.geteuid():
        pytest.skip("only root mounts")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("mounting is forbidden here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


NOISE = np.random.default_rng(1).random(1 << 17)


def written_table(path: Path) -> None:
    rejects = pl.DataFrame({"line": np.arange(len(NOISE), dtype=np.uint64), "reason": "odd", "text": NOISE.astype(str)})
    tables.write(path, tables.REJECTS, rejects, {})


def written_piece_by_piece(path: Path) -> None:
    rejects = pl.DataFrame({"line": np.arange(len(NOISE), dtype=np.uint64), "reason": "odd", "text": NOISE.astype(str)})
    with tables.writing(path, tables.REJECTS) as writer:
        writer.append(rejects)
        writer.close({})


def written_graphs(path: Path) -> None:
    header = {name: [] for name in ("node_features", "edge_features", "statistics", "attacks", "captures", "vehicles")}
    rows = {"window": len(NOISE), "node": len(NOISE), "edge": 0}
    with graph_store.writing(path, header, windows=len(NOISE), nodes=len(NOISE), edges=0) as writer:
        chunk = {
            name: np.zeros((rows[unit], 0) if column.width else rows[unit], column.kind)
            for unit, columns in graph_layout.UNITS.items()
            for name, column in columns.items()
        }
        counts = np.ones(len(NOISE), np.int64)
        writer.append({**chunk, "node_counts": counts, "edge_counts": 0 * counts})


WRITERS: list[Callable[[Path], object]] = [
    written_table,
    written_piece_by_piece,
    written_graphs,
    lambda path: save_arrays(path, {"weights": NOISE}, {"contract": "checkpoint/1"}),
    lambda path: files.write_json(path, NOISE.tolist()),
    lambda path: write_history(path, [{"loss": x} for x in NOISE]),
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("full", r"No space left on device; delete files on {mount} \(df -h, df -i\) and run again"),
        ("read-only", r"Read-only file system; {mount} is mounted read-only: write elsewhere \(--directory\), .*"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line_that_names_the_file_and_the_file_system(
    tiny: Path, write: Callable[[Path], object], state: str, reason: str
) -> None:
    if state == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
    with pytest.raises(CanidsError) as caught:
        write(tiny / "a.file")
    assert re.fullmatch(f"{tiny}/a.file: {reason.format(mount=tiny)}", str(caught.value))
    assert not list(tiny.iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_above_the_limit_on_sizes_is_one_line(tmp_path: Path, write: Callable[[Path], object]) -> None:
    """Without root: what a limit does to all writers, a full disk does too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(CanidsError, match=r"a\.file: File too large; raise the limit \(ulimit -f\)"):
            write(tmp_path / "a.file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOSPC])
def test_other_failed_writes_of_a_job_are_one_line(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(call: entry_point.Call) -> None:
        raise OSError(number, os.strerror(number), *paths)

    monkeypatch.setattr("sys.argv", ["entry", "--spec", json.dumps(SPEC), "--output", str(tmp_path / "out")])
    for paths in ([], [str(tmp_path / "another")]):
        with pytest.raises(SystemExit) as caught:
            entry_point.run(main, inputs=[])
        named = paths[0] if paths else tmp_path / "out"
        # What a server fails at may pass at another try.
        kind = "busy" if number == errno.EIO else "error"
        assert str(caught.value.code).startswith(f"{kind}: {named}: {os.strerror(number)}; ")


def test_a_fault_of_the_code_is_no_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(call: entry_point.Call) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "missing")

    monkeypatch.setattr("sys.argv", ["entry", "--spec", json.dumps(SPEC), "--output", str(tmp_path / "out")])
    with pytest.raises(FileNotFoundError):
        entry_point.run(main, inputs=[])


def test_the_line_reaches_the_terminal_where_the_log_is_on_the_full_disk(tiny: Path) -> None:
    code = (
        "from canids_shared.jobs import entry_point; from canids_shared.files import write_text\n"
        "def main(call): write_text(call.output['output'], 'a' * 100_000)\n"
        "entry_point.run(main, inputs=[])"
    )
    (tiny / "filler").write_bytes(bytes(1 << 16))
    command = [sys.executable, "-c", code, "--spec", json.dumps(SPEC), "--output", str(tiny / "out")]
    with open(tiny / "log", "w") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(f"error: {tiny}/out: No space left on device; delete files on {tiny}")
    assert done.stdout.count("\n") == 1


def test_json_depends_on_its_content_alone(tmp_path: Path) -> None:
    assert files.canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    files.write_json(tmp_path / "a", {"b": 1, "a": 2})
    files.write_json(tmp_path / "b", {"a": 2, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert files.sha256_of(tmp_path / "a") == files.sha256_of(tmp_path / "b")
    with pytest.raises(ValueError, match="JSON compliant"):
        files.canonical_json({"a": float("nan")})
