"""New pipelines and modules: names, files, and the edit of pyproject.toml. `tests/modules/test_scaffold.py` runs what is made."""

import tomllib
from pathlib import Path

import pytest

from canids_shared.errors import CanidsError
from canids_shared.tools.scaffold.__main__ import write
from canids_shared.tools.scaffold.project import with_package

ROOT = Path(__file__).parents[3]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as the scaffold looks at."""
    for folder in ("modules/evaluate", "pipelines/kd_fusion", "tests/modules"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("pyproject.toml", "modules/evaluate/Snakefile", "pipelines/kd_fusion/Snakefile"):
        (tmp_path / file).write_text((ROOT / file).read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}


def test_a_pipeline_is_one_new_folder(checkout: Path) -> None:
    before = files(checkout)
    write(checkout, "pipeline", "late_fusion")
    after = files(checkout)
    assert after.items() >= before.items()
    assert {Path(p).parts[:2] for p in after.keys() - before.keys()} == {("pipelines", "late_fusion")}


def test_a_module_changes_no_other_file_but_pyproject(checkout: Path) -> None:
    before = files(checkout)
    write(checkout, "module", "late_alarms")
    after = files(checkout)
    assert {p for p in before if before[p] != after[p]} == {"pyproject.toml"}
    made = {p for p in after.keys() - before.keys() if not p.startswith("modules/late_alarms/")}
    assert made == {"tests/modules/test_module_late_alarms.py"}
    text = "".join(after[p] for p in after.keys() - before.keys())
    assert "@name@" not in text
    assert "@extra@" not in text
    assert "CANIDS_LATE_ALARMS_PYTHON" in text


@pytest.mark.parametrize(
    ("kind", "name", "complaint"),
    [
        ("pipeline", "", "must be lower case"),
        ("pipeline", "Late", "must be lower case"),
        ("pipeline", "../late", "must be lower case"),
        ("pipeline", "late__fusion", "must be lower case"),
        ("pipeline", "a" * 31, "at most 30 characters"),
        ("module", "lambda", "is taken by the language"),
        ("module", "decisions", "is taken by the language or by canids"),
        ("module", "preprocess", "is taken by the language or by canids"),
        ("pipeline", "kd_fusion", "pipelines/kd_fusion is there already"),
        ("module", "kd_fusion", "pipelines/kd_fusion is there already"),
        ("module", "summary", "modules/evaluate/Snakefile has a rule 'summary'"),
        ("pipeline", "folds", "has a rule '"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_written(
    checkout: Path, kind: str, name: str, complaint: str
) -> None:
    before = files(checkout)
    with pytest.raises(CanidsError, match=complaint):
        write(checkout, kind, name)
    assert files(checkout) == before


def test_what_is_there_is_not_overwritten(checkout: Path) -> None:
    (checkout / "tests/modules/test_module_late_alarms.py").write_text("mine\n")
    before = files(checkout)
    with pytest.raises(CanidsError, match=r"test_module_late_alarms\.py: is there already; nothing was written"):
        write(checkout, "module", "late_alarms")
    assert files(checkout) == before


def test_outside_a_checkout_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match="run this in the root of a checkout"):
        write(tmp_path, "pipeline", "late_fusion")


ONE_LINE = """\
[project]
dependencies = ["polars>=2.0"]

[project.optional-dependencies]
evaluate = ["scikit-learn"]
notebook = ["canids[evaluate]"]
# All of them.
dev = [
    "canids[evaluate,notebook]",
    "ruff",
]

[tool.setuptools]
package-dir = { canids_shared = "shared/canids_shared" }
packages = ["canids_shared"]

[tool.ruff.lint.isort]
known-first-party = ["canids_shared"]

[tool.mypy]
mypy_path = ["shared"]
"""
SEVERAL_LINES = ONE_LINE.replace('["canids_shared"]', "[\n    'canids_shared',  # ] as it is\n]").replace(
    '["shared"]', '[ # {\n    "shared"\n]'
)
NO_COMMA = ONE_LINE.replace('["shared"]', '[\n    "shared"  # the last\n]')
"""Here an item at the end would become part of the comment."""


@pytest.mark.parametrize("text", [PROJECT, ONE_LINE, SEVERAL_LINES], ids=["own", "one line", "several lines"])
def test_the_package_is_listed_and_all_else_stays(text: str) -> None:
    edited = with_package(text, "late_alarms")
    project, before = tomllib.loads(edited), tomllib.loads(text)
    tool, extras = project["tool"], project["project"]["optional-dependencies"]
    assert tool["setuptools"]["package-dir"].pop("canids_late_alarms") == "modules/late_alarms/canids_late_alarms"
    assert tool["setuptools"]["packages"].pop() == "canids_late_alarms"
    assert tool["ruff"]["lint"]["isort"]["known-first-party"].pop() == "canids_late_alarms"
    assert tool["mypy"]["mypy_path"].pop() == "modules/late_alarms"
    assert extras.pop("late-alarms") == []
    extras["dev"] = [d.replace(",late-alarms]", "]") for d in extras["dev"]]
    assert project == before
    comments = [row.partition("#")[2] for row in text.splitlines() if "#" in row]
    assert comments == [row.partition("#")[2] for row in edited.splitlines() if "#" in row]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (NO_COMMA, "cannot be edited safely; add by hand: .* canids_late_alarms"),
        (ONE_LINE.replace("package-dir =", "package-dir=").replace("packages = ", "'packages' = "), "cannot be edited"),
        (ONE_LINE.replace("[tool.mypy]", "[tool.other]"), "not that of canids"),
    ],
)
def test_a_layout_that_cannot_be_edited_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(CanidsError, match=complaint):
        with_package(text, "late_alarms")
