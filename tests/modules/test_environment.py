"""Each module's environment: declared the same for pip and conda, and with everything that the module imports (`tests/environments` runs it)."""

import importlib.metadata
import re
import tomllib

import pytest
import yaml
from workflows import MODULES, REPOSITORY

from canids_shared.planning.code_hash import closure

CONDA_NAMES = {
    "torch": "pytorch",
    "torch-geometric": "pytorch_geometric",
    "matplotlib": "matplotlib-base",
    "snakemake": "snakemake-minimal",
    "xxhash": "python-xxhash",
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
        ("modules/train_gnn/environment.onnx.yaml", ["train-gnn", "onnx"], []),
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
    # No index is asked for canids: nobody knows who has the name there.
    assert {"pip": ["-e ${CANIDS_SOURCE}", *by_pip]} in environment["dependencies"]


@pytest.mark.parametrize("stage", MODULES)
def test_extra_declares_what_the_stage_and_what_it_shares_import(stage: str) -> None:
    """Also packages that another one depends on: it may stop doing so."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"][stage.replace("_", "-")]
    declared = {plain(requirement(text)[0]) for text in (*project["dependencies"], *extra)}
    folder = REPOSITORY / f"modules/{stage}"
    names = [".".join(p.relative_to(folder).with_suffix("").parts) for p in folder.glob(f"canids_{stage}/**/*.py")]
    imported = set().union(*(closure(name.removesuffix(".__init__"))[1] for name in names))
    assert {"numpy", "polars"} <= imported
    packages = importlib.metadata.packages_distributions()
    # These have extras, and environments, of their own.
    apart = {"dgl", "onnx", "onnxruntime", "onnxscript"}
    missing = {i for i in imported - apart if not declared & {plain(name) for name in packages[i]}}
    assert not missing


def plain(distribution: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub("[-_.]+", "-", distribution).lower()
