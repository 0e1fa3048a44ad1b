"""A trained model as a folder that `mlflow.pyfunc.load_model` reads wherever its requirements are installed.

It holds the model file, the code that reads it (the files of this project that the stage's `serving` imports),
requirements with exact versions, a signature and an example. Nothing is unpickled; the stage is not imported here.
"""

import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModel
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from packaging.requirements import Requirement

from canids_shared.contracts.model_file import DETECTOR, POLICY, header_of
from canids_shared.errors import CanidsError
from canids_shared.planning.code_hash import closure

ENTRIES = {DETECTOR: "canids_train_gnn.serving", POLICY: "canids_train_drl.serving"}
"""Contract of a model file → the module that applies it. A name, never an import: stages meet in files."""
_OPTIONAL = {"dgl", "torch_geometric"}
"""Backends that a served detector does not use."""
_DISTRIBUTIONS = {"yaml": "pyyaml"}


def requirements(imports: set[str]) -> list[str]:
    """Requirements for pip: the versions that are installed here, else the bounds that canids declares."""
    declared = {r.name: r for r in map(Requirement, importlib.metadata.requires("canids") or [])}
    pinned = []
    for name in sorted(_DISTRIBUTIONS.get(n, n) for n in imports - _OPTIONAL):
        try:
            # A local version, such as that of a CPU build, is on no index.
            pinned.append(f"{name}=={importlib.metadata.version(name).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            pinned.append(f"{name}{declared[name].specifier}" if name in declared else name)
    return [f"mlflow=={mlflow.__version__}", *pinned]


def _detector(header: dict[str, Any]) -> tuple[ModelSignature, dict[str, np.ndarray]]:
    """Signature and example: arrays of W packed windows, as in the graph store, to a score [W]; the example has W = 2."""
    nodes, edges = len(header["node_features"]), len(header["edge_features"])
    inputs: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(np.int64), (-1,), "node_ptr"),
        TensorSpec(np.dtype(np.int64), (-1,), "edge_ptr"),
        TensorSpec(np.dtype(np.float32), (-1, nodes), "x"),
        TensorSpec(np.dtype(np.int16), (2, -1), "edge_index"),
        TensorSpec(np.dtype(np.float32), (-1, edges), "edge_attr"),
    ]
    rng = np.random.default_rng(0)
    # Two windows, of three and of two nodes, each a ring of arbitration IDs.
    example = {
        "node_ptr": np.array([0, 3, 5]),
        "edge_ptr": np.array([0, 3, 5]),
        "x": rng.normal(size=(5, nodes)).astype(np.float32),
        "edge_index": np.array([[0, 1, 2, 0, 1], [1, 2, 0, 1, 0]], dtype=np.int16),
        "edge_attr": rng.normal(size=(5, edges)).astype(np.float32),
    }
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype(np.float32), (-1,))])), example


def _policy(header: dict[str, Any]) -> tuple[ModelSignature, pd.DataFrame]:
    """Signature and example: states of the windows of one capture, in order, to score and alarm of each window."""
    columns = header["observer"]["columns"]
    values = np.random.default_rng(0).normal(size=(3, len(columns))).astype(np.float32)
    outputs = Schema([ColSpec(DataType.float, "fusion_score"), ColSpec(DataType.boolean, "alarm")])
    signature = ModelSignature(Schema([ColSpec(DataType.float, name) for name in columns]), outputs)
    return signature, pd.DataFrame(values, columns=columns)


_SIGNATURES = {DETECTOR: _detector, POLICY: _policy}


def _copy_code(entry: str, code: Path) -> set[str]:
    """Copy the files of this project that a module imports; returns the names of all other packages."""
    files, imports = closure(entry)
    # Files keep their place in their package, so that absolute imports work in the copy.
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        folder = code.joinpath(*package.split("."))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)
        if name == "canids_shared.contracts.whole":  # it reads the schemas beside it
            for schema in path.parent.glob("*.schema.yaml"):
                shutil.copyfile(schema, folder / schema.name)
    return imports


class Packer:
    """Packs models; code, requirements and signature are made once for all models that share them."""

    def __init__(self, folder: Path) -> None:
        """Work in an empty folder."""
        self._folder = folder
        self._templates: dict[str, Path] = {}
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

    def _template(self, model: Path) -> Path:
        header = header_of(model)
        contract = header["contract"]
        try:
            signature, example = _SIGNATURES[contract](header)
        except (KeyError, TypeError) as error:
            raise CanidsError(f"{model}: its header has no {error}; delete it and train again") from None
        # Saving a model takes seconds; models of equal signature differ in the model file alone.
        kind = f"{contract} {signature}"
        if kind not in self._templates:
            folder = self._folder / str(len(self._templates))
            imports = _copy_code(ENTRIES[contract], folder / "code")
            mlflow.pyfunc.save_model(
                folder / "model",
                python_model=str(Path(__file__).with_name("served.py")),
                artifacts={"model": str(model)},
                model_config={"entry": ENTRIES[contract]},
                code_paths=[str(p) for p in sorted((folder / "code").iterdir())],
                pip_requirements=requirements(imports),
                signature=signature,
                input_example=example,
            )
            self._templates[kind] = folder / "model"
        return self._templates[kind]

    def pack(self, model: Path, run: str, logged: LoggedModel) -> Path:
        """The folder of a model under its IDs in MLflow; the next call overwrites it."""
        template, folder = self._template(model), self._folder / "packed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        shutil.copyfile(model, folder / "artifacts" / model.name)
        # The description is that of the model which the template was made of: it gets the IDs and paths of this one.
        description = Model.load(str(template))
        description.run_id, description.model_id = run, logged.model_id
        description.artifact_path, description.model_uuid = logged.artifact_location, logged.model_id
        flavor = description.flavors[mlflow.pyfunc.FLAVOR_NAME]
        flavor["artifacts"]["model"]["uri"] = model.name
        flavor["model_code_path"] = "served.py"
        description.model_size_bytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        description.save(str(folder / "MLmodel"))
        return folder
