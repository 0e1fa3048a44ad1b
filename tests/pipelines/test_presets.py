"""The preset `overfit` on the graphs and states of the main job: a model that can learn memorises a few windows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from workflows import REPOSITORY

from canids_shared.jobs.entry_point import Call
from canids_shared.planning.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.workflow("kd_fusion")]


def call_of(stage: str, folder: Path, inputs: dict[str, list[Path]], **constants: str) -> Call:
    """The call of a training rule of the stage with the preset."""
    config = {"datasets": ["smoke"], "data_root": "tests/data", "preset": "overfit", "accelerator": "cpu"}
    schema = REPOSITORY / f"modules/{stage}/config.schema.yaml"
    checked = Stage(stage, config, schema).config[""]
    spec: dict[str, Any] = {"wildcards": {"dataset": "smoke", "instance": ""}, "config": checked, **constants}
    output = {name: folder / name for name in ("model", "config", "history", "run")}
    return Call(spec["wildcards"], checked, {"code": "", **constants}, output, inputs, json.dumps(spec))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests are found relative to the repository; `Stage` sets the interpreters."""
    monkeypatch.chdir(REPOSITORY)
    for stage in ("TRAIN_GNN", "TRAIN_DRL"):
        monkeypatch.setenv(f"CANIDS_{stage}_PYTHON", "")


def test_a_gat_learns_a_few_windows_until_its_loss_is_near_zero(workflow_dir: Path, tmp_path: Path) -> None:
    history = history_of("gat", workflow_dir, tmp_path)
    assert history["select_loss"][0] > 0.1
    assert history["select_loss"][-1] < 0.01
    assert history["fit_loss"][-1] < 0.01


def test_a_vgae_learns_a_few_windows_until_its_loss_is_far_down(workflow_dir: Path, tmp_path: Path) -> None:
    """The loss is a likelihood of real values, hence has no lower bound: here by 0.7 nats, that is, to half the error."""
    history = history_of("vgae", workflow_dir, tmp_path)
    assert history["select_loss"][-1] < history["select_loss"][0] - 0.7


def history_of(kind: str, workflow_dir: Path, folder: Path) -> pl.DataFrame:
    from canids_train_gnn import gat, vgae  # noqa: PLC0415 (torch, only where a test is asked for)

    graphs = [workflow_dir / f"results/smoke/graphs/{split}.safetensors" for split in ("fit", "select")]
    inputs: dict[str, list[Path]] = {"graphs": graphs, "teacher": [], "curriculum_vgae": []}
    {"gat": gat, "vgae": vgae}[kind].main(call_of("train_gnn", folder, inputs, variant="small_nokd"))
    return pl.read_parquet(folder / "history")


def test_a_policy_plays_one_episode_without_a_mistake(workflow_dir: Path, tmp_path: Path) -> None:
    from canids_train_drl import dqn  # noqa: PLC0415 (torch, as above)
    from canids_train_drl.environment import states  # noqa: PLC0415

    folder = workflow_dir / "results/smoke/states/small_nokd"
    inputs = {name: [folder / f"{name}.parquet"] for name in ("fuse", "select", "calibrate")}
    call = call_of("train_drl", tmp_path, {**inputs, "teacher": [], "teacher_fuse": []}, variant="small_nokd")
    dqn.main(call)
    history = pl.read_parquet(tmp_path / "history")
    labels = states.stretch(states.read(inputs["fuse"][0]), call.config["overfit_windows"]).labels
    switches = np.count_nonzero(np.diff(labels == 1, prepend=False))
    assert history["select_f1"].max() == 1.0
    # The best there is: an alarm in every attacked window and in no other costs its switches alone.
    assert history["select_reward"].max() == pytest.approx(-0.25 * switches / len(labels), abs=1e-6)
