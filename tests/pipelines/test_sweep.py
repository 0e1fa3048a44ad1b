"""What sweep, cross_vehicle and fusion_ablation leave behind in the smoke preset (`test_sweep.yml` runs them)."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl
import pytest
import yaml

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import SPLITS

pytestmark = pytest.mark.workflow("sweep")
SWEEP = "results/smoke/sweeps/sweep"
POINTS = {  # as in tests/data/sweep/params.tsv
    "sweep-000": {"gat.learning_rate": 0.0005, "gat.batch": 32},
    "sweep-001": {"gat.learning_rate": 0.005, "gat.batch": 16},
}
FOLD = "@fusion-without-van"


def planned(folder: Path, pipeline: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "-n", "-s", f"pipelines/{pipeline}/Snakefile", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def jobs(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Rule → number of jobs of a plan."""
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.partition("Job stats:")[2].splitlines()[3:]
    rows = [line.split() for line in lines[: lines.index("")]]
    return {rule: int(count) for rule, count in rows}


def config(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return content


def test_points_hold_the_results_of_their_trainings(workflow_dir: Path) -> None:
    found = {}
    for path in (workflow_dir / SWEEP / "points").rglob("select.json"):
        content = json.loads(path.read_text())
        found[content["instance"]] = content["values"]
        for seed, suffix in (("0", ""), ("1", "-seed-1")):
            run = workflow_dir / f"experimentruns/smoke/gat_small_nokd@{content['instance']}{suffix}"
            spec = config(run)["spec"]["config"]
            assert spec["seed"] == int(seed)
            assert {f"gat.{k}": spec["gat"][k] for k in ("learning_rate", "batch")} == content["values"]
            select = json.loads((run / "run.json").read_text())["select"]
            assert content["runs"]["gat_small_nokd"][seed] == {k: select[k] for k in ("auroc", "loss")}
            assert select["loss"] == pl.read_parquet(run / "history.parquet")["select_loss"].min()
    assert found == POINTS


def test_the_table_has_the_means_over_seeds_the_best_first(workflow_dir: Path) -> None:
    with open(workflow_dir / SWEEP / "all/results.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {r["instance"] for r in rows} == set(POINTS)
    means = [float(r["mean"]) for r in rows]
    assert means == sorted(means), "the lowest loss comes first"
    for row in rows:
        path = next(p for p in (workflow_dir / SWEEP / "points").rglob("select.json") if json.loads(p.read_text())["instance"] == row["instance"])  # fmt: skip
        readings = json.loads(path.read_text())["runs"]["gat_small_nokd"]
        assert float(row["mean"]) == pytest.approx(mean(r["loss"] for r in readings.values()))
        assert float(row["low"]) < float(row["mean"]) < float(row["high"])
    text = (workflow_dir / SWEEP / "all/results.md").read_text()
    assert f"Best on `select`: `{rows[0]['instance']}`" in text
    assert "No importance: 2 points" in text
    written = (workflow_dir / SWEEP / "all/params.tsv").read_text()
    assert written.splitlines()[1:] == ["sweep-000\t0.0005\t32", "sweep-001\t0.005\t16"]


def test_a_sub_space_has_its_own_table(workflow_dir: Path) -> None:
    with open(workflow_dir / SWEEP / "small_batches/results.csv", encoding="utf-8") as stream:
        assert {r["instance"] for r in csv.DictReader(stream)} == {"sweep-001"}


def test_points_share_their_graphs_and_no_test_scenario_is_made(workflow_dir: Path) -> None:
    results = workflow_dir / "results/smoke"
    assert {p.stem for p in results.glob("graphs/*.safetensors")} == set(SPLITS)
    assert not list(results.glob("graphs@sweep*"))
    assert not list(results.glob("**/test_*"))


def test_an_off_grid_target_is_refused(workflow_dir: Path) -> None:
    target = f"{SWEEP}/points/gat_learning_rate~0.0005/gat_batch~16/select.json"
    configs = ("tests/smoke.yaml", "tests/data/sweep/detector.yaml")
    done = planned(workflow_dir, "sweep", "--configfile", *configs, "--", target)
    assert done.returncode != 0
    assert "MissingRuleException" in done.stdout + done.stderr
    assert target in done.stdout + done.stderr


def test_a_sweep_of_policies_shares_its_detectors(workflow_dir: Path) -> None:
    done = planned(workflow_dir, "sweep", "--configfile", "tests/smoke.yaml", "tests/data/sweep/policy.yaml")
    found = jobs(done)
    assert {r: found[r] for r in ("gat_small_nokd", "vgae_small_nokd", "states", "dqn_small_nokd", "sweep_point")} == {
        "gat_small_nokd": 1,
        "vgae_small_nokd": 1,
        "states": 1,
        "dqn_small_nokd": 4,
        "sweep_point": 4,
    }
    # Of test scenarios there are rules, but no jobs.
    assert "test_known_attack" not in re.sub("Workflow defines that rule .*", "", done.stdout)


def test_a_fold_of_cross_vehicle_leaves_its_vehicle_out(workflow_dir: Path) -> None:
    vehicles = {
        split: GraphStore(workflow_dir / f"results/smoke/graphs@cross-without-van/{split}.safetensors").header[
            "vehicles"
        ]
        for split in ("fit", "left_out")
    }
    assert vehicles == {"fit": ["compact"], "left_out": ["van"]}


def test_seeds_of_an_ablation_share_the_detectors_of_their_fold(workflow_dir: Path) -> None:
    runs = workflow_dir / "experimentruns/smoke"
    assert {p.name for p in runs.glob("*fusion*")} == {
        f"vgae_small_nokd{FOLD}",
        f"gat_small_nokd{FOLD}",
        f"fusion_baselines_small_nokd{FOLD}-seed-1",
    }
    made = config(runs / f"fusion_baselines_small_nokd{FOLD}-seed-1")
    assert made["files"]["fuse"] == [f"results/smoke/states/small_nokd{FOLD}/fuse.parquet"]
    assert made["spec"]["config"]["seed"] == 1
    assert made["spec"]["config"]["fusion_baselines"] == ["fixed_weight", "hysteresis"]
    found = jobs(planned(workflow_dir, "fusion_ablation", "--forceall", "--configfile", "tests/smoke.yaml"))
    wanted = ("gat_large", "dqn_large", "fusion_baselines", "eval_large", "window_baselines", "folds")
    assert [found[r] for r in wanted] == [2, 2 * 3, 2 * 3 * 3, 2 * 3, 2, 1]
    assert "summary" not in found
