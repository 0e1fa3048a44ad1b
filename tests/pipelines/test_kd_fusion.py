"""Contents of the files of the main job, in the smoke preset (`test_kd_fusion.yml` runs it)."""

import csv
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from mlflow import MlflowClient
from polars.testing import assert_frame_equal
from sklearn.metrics import average_precision_score, matthews_corrcoef, precision_recall_fscore_support, roc_auc_score
from workflows import CACHED, EVALUATIONS, TRAININGS, VARIANTS, check_card

from canids_evaluate.runs.measured import measured
from canids_shared.alarm_rule import AlarmRule, Evidence, segments_of
from canids_shared.contracts import manifest, training_run
from canids_shared.contracts.detectors import DETECTORS, declared
from canids_shared.contracts.graph_store import GraphStore, writing
from canids_shared.contracts.model_file import DETECTOR, POLICY, load_arrays
from canids_shared.contracts.tables import DECISIONS, FRAMES, KEYS, STATES, read, read_metadata
from canids_shared.files import sha256_of

pytestmark = pytest.mark.workflow("kd_fusion")
SCENARIOS = ("test_known_attack", "test_unknown_attack")
METRICS = ("f1", "precision", "recall", "mcc", "auroc", "pr_auc", "fpr")
METRICS += ("false_alarms_per_hour", "alarm_seconds_per_hour", "detection_delay_s", "episodes_found")
METRICS += tuple(f"{what}_at_{rate}_per_hour" for what in ("recall", "episodes_found") for rate in (1, 10))
COUNTS = ("n_windows", "n_attacked", "n_episodes")
FUSION_BASELINES = (
    "fixed_weight",
    "max",
    "mean",
    "noisy_or",
    "hysteresis",
    "cusum",
    "logistic",
    "mlp",
    "bandit",
    "sb3_dqn",
)
BASELINES = {
    "id_rate",
    "isolation_forest",
    "extra_trees",
    "gradient_boosting",
    "node_pca",
    "staleness",
} | {"always_attack"}


def graphs(folder: Path, split: str) -> GraphStore:
    return GraphStore(folder / f"results/smoke/graphs/{split}.safetensors")


def decisions(folder: Path, variant: str, split: str) -> pl.DataFrame:
    return read(folder / f"results/smoke/decisions/{variant}/{split}.parquet", DECISIONS)[0]


def metrics(folder: Path, variant: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"experimentruns/smoke/eval_{variant}/metrics.json").read_text())
    return content


