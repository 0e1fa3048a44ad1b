"""Each module in an environment of its own, built from its declaration (`make environment-tests`; some minutes, 5 GB).

The pipeline runs with each stage in its own; Snakemake in that of evaluate, which has none of the others' packages.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from workflows import MODULES, REPOSITORY, Checkout, served

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import SPLITS

ABSENT = {
    "preprocess": ("torch", "sklearn", "gymnasium"),
    "train_gnn": ("numba", "can", "asammdf", "gymnasium", "sklearn"),
    "train_drl": ("numba", "can", "asammdf", "torch_geometric"),
    "evaluate": ("torch", "numba", "can", "asammdf", "gymnasium"),
    "track": ("torch", "numba", "can", "asammdf", "gymnasium"),
}
"""Packages of other modules that this one must not need."""
TARGETS = {
    "preprocess": "results/smoke/graphs/select.safetensors",
    "train_gnn": "results/smoke/states/small_nokd/select.parquet",
    "train_drl": "results/smoke/decisions/small_nokd/calibrate.parquet",
    "evaluate": "experimentruns/smoke/eval_small_nokd/metrics.json",
}
"""A file that the module makes again when it runs alone."""
BARE = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "CANIDS_"))}


def run(*command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env={**BARE, **variables}, capture_output=True, text=True, check=False)


def build(folder: Path, stage: str, wheel: Path) -> Path:
    """A new virtual environment with the stage's extra and nothing else; its Python."""
    run(sys.executable, "-m", "venv", str(folder / stage), folder=folder)
    python = folder / stage / "bin/python"
    pip = (str(python), "-m", "pip", "install", "--quiet", "--no-compile", "-c", str(REPOSITORY / "constraints.txt"))
    done = run(*pip, f"{wheel}[{stage.replace('_', '-')}]", folder=folder)
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The Python of each stage's environment; they are removed in the end."""
    folder = tmp_path_factory.mktemp("environments")
    done = run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(REPOSITORY)),
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("canids-*.whl")
    with ThreadPoolExecutor(2) as pool:
        built = dict(zip(MODULES, pool.map(lambda stage: build(folder, stage, wheel), MODULES), strict=True))
    yield built
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def composed(pythons: dict[str, Path], new_checkout: Callable[[], Checkout]) -> Path:
    """A checkout in which the pipeline ran for one variant, each stage in its own environment."""
    folder = new_checkout().folder
    sections = {"track": "tracking"}
    config = {sections.get(m, m): {"environment": str(python.parents[1])} for m, python in pythons.items()}
    (folder / "environments.yaml").write_text(yaml.safe_dump(config))
    snakemake = (str(pythons["evaluate"]), "-m", "snakemake", "-c2", "-s", "pipelines/kd_fusion/Snakefile")
    target = TARGETS["evaluate"]
    done = run(*snakemake, target, "--configfile", "tests/smoke.yaml", "environments.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("stage", MODULES)
def test_environment_has_nothing_of_the_other_modules(pythons: dict[str, Path], stage: str) -> None:
    found = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
    done = run(str(pythons[stage]), "-c", found, *ABSENT[stage], "polars", folder=REPOSITORY.parent)
    assert done.stdout.split() == ["polars"], done.stderr


def test_pipeline_runs_with_each_stage_in_its_own(composed: Path) -> None:
    metrics = json.loads((composed / TARGETS["evaluate"]).read_text())
    for scenario in metrics["scenarios"].values():
        assert {"vgae", "gat", "fusion", "sb3_dqn"} <= scenario.keys()


def test_finished_runs_are_tracked_in_an_environment_of_its_own(composed: Path, pythons: dict[str, Path]) -> None:
    done = run(str(pythons["track"]), "-m", "canids_track.sync", "--uri", "sqlite:///tracked.db", folder=composed)
    assert done.returncode == 0, done.stderr
    assert re.search(r"canids/smoke: [4-9] runs", done.stderr), done.stderr


@pytest.mark.parametrize("stage", TARGETS)
def test_module_runs_alone_in_its_own(composed: Path, pythons: dict[str, Path], stage: str) -> None:
    config = {"datasets": ["smoke"], "data_root": "tests/data", "preset": "smoke"}
    (composed / "alone.yaml").write_text(yaml.safe_dump(config))
    target = composed / TARGETS[stage]
    before = target.stat().st_mtime_ns
    snakemake = (str(pythons[stage]), "-m", "snakemake", "-c1", "-s", f"modules/{stage}/Snakefile")
    options = ("--rerun-triggers", "mtime", "--configfile", "alone.yaml")
    done = run(*snakemake, TARGETS[stage], "--force", *options, folder=composed)
    assert done.returncode == 0, done.stderr
    assert target.stat().st_mtime_ns != before


def test_another_repository_runs_preprocess_by_url(
    pythons: dict[str, Path], new_checkout: Callable[[], Checkout], tiny_dataset: Path, tmp_path: Path
) -> None:
    """`examples/preprocess_by_url`: of canids it has the installed package and a URL."""
    checkout = new_checkout()
    here = tmp_path / "another_repository"
    shutil.copytree(checkout.folder / "examples/preprocess_by_url", here)
    shutil.copytree(tiny_dataset, here / "data")
    options = {**yaml.safe_load((here / "data/tiny/preprocess.yaml").read_text()), "data_root": "data"}
    (here / "tiny.yaml").write_text(yaml.safe_dump({"preprocess": options}))
    with served(checkout.folder) as (url, asked):
        command = (str(pythons["preprocess"]), "-m", "snakemake", "-c2", "--configfile", "tiny.yaml")
        done = run(*command, "--config", f"canids={url}", folder=here, no_proxy="127.0.0.1")
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
