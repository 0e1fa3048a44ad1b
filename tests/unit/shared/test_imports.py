"""Imports between stages: they meet in files only, and torch is imported by trainings alone."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from canids_shared.planning.code_hash import closure

ROOT = Path(__file__).parents[3]
STAGES = {
    path.name: path
    for path in sorted(ROOT.glob("modules/*/canids_*"))
    if path.is_dir() and path.parent.name == path.name.removeprefix("canids_")
}
SHARED = ROOT / "shared/canids_shared"
MODULES = sorted([*SHARED.rglob("*.py"), *(f for s in STAGES.values() for f in s.rglob("*.py"))])
TORCH = {"torch", "torch_geometric", "dgl"}
READERS = {SHARED / "contracts/torch_store.py", SHARED / "jobs/torch_state.py"}


def imported(source: str) -> set[str]:
    """Top-level names of all packages that the source imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in ("import_module", "__import__"):
                names |= {str(a.value) for a in node.args if isinstance(a, ast.Constant)}
    return {name.partition(".")[0] for name in names}


def test_there_is_something_to_look_at() -> None:
    assert {"canids_preprocess", "canids_train_gnn", "canids_train_drl", "canids_evaluate"} <= STAGES.keys()
    source = "def f():\n    import a.b\n    from c.d import e\n    importlib.import_module('g.h')\nfrom . import i\n"
    assert imported(source) == {"a", "c", "g"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_keeps_to_its_stage(path: Path) -> None:
    names = imported(path.read_text())
    stage = next((name for name, folder in STAGES.items() if folder in path.parents), "")
    assert not (names & STAGES.keys()) - {stage}
    if stage not in ("canids_train_gnn", "canids_train_drl") and path not in READERS:
        assert not names & TORCH


@pytest.mark.parametrize("stage", ["canids_preprocess", "canids_evaluate", "canids_track"])
def test_stage_without_torch_reaches_none_through_shared_modules(stage: str) -> None:
    for path in STAGES[stage].rglob("*.py"):
        name = ".".join([stage, *path.relative_to(STAGES[stage]).with_suffix("").parts]).removesuffix(".__init__")
        assert not closure(name)[1] & TORCH


@pytest.mark.parametrize("path", sorted(ROOT.glob("modules/*/Snakefile")), ids=lambda p: p.parent.name)
def test_snakefile_imports_shared_code_only(path: Path) -> None:
    imported_packages = set(re.findall(r"^\s*(?:from|import)\s+(canids_\w+)", path.read_text(), re.MULTILINE))
    assert imported_packages <= {"canids_shared", f"canids_{path.parent.name}"}
    called = set(re.findall(r"-m (canids_\w+)\.", path.read_text()))
    assert called <= {f"canids_{path.parent.name}"}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_planning_needs_no_more_than_snakemake_has(stage: str) -> None:
    """A pipeline whose stages have environments of their own is planned in one that knows none of what they need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = extras[stage.removeprefix("canids_").replace("_", "-")]
    foreign = {re.split("[=<>]", text)[0].replace("-", "_") for text in needed} | {"can", "sklearn", *TORCH}
    text = (ROOT / f"modules/{stage.removeprefix('canids_')}/Snakefile").read_text()
    for module in set(re.findall(r"^from (canids_\w+\.\w+) import", text, re.MULTILINE)):
        assert not closure(module)[1] & foreign
