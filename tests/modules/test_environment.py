"""Each module's environment: declared the same for pip and conda, and enough to run the module in."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from workflows import REPOSITORY, STAGES, TINY, Checkout

CONDA_NAMES = {
    "torch": "pytorch",
    "torch-geometric": "pytorch_geometric",
    "matplotlib": "matplotlib-base",
    "snakemake": "snakemake-minimal",
}


def requirement(text: str) -> tuple[str, str]:
    """Name and version of a requirement; `==` and conda's `=` mean the same here."""
    found = re.fullmatch(r"([A-Za-z0-9_-]+)\s*(.*)", text)
    assert found, text
    return found[1].lower(), found[2].replace("==", "=").replace(" ", "")


@pytest.mark.parametrize(
    ("file", "extras", "by_pip"),
    [
        *((f"modules/{stage}/environment.yaml", [stage.replace("_", "-")], []) for stage in STAGES),
        ("modules/train_gnn/environment.dgl.yaml", ["train-gnn", "dgl"], ["dgl==1.1.3"]),
    ],
)
def test_environment_lists_what_the_extra_says(file: str, extras: list[str], by_pip: list[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extra = [text for name in extras for text in project["optional-dependencies"][name]]
    assert set(by_pip) <= set(extra)
    conda = [text for text in extra if not text.startswith("canids[") and text not in by_pip]
    wanted = [requirement(text) for text in (*project["dependencies"], *conda)]
    environment = yaml.safe_load((REPOSITORY / file).read_text())
    listed = dict(requirement(text) for text in environment["dependencies"] if isinstance(text, str))
    assert listed.pop("python") == "=3.11"
    assert listed.pop("pip") == ""
    assert listed == {CONDA_NAMES.get(name, name): version for name, version in wanted}
    assert {"pip": ["canids", *by_pip]} in environment["dependencies"]


@pytest.mark.slow
def test_preprocess_runs_where_only_its_own_extra_is_installed(
    new_checkout: Callable[[], Checkout], tiny_dataset: Path, tmp_path: Path
) -> None:
    checkout = new_checkout()
    shutil.copytree(tiny_dataset, checkout.folder / "data")
    python = str(tmp_path / "venv/bin/python")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=False)

    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    installed = run(python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", ".[preprocess]")
    assert installed.returncode == 0, installed.stderr
    assert "No module named 'torch'" in run(python, "-c", "import torch").stderr
    done = run(python, "-m", "snakemake", "-c2", "-s", "modules/preprocess/Snakefile", "--configfile", TINY)
    assert done.returncode == 0, done.stderr
    assert (checkout.folder / "results/tiny/graphs/test_dos.safetensors").exists()
