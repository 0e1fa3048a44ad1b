"""A workflow that is killed takes its training with it, and the next one goes on from there to the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from gnn_data import call, weights, write
from workflows import Checkout

from canids_shared.jobs.entry_point import Call
from canids_train_gnn import gat

RUN = "experimentruns/smoke/gat_small_nokd"
CONFIG = {
    "datasets": ["smoke"],
    "data_root": "tests/data",
    "accelerator": "cpu",
    "gat": {"epochs": 6, "patience": 6, "batch": 8, "small": {"channels": 2, "heads": 2, "layers": 1}},
}


def start(checkout: Checkout) -> subprocess.Popen[bytes]:
    model = f"{RUN}/model.safetensors"
    command = [sys.executable, "-m", "snakemake", "-c1", "-s", "modules/train_gnn/Snakefile", "--configfile", "c.yaml"]
    # Snakemake's own lock of the folder would outlive it.
    with open(checkout.folder / "said.txt", "ab") as said:
        return subprocess.Popen([*command, "--nolock", "--rerun-incomplete", model], cwd=checkout.folder, stderr=said)


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.slow
def test_a_training_ends_with_a_killed_snakemake_and_goes_on_with_the_next(
    new_checkout: Callable[[], Checkout], tmp_path: Path
) -> None:
    checkout = new_checkout()
    folder, rng = checkout.folder / RUN, np.random.default_rng(0)
    for name, n in (("fit", 200), ("select", 20)):
        write(checkout.folder / f"results/smoke/graphs/{name}.safetensors", [0, 1] * n, rng)
    (checkout.folder / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    said = folder / "log.txt"
    snakemake = start(checkout)
    until(lambda: said.exists() and "epoch 1:" in said.read_text(), 60, "the training does not begin")
    training = int((folder / ".lock").read_text().split()[1])
    os.kill(snakemake.pid, signal.SIGKILL)
    until(lambda: not (folder / ".lock").exists(), 20, "the training outlives its Snakemake")
    until(lambda: not Path(f"/proc/{training}").exists(), 20, "the training outlives its lock")
    assert snakemake.wait() == -signal.SIGKILL
    text = said.read_text()
    assert f"Snakemake (process {snakemake.pid}) has ended" in text
    assert "signal 15" in text
    assert "checkpoint saved" in text
    assert list(folder.glob(".checkpoint/*/state.safetensors"))
    assert not (folder / "model.safetensors").exists()

    assert start(checkout).wait() == 0, (checkout.folder / "said.txt").read_text()
    assert "resumed after epoch" in said.read_text()
    assert not (folder / ".lock").exists()

    spec = yaml.safe_load((folder / "config.yaml").read_text())["spec"]
    graphs = [checkout.folder / f"results/smoke/graphs/{name}.safetensors" for name in ("fit", "select")]
    like = call(graphs, tmp_path / "whole", "gat")
    constants = {k: v for k, v in spec.items() if k not in ("wildcards", "config")}
    gat.main(Call(spec["wildcards"], spec["config"], constants, like.output, like.inputs, json.dumps(spec)))
    assert weights(folder) == weights(tmp_path / "whole")
