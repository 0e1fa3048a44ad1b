"""Refusals of what cannot be trained, and messages of trainings that fail."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gnn_data import MIXED, call, store, write

from canids_shared.contracts import model_file
from canids_shared.contracts.torch_store import device_of
from canids_shared.errors import CanidsError
from canids_train_gnn import gat, vgae
from canids_train_gnn.training import loop


@pytest.mark.parametrize(("labels", "missing"), [([0] * 64, "attacked"), ([1] * 64, "attack-free")])
def test_gat_refuses_one_class(labels: list[int], missing: str, stores: tuple[Path, Path], tmp_path: Path) -> None:
    one = write(tmp_path / "one.safetensors", labels, np.random.default_rng(0))
    with pytest.raises(CanidsError, match=f"split 'fit' has no {missing} window"):
        gat.main(call((one, stores[1]), tmp_path / "run", "gat"))


def test_vgae_refuses_captures_without_attack_free_windows(stores: tuple[Path, Path], tmp_path: Path) -> None:
    one = write(tmp_path / "one.safetensors", [1] * 64, np.random.default_rng(0))
    with pytest.raises(CanidsError, match="split 'select' has no attack-free window"):
        vgae.main(call((stores[0], one), tmp_path / "run", "vgae"))


def test_fewer_windows_than_a_batch_are_refused(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match="64 windows to train on, fewer than one batch of 100"):
        gat.main(call(stores, tmp_path / "run", "gat", batch=100))


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda loss: loss * float("nan"), "loss is nan"),
        (lambda loss: loss * float("inf"), "loss is inf"),
        (lambda loss: loss + 1e6, r"loss is 1e\+06"),
        (lambda loss: loss + (loss - loss.detach()).abs().sqrt().sum(), "a gradient is not finite"),
    ],
)
def test_a_training_that_fails_names_and_keeps_its_batch(
    damage: Any, said: str, every: int, stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, count = vgae.objective, [0]

    def failing(made: Any, graphs: Any, config: Any) -> torch.Tensor:
        count[0] += 1
        loss = objective(made, graphs, config)
        return damage(loss) if count[0] == 2 else loss

    monkeypatch.setattr(vgae, "objective", failing)
    run = call(stores, tmp_path / "run", "vgae")
    monkeypatch.setattr(loop, "CHECK_EVERY", {"cpu": every})
    with pytest.raises(CanidsError, match=f"{said} in epoch 1, batch 2 .c window [0-9]+, .*; batch and weights are in"):
        vgae.main(run)
    batch = tmp_path / "run" / "failed_batch.safetensors"
    kept, header = model_file.load_arrays(batch, "failed-batch/1", finite=False)
    assert header["windows"] == [f"c window {w}" for w in kept["windows"]]
    again = store(stores[0]).batch(torch.from_numpy(kept["windows"]))
    assert np.array_equal(kept["x"], again.x.numpy())
    if every == 1:
        assert all(np.isfinite(v).all() for k, v in kept.items() if k.startswith("model.")), "weights before the step"
    monkeypatch.setattr(vgae, "objective", objective)
    vgae.main(run)
    assert not (tmp_path / "run" / "failed_batch.safetensors").exists()


def test_a_loss_on_select_that_is_no_number_names_its_windows(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = vgae.objective

    def failing(made: Any, graphs: Any, config: Any) -> torch.Tensor:
        loss = objective(made, graphs, config)
        return loss if loss.requires_grad else loss * float("nan")

    monkeypatch.setattr(vgae, "objective", failing)
    with pytest.raises(
        CanidsError, match=r"loss on select is nan in epoch 1, batch 1 of select \(c window 0, c window 2"
    ):
        vgae.main(call(stores, tmp_path / "run", "vgae"))
    assert (tmp_path / "run" / "failed_batch.safetensors").exists()


def test_where_auxiliary_captures_alone_hold_a_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    select = write(tmp_path / "select.safetensors", MIXED, rng)
    halves = {"free": [0, 0, 0, 1], "attacked": [1, 1, 0, 1]}  # own, own, auxiliary, auxiliary
    paths = {
        k: write(tmp_path / f"{k}.safetensors", v * 16, rng, auxiliary_captures=[0, 0, 1, 1] * 16)
        for k, v in halves.items()
    }
    gat.main(call((paths["free"], select), tmp_path / "run", "gat"))
    assert "attacks are learnt from auxiliary captures alone" in caplog.text
    with pytest.raises(CanidsError, match="all attack-free windows are of auxiliary captures"):
        gat.main(call((paths["attacked"], select), tmp_path / "run", "gat"))


@pytest.mark.parametrize(("gpu", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_of_cuda_or_the_cpu(monkeypatch: pytest.MonkeyPatch, gpu: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert device_of("auto", "train_gnn.accelerator").type == chosen


def test_a_gpu_that_is_not_there_is_named_by_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CanidsError, match=r"train_gnn\.accelerator: no GPU that torch can use"):
        device_of("cuda", "train_gnn.accelerator")
