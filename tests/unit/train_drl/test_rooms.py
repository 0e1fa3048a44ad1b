"""Which rooms of the package import which: `environment` lies below `agent` and `fusion_baselines`, which do not know each other."""

import ast
from pathlib import Path

import pytest

import canids_train_drl

PACKAGE = Path(canids_train_drl.__file__).parent
BELOW = {
    "environment": {"environment"},
    "agent": {"environment", "agent"},
    "fusion_baselines": {"environment", "fusion_baselines"},
}


def rooms_imported(source: str) -> set[str]:
    """Rooms, or entry points, of the package that a file imports from."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    inside = [name.split(".")[1] for name in names if name.startswith("canids_train_drl.")]
    return set(inside)


@pytest.mark.parametrize("room", BELOW)
def test_rooms_import_downwards_only(room: str) -> None:
    files = list((PACKAGE / room).glob("*.py"))
    assert len(files) > 2
    for path in files:
        assert rooms_imported(path.read_text()) <= BELOW[room], path.name
