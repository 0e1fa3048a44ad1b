"""`examples/own_detector`: detectors of another repository in the place of train_gnn, from the graphs of the main job to metrics."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from polars.testing import assert_frame_equal
from workflows import REPOSITORY, Checkout

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.tables import DECISIONS, KEYS, STATES, read

pytestmark = [pytest.mark.slow, pytest.mark.workflow("kd_fusion")]
SNAKEFILE = "examples/own_detector/Snakefile"
SCENARIOS = ("test_known_attack", "test_unknown_attack")
METRICS = "experimentruns/own_detector/smoke/eval_large/metrics.json"
DETECTORS = ("perceptron", "trees", "pca")
FLOOR = {
    "test_known_attack": {"perceptron": 0.9, "trees": 0.9, "pca": 0.9, "fixed_weight": 0.9},
    "test_unknown_attack": {"pca": 0.5},  # supervised detectors do not find what they have never met
}
"""F1 that detectors and the best fixed weight reach; a policy of 200 steps promises nothing."""
IGNORED = {"window_baselines", "decisions", "states", "summary"}


def prepared(folder: Path, workflow: Path) -> None:
    """Put the main job's graphs, and a config for the smoke preset, into a checkout."""
    shutil.copytree(workflow / "results/smoke", folder / "results/smoke", ignore=lambda *_: IGNORED)
    config = {**yaml.safe_load((folder / "tests/smoke.yaml").read_text()), "train_gnn": {"iterations": 100}}
    config["train_drl"]["fusion_baselines"] = ["fixed_weight"]
    (folder / "own.yaml").write_text(yaml.safe_dump(config))


def test_own_detectors_go_through_fusion_evaluation_and_scoring(
    new_checkout: Callable[[], Checkout], workflow_dir: Path
) -> None:
    checkout = new_checkout()
    prepared(checkout.folder, workflow_dir)
    path = [str(REPOSITORY / "examples/own_detector"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(path)}
    command = ("-s", SNAKEFILE, "--configfile", "own.yaml")
    done = checkout.snakemake(*command, **environment)
    assert done.returncode == 0, done.stderr
    assert "graphs of smoke" not in done.stderr, "the graphs of the main job are good enough"

    here = checkout.folder / "results/own_detector/smoke"
    for split in ("fuse", "calibrate", *SCENARIOS):
        keys = GraphStore(checkout.folder / f"results/smoke/graphs/{split}.safetensors").keys()
        states, _ = read(here / f"states/large/{split}.parquet", STATES)
        assert_frame_equal(states.select(list(KEYS)), keys)
        if split != "fuse":
            decisions, _ = read(here / f"decisions/large/{split}.parquet", DECISIONS)
            assert_frame_equal(decisions.select(list(KEYS)), keys)
            assert {f"{name}_score" for name in DETECTORS} <= set(decisions.columns)
    assert not (checkout.folder / "results/smoke/states").exists(), "the main job's folders stay as they are"

    scenarios = json.loads((checkout.folder / METRICS).read_text())["scenarios"]
    assert set(scenarios) == set(SCENARIOS)
    for scenario, floors in FLOOR.items():
        for method, floor in floors.items():
            assert scenarios[scenario][method]["f1"] > floor, (scenario, method)
        assert scenarios[scenario]["pca"]["auroc"] > 0.95
        assert scenarios[scenario]["fusion"]["f1"] is not None

    # Tables, report and cards call the detectors by their own names, and know no others.
    for document in ("results.md", "report.html", "cards/detector_large.md"):
        text = (here / "summary" / document).read_text()
        assert "VGAE" not in text, document
    for name in ("Perceptron", "Extra Trees (own)", "PCA"):
        assert name in (here / "summary/results.md").read_text()
        assert name in (here / "summary/report.html").read_text()

    scored = checkout.snakemake(
        "-s",
        "examples/own_detector/score/Snakefile",
        "--config",
        f"capture={workflow_dir / 'results/smoke/captures/test-dos-van.csv'}",
        "run=experimentruns/own_detector/smoke/dqn_large",
        **environment,
    )
    assert scored.returncode == 0, scored.stderr
    summary = checkout.folder / "results/scored/test-dos-van/by-smoke/large/score/summary.md"
    assert "test-dos-van" in summary.read_text()

    done = checkout.snakemake("-n", *command, **environment)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr
