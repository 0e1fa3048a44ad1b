"""New pipelines and modules: names, files, and the edit of pyproject.toml. `tests/modules/test_scaffold.py` runs what is made."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from canids_shared.errors import CanidsError
from canids_shared.tools.scaffold import with_module, write

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
        ("module", "lambda", "is reserved by Python"),
        ("module", "decisions", "is reserved by Python or by canids"),
        ("module", "preprocess", "is reserved by Python or by canids"),
        ("pipeline", "kd_fusion", "pipelines/kd_fusion exists already"),
        ("module", "kd_fusion", "pipelines/kd_fusion exists already"),
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
    with pytest.raises(CanidsError, match=r"test_module_late_alarms\.py: exists already; nothing was written"):
        write(checkout, "module", "late_alarms")
    assert files(checkout) == before


def test_outside_a_checkout_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match="run this in the root of a checkout"):
        write(tmp_path, "pipeline", "late_fusion")


def test_the_environment_lists_what_canids_requires(checkout: Path) -> None:
    write(checkout, "module", "late_alarms")
    environment = yaml.safe_load((checkout / "modules/late_alarms/environment.yaml").read_text())
    of_conda = {"snakemake": "snakemake-minimal", "xxhash": "python-xxhash"}
    required = tomllib.loads(PROJECT)["project"]["dependencies"]
    required = [re.sub("^[a-z0-9]+", lambda name: of_conda.get(name[0], name[0]), d) for d in required]
    listed = [d.replace(" ", "") for d in environment["dependencies"] if isinstance(d, str)]
    assert sorted(listed) == sorted(["python=3.11", "pip", *required])


def test_the_module_is_listed_and_all_else_stays() -> None:
    edited = with_module(PROJECT, "late_alarms")
    project, before = tomllib.loads(edited), tomllib.loads(PROJECT)
    tool, extras = project["tool"], project["project"]["optional-dependencies"]
    build = tool["hatch"]["build"]
    assert build["dev-mode-dirs"].pop() == build["targets"]["wheel"]["sources"].pop() == "modules/late_alarms"
    assert build["targets"]["wheel"]["only-include"].pop() == "modules/late_alarms/canids_late_alarms"
    assert tool["ruff"]["lint"]["isort"]["known-first-party"].pop() == "canids_late_alarms"
    assert tool["mypy"]["mypy_path"].pop() == "modules/late_alarms"
    assert extras.pop("late-alarms") == []
    assert project == before
    comments = [row.partition("#")[2] for row in PROJECT.splitlines() if "#" in row]
    assert comments == [row.partition("#")[2] for row in edited.splitlines() if "#" in row]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("mypy_path = [", "mypy_path = [ # all\n"),
        ("known-first-party = [", "known-first-party = [\n"),
        ("[tool.mypy]", "[tool.other]"),
        ("dev = [", "'dev' = ["),
        ("[tool.mypy]", "[tool.mypy"),
    ],
)
def test_a_layout_that_cannot_be_edited_names_what_to_add(before: str, after: str) -> None:
    assert before in PROJECT
    with pytest.raises(
        CanidsError, match=r'add by hand: "modules/late_alarms" to dev-mode-dirs; .*Nothing was written'
    ):
        with_module(PROJECT.replace(before, after), "late_alarms")