def baselines(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results/smoke/window_baselines/metrics.json").read_text())
    return content


def test_every_contract_can_be_read(workflow_dir: Path) -> None:
    results = workflow_dir / "results/smoke"
    for path in sorted((results / "frames").glob("*.parquet")):
        frames, head = read(path, FRAMES)
        assert head["rows_read"] == len(frames) > 0
    for table, kind in ((STATES, "states"), (DECISIONS, "decisions")):
        for path in sorted((results / kind).glob("*/*.parquet")):
            assert len(read(path, table)[0])
    for run in TRAININGS:
        contract = POLICY if run.startswith("dqn") else DETECTOR
        arrays, _ = load_arrays(workflow_dir / f"experimentruns/smoke/{run}/model.safetensors", contract)
        assert all(np.isfinite(a).all() for a in arrays.values())


def test_states_and_decisions_declare_the_detectors(workflow_dir: Path) -> None:
    for table, pattern in ((STATES, "states/*/*.parquet"), (DECISIONS, "decisions/*/*.parquet")):
        for path in sorted((workflow_dir / "results/smoke").glob(pattern)):
            assert declared(read_metadata(path, table), path) == DETECTORS


def test_the_record_of_a_training_agrees_with_its_files(workflow_dir: Path) -> None:
    for name in TRAININGS:
        folder = workflow_dir / "experimentruns/smoke" / name
        run = training_run.read(folder / "run.json")
        kind, _, variant = name.partition("_")
        assert (run.name, run.kind, run.variant, run.dataset) == (name, kind, variant, "smoke")
        assert run.detectors == [detector.name for detector in DETECTORS if detector.name == kind]
        assert run.config == yaml.safe_load((folder / "config.yaml").read_text())["spec"]["config"]
        history = pl.read_parquet(folder / "history.parquet")
        assert run.history
        for column, values in run.history.items():
            kept = [v if v is not None and np.isfinite(v) else None for v in history[column].to_list()]
            assert values == pytest.approx(kept), (name, column)
        assert 0 <= run.best < len(history)
        for file, size in run.sizes.items():
            assert size == next(folder.glob(f"{file}.*")).stat().st_size, (name, file)
        assert run.latency["median_ms"] > 0


def test_all_stages_have_the_same_windows(workflow_dir: Path) -> None:
    for split in (*manifest.SPLITS, *SCENARIOS):
        keys = graphs(workflow_dir, split).keys()
        for variant in VARIANTS:
            if split != "fit":  # nothing downstream reads those of `fit`
                states, _ = read(workflow_dir / f"results/smoke/states/{variant}/{split}.parquet", STATES)
                assert_frame_equal(states.select(list(KEYS)), keys)
            if split in ("calibrate", *SCENARIOS):
                assert_frame_equal(decisions(workflow_dir, variant, split).select(list(KEYS)), keys)


def test_blocks_of_a_capture_lie_apart_by_the_gap(workflow_dir: Path) -> None:
    gap = yaml.safe_load((workflow_dir / "modules/preprocess/canids_preprocess/presets/smoke.yaml").read_text())[
        "blocks"
    ]["gap"]
    keys = pl.concat(
        [graphs(workflow_dir, s).keys().select("capture", "t_start", "t_end", split=pl.lit(s)) for s in manifest.SPLITS]
    )
    for (capture,), rows in keys.group_by("capture"):
        boundaries = 0
        for a, b in pairwise(rows.sort("t_start").iter_rows(named=True)):
            distance = b["t_start"] - a["t_end"]
            # Restarts repeat windows within their split.
            assert a["split"] == b["split"] or distance >= gap - 1e-6, f"{capture}: {a} {b}"
            boundaries += a["split"] != b["split"]
        assert boundaries == len(manifest.SPLITS) - 1
    captures = {s: set(graphs(workflow_dir, s).header["captures"]) for s in (*manifest.SPLITS, *SCENARIOS)}
    trained_on = set.union(*(captures[s] for s in manifest.SPLITS))
    assert not trained_on & set.union(*(captures[s] for s in SCENARIOS))


def rewrite_attacked(store: GraphStore, path: Path) -> None:
    """Write a graph store whose attacked windows have other features."""
    arrays = {name: np.array(store[name]) for name in store.arrays}
    attacked = np.repeat(arrays["y"] != 0, np.diff(arrays["node_ptr"]))
    assert attacked.any()
    arrays["x"][attacked] = 1e3
    source, target = arrays.pop("edge_index")
    counts = {f"{unit}_counts": np.diff(arrays.pop(f"{unit}_ptr")) for unit in ("node", "edge")}
    with writing(path, store.header, windows=len(store), nodes=len(attacked), edges=len(source)) as writer:
        writer.append({**arrays, "edge_source": source, "edge_target": target, **counts})


def test_vgae_learns_nothing_from_attacked_windows(workflow_dir: Path, tmp_path: Path) -> None:
    """A training on graphs whose attacked windows are overwritten gives the same bytes."""
    run = workflow_dir / "experimentruns/smoke/vgae_large"
    paths = []
    for split in ("fit", "select"):
        path = tmp_path / f"{split}.safetensors"
        rewrite_attacked(GraphStore(workflow_dir / f"results/smoke/graphs/{split}.safetensors"), path)
        paths.append(str(path))
    spec = yaml.safe_load((run / "config.yaml").read_text())["spec"]
    outputs = {name: str(tmp_path / name) for name in ("model", "config", "history", "run")}
    options = [text for name, path in outputs.items() for text in (f"--{name}", path)]
    command = [sys.executable, "-m", "canids_train_gnn.vgae", "--spec", json.dumps(spec), *options, "--graphs", *paths]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (overwritten_weights, overwritten_header), (weights, header) = (
        load_arrays(path, DETECTOR) for path in (tmp_path / "model", run / "model.safetensors")
    )
    assert all(np.array_equal(weights[name], overwritten_weights[name]) for name in weights)
    assert weights.keys() == overwritten_weights.keys()
    assert header == overwritten_header
    overwritten_run, original_run = (json.loads(path.read_text()) for path in (tmp_path / "run", run / "run.json"))
    # The AUROC rests on scores of attacked windows; it is the only result that may differ.
    assert all(0 <= record["select"].pop("auroc") <= 1 for record in (overwritten_run, original_run))
    for key in ("best", "select", "history"):
        assert overwritten_run[key] == original_run[key]


def test_metrics_have_every_key_and_lie_where_they_can(workflow_dir: Path) -> None:
    reports = [(metrics(workflow_dir, v), v, {"gat", "vgae", "fusion", *FUSION_BASELINES}) for v in VARIANTS]
    for report, variant, methods in [*reports, (baselines(workflow_dir), None, BASELINES)]:
        identity = {"contract", "dataset", "variant", "instance", "detectors", "seed", "code", "config", "digest"}
        assert report.keys() == {*identity, "thresholds", "enrolment", "scenarios"}
        assert (report["dataset"], report["variant"], report["instance"]) == ("smoke", variant, "")
        assert set(report["scenarios"]) == set(SCENARIOS)
        assert set(report["thresholds"]) == methods
        for by_method in report["scenarios"].values():
            assert set(by_method) == methods
            for values in by_method.values():
                check_ranges(values)
                assert set(values["intervals"]) == set(METRICS)
                for group in (*values["per_attack"].values(), *values["per_capture"].values()):
                    check_ranges(group)


def rule_of(report: dict[str, Any], method: str) -> AlarmRule:
    """The rule that `metrics.json` states."""
    thresholds = report["thresholds"][method]
    return AlarmRule(thresholds["budget"], thresholds["vehicles"], Evidence(*thresholds["evidence"]))


def check_ranges(values: dict[str, Any]) -> None:
    assert {*METRICS, *COUNTS} <= set(values)
    for name in METRICS:
        low = -1 if name == "mcc" else 0
        high = {"false_alarms_per_hour": np.inf, "detection_delay_s": np.inf, "alarm_seconds_per_hour": 3600}.get(
            name, 1
        )
        assert values[name] is None or low <= values[name] <= high, name
    assert values["n_windows"] >= values["n_attacked"] >= values["n_episodes"] > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_metrics_follow_from_the_decisions(workflow_dir: Path, variant: str) -> None:
    report = metrics(workflow_dir, variant)
    for scenario in SCENARIOS:
        rows = decisions(workflow_dir, variant, scenario)
        label = rows["label"].to_numpy()
        alarms = {"fusion": rows["alarm"].to_numpy()} | {
            r: rows[f"baseline_{r}_alarm"].to_numpy() > 0.5 for r in FUSION_BASELINES
        }
        scores = {m: rows[f"{m}_score"].to_numpy() for m in ("fusion", "gat", "vgae")}
        scores |= {r: rows[f"baseline_{r}_score"].to_numpy() for r in FUSION_BASELINES}
        for method in ("gat", "vgae"):
            rule = rule_of(report, method)
            scores[method] = rule.evidence.over(scores[method].astype(float), segments_of(rows))
            alarms[method] = scores[method] > rule.thresholds(rows["vehicle"])
            alarms[method] &= rows[f"unlike_{method}"].to_numpy() == 0
        for method, alarm in alarms.items():
            values = report["scenarios"][scenario][method]
            assert values["n_windows"] == len(label)
            assert values["n_attacked"] == label.sum()
            expected = precision_recall_fscore_support(label, alarm, average="binary", zero_division=np.nan)[:3]
            for name, value in zip(("precision", "recall", "f1"), expected, strict=True):
                assert values[name] is None if np.isnan(value) else values[name] == pytest.approx(value, abs=1e-9), name
            if len(set(alarm)) == 2:
                assert values["mcc"] == pytest.approx(matthews_corrcoef(label, alarm), abs=1e-9)
            assert values["fpr"] == pytest.approx(alarm[label == 0].mean(), abs=1e-9)
            assert values["auroc"] == pytest.approx(roc_auc_score(label, scores[method]), abs=1e-9)
            assert values["pr_auc"] == pytest.approx(average_precision_score(label, scores[method]), abs=1e-9)


def test_thresholds_keep_the_false_alarm_budget(workflow_dir: Path) -> None:
    for variant in VARIANTS:
        rows, report = decisions(workflow_dir, variant, "calibrate"), metrics(workflow_dir, variant)
        free = rows["label"].to_numpy() == 0
        vehicles = [free & (rows["vehicle"] == v).to_numpy() for v in rows["vehicle"].unique()]
        for method in ("gat", "vgae"):
            rule = rule_of(report, method)
            score = rule.evidence.over(rows[f"{method}_score"].to_numpy().astype(float), segments_of(rows))
            # Thresholds of a vehicle's own need longer captures: tests/unit/shared/test_vehicle_thresholds.py.
            shares = [(score > rule.threshold)[own].mean() for own in vehicles if own.any()]
            assert np.mean(shares) <= report["config"]["false_alarm_budget"] + 1e-9


def test_every_run_is_measured_and_can_be_repeated(workflow_dir: Path) -> None:
    runs = workflow_dir / "experimentruns/smoke"
    for run in (*TRAININGS, *EVALUATIONS):
        with open(runs / run / "benchmark.tsv", encoding="utf-8") as stream:
            (row,) = csv.DictReader(stream, delimiter="\t")
        assert float(row["s"]) > 0
        assert "max_rss" in row
    for run in TRAININGS:
        config = yaml.safe_load((runs / run / "config.yaml").read_text())
        assert {"spec", "inputs", "files", "python"} <= set(config)
        assert bool(config["files"]["teacher"]) == run.endswith("small_kd")
        assert not any(Path(p).is_absolute() for paths in config["files"].values() for p in paths)
        assert len(pl.read_parquet(runs / run / "history.parquet"))
        assert not (runs / run / ".checkpoint").exists()


def test_cards_have_the_numbers_of_the_metrics(workflow_dir: Path) -> None:
    for run in TRAININGS:
        kind, _, variant = run.partition("_")
        text = (workflow_dir / f"results/smoke/summary/cards/{run}.md").read_text()
        by_scenario = metrics(workflow_dir, variant)["scenarios"]
        values = {s: methods["fusion" if kind == "dqn" else kind] for s, methods in by_scenario.items()}
        check_card(text, f"smoke/{run}", values)
        weights = sha256_of(workflow_dir / f"experimentruns/smoke/{run}/model.safetensors")
        assert weights in text
        assert "Every capture that it was evaluated on comes from a simulator" in text
        if kind == "gat":
            assert "never learnt from: spoofing in `test_unknown_attack`" in text


def test_every_job_records_its_time_and_memory(workflow_dir: Path) -> None:
    """Also the rules that can be cached, and hence have no benchmark; sizes are those that Snakemake sees."""
    jobs = measured(workflow_dir / "experimentruns", workflow_dir / "results").filter(dataset="smoke")
    known = jobs.filter(pl.col("seconds") > 0, pl.col("memory_mb") > 20, pl.col("input_mb").is_not_null())
    rules = {
        *TRAININGS,
        *EVALUATIONS,
        *(rule for rule in CACHED if rule != "ingest"),  # nothing is recorded
        "capture_inventory",
        "fusion_baselines",
        "states",
        "decisions",
        "window_baselines",
    }
    assert set(known["rule"]) == {*rules, "summary", "cards", "report"}
    (row,) = jobs.filter(rule="gat_large").rows(named=True)
    paths = [workflow_dir / f"results/smoke/graphs/{split}.safetensors" for split in ("fit", "select")]
    assert row["input_mb"] == pytest.approx(sum(p.stat().st_size for p in paths) / 2**20)


def test_students_are_smaller_than_their_teacher(workflow_dir: Path) -> None:
    sizes = {r: (workflow_dir / f"experimentruns/smoke/{r}/model.safetensors").stat().st_size for r in TRAININGS}
    for kind in ("vgae", "gat", "dqn"):
        assert sizes[f"{kind}_small_kd"] < sizes[f"{kind}_large"]
        assert sizes[f"{kind}_small_nokd"] < sizes[f"{kind}_large"]


def test_every_reading_of_a_test_scenario_is_recorded(workflow_dir: Path) -> None:
    lines = (workflow_dir / "experimentruns/test_readings.jsonl").read_text().splitlines()
    readings = [json.loads(line) for line in lines]
    assert sorted(r["rule"] for r in readings) == sorted([*EVALUATIONS, "window_baselines"])
    for reading in readings:
        assert {"time", "commit", "dirty", "code", "instance"} <= set(reading)
        assert reading["dataset"] == "smoke"
        assert reading["scenarios"] == list(SCENARIOS)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, list[Any]]:
    """MLflow's runs of a workflow, queried once."""
    return {}


