"""Other backends, precisions and devices, and compiled code, train alike."""

import os
import shutil
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from gnn_data import GAT as GAT_CONFIG
from gnn_data import STILL, batch_of, call, job, store
from torch._dynamo.utils import counters

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import TorchStore
from canids_shared.jobs import run_folder
from canids_train_gnn import gat
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.layers import node_mean
from canids_train_gnn.training import loop


def test_bfloat16_trains_and_differs_a_little(stores: tuple[Path, Path]) -> None:
    losses = {}
    for precision in ("32-true", "bf16-products", "bf16-mixed"):
        _, history = gat.train(job(stores, GAT_CONFIG, "large", precision=precision))
        losses[precision] = [row["fit_loss"] for row in history]
    assert losses["32-true"] != losses["bf16-mixed"]
    for precision in ("bf16-products", "bf16-mixed"):
        assert losses["32-true"] == pytest.approx(losses[precision], rel=0.1)
    assert torch.get_float32_matmul_precision() == "highest", "of what comes after the training"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_code_trains_alike(stores: tuple[Path, Path]) -> None:
    config = {**STILL, "epochs": 1, "small": {**STILL["small"], "layers": 1}}
    losses = []
    counters.clear()
    for compiled in (False, True):
        _, history = gat.train(job(stores, config, message_passing=MessagePassing("dense", compiled)))
        losses.append([row["fit_loss"] for row in history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert not counters["graph_break"], "the encoder is one graph"
    assert 1 <= counters["stats"]["unique_graphs"] <= 3, "whatever the sizes: for training and for select"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gathers_the_same_batches_and_resumes(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = torch.tensor([5, 0, 63])
    here = store(stores[0]).batch(windows)
    there = TorchStore(GraphStore(stores[0]), torch.device("cuda")).batch(windows)
    for field in fields(here):
        if isinstance(value := getattr(here, field.name), torch.Tensor):
            assert torch.equal(value, getattr(there, field.name).cpu())
    spec = call(stores, tmp_path / "run", "gat", accelerator="cuda")
    step, done = loop.TrainingLoop._step, [0]

    def stopping(self: Any, *args: Any) -> None:
        step(self, *args)
        done[0] += 1
        if done[0] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.TrainingLoop, "_step", stopping)
    with pytest.raises(SystemExit):
        gat.main(spec)
    gat.main(spec)
    assert done[0] == 16
    history = pl.read_parquet(tmp_path / "run" / "history.parquet")
    assert (history["peak_gpu_mb"] > 0).all()


def test_sums_over_nodes_are_exact_in_mixed_precision() -> None:
    graphs = batch_of([300, 7], [], [])
    values = torch.rand(307, 4).bfloat16()
    torch.testing.assert_close(node_mean(values, graphs), node_mean(values.float(), graphs))


def test_a_checkpoint_of_another_device_is_ignored(stores: tuple[Path, Path], tmp_path: Path) -> None:
    spec = call(stores, tmp_path / "run", "gat")
    run_folder.Checkpoint(spec, tmp_path / "run", device="cuda").save({}, {})
    assert run_folder.Checkpoint(spec, tmp_path / "run", device="cpu").load() is None
    assert run_folder.Checkpoint(spec, tmp_path / "run", device="cuda").load() is not None


@pytest.mark.parametrize("backend", ["csr", "pyg"])
def test_other_backends_train_to_nearly_the_same_weights(stores: tuple[Path, Path], backend: str) -> None:
    trained = [gat.train(job(stores, STILL, message_passing=MessagePassing(b)))[0] for b in ("dense", backend)]
    for one, other in zip(*(model.parameters() for model in trained), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
