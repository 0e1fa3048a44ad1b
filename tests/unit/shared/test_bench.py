"""Measurements: each figure has a peer or a limit, and a line in `bench/README.md`."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from canids_shared.tools.mkdocs_hooks import speeds

BENCH = Path(__file__).parents[3] / "bench"
_ROW = re.compile(r"^\| `([\w*]+)` \| [^|]+ \| [^|]+ \|$", re.MULTILINE)
_NAME = re.compile(r"""\b(?:result|compared)\(\s*f?"([^"]+)\"""")


@pytest.fixture(scope="module")
def common() -> ModuleType:
    spec = importlib.util.spec_from_file_location("common", BENCH / "common.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_figure_has_a_line_in_the_readme_and_each_line_a_figure() -> None:
    measured = {
        re.sub(r"\{[^}]*\}", "*", name)
        for path in BENCH.glob("*.py")
        for name in _NAME.findall(path.read_text(encoding="utf-8"))
    }
    assert measured == set(_ROW.findall((BENCH / "README.md").read_text(encoding="utf-8")))


def test_every_script_is_run_by_make_bench() -> None:
    makefile = (BENCH.parent / "Makefile").read_text(encoding="utf-8")
    run = re.findall(r"^\t\$\(BIN\)/python bench/(\w+)\.py$", makefile, re.MULTILINE)
    assert sorted(run) == sorted({path.stem for path in BENCH.glob("*.py")} - {"common", "formats"})


def test_a_figure_without_peer_and_limit_is_refused(common: ModuleType) -> None:
    with pytest.raises(ValueError, match="jobs: name a peer"):
        common.result("jobs", 5, "jobs")


def test_figures_are_merged_and_shown_with_the_machine(
    common: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results.json"
    common.publish(
        [common.result("jobs", 50, "jobs", most=45), common.result("rate", 10, "1/s", "a peer", 2.5)], output
    )
    common.publish([common.result("jobs", 40, "jobs", most=45, note="fewer")], output)
    written = json.loads(output.read_text(encoding="utf-8"))
    assert [(row["name"], row["value"]) for row in written] == [("rate", 10), ("jobs", 40)]
    assert [common.kept(row) for row in written] == [None, True]
    assert "MISSED" in capsys.readouterr().out
    page = speeds(written)
    assert f"## {common.machine()}" in page
    assert "| `rate` | 10 1/s | 2.50 × a peer |  |" in page
    assert "| `jobs` | 40 jobs | ≤ 45 | fewer |" in page
