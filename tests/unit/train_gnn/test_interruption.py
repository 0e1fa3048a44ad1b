"""A training that is stopped, politely or not, goes on to the bytes of the one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gnn_data import OUTPUTS, call, weights, write

from canids_shared.jobs.entry_point import Call
from canids_train_gnn import gat, vgae
from canids_train_gnn.training import loop

MAINS = {"gat": gat.main, "vgae": vgae.main}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("graphs"), np.random.default_rng(0)
    return [write(folder / f"{name}.safetensors", [0, 1] * n, rng) for name, n in (("fit", 200), ("select", 20))]


def short(kind: str, graphs: list[Path], folder: Path, epochs: int = 3, batch: int = 50) -> Call:
    return call(graphs, folder, kind, epochs=epochs, patience=epochs, batch=batch)


@pytest.mark.parametrize("kind", ["gat", "vgae"])
@pytest.mark.parametrize("where", ["first step", "within", "last step", "select", "later epoch"])
def test_a_signal_between_any_two_steps_is_made_up_for(
    kind: str, where: str, graphs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAINS[kind](short(kind, graphs, tmp_path / "whole"))
    steps = 200 * (2 if kind == "gat" else 1) // 50  # of an epoch
    at = {"first step": 1, "within": 3, "last step": steps, "select": 0, "later epoch": steps + 2}[where]
    step, select_loss, done = loop.TrainingLoop._step, loop.TrainingLoop._select_loss, [0]

    def stopping(self: Any, *args: Any) -> None:
        step(self, *args)
        done[0] += 1
        if done[0] == at:
            os.kill(os.getpid(), signal.SIGUSR1)

    def stopping_select(self: Any, *args: Any) -> float:
        if where == "select":
            os.kill(os.getpid(), signal.SIGTERM)
        return select_loss(self, *args)

    monkeypatch.setattr(loop.TrainingLoop, "_step", stopping)
    monkeypatch.setattr(loop.TrainingLoop, "_select_loss", stopping_select)
    with pytest.raises(SystemExit) as stopped:
        MAINS[kind](short(kind, graphs, tmp_path / "stopped"))
    assert stopped.value.code == 128 + (signal.SIGTERM if where == "select" else signal.SIGUSR1)
    assert done[0] == (steps if where == "select" else at), "it stops at once"
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    monkeypatch.setattr(loop.TrainingLoop, "_step", lambda self, *args: (step(self, *args), done.append(1))[0])
    monkeypatch.setattr(loop.TrainingLoop, "_select_loss", select_loss)
    before = done[0]
    MAINS[kind](short(kind, graphs, tmp_path / "stopped"))
    assert before + len(done) - 1 == 3 * steps, "no step twice, none left out"
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert not (tmp_path / "stopped" / ".checkpoint").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("after", [1, 6, 13])
def test_a_training_killed_within_an_epoch_goes_on_from_the_last_timed_checkpoint(
    after: int, graphs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gat.main(short("gat", graphs, tmp_path / "whole"))
    step, done = loop.TrainingLoop._step, [0]

    def dying(self: Any, *args: Any) -> None:
        if done[0] == after:
            done[0] += 1
            raise KeyboardInterrupt
        step(self, *args)
        done[0] += 1

    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop.TrainingLoop, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        gat.main(short("gat", graphs, tmp_path / "killed"))
    gat.main(short("gat", graphs, tmp_path / "killed"))
    assert done[0] == 3 * 8 + 1, "no step twice"
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def started(kind: str, graphs: list[Path], folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        f"canids_train_gnn.{kind}",
        "--spec",
        short(kind, graphs, folder, epochs=8, batch=4).spec,
    ]
    command += [f"--{name}={folder / file}" for name, file in OUTPUTS.items()]
    command += ["--graphs", *map(str, graphs)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("vgae", signal.SIGKILL), ("gat", signal.SIGTERM)])
def test_a_process_that_is_killed_at_a_random_moment_is_made_up_for(
    kind: str, number: signal.Signals, graphs: list[Path], tmp_path: Path
) -> None:
    assert started(kind, graphs, tmp_path / "whole").wait() == 0
    draw = random.Random(f"{kind} {number}")
    for _ in range(2):
        process = started(kind, graphs, tmp_path / "killed")
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch "):
                break
        time.sleep(draw.uniform(0.0, 0.4))
        process.send_signal(number)
        begin = time.monotonic()
        assert process.wait() == (-number if number == signal.SIGKILL else 128 + number)
        assert time.monotonic() - begin < 10
        assert list((tmp_path / "killed" / ".checkpoint").glob("*/state.safetensors"))
    process = started(kind, graphs, tmp_path / "killed")
    _, said = process.communicate()
    assert process.returncode == 0
    assert "resumed after epoch" in said
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
