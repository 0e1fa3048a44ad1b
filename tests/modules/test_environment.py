"""Each module's environment: declared the same for pip and conda, and enough to run the module in."""

import csv
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from workflows import REPOSITORY, Checkout, served

from canids_shared.graphstore import GraphStore
from canids_shared.manifest import SPLITS

MODULES = sorted(path.parent.name for path in REPOSITORY.glob("modules/*/environment.yaml"))
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
        *((f"modules/{name}/environment.yaml", [name.replace("_", "-")], []) for name in MODULES),
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
def test_another_repository_runs_preprocess_by_url_where_only_its_own_extra_is_installed(
    new_checkout: Callable[[], Checkout], tiny_dataset: Path, tmp_path: Path
) -> None:
    """`examples/preprocess_by_url`: of canids it has the installed package and a URL."""
    checkout = new_checkout()
    here = tmp_path / "another_repository"
    shutil.copytree(checkout.folder / "examples/preprocess_by_url", here)
    shutil.copytree(tiny_dataset, here / "data")
    options = {**yaml.safe_load((here / "data/tiny/preprocess.yaml").read_text()), "data_root": "data"}
    (here / "tiny.yaml").write_text(yaml.safe_dump({"preprocess": options}))
    python = str(tmp_path / "venv/bin/python")

    def run(*command: str, folder: Path = here) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "no_proxy": "127.0.0.1"}
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)

    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    installing = (python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", ".[preprocess]")
    installed = run(*installing, folder=checkout.folder)
    assert installed.returncode == 0, installed.stderr
    assert "No module named 'torch'" in run(python, "-c", "import torch").stderr
    with served(checkout.folder) as (url, asked):
        done = run(python, "-m", "snakemake", "-c2", "--configfile", "tiny.yaml", "--config", f"canids={url}")
    assert done.returncode == 0, done.stderr
    assert {"/modules/preprocess/Snakefile", "/modules/preprocess/config.schema.yaml"} <= set(asked)
    with open(here / "work/tiny/windows.csv", encoding="utf-8") as stream:
        table = {row["split"]: row for row in csv.DictReader(stream)}
    assert list(table) == list(SPLITS)
    for split, row in table.items():
        keys = GraphStore(here / f"work/tiny/graphs/{split}.safetensors").keys()
        assert int(row["windows"]) == len(keys)
        assert int(row["attacked"]) == keys["label"].sum() > 0
        assert 0 < float(row["ids"]) <= 50
    assert not (here / "results").exists(), "every port was set to a folder of the workflow's own"
