"""Detectors as ONNX agree with torch; and windows from a stream make the same batches as the store."""

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
import torch
from gnn_data import EDGE_FEATURES, MIXED, NODE_FEATURES, SMALL, call, store, write

from canids_shared.contracts import detectors, model_file, streams
from canids_shared.contracts.torch_store import Graphs
from canids_shared.errors import CanidsError
from canids_shared.jobs.torch_state import to_arrays
from canids_shared.planning.pipeline import VARIANTS
from canids_shared.planning.stage import Stage
from canids_train_gnn import export, follow, gat, serving
from canids_train_gnn.models import detector_file
from canids_train_gnn.models.columns import COLUMNS
from canids_train_gnn.models.gat_vgae import GAT, VGAE
from canids_train_gnn.planning import exports
from canids_train_gnn.states import outputs_of

KINDS = {"gat": GAT, "vgae": VGAE}
SIZE = {**SMALL, "layers": 1}


def written(folder: Path, kind: str) -> Path:
    """A run that was never trained, but whose weights, scaling and idea of the ordinary are drawn at random."""
    torch.manual_seed(1)
    model = KINDS[kind](NODE_FEATURES, EDGE_FEATURES, SIZE)
    for scaling in (model.encoder.node_scaling, model.encoder.edge_scaling):
        scaling.learn(2.0 + 3.0 * torch.randn(50, len(scaling.mean)))
    if isinstance(model, VGAE):
        model.learn_ordinary(torch.rand(50, 6))
        with torch.no_grad():
            model.link_bias.fill_(-120.0)  # so sure that its probabilities are 0 in float32
    run = folder / f"{kind}_small_kd"
    run.mkdir()
    header = {"contract": model_file.DETECTOR, "kind": kind.upper(), "size": SIZE}
    facts = {"node_features": NODE_FEATURES, "edge_features": EDGE_FEATURES, "window": 10, "window_unit": "frames"}
    model_file.save_arrays(run / "model.safetensors", to_arrays(model.state_dict()), {**header, **facts})
    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gat", "vgae"])
def test_onnxruntime_agrees_with_torch(tmp_path: Path, kind: str) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    run = written(tmp_path, kind)
    graphs = write(tmp_path / "select.safetensors", MIXED, np.random.default_rng(0), [1, 2, 9, 30] * 16)
    export.export(run, run / "model.onnx", run / "export.json", graphs)
    report = json.loads((run / "export.json").read_text())
    assert report["bytes"] == (run / "model.onnx").stat().st_size
    assert report["largest_difference"] < 1e-5
    assert str(Path(export.__file__).parents[1]).encode() not in (run / "model.onnx").read_bytes()
    assert report["windows"] > len(MIXED)
    said = {p.key: p.value for p in onnx.load(run / "model.onnx").metadata_props}
    assert (said["contract"], said["kind"], said["run"]) == ("onnx/1", kind.upper(), f"{kind}_small_kd")
    assert json.loads(said["node_features"]) == NODE_FEATURES
    assert (said["window"], said["stride"], said["window_unit"]) == ("10", "10", "frames")

    # The score is that of the model in a batch, edges in any order, several of a pair, and to itself.
    model = detector_file.load(run / "model.safetensors", KINDS[kind])
    exported = export.Exported((run / "model.onnx").read_bytes())
    rng = torch.Generator().manual_seed(0)
    for n, e in ((1, 0), (1, 2), (2, 0), (8, 8), (9, 40), (100, 99)):
        x, edge = torch.randn(n, len(NODE_FEATURES), generator=rng), torch.randn(e, len(EDGE_FEATURES), generator=rng)
        pairs = torch.unique(torch.randint(0, n, (2, e), generator=rng), dim=1)
        edge = edge[: pairs.shape[1]]
        batch = Graphs.of(x, pairs[0], pairs[1], edge, torch.zeros(1), torch.tensor([n]), n)
        with torch.inference_mode():
            wanted = model.score(batch).item()
        assert float(exported((x, pairs, edge))[0]) == pytest.approx(wanted, rel=1e-5, abs=1e-5), (n, e)
    # A model with other weights differs by more than the tolerance.
    with torch.no_grad():
        next(iter(model.parameters())).add_(0.01)
    window = export.window_of(store(graphs).batch(torch.tensor([3])))
    assert export.difference(model, exported, [window]) > export.TOLERANCE


