"""Two processes train as one does: same losses, one writer, and an end in which none waits for the other."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
import torch
from gnn_data import MIXED, OUTPUTS, STILL, call, store, write
from safetensors.numpy import load_file
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call
from canids_train_gnn import gat, processes


def two_processes(made: Call) -> subprocess.Popen[str]:
    spec = made.spec.replace('"devices": 1', '"devices": 2')
    assert spec != made.spec
    command = [sys.executable, "-m", "canids_train_gnn.gat", "--spec", spec]
    command += [f"--{name}={path}" for name, path in made.output.items()]
    command += ["--graphs", *map(str, made.inputs["graphs"]), "--teacher", *map(str, made.inputs["teacher"])]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_stop_together_go_on_and_lose_what_one_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # The last batch has one window: nothing is left for the second process.
    labels = {"fit": [*MIXED, *MIXED, *MIXED, *MIXED, 0], "select": [*MIXED, 1]}
    graphs = [write(tmp_path / f"{name}.safetensors", labels[name], rng) for name in labels]
    options: dict[str, Any] = {**STILL, "epochs": 12, "patience": 12}
    gat.main(call(graphs, tmp_path / "teacher", "gat", "large", **{**options, "epochs": 1}))

    def student(folder: Path) -> Call:
        made = call(graphs, folder, "gat", **options)
        made.inputs["teacher"].append(tmp_path / "teacher" / OUTPUTS["model"])
        return made

    gat.main(student(tmp_path / "one"))

    two = tmp_path / "two"
    process = two_processes(student(two))
    assert process.stderr is not None
    said = ""
    while "epoch 2:" not in said:
        said += (line := process.stderr.readline())
        assert line, said
    (helper,) = psutil.Process(process.pid).children()
    helper.send_signal(signal.SIGTERM)  # to one of them, as it may come
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said + rest
    psutil.wait_procs([helper], timeout=60)
    assert not helper.is_running()
    assert (said + rest).count("checkpoint saved") == 1
    assert len(list(two.glob(".checkpoint/*/state.safetensors"))) == 1
    assert not (two / OUTPUTS["model"]).exists()

    process = two_processes(student(two))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count("resumed after epoch") == 1
    alone, together = (pl.read_parquet(tmp_path / name / OUTPUTS["history"]) for name in ("one", "two"))
    assert len(together) == 12
    for column in ("fit_loss", "select_loss"):
        assert together[column].to_list() == pytest.approx(alone[column].to_list(), rel=1e-4)
    one, both = (load_file(tmp_path / name / OUTPUTS["model"]) for name in ("one", "two"))
    for name, value in one.items():
        np.testing.assert_allclose(both[name], value, rtol=1e-2, atol=2e-3, err_msg=name)
    assert sorted(path.name for path in two.iterdir()) == sorted(OUTPUTS.values())


def test_shares_of_a_batch_weigh_as_much_as_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = store(write(tmp_path / "g.safetensors", MIXED[:9], np.random.default_rng(1)))
    windows = torch.tensor([4, 2, 7, 1, 0])

    def loss(batch: Graphs) -> processes.Terms:
        nodes = model(batch.x).squeeze(1)
        return [(nodes.mean(), len(batch.x)), (2 * nodes[batch.ptr[:-1]].square().mean(), len(batch.y))]

    def gradient(rank: int, world: int, chunk: Tensor) -> Tensor:
        fabric = SimpleNamespace(world_size=world, global_rank=rank, device=torch.device("cpu"))
        model.zero_grad()
        processes.ShardLoss(fabric, model, graphs, loss)(chunk).backward()  # type: ignore[arg-type]
        return next(model.parameters()).grad.clone()  # type: ignore[union-attr]

    torch.manual_seed(0)
    model = nn.Linear(graphs.x.shape[1], 1)
    for chunk, world in ((windows, 2), (windows, 3), (windows[:1], 3)):
        whole = torch.tensor([float(len(graphs.batch(chunk).x)), float(len(chunk))])
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts, whole=whole: counts.copy_(whole))
        mean = torch.stack([gradient(rank, world, chunk) for rank in range(world)]).mean(0)
        torch.testing.assert_close(mean, gradient(0, 1, chunk))


def test_devices_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise processes.MisconfigurationException("You requested gpu: [0, 1]\n But your machine only has: [0]")

    monkeypatch.setattr(processes, "Fabric", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = {"accelerator": "cuda", "devices": 2, "strategy": "auto", "precision": "32-true"}
    with pytest.raises(
        CanidsError, match=r"train_gnn.devices: 2: You requested gpu: \[0, 1\] But your machine only has"
    ):
        processes.start(config)


@pytest.mark.parametrize(("gpu", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_of_cuda_or_the_cpu(monkeypatch: pytest.MonkeyPatch, gpu: bool, chosen: str) -> None:
    asked: dict[str, object] = {}

    def note(**how: object) -> None:
        asked.update(how)
        raise processes.MisconfigurationException("enough")

    monkeypatch.setattr(processes, "Fabric", note)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    config = {"accelerator": "auto", "devices": 1, "strategy": "auto", "precision": "32-true"}
    with pytest.raises(CanidsError, match="enough"):
        processes.start(config)
    assert asked["accelerator"] == chosen
