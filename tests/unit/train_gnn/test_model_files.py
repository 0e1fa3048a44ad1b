"""Model files of detectors: what is edited, damaged, another run's or built otherwise than its header says is refused, by name."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forging import forged
from gnn_data import MIXED, call, write
from hypothesis import given
from hypothesis import strategies as st

from canids_shared.contracts import tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call
from canids_train_gnn import describe, gat, states, vgae
from canids_train_gnn.models import detector_file
from canids_train_gnn.models.gat_vgae import GAT


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GAT and a VGAE of the variants `large` and `small_nokd`."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    stores = [write(folder / f"{split}.safetensors", MIXED, rng) for split in ("fit", "select")]
    for kind, train in (("gat", gat.main), ("vgae", vgae.main)):
        for scale, variant in (("large", "large"), ("small", "small_nokd")):
            train(call(stores, folder / f"{kind}_{variant}", kind, scale, epochs=1))
    return folder


def refused(path: Path) -> str:
    with pytest.raises(CanidsError) as caught:
        detector_file.load(path, GAT)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_model_that_others_wrote_by_the_contract_is_read(runs: Path, tmp_path: Path) -> None:
    bias = np.array([0.5, -0.5], np.float32)
    copy = forged(runs / "gat_large/model.safetensors", tmp_path / "m", tensors={"classify.bias": bias})
    assert detector_file.load(copy, GAT).classify.bias.tolist() == [0.5, -0.5]


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ({"kind": "GCN"}, "kind: 'GCN' is not one of ['GAT', 'VGAE']"),
        ({"kind": ...}, "'kind' is a required property"),
        ({"kind": "VGAE"}, "tensor 'classify.bias' is unknown"),
        ({"size": None}, "size: None is not of type 'object'"),
        ({"size": [1, 2]}, "size: [1, 2] is not of type 'object'"),
        ({"size.channels": 3}, "tensor 'classify.weight' is float32 [2, 8], not float32 [2, 6]"),
        ({"size.channels": 0}, "size.channels: 0 is less than the minimum of 1"),
        ({"size.channels": 4.5}, "size.channels: 4.5 is not of type 'integer'"),
        ({"size.layers": 10**9}, "size.layers: 1000000000 is greater than the maximum of 32"),
        (
            {"size.channels": 4096, "size.heads": 64},
            "tensor 'classify.weight' is float32 [2, 8], not float32 [2, 262144]",
        ),
        ({"size.dropout": "0"}, "size.dropout: '0' is not of type 'number'"),
        ({"size.heads": ...}, "size: 'heads' is a required property"),
        ({"node_features": "abc"}, "node_features: 'abc' is not of type 'array'"),
        ({"node_features": ["a"]}, "tensor 'encoder.enter.weight' is float32 [8, 7], not float32 [8, 1]"),
        ({"node_features": []}, "node_features: [] should be non-empty"),
        ({"window": -1}, "window: -1 is less than or equal to the minimum of 0"),
        ({"window_unit": "hours"}, "window_unit: 'hours' is not one of"),
    ],
)
def test_headers_that_break_the_contract_are_named(
    runs: Path, tmp_path: Path, header: dict[str, Any], complaint: str
) -> None:
    said = refused(forged(runs / "gat_large/model.safetensors", tmp_path / "m", header))
    assert said.startswith(complaint)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"without": "classify.bias"}, "tensor 'classify.bias' is missing"),
        ({"tensors": {"surplus": np.zeros(1, np.float32)}}, "tensor 'surplus' is unknown"),
        (
            {"tensors": {"classify.bias": np.zeros(3, np.float32)}},
            "tensor 'classify.bias' is float32 [3], not float32 [2]",
        ),
        ({"tensors": {"classify.bias": np.zeros(2)}}, "tensor 'classify.bias' is float64 [2], not float32 [2]"),
        (
            {"tensors": {"classify.bias": np.full(2, np.nan, np.float32)}},
            "tensor 'classify.bias' holds NaN or infinity",
        ),
    ],
)
def test_tensors_that_are_not_those_of_the_header_are_named(
    runs: Path, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    said = refused(forged(runs / "gat_large/model.safetensors", tmp_path / "m", **change))
    assert said == f"{complaint}; delete it and run again"


@given(place=st.integers(0, 10**7), change=st.integers(1, 255))
def test_a_changed_byte_anywhere_is_refused(folder: Path, runs: Path, place: int, change: int) -> None:
    content = bytearray((runs / "gat_small_nokd/model.safetensors").read_bytes())
    content[place % len(content)] ^= change
    if bytes([content[place % len(content)]]).isspace():  # blanks behind the layout may be any white space
        return
    path = folder / "model.safetensors"
    path.write_bytes(content)
    refused(path)


def test_a_model_copied_over_that_of_another_run_is_refused(
    runs: Path, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    mixed = shutil.copytree(runs, tmp_path / "runs")
    shutil.copy(mixed / "gat_small_nokd/model.safetensors", mixed / "gat_large/model.safetensors")
    wanted = r"gat_large/model\.safetensors: is of run 'gat_small_nokd', not 'gat_large'; delete it and run again"
    graphs = GraphStore(stores[0]).header
    vgae_large, gat_large = (mixed / f"{kind}_large/model.safetensors" for kind in ("vgae", "gat"))
    with pytest.raises(CanidsError, match=wanted):
        states.load_both(vgae_large, gat_large, graphs, {"backend": "dense"}, torch.device("cpu"))
    with pytest.raises(CanidsError, match=wanted):
        describe.describe(mixed / "gat_large")
    # Copies elsewhere are read, but not together with another run's.
    copy = tmp_path / "copy/model.safetensors"
    copy.parent.mkdir()
    shutil.copy(gat_large, copy)
    detector_file.load(copy, GAT)
    with pytest.raises(CanidsError, match=r"copy/model\.safetensors: is of another variant than .*vgae_large"):
        states.load_both(vgae_large, copy, graphs, {"backend": "dense"}, torch.device("cpu"))


def test_without_a_gat_states_hold_the_vgae_alone(runs: Path, stores: tuple[Path, Path], tmp_path: Path) -> None:
    vgae = runs / "vgae_small_nokd/model.safetensors"
    config = {"torch_threads": 1, "accelerator": "cpu", "backend": "dense"}
    made = []
    for name, gats in (("both", [runs / "gat_small_nokd/model.safetensors"]), ("alone", [])):
        output = {"output": tmp_path / f"{name}.parquet"}
        states.main(Call({}, config, {}, output, {"graphs": [stores[0]], "vgae": [vgae], "gat": gats}, "{}"))
        made.append(tables.read(output["output"], tables.STATES))
    (both, _), (alone, header) = made
    assert [d["name"] for d in header["detectors"]] == ["vgae"]
    assert alone.equals(both.select(name for name in both.columns if not name.startswith("gat_")))


def test_a_flipped_byte_in_the_graphs_stops_a_training_at_its_start(stores: tuple[Path, Path], tmp_path: Path) -> None:
    rule = call(stores, tmp_path / "gat_small_nokd", "gat", epochs=1)
    changed = bytearray(stores[0].read_bytes())
    changed[-1] ^= 1
    flipped = tmp_path / "fit.safetensors"
    flipped.write_bytes(changed)
    rule.inputs["graphs"][0] = flipped
    with pytest.raises(CanidsError, match=r"fit\.safetensors: was changed since it was written"):
        gat.main(rule)
    assert not (tmp_path / "gat_small_nokd").exists()
