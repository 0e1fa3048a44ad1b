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

import numpy as np
import polars as pl
import pytest
import yaml

from canids_shared.contracts.graph_store import GraphStore, writing
from canids_shared.contracts.manifest import ENROLMENT, LEFT_OUT, SPLITS, UNSEEN
from canids_shared.contracts.tables import DECISIONS, read, write
from canids_shared.errors import CanidsError
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


def rewrite(store: GraphStore, path: Path, instance: str, shift: int = 0) -> None:
    """Write a graph store as that of another instance, each window with the label of the one `shift` further on."""
    arrays = {name: np.array(store[name]) for name in store.arrays}
    arrays |= {name: np.roll(arrays[name], shift, axis=0) for name in ("y", "n_attacked", "attack")}
    source, target = arrays.pop("edge_index")
    counts = {f"{unit}_counts": np.diff(arrays.pop(f"{unit}_ptr")) for unit in ("node", "edge")}
    rows = {"windows": len(store), "nodes": len(arrays["x"]), "edges": len(source)}
    made = path.with_suffix(".new")
    with writing(made, {**store.header, "instance": instance}, **rows) as writer:
        writer.append({**arrays, "edge_source": source, "edge_target": target, **counts})
    os.replace(made, path)


def test_a_vehicle_that_is_left_out_and_trained_on_is_found(altered: Path) -> None:
    graphs = altered / "results/leaderboard"
    own, other = graphs / "graphs@without-van/fit.safetensors", graphs / "graphs@without-compact/fit.safetensors"
    # Of another instance, it is no file that any job reads.
    shutil.copy(other, own)
    with pytest.raises(CanidsError, match="is of instance '@without-compact', not '@without-van'"):
        leaks(altered, "@without-van", "van")
    # Neither is it when it says that it is the fold's.
    rewrite(GraphStore(other), own, "@without-van")
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


def thresholds(folder: Path) -> tuple[dict[str, Any], list[float]]:
    """Thresholds of networks and window baselines, and the F1 of two of them, by what is there now."""
    paths = (
        "experimentruns/leaderboard/eval_small_nokd@without-van",
        "results/leaderboard/window_baselines@without-van",
    )
    snakemake(folder, "--configfile", CONFIG, "--rerun-triggers", "mtime", "--", f"{paths[0]}/metrics.json")
    networks, baselines = (json.loads((folder / path / "metrics.json").read_text()) for path in paths)
    f1 = [networks["scenarios"][LEFT_OUT]["vgae"]["f1"], baselines["scenarios"][LEFT_OUT]["extra_trees"]["f1"]]
    return {**networks["thresholds"], **baselines["thresholds"]}, f1


def test_no_threshold_depends_on_a_label_that_is_judged(altered: Path) -> None:
    before, f1_before = thresholds(altered)
    graphs = altered / "results/leaderboard/graphs@without-van"
    for path in graphs.glob(f"{LEFT_OUT}*.safetensors"):
        store = GraphStore(path)
        rewrite(store, path, "@without-van", shift=len(store) // 2)
    after, f1_after = thresholds(altered)
    assert after == before
    assert all(new != old for new, old in zip(f1_after, f1_before, strict=True)), "labels serve to judge, and only so"
    # On purpose: thresholds from windows that are judged are other ones, so what is held above can fail.
    decisions = altered / "results/leaderboard/decisions/small_nokd@without-van"
    judged, _ = read(decisions / f"{LEFT_OUT}.parquet", DECISIONS)
    _, header = read(decisions / "calibrate.parquet", DECISIONS)
    kept = {key: value for key, value in header.items() if key not in ("contract", "digest")}
    write(decisions / "calibrate.parquet", DECISIONS, judged, kept)
    assert thresholds(altered)[0] != before


def planned(folder: Path, *arguments: str) -> Counter[str]:
    """Rule → number of jobs of a plan of everything."""
    said = snakemake(folder, "-n", "--forceall", *arguments)
    rows = [line.split() for line in said.partition("Job stats:")[2].splitlines()[3:]]
    return Counter({row[0]: int(row[1]) for row in rows[: rows.index([])]})


def test_the_plan_has_three_seeds_of_every_fold_which_share_graphs_and_baselines(workflow_dir: Path) -> None:
    found = planned(workflow_dir, "--config", "datasets=[leaderboard]", "data_root=tests/data", "preset=smoke")
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
    reached = {stage: sum(stage in a["overrides"] for a in names.values()) for stage in ("preprocess", "train_gnn")}
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
