"""What a run says of itself."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from gnn_data import call
from hypothesis import given
from hypothesis import strategies as st

from canids_shared.contracts import model_file
from canids_shared.errors import CanidsError
from canids_train_gnn import describe, gat, training, vgae


@pytest.mark.parametrize("kind", ["gat", "vgae"])
def test_a_run_is_described(
    kind: str, stores: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    {"gat": gat, "vgae": vgae}[kind].main(call(stores, run, kind))
    monkeypatch.setattr("sys.argv", ["describe", str(run)])
    describe.main()
    said = capsys.readouterr().out
    _, header = model_file.load_arrays(run / "model.safetensors", model_file.DETECTOR)
    assert f"{kind.upper()}, small, {header['parameters']:,} parameters (published: " in said
    assert "fit: 64 windows (32 attacked: dos 32), vehicles van 64" in said
    assert "no teacher" in said
    assert f"AUROC on select {header['select']['auroc']:.4f}" in said
    history = pl.read_parquet(run / "history.parquet")
    assert f"select {history['select_loss'].min():.5f}" in said


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model.safetensors", "no such file"),
        ("config.yaml", "no such file; train again"),
        ("history.parquet", "no such file; train again"),
        ("latency.json", "no such file; delete the folder"),
    ],
)
def test_a_run_that_is_not_whole_is_not_described(
    file: str, said: str, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    gat.main(call(stores, tmp_path / "run", "gat"))
    (tmp_path / "run" / file).unlink()
    with pytest.raises(CanidsError, match=f"{file}: {said}"):
        describe.describe(tmp_path / "run")


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
    assert training.auroc(torch.tensor(scores), labels) == (None if expected is None else pytest.approx(expected))


def test_history_has_rates_and_memory(stores: tuple[Path, Path], tmp_path: Path) -> None:
    gat.main(call(stores, tmp_path / "run", "gat"))
    history = pl.read_parquet(tmp_path / "run" / "history.parquet")
    assert (history["graphs_per_s"] > 0).all()
    assert (history["peak_rss_mb"] > 50).all()
    assert history["peak_gpu_mb"].null_count() == len(history)
