"""The leaderboard: what its files hold, what it plans, and that a leak into a fold, put there on purpose, is found.

`test_leaderboard.yml` runs it on simulated vehicles.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import ENROLLED, ENROLMENT, LEFT_OUT, SPLITS, UNSEEN
from canids_shared.contracts.tables import DECISIONS, read, write
from canids_shared.files import sha256_of

pytestmark = pytest.mark.workflow("leaderboard")
FOLDS = {"@without-van": "van", "@without-compact": "compact"}
RUNS = ("vgae_small_nokd", "gat_small_nokd", "dqn_small_nokd", "fusion_baselines_small_nokd")
CONFIG = "tests/data/leaderboard/config.yaml"


def snakemake(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "-c2", "-s", "pipelines/leaderboard/Snakefile", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def leaks(folder: Path, fold: str, vehicle: str) -> list[str]:
    """What a fold learnt from, or chose a threshold by, that it should not know: named by file, empty where there is nothing.

    The chain is followed from the end: every training read the files of its own fold, byte for byte, and none of the stores
    behind them has a capture, by name or content, or the vehicle, of what is judged.
    """
    results, found = folder / "results/leaderboard", []
    for run in RUNS:
        config = yaml.safe_load((folder / f"experimentruns/leaderboard/{run}{fold}/config.yaml").read_text())
        for port, paths in config["files"].items():
            for path, digest in zip(paths, config["inputs"][port], strict=True):
                if f"{fold}/" not in path or sha256_of(folder / path) != digest:
                    found.append(f"{run}: {path} is not the fold's")
    stores = {path.stem: GraphStore(path).header for path in sorted((results / f"graphs{fold}").glob("*.safetensors"))}
    judged = [stores[name] for name in stores if name not in SPLITS]
    contents = {source["sha256"] for header in judged for source in header["sources"].values()}
    names = {name for header in judged for name in header["captures"]}
    for split in SPLITS:
        learnt = stores[split]["sources"]
        if vehicle in stores[split]["vehicles"]:
            found.append(f"{split}: has the vehicle {vehicle}")
        if names & {*stores[split]["captures"]} or contents & {source["sha256"] for source in learnt.values()}:
            found.append(f"{split}: has a capture that is judged")
    for split in ("select", "fuse", "calibrate"):
        table = pl.read_parquet(results / f"states/small_nokd{fold}/{split}.parquet", columns=["capture", "vehicle"])
        if vehicle in table["vehicle"] or names & {*table["capture"]}:
            found.append(f"states of {split}: have what is judged")
    return found


@pytest.mark.parametrize(("fold", "vehicle"), FOLDS.items())
def test_nothing_of_a_left_out_vehicle_reaches_a_training(workflow_dir: Path, fold: str, vehicle: str) -> None:
    assert leaks(workflow_dir, fold, vehicle) == []
    stores = workflow_dir / f"results/leaderboard/graphs{fold}"
    assert GraphStore(stores / f"{LEFT_OUT}.safetensors").header["vehicles"] == [vehicle]
    assert GraphStore(stores / f"{UNSEEN}.safetensors").header["vehicles"] == ["truck"]


@pytest.fixture
def altered(workflow_dir: Path, tmp_path: Path) -> Path:
    """A copy of what the workflow made, to be damaged."""
    for name in ("results", "experimentruns", ".snakemake"):
        shutil.copytree(workflow_dir / name, tmp_path / name)
    for name in ("pipelines", "modules", "shared", "tests", "pyproject.toml"):
        (tmp_path / name).symlink_to(workflow_dir / name)
    return tmp_path


def test_a_vehicle_that_is_left_out_and_trained_on_is_found(altered: Path) -> None:
    graphs = altered / "results/leaderboard"
    shutil.copy(graphs / "graphs@without-compact/fit.safetensors", graphs / "graphs@without-van/fit.safetensors")
    assert leaks(altered, "@without-van", "van") == [
        "vgae_small_nokd: results/leaderboard/graphs@without-van/fit.safetensors is not the fold's",
        "gat_small_nokd: results/leaderboard/graphs@without-van/fit.safetensors is not the fold's",
        "fit: has the vehicle van",
        "fit: has a capture that is judged",
    ]


def test_a_training_on_the_files_of_another_instance_is_found(altered: Path) -> None:
    path = altered / "experimentruns/leaderboard/gat_small_nokd@without-van/config.yaml"
    path.write_text(path.read_text().replace("graphs@without-van/fit", "graphs@without-compact/fit"))
    assert leaks(altered, "@without-van", "van") == [
        "gat_small_nokd: results/leaderboard/graphs@without-compact/fit.safetensors is not the fold's"
    ]


def roll_labels(path: Path) -> None:
    """Give each window of decisions the label of another one, half of the file away."""
    rows, header = read(path, DECISIONS)
    by = len(rows) // 2
    rows = rows.with_columns(pl.concat([rows[name][by:], rows[name][:by]]).alias(name) for name in ("label", "attack"))
    write(path, DECISIONS, rows, {key: value for key, value in header.items() if key not in ("contract", "digest")})


def thresholds(folder: Path) -> dict[str, Any]:
    """Thresholds of an evaluation that is made again after its decisions were altered."""
    target = "experimentruns/leaderboard/eval_small_nokd@without-van/metrics.json"
    snakemake(
        folder, "--configfile", CONFIG, "--rerun-triggers", "mtime", "--forcerun", "eval_small_nokd", "--", target
    )
    content: dict[str, Any] = json.loads((folder / target).read_text())
    return content


def test_no_threshold_depends_on_a_label_that_is_judged(altered: Path) -> None:
    target = altered / "experimentruns/leaderboard/eval_small_nokd@without-van/metrics.json"
    before = json.loads(target.read_text())
    decisions = altered / "results/leaderboard/decisions/small_nokd@without-van"
    roll_labels(decisions / f"{LEFT_OUT}.parquet")
    if (decisions / f"{LEFT_OUT}{ENROLLED}.parquet").exists():
        roll_labels(decisions / f"{LEFT_OUT}{ENROLLED}.parquet")
    after = thresholds(altered)
    assert after["thresholds"] == before["thresholds"]
    f1 = [content["scenarios"][LEFT_OUT]["vgae"]["f1"] for content in (before, after)]
    assert f1[0] != f1[1], "the labels were read, and only to judge"
    # The same on purpose: thresholds from windows that are judged are other ones, so the check above can fail.
    judged, _ = read(decisions / f"{LEFT_OUT}.parquet", DECISIONS)
    _, header = read(decisions / "calibrate.parquet", DECISIONS)
    kept = {key: value for key, value in header.items() if key not in ("contract", "digest")}
    write(decisions / "calibrate.parquet", DECISIONS, judged, kept)
    assert thresholds(altered)["thresholds"] != before["thresholds"]


def planned(folder: Path, *arguments: str) -> Counter[str]:
    """Rule → number of jobs of a plan of everything."""
    said = snakemake(folder, "-n", "--forceall", *arguments)
    rows = [line.split() for line in said.partition("Job stats:")[2].splitlines()[3:]]
    return Counter({row[0]: int(row[1]) for row in rows[: rows.index([])]})


def test_the_plan_has_three_seeds_of_every_fold_which_share_graphs_and_baselines(workflow_dir: Path) -> None:
    found = planned(workflow_dir, "--config", "data_root=tests/data", "preset=smoke")
    # Two vehicles, two kinds of attack, and a second attack-free capture of the compact.
    folds = 5
    assert (found["graphs"], found["window_baselines"]) == (folds, folds)
    for rule in (*RUNS[:3], "fusion_baselines", "eval_small_nokd", "states"):
        assert found[rule] == 3 * folds, rule
    assert not [rule for rule in found if rule.endswith(("large", "small_kd"))]


def test_ablations_repeat_nothing_of_the_folds(workflow_dir: Path) -> None:
    ablations = "pipelines/leaderboard/ablations.yaml"
    plain = planned(workflow_dir, "--configfile", CONFIG)
    found = planned(workflow_dir, "--configfile", ablations, CONFIG)
    more = {rule: count - plain[rule] for rule, count in found.items() if count != plain[rule]}
    names = yaml.safe_load((workflow_dir / ablations).read_text())["folds"]["ablations"]
    reached = {stage: sum(stage in overrides for overrides in names.values()) for stage in ("preprocess", "train_gnn")}
    # Of simulated captures alone, auxiliary captures change no byte, but the graphs are made for the instance all the same.
    assert more["graphs"] == 2 * reached["preprocess"]
    assert more["gat_small_nokd"] == 2 * (reached["preprocess"] + reached["train_gnn"])
    assert more["dqn_small_nokd"] == more["eval_small_nokd"] == 2 * len(names)
    assert "ingest" not in more
    assert "simulate" not in more


def test_every_split_of_a_fold_is_made(workflow_dir: Path) -> None:
    for fold in FOLDS:
        made = {path.stem for path in (workflow_dir / f"results/leaderboard/graphs{fold}").glob("*.safetensors")}
        assert {*SPLITS, LEFT_OUT, UNSEEN} <= made
        metrics = json.loads(
            (workflow_dir / f"experimentruns/leaderboard/eval_small_nokd{fold}/metrics.json").read_text()
        )
        assert {LEFT_OUT, UNSEEN} <= metrics["scenarios"].keys() <= made - {*SPLITS, ENROLMENT}
