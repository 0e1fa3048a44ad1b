"""Descriptions of runs, and the record that they are read from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from gnn_data import MIXED, call, store, write
from hypothesis import given
from hypothesis import strategies as st

from canids_shared.contracts import model_file, training_run
from canids_shared.errors import CanidsError
from canids_train_gnn import describe, gat, vgae
from canids_train_gnn.models import detector_file
from canids_train_gnn.models.gat_vgae import parameter_count
from canids_train_gnn.training import rule


@pytest.mark.parametrize("kind", ["gat", "vgae"])
def test_a_run_is_described(
    kind: str, stores: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    run = tmp_path / f"{kind}_small_nokd"
    {"gat": gat, "vgae": vgae}[kind].main(call(stores, run, kind))
    monkeypatch.setattr("sys.argv", ["describe", str(run)])
    describe.main()
    said = capsys.readouterr().out
    record = training_run.read(run / "run.json")
    assert f"{kind.upper()}, small, {record.parameters:,} parameters (published: " in said
    assert "fit: 64 windows (32 attacked: dos 32), vehicles van 64" in said
    assert "no teacher" in said
    assert f"AUROC on select {record.select['auroc']:.4f}" in said
    history = pl.read_parquet(run / "history.parquet")
    assert f"select {history['select_loss'].min():.5f}" in said


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model.safetensors", "no such file"),
        ("run.json", "no such file; delete the folder"),
    ],
)
def test_a_run_that_is_not_whole_is_not_described(
    file: str, said: str, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "gat_small_nokd"
    gat.main(call(stores, run, "gat"))
    (run / file).unlink()
    with pytest.raises(CanidsError, match=f"{file}: {said}"):
        describe.describe(run)


@pytest.mark.parametrize(
    "change", [{"data": {}}, {"select": {}}, {"history": {}}, {"config": {"gat": 3}}, {"best": 99}]
)
def test_a_record_without_what_is_described_is_named(
    change: dict[str, Any], stores: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "gat_small_nokd"
    gat.main(call(stores, run, "gat", epochs=1))
    training_run.write(run / "run.json", replace(training_run.read(run / "run.json"), **change))
    with pytest.raises(CanidsError, match=r"run\.json: not a whole record of a detector's training; train again"):
        describe.describe(run)


def test_the_record_has_what_others_read_of_a_training(tmp_path: Path) -> None:
    rng, auxiliary = np.random.default_rng(0), [0, 1] * 32
    graphs = [write(tmp_path / f"{s}.safetensors", MIXED, rng, auxiliary_captures=auxiliary) for s in ("fit", "select")]
    run = tmp_path / "vgae_small_nokd"
    vgae.main(call(graphs, run, "vgae", epochs=6, patience=2))
    record = training_run.read(run / "run.json")
    assert (record.kind, record.label, record.detectors) == ("vgae", "VGAE", ["vgae"])
    assert (record.variant, record.scale, record.dataset, record.seed) == ("small_nokd", "small", "d", 3)
    assert record.inputs["graphs"] == [str(path) for path in graphs]
    split = {"windows": 64, "attacked": 32, "auxiliary": 32, "vehicles": {"van": 64}, "attacks": {"dos": 32}}
    assert record.data == {key: {**split, "captures": ["c", "fleet.c"]} for key in ("fit", "select")}
    history = pl.read_parquet(run / "history.parquet")
    assert record.history == {name: history[name].to_list() for name in ("fit_loss", "select_loss", "learning_rate")}
    assert record.select["loss"] == history["select_loss"].min() == record.history["select_loss"][record.best]
    model = detector_file.load_any(run / "model.safetensors")
    scores = model.score(store(graphs[1]).batch(torch.arange(64)))
    assert record.select["auroc"] == rule.auroc(scores, torch.tensor(MIXED))
    assert record.parameters == parameter_count(model.requires_grad_(True))
    assert record.sizes["model"] == (run / "model.safetensors").stat().st_size
    assert record.latency["device"] == "cpu"


def test_the_model_file_has_what_builds_the_model_and_no_more(stores: tuple[Path, Path], tmp_path: Path) -> None:
    gat.main(call(stores, tmp_path / "run", "gat"))
    _, header = model_file.load_arrays(tmp_path / "run" / "model.safetensors", model_file.DETECTOR)
    applied = {"node_features", "edge_features", "window", "stride", "window_unit"}
    made = {"dataset": "d", "run": "gat_small_nokd", "variant": "small_nokd", "instance": "", "code": "x"}
    assert header.keys() == {"contract", "digest", "kind", "size", *applied, *made}
    assert header.items() >= made.items()


@given(scores=st.lists(st.integers(0, 5), min_size=1, max_size=20), seed=st.integers(0, 9), unknown=st.booleans())
def test_auroc_counts_pairs(scores: list[int], seed: int, unknown: bool) -> None:
    labels = torch.from_numpy(np.random.default_rng(seed).integers(-1 if unknown else 0, 2, len(scores)))
    pairs = [
        (a > f) + 0.5 * (a == f)
        for a, y in zip(scores, labels, strict=True)
        for f, z in zip(scores, labels, strict=True)
        if y == 1 and z == 0
    ]
    expected = sum(pairs) / len(pairs) if pairs else None
    assert rule.auroc(torch.tensor(scores), labels) == (None if expected is None else pytest.approx(expected))


def test_history_has_rates_and_memory(stores: tuple[Path, Path], tmp_path: Path) -> None:
    gat.main(call(stores, tmp_path / "run", "gat"))
    history = pl.read_parquet(tmp_path / "run" / "history.parquet")
    assert (history["graphs_per_s"] > 0).all()
    assert (history["peak_rss_mb"] > 50).all()
    assert history["peak_gpu_mb"].null_count() == len(history)
