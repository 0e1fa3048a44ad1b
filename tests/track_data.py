"""Finished runs for the tests of track, as small as their files may be, and what an experiment holds of them."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from training_records import record

from canids_shared.contracts import training_run
from canids_shared.contracts.evaluation import METRICS_CONTRACT
from canids_shared.contracts.model_file import save_arrays
from canids_shared.contracts.whole import write_json
from canids_track.records import Places
from canids_track.tracking import Options, track

UNEVEN = 0.1 + 0.2
"""A number whose last digit is lost by whoever rounds."""
_UNDEFINED: dict[str, Any] = {
    **dict.fromkeys(("precision", "recall", "auroc", "pr_auc", "fpr", "episodes_found")),
    **dict.fromkeys(("false_alarms_per_hour", "alarm_seconds_per_hour", "detection_delay_s", "delay_floor_s")),
    **{f"{what}_at_{rate}_per_hour": None for what in ("recall", "episodes_found") for rate in (1, 10)},
    **{
        "n_attacked": 3,
        "n_episodes": 1,
        "n_false_alarms": 0,
        "attack_free_hours": 0.0,
        "per_attack": {},
        "per_capture": {},
    },
    "f1_optimal": dict.fromkeys(("f1", "precision", "recall", "threshold")),
}
METRICS: dict[str, Any] = {
    **{"dataset": "demo", "instance": "", "variant": "small_kd", "detectors": []},
    "scenarios": {
        "test_dos": {
            "fusion": {**_UNDEFINED, "f1": UNEVEN, "mcc": None, "n_windows": 7, "intervals": {"f1": [0.1, 0.5]}},
            "vgae": {**_UNDEFINED, "f1": 1 / 3, "mcc": -1e-17, "n_windows": 7, "intervals": {"f1": [0.1, 0.5]}},
        }
    },
    "thresholds": {"fusion": {"budget": None, "f1": 2 / 3}},
    "config": {"bootstrap": 20},
    "seed": 3,
    "code": "fedcba9876543210",
}


def places(root: Path, dataset: str = "demo") -> Places:
    results = root / "results" / dataset
    return Places(dataset, root / "experimentruns" / dataset, results / "window_baselines", results / "summary")


def finish(run: Path, made: int = 1_000) -> None:
    """Leave `benchmark.tsv`, as Snakemake does last; `made` is its time, in seconds."""
    (run / "benchmark.tsv").write_text("s\th:m:s\tmax_rss\tio_in\n12.5\t0:00:12\t345.6\t-\n")
    os.utime(run / "benchmark.tsv", (made, made))


def write_training(run: Path, seed: int = 1, made: int = 1_000) -> None:
    """A training whose model is of a kind that is not served: files alone."""
    run.mkdir(parents=True)
    kind, at, instance = run.name.partition("@")
    options = {"seed": seed, "gat": {"epochs": 2, "large": {"heads": 4}}, "networks": [64, 64]}
    written = record(
        kind.removesuffix("_large"),
        label="PCA",
        detectors=["pca"],
        dataset="demo",
        instance=at + instance,
        seed=seed,
        config=options,
        inputs={"graphs": ["fit", "select"]},
        input_digests={"graphs": ["a", "b"]},
        latency={"device": "cpu", "median_ms": 1.25},
    )
    training_run.write(run / "run.json", written)
    (run / "config.yaml").write_text("spec: of a training, which has it in run.json\n")
    rows = [{"epoch": e, "fit_loss": UNEVEN / e, "peak_gpu_mb": None} for e in (1, 2)]
    training_run.write_history(run / "history.parquet", rows)
    save_arrays(run / "model.safetensors", {"weight": np.ones(2, np.float32)}, {"contract": "pca/1"})
    (run / "log.txt").write_text("done\n")
    finish(run, made)


def write_fusion_baselines(run: Path) -> None:
    """Fusion baselines, whose options stand in `config.yaml`."""
    run.mkdir(parents=True)
    options = {"seed": 1, "fusion": "dqn", "reward": {"flap": 0.1}}
    spec = {"code": "0123456789abcdef", "config": options, "wildcards": {"dataset": "demo"}}
    config = {"spec": spec, "inputs": {"fuse": ["a"]}, "files": {"fuse": ["fuse.parquet"]}, "python": "3.11"}
    training_run.write_config(run / "config.yaml", config)
    finish(run)


def write_evaluation(run: Path, made: int = 2_000) -> None:
    run.mkdir(parents=True)
    rule, at, instance = run.name.partition("@")
    of_run = {"variant": rule.removeprefix("eval_"), "instance": at + instance}
    write_json(run / "metrics.json", METRICS_CONTRACT, {**METRICS, **of_run})
    finish(run, made)


def write_runs(root: Path, *instances: str, dataset: str = "demo") -> Places:
    """Two runs of each instance."""
    made = places(root, dataset)
    for instance in instances:
        write_training(made.runs / f"pca_large{instance}")
        write_evaluation(made.runs / f"eval_small_kd{instance}")
    return made


def content(uri: str, experiment: str = "canids/demo") -> dict[str, list[dict[str, Any]]]:
    """All that an experiment holds and shows, by run name; several of one name are several in the list."""
    client = MlflowClient(uri)
    of_name = client.get_experiment_by_name(experiment)
    assert of_name is not None, experiment
    runs = list(client.search_runs([of_name.experiment_id], max_results=1000))
    names = {run.info.run_id: run.info.run_name for run in runs}
    shown: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda r: str(r.info.run_id)):
        tags = dict(run.data.tags)
        parent = tags.get("mlflow.parentRunId")
        histories = {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        about = {
            "id": run.info.run_id,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": tags,
            "metrics": histories,
            "parent": names.get(parent, "none of these") if parent else None,
            "files": sorted(f.path for f in client.list_artifacts(run.info.run_id)),
            "models": len(run.outputs.model_outputs) if run.outputs else 0,
        }
        shown.setdefault(run.info.run_name, []).append(about)
    return shown


def ingest(root: Path, uri: str, dataset: str = "demo", patience: float = 600, timeout: float = 60) -> dict[str, str]:
    """Track a dataset's finished runs; returns what is pending. For processes of their own too."""
    return track(places(root, dataset), Options(uri, patience=patience, timeout=timeout))[1]


