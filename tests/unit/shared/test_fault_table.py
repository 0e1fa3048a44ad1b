"""The table of faults: every row names a test, and every test that it names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/faults.md"
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (?!Fault \|)", line)]


def names_in(path: Path) -> set[str]:
    return {
        node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    }


def test_every_row_names_tests_that_there_are() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        *_, shown, _ = row.split("|")
        named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", shown)
        assert named, f"no test: {row}"
        assert shown.count("::") == len(named), f"not path::name: {row}"
        for path, name in named:
            assert (ROOT / path).is_file(), row
            assert name in names_in(ROOT / path), row
            assert path.split("/")[-1].startswith("test_"), f"pytest does not collect {path}"


def test_every_row_has_four_cells() -> None:
    assert not [row for row in ROWS if row.count("|") != 5]
