"""A training of the policy that is stopped, at any step and by any means, goes on to the bytes of one that was not."""

import os
import signal
from pathlib import Path

import pytest

from canids_train_drl import dqn
from canids_train_drl.agent import double_dqn
from canids_train_drl.agent.double_dqn import DoubleDQN
from train_drl.test_dqn import call_of
from train_drl.test_states import synthetic, written

FAST = {"steps": 60, "environments": 32, "batch_size": 32, "evaluate_every": 20, "replay_size": 300}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    splits = {"fuse": 1, "select": 2, "calibrate": 3}
    return {s: written(folder / f"{s}.parquet", synthetic(n, 3, 100)) for s, n in splits.items()}


@pytest.fixture(scope="module")
def undisturbed(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    call = call_of(tmp_path_factory.mktemp("run"), "small_nokd", files, **FAST)
    dqn.main(call)
    return call.output["model"].read_bytes()


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, how: signal.Signals | None) -> None:
    """Send this process the signal within the given step, or (None) die there without a word."""
    ordinary = DoubleDQN._step

    def _step(self: DoubleDQN) -> None:
        ordinary(self)
        if self.progress.step == step:
            if how is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), how)

    monkeypatch.setattr(DoubleDQN, "_step", _step)


@pytest.mark.parametrize("step", [1, 7, 20, 33, 59])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_leaves_a_checkpoint_from_which_the_same_bytes_come(
    files: dict[str, Path],
    undisturbed: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    how: signal.Signals,
) -> None:
    call = call_of(tmp_path / "run", "small_nokd", files, **FAST)
    with monkeypatch.context() as patch:
        stop_at(patch, step, how)
        with pytest.raises(SystemExit) as left:
            dqn.main(call)
    assert left.value.code == 128 + how
    assert not call.output["model"].exists()
    assert list((tmp_path / "run/.checkpoint").rglob("state.safetensors"))
    dqn.main(call)
    assert call.output["model"].read_bytes() == undisturbed
    assert not (tmp_path / "run/.checkpoint").exists()


@pytest.mark.parametrize("step", [5, 45])
def test_death_goes_on_from_the_last_evaluation(
    files: dict[str, Path], undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    call = call_of(tmp_path / "run", "small_nokd", files, **FAST)
    with monkeypatch.context() as patch:
        stop_at(patch, step, None)
        with pytest.raises(KeyboardInterrupt):
            dqn.main(call)
    begun = []
    with monkeypatch.context() as patch:
        restore = DoubleDQN._restore
        patch.setattr(DoubleDQN, "_restore", lambda self, *a: (restore(self, *a), begun.append(self.progress.step))[0])
        dqn.main(call)
    assert begun == ([40] if step == 45 else [])
    assert call.output["model"].read_bytes() == undisturbed


def test_checkpoint_of_another_config_is_ignored(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 30, signal.SIGTERM)
        with pytest.raises(SystemExit):
            dqn.main(call_of(tmp_path / "run", "small_nokd", files, **FAST))
    other = {**FAST, "seed": 5}
    call = call_of(tmp_path / "run", "small_nokd", files, **other)
    dqn.main(call)
    alone = call_of(tmp_path / "alone", "small_nokd", files, **other)
    dqn.main(alone)
    assert call.output["model"].read_bytes() == alone.output["model"].read_bytes()


def test_every_minute_is_every_step_when_minutes_are_short(
    files: dict[str, Path], undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double_dqn, "CHECKPOINT_S", 0.0)
    call = call_of(tmp_path / "run", "small_nokd", files, **FAST)
    with monkeypatch.context() as patch:
        stop_at(patch, 47, None)
        with pytest.raises(KeyboardInterrupt):
            dqn.main(call)
    dqn.main(call)
    assert call.output["model"].read_bytes() == undisturbed