def ingest_at_once(root: Path, instances: list[str], uri: str) -> list[dict[str, str]]:
    """A pipeline for each instance, all at once, each a process and a working directory with the shared runs and its own."""
    # Processes that already have MLflow imported: importing it eight times would be all that the test does.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["track_data"])
    roots = [root / instance.removeprefix("@") for instance in instances]
    for folder, instance in zip(roots, instances, strict=True):
        write_runs(folder, "", instance)
    with ProcessPoolExecutor(len(roots), mp_context=processes) as pool:
        return list(pool.map(ingest, roots, [uri] * len(roots)))


def check_nothing_is_lost_or_doubled(uri: str, instances: list[str]) -> None:
    by_name = content(uri)
    runs = [f"{run}{i}" for i in ("", *instances) for run in ("pipeline", "pca_large", "eval_small_kd")]
    assert {name: len(same) for name, same in by_name.items()} == dict.fromkeys(runs, 1)
    for name, (run,) in by_name.items():
        assert run["status"] == "FINISHED"
        rule, at, instance = name.partition("@")
        assert run["parent"] == (None if rule == "pipeline" else f"pipeline{at}{instance}")
        if rule == "pca_large":
            assert run["metrics"]["fit_loss"] == [(1, UNEVEN), (2, UNEVEN / 2)]
            assert "model.safetensors" in run["files"]
        if rule == "eval_small_kd":
            assert run["metrics"]["test_dos/fusion/f1"] == [(0, UNEVEN)]
