"""Logged models: loadable by MLflow where this project is not installed, and right about what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gnn_data import MIXED, write
from mlflow import MlflowClient
from track_data import finish, ingest, places

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.model_file import DETECTOR, save_arrays
from canids_shared.contracts.torch_store import TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs.torch_state import to_arrays
from canids_track import models
from canids_train_gnn.models.gat_vgae import VGAE
from canids_train_gnn.serving import Served

pytestmark = pytest.mark.slow
ARRAYS = ("node_ptr", "edge_ptr", "x", "edge_index", "edge_attr")
ELSEWHERE = """\
import importlib.util, json, pathlib, sys
sys.path = [p for p in sys.path if not list(pathlib.Path(p).glob("canids_*/__init__.py"))]
assert importlib.util.find_spec("canids_shared") is None, "the project is to be out of reach"
import mlflow.pyfunc, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
graphs = dict(np.load(sys.argv[2]))
assert sys.modules["canids_train_gnn.serving"].__file__.startswith(sys.argv[1])
print(json.dumps([model.predict(graphs).tolist(), model.predict(model.input_example).tolist()]))
"""


@pytest.fixture
def detector(tmp_path: Path) -> tuple[Path, GraphStore]:
    """A run with an untrained VGAE, and graphs for it."""
    import torch  # noqa: PLC0415

    graphs = GraphStore(write(tmp_path / "graphs.safetensors", MIXED, np.random.default_rng(0)))
    torch.manual_seed(0)
    size = {"channels": 4, "heads": 2, "layers": 1, "latent": 4, "dropout": 0.0, "feature_dropout": 0.0}
    features = {key: graphs.header[key] for key in ("node_features", "edge_features", "window", "window_unit")}
    model = VGAE(features["node_features"], features["edge_features"], size)
    run = places(tmp_path).runs / "vgae_large"
    header = {"contract": DETECTOR, "kind": "VGAE", "size": size, **features}
    save_arrays(run / "model.safetensors", to_arrays(model.state_dict()), header)
    finish(run)
    return run / "model.safetensors", graphs


def test_a_logged_detector_scores_where_the_project_is_not_installed(
    detector: tuple[Path, GraphStore], tmp_path: Path
) -> None:
    import torch  # noqa: PLC0415

    path, graphs = detector
    assert not ingest(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    (logged,) = (tmp_path / "mlflow-artifacts/demo/models").glob("*/artifacts")
    arrays = {name: np.array(graphs[name]) for name in ARRAYS}
    np.savez(tmp_path / "graphs.npz", **arrays)
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, str(logged), str(tmp_path / "graphs.npz")],
        cwd=tmp_path, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores, example = json.loads(done.stdout.splitlines()[-1])
    served = Served(path)
    whole = TorchStore(graphs, torch.device("cpu"))
    with torch.inference_mode():
        expected = served._model.score(whole.batch(torch.arange(len(whole)))).numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert len(set(scores)) > 1
    assert np.isfinite(example).all()
    (model,) = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_logged_models(["1"])
    assert (model.name, model.status) == ("vgae_large", "READY")
    assert f"torch=={torch.__version__.partition('+')[0]}" in (logged / "requirements.txt").read_text().split()
    assert str(tmp_path) not in (logged / "MLmodel").read_text().replace(str(logged), "")


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("node_ptr", lambda a: a[:-1], "node_ptr: must rise from 0"),
        ("edge_ptr", lambda a: a + 1, "edge_ptr: must rise from 0"),
        ("edge_index", lambda a: a + 1000, "an edge points outside its window"),
    ],
)
def test_arrays_that_disagree_are_refused(
    detector: tuple[Path, GraphStore], name: str, wrong: object, message: str
) -> None:
    assert callable(wrong)
    path, graphs = detector
    arrays = {n: np.array(graphs[n]) for n in ARRAYS}
    with pytest.raises(CanidsError, match=message):
        Served(path)({**arrays, name: wrong(arrays[name])})


def test_requirements_are_exact_where_installed_and_declared_elsewhere() -> None:
    pinned = models.requirements({"numpy", "yaml", "dgl", "torch_geometric"})
    assert [r.partition("==")[0] for r in pinned] == ["mlflow", "numpy", "pyyaml"]
    assert models.requirements({"nobody_has_this"})[1:] == ["nobody_has_this"]