def runs_of(workflow_dir: Path, tracked: dict[Path, list[Any]]) -> dict[str, Any]:
    """MLflow's runs of the main job by name; fails if there are two of one name."""
    if workflow_dir not in tracked:
        client = MlflowClient(f"sqlite:///{workflow_dir}/experimentruns/mlflow.db")
        experiment = client.get_experiment_by_name("canids/smoke")
        assert experiment is not None
        tracked[workflow_dir] = list(client.search_runs([experiment.experiment_id]))
    runs = tracked[workflow_dir]
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def test_mlflow_has_one_run_for_every_rule_instance(workflow_dir: Path, tracked: dict[Path, list[Any]]) -> None:
    runs = runs_of(workflow_dir, tracked)
    made = {path.parent.name for path in (workflow_dir / "experimentruns/smoke").glob("*/benchmark.tsv")}
    assert runs.keys() == {"pipeline", *made}
    assert made >= {
        *TRAININGS,
        *EVALUATIONS,
        "window_baselines",
        "summary",
        "report",
        *(f"fusion_baselines_{v}" for v in VARIANTS),
    }
    parent = runs.pop("pipeline").info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent}
    for name in TRAININGS:
        config = yaml.safe_load((workflow_dir / f"experimentruns/smoke/{name}/config.yaml").read_text())["spec"]
        tags = {"dataset": "smoke", "run": name, "instance": "plain", "variant": name.partition("_")[2]}
        tags |= {"seed": str(config["config"]["seed"]), "code": config["code"]}
        assert tags.items() <= runs[name].data.tags.items()
        assert len(runs[name].outputs.model_outputs) == 1
    receipt = json.loads((workflow_dir / "experimentruns/smoke/track/receipt.json").read_text())
    assert (len(receipt["tracked"]), receipt["pending"]) == (len(made), {})


def test_mlflow_has_the_metrics_to_the_last_digit(workflow_dir: Path, tracked: dict[Path, list[Any]]) -> None:
    runs = runs_of(workflow_dir, tracked)
    reports = {f"eval_{v}": metrics(workflow_dir, v) for v in VARIANTS} | {"window_baselines": baselines(workflow_dir)}
    for name, report in reports.items():
        shown = runs[name].data.metrics
        for scenario, methods in report["scenarios"].items():
            for method, values in methods.items():
                for metric in (*METRICS, *COUNTS):
                    assert shown.get(f"{scenario}/{method}/{metric}") == values[metric], (name, scenario, method)
    history = pl.read_parquet(workflow_dir / "experimentruns/smoke/gat_large/history.parquet")
    assert runs["gat_large"].data.metrics["fit_loss"] == history["fit_loss"][-1]