def test_what_is_not_there_is_named(stores: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "gat_small_nokd"
    gat.main(call(stores, run, "gat", epochs=1))
    stores[1].unlink()
    with pytest.raises(CanidsError, match="gat_small_nokd: its graphs of select are not here to compare on"):
        export.export(run, run / "model.onnx", run / "export.json", None)
    with pytest.raises(CanidsError, match=r"nowhere/model\.safetensors: no such file"):
        export.export(tmp_path / "nowhere", run / "model.onnx", run / "export.json", None)
    assert not (run / "model.onnx").exists()


def test_packed_arrays_are_scored_as_in_the_store(tmp_path: Path) -> None:
    graphs = store(write(tmp_path / "g.safetensors", MIXED, np.random.default_rng(0)))
    arrays = {name: graphs.graphs[name] for name in ("node_ptr", "edge_ptr", "x", "edge_index", "edge_attr")}
    served = serving.Served(written(tmp_path, "gat") / "model.safetensors")
    model = detector_file.load_any(tmp_path / "gat_small_kd" / "model.safetensors")
    with torch.inference_mode():
        assert np.array_equal(served(arrays), model.score(graphs.batch(torch.arange(len(graphs)))).numpy())
    with pytest.raises(CanidsError, match="edge_index: nodes are counted from 0 within each window"):
        served({**arrays, "edge_index": arrays["edge_index"] + 100})
    with pytest.raises(CanidsError, match=r"node_ptr: must rise from 0 to [0-9]+"):
        served({**arrays, "node_ptr": arrays["node_ptr"][:0], "edge_ptr": arrays["edge_ptr"][:0]})


def test_windows_of_a_stream_make_the_batches_of_the_store(tmp_path: Path) -> None:
    graphs = store(write(tmp_path / "g.safetensors", MIXED, np.random.default_rng(0)))
    source, header = graphs.graphs, graphs.header
    nodes, edges = np.diff(source["node_ptr"]), np.diff(source["edge_ptr"])
    schema = streams.schema_of_graphs(header)
    lists = {
        **{name: streams.lists(source[name], nodes) for name in ("x", "node_id", "node_count")},
        "edge_source": streams.lists(source["edge_index"][0], edges),
        "edge_target": streams.lists(source["edge_index"][1], edges),
        "edge_attr": streams.lists(source["edge_attr"], edges),
    }
    keys = source.keys()
    columns = [lists[f.name] if f.name in lists else keys[f.name].to_arrow().cast(f.type) for f in schema]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    made = follow.graphs_of(batch.slice(5, 20), header, torch.device("cpu"))
    wanted = graphs.batch(torch.arange(5, 25))
    for field in fields(Graphs):
        actual, expected = getattr(made, field.name), getattr(wanted, field.name)
        if field.name != "y":  # nobody knows what is attacked
            assert torch.equal(torch.as_tensor(actual), torch.as_tensor(expected)), field.name
    vgae_model, gat_model = (
        detector_file.load(written(tmp_path, k) / "model.safetensors", KINDS[k]) for k in ("vgae", "gat")
    )
    assert tuple(outputs_of(vgae_model, gat_model, made)) == COLUMNS
    wide = follow.widened(schema)
    declared = json.loads(wide.metadata[b"canids"])
    assert detectors.declared(declared, "stream") == detectors.DETECTORS
    assert declared["node_features"] == header["node_features"]
    assert set(wide.names) == {*schema.names, *COLUMNS}


def test_without_attacks_no_supervised_detector_is_exported() -> None:
    stage = SimpleNamespace(
        datasets=["quiet", "loud"],
        config={"": {}, "@seed-1": {}},
        has=lambda dataset, instance: (dataset, instance) != ("loud", "@seed-1"),
        has_attacks=lambda dataset, _: dataset == "loud",
    )
    folders = {Path(path).parent for path in exports(cast(Stage, stage))}
    assert {f.name for f in folders if f.parent.name == "quiet"} == {
        f"vgae_{variant}{instance}" for variant in VARIANTS for instance in ("", "@seed-1")
    }
    assert {f.name for f in folders if f.parent.name == "loud"} == {
        f"{kind}_{variant}" for kind in ("vgae", "gat") for variant in VARIANTS
    }
