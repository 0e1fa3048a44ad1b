"""How a rule calls an entry point, and how files are written."""

import json
import os
import signal
from pathlib import Path

import pytest

from canids_shared import files
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


def test_json_depends_on_its_content_alone(tmp_path: Path) -> None:
    assert files.canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    files.write_json(tmp_path / "a", {"b": 1, "a": 2})
    files.write_json(tmp_path / "b", {"a": 2, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert files.sha256_of(tmp_path / "a") == files.sha256_of(tmp_path / "b")
    with pytest.raises(ValueError, match="JSON compliant"):
        files.canonical_json({"a": float("nan")})
