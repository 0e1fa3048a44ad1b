"""`make new-pipeline` and `make new-module`: what they make passes lint and tests as it is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from workflows import REPOSITORY, Checkout

pytestmark = pytest.mark.slow
PIPELINE, MODULE = "late_fusion", "late_alarms"
TESTS = (
    f"tests/modules/test_module_{MODULE}.py",
    "tests/modules/test_snakefiles.py",
    "tests/modules/test_environment.py::test_environment_lists_what_the_extra_says",
    "tests/unit/shared/test_imports.py",
)


class Scaffolded:
    """A checkout with a new pipeline and a new module, in which git tracks all files."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout, self.folder = checkout, checkout.folder
        path = [str(self.folder / "modules" / MODULE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.variables = {"PYTHONPATH": os.pathsep.join(path)}  # in place of pip, which `make new-module` calls
        for kind, name in (("pipeline", PIPELINE), ("module", MODULE)):
            self.python("-m", "canids_shared.tools.scaffold", kind, name)
        for words in (("init", "--quiet"), ("add", "--all")):
            subprocess.run(["git", *words], cwd=self.folder, check=True)

    def python(self, *arguments: str) -> str:
        """Run Python in it; returns what it says."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def scaffolded(new_checkout: Callable[[], Checkout]) -> Scaffolded:
    return Scaffolded(new_checkout())


def test_new_code_passes_lint(scaffolded: Scaffolded) -> None:
    python = [f"modules/{MODULE}", TESTS[0]]
    scaffolded.python("-m", "ruff", "check", *python)
    scaffolded.python("-m", "ruff", "format", "--check", *python)
    scaffolded.python("-m", "snakefmt", "--check", f"modules/{MODULE}/Snakefile", f"pipelines/{PIPELINE}/Snakefile")
    # The cache of `make lint` knows the libraries.
    cache = str(REPOSITORY / ".mypy_cache")
    scaffolded.python("-m", "mypy", "--cache-dir", cache, f"modules/{MODULE}")


@pytest.mark.parametrize("snakefile", [f"modules/{MODULE}/Snakefile", f"pipelines/{PIPELINE}/Snakefile"])
def test_new_snakefile_passes_lint(scaffolded: Scaffolded, snakefile: str) -> None:
    scaffolded.python("-m", "snakemake", "--lint", "-s", snakefile)


def test_new_pipeline_passes_its_own_test(scaffolded: Scaffolded) -> None:
    """What pytest-workflow would do with it, without another copy of the repository."""
    (own,) = yaml.safe_load((scaffolded.folder / f"pipelines/{PIPELINE}/test_{PIPELINE}.yml").read_text())
    program, *options = own["command"].split()
    assert program == "snakemake"
    plan = scaffolded.python("-m", program, *options)
    assert own["stdout"]["contains"]
    for text in own["stdout"]["contains"]:
        assert text in plan


def test_new_module_passes_its_own_test_and_those_of_all_modules(scaffolded: Scaffolded) -> None:
    said = scaffolded.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
    assert "passed" in said
    assert "skipped" not in said


def test_nothing_is_made_twice(scaffolded: Scaffolded) -> None:
    command = [sys.executable, "-m", "canids_shared.tools.scaffold", "module", MODULE]
    done = subprocess.run(command, cwd=scaffolded.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: name '{MODULE}'")
    assert Path(scaffolded.folder / f"modules/{MODULE}/Snakefile").exists()
