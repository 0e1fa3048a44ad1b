"""The hash of the code behind a rule: what changes it and what does not."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from canids_shared.planning import code_hash as code_hash_module

ROOT = Path(__file__).parents[3]
NESTED = """
if True:
    from . import in_if
else:
    from . import in_else

class Deep:
    def method(self):
        try:
            import canids_probe.in_try
        except ImportError:
            from canids_probe import in_except
        finally:
            from canids_probe import in_finally
        while True:
            with self:
                import canids_probe.in_with
            from . import in_loop
        match self:
            case 1:
                from . import in_match
    from . import in_class

    async def waits(self):
        async with self:
            from . import in_async
"""
FILES = {
    "__init__.py": "",
    **{
        f"in_{place}.py": "v = 1\n"
        for place in ("if", "else", "try", "except", "finally", "loop", "with", "match", "class", "async")
    },
    "entry.py": "import numpy\nfrom canids_probe import used\nfrom canids_probe.names import value\n"
    "from canids_probe.other.leaf import w\n"
    "from canids_probe import nested\n",
    "nested.py": NESTED,
    "used.py": "def f():\n    from .deep import inner\n    return inner\n",
    "names.py": "value = 1\n",
    "unused.py": "x = 1\n",
    "deep/__init__.py": "from . import inner\n",
    "deep/inner.py": "y = 1\n",
    "other/__init__.py": "",
    "other/leaf.py": "w = 1\n",
}


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Callable[[], str]]:
    """A package whose `entry` reaches all files but one, and a function that hashes it again."""
    folder = tmp_path / "canids_probe"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.startswith("canids_probe")]:
        monkeypatch.delitem(sys.modules, name)
    code_hash_module._origin.cache_clear()
    return folder, lambda: code_hash_module.code_hash.__wrapped__("canids_probe.entry")


@pytest.mark.parametrize("file", FILES)
def test_editing_a_file_changes_the_hash_if_the_entry_point_reaches_it(
    probe: tuple[Path, Callable[[], str]], file: str
) -> None:
    folder, code_hash = probe
    before = code_hash()
    assert before == code_hash()
    (folder / file).write_text(FILES[file] + "\nz = 3\n")
    assert (code_hash() != before) == (file != "unused.py")


def test_a_package_of_another_name_is_followed_where_the_entry_point_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / "probe_of_another" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "probe_of_another" / name).write_text(text.replace("canids_probe", "probe_of_another"))
    (tmp_path / "probe_of_another/names.py").write_text("from canids_shared import errors\nvalue = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    files, others = code_hash_module.closure("probe_of_another.entry")
    assert {"probe_of_another.other.leaf", "canids_shared.errors"} <= files.keys()
    assert others == {"numpy"}
    with pytest.raises(ModuleNotFoundError, match="install its package"):
        code_hash_module.code_hash("probe_of_another.absent")


def test_versions_of_imported_libraries_count(
    probe: tuple[Path, Callable[[], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, code_hash = probe
    before = code_hash()
    monkeypatch.setattr(code_hash_module, "_versions", lambda packages, python: dict.fromkeys(packages, "0.0"))
    assert code_hash() != before
    assert code_hash_module.closure("canids_probe.entry")[1] == {"numpy"}


def test_absent_library_does_not_stop_the_planning(probe: tuple[Path, Callable[[], str]]) -> None:
    folder, code_hash = probe
    (folder / "entry.py").write_text("import no_such_library\n")
    assert len(code_hash()) == 16


def test_no_library_is_imported_to_find_them() -> None:
    """Planning, and the start of every job on a cluster, would wait for torch."""
    script = (
        "import sys; from canids_shared.planning.code_hash import code_hash; code_hash('canids_train_gnn.gat');"
        "sys.exit(bool({'torch', 'canids_train_gnn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_unknown_entry_point_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"no module canids_shared\.nothing"):
        code_hash_module.code_hash("canids_shared.nothing")


def test_location_of_the_checkout_does_not_matter(tmp_path: Path) -> None:
    hashes = []
    script = (
        "import sys; from canids_shared.planning.code_hash import closure, code_hash; m = 'canids_preprocess.graphs';"
        "assert all(str(p).startswith(sys.argv[1]) for p in closure(m)[0].values()); print(code_hash(m))"
    )
    for number, place in enumerate(("one", "another/deeper")):
        for package in ("shared/canids_shared", "modules/preprocess/canids_preprocess"):
            target = tmp_path / place / Path(package).name
            shutil.copytree(ROOT / package, target, ignore=shutil.ignore_patterns("__pycache__"))
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / place), "PYTHONHASHSEED": str(number)}
        command = [sys.executable, "-c", script, str(tmp_path / place)]
        hashes.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert hashes[0] == hashes[1] == code_hash_module.code_hash("canids_preprocess.graphs") + "\n"


def test_planning_imports_nothing_that_jobs_need() -> None:
    ask = (
        "import sys, canids_shared.planning.stage; from canids_shared.planning.code_hash import code_hash; code_hash('canids_train_gnn.gat');"
        "print({'torch', 'polars', 'torch_geometric', 'canids_train_gnn.training.loop'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_packages_are_found_in_the_distributions_that_the_library_finds() -> None:
    """Whose own way takes a third of a second; names that nobody can import do not matter."""
    distributions = {k: v.name for k, v in code_hash_module._distributions().items()}
    expected = {k: v[0] for k, v in importlib.metadata.packages_distributions().items() if k.isidentifier()}
    assert "numpy" in expected
    assert distributions.items() >= expected.items()
