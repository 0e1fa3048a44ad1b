"""The house: floors of the shared package, rooms of the stages, and the size of folders and functions."""

import ast
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SHARED = ROOT / "shared/canids_shared"
FLOORS = [{""}, {"contracts"}, {"jobs"}, {"planning"}, {"sweeps", "scoring"}, {"tools"}, {"commands"}]
"""Rooms of `canids_shared`, from the ground up; the first one is its root."""
STAGES = {path.name: path for path in sorted(ROOT.glob("modules/*/canids_*")) if (path / "__init__.py").exists()}
PACKAGES = {SHARED.name: SHARED, **STAGES}
MOST_FILES, MOST_LINES = 15, 80


def graph(package: str) -> dict[str, set[str]]:
    """Modules of a package by dotted name (a folder's is `….__init__`) → those that they import, wherever the import stands."""
    folder = PACKAGES[package]
    paths = {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]): path
        for path in sorted(folder.rglob("*.py"))
    }
    edges: dict[str, set[str]] = {}
    for module, path in paths.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted = {f"{node.module}.{alias.name}" for alias in node.names}
                # A name is a module, or something that the module or the folder defines.
                names |= {n if {n, f"{n}.__init__"} & paths.keys() else node.module for n in wanted}
        edges[module] = ({n if n in paths else f"{n}.__init__" for n in names} & paths.keys()) - {module}
    return edges


def room(module: str) -> str:
    """The folder of a module within its package; empty at the root."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The nodes of one circle, the first one repeated at the end; empty if there is none."""
    done: set[str] = set()

    def search(node: str, above: list[str]) -> list[str]:
        if node in above:
            return [*above[above.index(node) :], node]
        if node not in done:
            for target in sorted(edges.get(node, ())):
                if around := search(target, [*above, node]):
                    return around
            done.add(node)
        return []

    return next((around for node in sorted(edges) if (around := search(node, []))), [])


def between_rooms(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = {}
    for module, targets in modules.items():
        rooms.setdefault(room(module), set()).update(room(t) for t in targets if room(t) != room(module))
    return rooms


def test_the_searches_find_what_they_look_for() -> None:
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert room("canids_shared.contracts.tables") == "contracts"
    assert room("canids_shared.errors") == ""
    assert room("canids_shared.contracts.__init__") == "contracts"
    modules = graph("canids_shared")
    assert "canids_shared.contracts.whole" in modules["canids_shared.contracts.tables"]
    assert "contracts" in between_rooms(modules)["jobs"]


def test_shared_modules_import_from_their_own_floor_or_below() -> None:
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    rooms = between_rooms(graph("canids_shared"))
    assert rooms.keys() <= floor.keys(), "a room without a floor"
    assert not [(upper, lower) for upper, targets in rooms.items() for lower in targets if floor[lower] >= floor[upper]]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_in_a_circle(package: str) -> None:
    assert not circle(graph(package))


@pytest.mark.parametrize("stage", STAGES)
def test_rooms_of_a_stage_form_no_circle(stage: str) -> None:
    """The root, where the entry points lie, counts as one."""
    assert not circle(between_rooms(graph(stage)))


@pytest.mark.parametrize("stage", STAGES)
def test_entry_points_lie_at_the_root_of_their_stage(stage: str) -> None:
    folder = STAGES[stage].parent
    snakefiles = [*folder.glob("Snakefile"), *folder.glob("*.smk")]
    called = {name for path in snakefiles for name in re.findall(rf"-m {stage}\.([\w.]+)", path.read_text())}
    assert not {name for name in called if "." in name}
    guarded = [p for p in STAGES[stage].rglob("*.py") if re.search(r"^if __name__ == ", p.read_text(), re.MULTILINE)]
    assert not [str(path) for path in guarded if path.parent != STAGES[stage]]


def code_folders() -> Iterable[Path]:
    return sorted({path.parent for top in ("shared", "modules") for path in (ROOT / top).rglob("*.py")})


@pytest.mark.parametrize("folder", code_folders(), ids=lambda p: str(p.relative_to(ROOT)))
def test_few_files_of_code_lie_side_by_side(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MOST_FILES


def is_compiled(function: ast.FunctionDef) -> bool:
    return any(
        "njit" in ast.unparse(decorator) or "jit(" in ast.unparse(decorator) for decorator in function.decorator_list
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_are_short(package: str) -> None:
    """Kernels compiled by numba excepted: they cannot call what Python can."""
    assert not {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted(PACKAGES[package].rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and not is_compiled(node)
        and (node.end_lineno or 0) - node.lineno >= MOST_LINES
    }


@pytest.mark.parametrize("folder", ["shared", "modules/train_drl", "modules/evaluate", "modules/track"])
def test_detectors_are_named_where_they_are_declared_and_nowhere_else(folder: str) -> None:
    pattern = r"""['"](vgae|gat)[_'"]"""
    search = [
        "git",
        "-C",
        str(ROOT),
        "grep",
        "-nE",
        pattern,
        "--",
        folder,
        ":!shared/canids_shared/contracts/detectors.py",
    ]
    done = subprocess.run(search, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), "1: searched, and found nothing"


def test_a_common_key_has_one_default() -> None:
    properties = [
        yaml.safe_load((ROOT / f"modules/{stage}/config.schema.yaml").read_text())["properties"]
        for stage in ("train_drl", "evaluate")
    ]
    first, second = (options.get("false_alarm_budget", {}).get("default") for options in properties)
    assert first == second is not None
