"""One whole file of every kind, small, made by the entry points themselves; captures in every format."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluate_data
import gnn_data
import numpy as np
import pyarrow as pa
import torch
from capture_files import MESSAGES, OWN, record
from train_drl.test_dqn import call_of
from train_drl.test_states import synthetic, written

from canids_evaluate import evaluate
from canids_preprocess import graphs, ingest
from canids_preprocess.enrolment import profiles
from canids_preprocess.enrolment.learning import BusLearner
from canids_preprocess.windowing.frames import ALL, Recording, chunks
from canids_preprocess.windowing.splits import Block
from canids_shared.contracts import streams
from canids_shared.contracts.detectors import DETECTORS, KEY, as_json
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.run_folder import Checkpoint
from canids_train_drl import decide, dqn, fit_baselines
from canids_train_gnn import gat, vgae

ROOT = Path(__file__).parents[3]
RUNS = Path("experimentruns/d")
VARIANT = "small_nokd"
SCENARIO = "test_known"
GRAPHS: dict[str, Any] = {"window": 20, "stride": 20, "window_unit": "frames", "features": "relative", "leave_out": {}}
MANIFEST = """\
contract: manifest/1
captures:
  free: {path: train_01/free.csv, format: can-train-and-test, vehicle: kia, role: train, content: attack-free}
  dos: {path: train_02/DoS-kia.csv, format: auto, vehicle: kia, role: train, attack: dos, content: labelled}
  road:
    path: test_01/road.log
    metadata: test_01/capture_metadata.json
    vehicle: road
    role: test_01
    attack: fuzzing
    content: labelled
  silent:
    path: test_02/silent.log
    format: candump
    vehicle: sonata
    role: test_02
    attack: suppression
    content: labelled
    attacked: [[1.5, 2.5], [4, 6]]
  drive:
    format: simulated
    vehicle: compact
    role: train
    attack: spoofing
    content: labelled
    simulation: {duration: 24, seed: 2, episodes: 2, episode_s: 1.5, stealth: mixed, changes: 2}
"""
CONFIG = """\
datasets: [simulated]
data_root: data
preset: demo
false_alarm_budget: 0.01
preprocess: {window: 100, stride: 50, on_bad_rows: quarantine, blocks: {gap: 3.0}, restarts: {every: 20.0, length: 2.0}}
train_gnn: {seed: 1, gat: {epochs: 3, learning_rate: 0.003, large: {channels: 8}, curriculum: {by: vgae}}, vgae: {epochs: 4}}
train_drl: {steps: 600, discount: 0.9, reward: {flapping: 0.1}, networks: {small: [32], large: [48, 48]}, fusion_baselines: [cusum]}
evaluate: {bootstrap: 200, episode_gap: 1.0, trees: 20}
tracking: {uri: "sqlite:///mlflow.db", patience: 60}
instances:
  seed-1: {train_gnn: {seed: 2}, train_drl: {seed: 2}}
  tight: {false_alarm_budget: 0.001}
  without-dos: {preprocess: {leave_out: {attacks: [dos]}}}
"""
FOLDS = """\
datasets: [simulated]
data_root: data
train_gnn: {gat: {epochs: 3}}
folds: {leave_out: vehicles, prefix: cross-, seeds: 2, seeded: [train_drl], overrides: {train_gnn: {vgae: {epochs: 4}}}}
"""
SWEEP = """\
datasets: [simulated]
train_gnn: {gat: {epochs: 3}}
sweep:
  stage: train_gnn
  runs: [gat_small_nokd]
  metric: loss
  method: random
  points: 3
  seeds: 2
  space: {gat.batch: {low: 16, high: 128, log: true}, gat.exposure.rate: {values: [0.0, 0.3]}}
  subspaces: {low: {gat.exposure.rate: {low: 0.1}}}
"""
POINTS = (
    "instance\tgat.batch\tgat.learning_rate\tgat.large.channels\na\t16\t0.01\t8\nb\t32\t3e-3\t4\nc-2\t64\t0.001\t4\n"
)
RESULTS = "run,metric,instance,mean,low,high\ngat_small_nokd,loss,a,0.5,0.4,0.6\ngat_small_nokd,loss,b,0.25,0.2,0.3\n"
CAPTURES = {
    "can-train-and-test": "drive.csv", "hcrl-car-hacking": "car_hacking_attacked.csv", "hcrl-car-hacking text": "car_hacking_normal.txt",
    "hcrl-survival": "survival_attacked.csv", "hcrl-survival free": "survival_free_driving.csv", "otids": "otids_remote.txt",
    "road": "fuzzing_attack_1.log", "candump": "candump.log", "asc": "log.asc", "trc 1.1": "log_v1_1.trc", "trc 2.1": "log_v2_1.trc",
    "python-can-csv": "python_can.csv", "blf": "log.blf", "mf4": "log.mf4",
}  # fmt: skip
"""Kind of capture, its format first → file in the folder `captures`."""


def capture_csv(frames: int = 900) -> str:
    """A capture in the layout of can-train-and-test: seven IDs, of which one floods from time to time."""
    rng = np.random.default_rng(3)
    rows = [
        f"{1.6e9 + 0.01 * i + rng.uniform(0, 0.004):.6f},{(0 if i % 400 > 300 else 0x100 + i % 7):03X},{rng.bytes(8).hex().upper()},{int(i % 400 > 300)}"
        for i in range(frames)
    ]
    return "\n".join(["timestamp,arbitration_id,data_field,attack", *rows]) + "\n"


def entry_of(capture: Path, form: str) -> dict[str, Any]:
    """The manifest's entry of a capture, as the rule ingest hands it to its entry point."""
    entry = {"name": "c", "file": capture.name, "vehicle": "van", "format": form, "attacked": []}
    if form in ("road", "can-train-and-test"):
        return {
            **entry,
            "content": "labelled",
            "attack": "fuzzing",
            "metadata": capture.with_name("capture_metadata.json"),
        }
    return {**entry, "content": "unlabelled", "attack": None}


def ingest_call(capture: Path, form: str, output: Path) -> Call:
    """What the rule ingest hands to its entry point for a capture."""
    return Call(
        {"dataset": "d", "capture": "c", "instance": ""},
        {"timestamp_tolerance": 0.001, "on_bad_rows": "error"},
        {"capture": entry_of(capture, form)},
        {"output": output, "rejects": output.with_name("rejects.parquet")},
        {"capture": [capture], "metadata": []},
        "{}",
    )


def graphs_call(frames: Path, output: Path) -> Call:
    """What the rule graphs hands to its entry point for a scenario of one capture."""
    return Call(
        {"dataset": "d", "split": SCENARIO, "instance": ""}, GRAPHS, {}, {"output": output}, {"frames": [frames]}, "{}"
    )


def decide_call(states: Path, model: Path, baselines: Path, output: Path, split: str = SCENARIO) -> Call:
    """What the rule decide hands to its entry point."""
    wildcards = {"dataset": "d", "variant": VARIANT, "instance": "", "split": split}
    config = {"torch_threads": 1, "fusion": "dqn", "recalibrate": 0}
    inputs = {"states": [states], "model": [model], "fusion_baselines": [baselines]}
    return Call(wildcards, config, {}, {"output": output}, inputs, "{}")


def _captures() -> None:
    folder = Path("captures")
    folder.mkdir()
    for own in (*OWN.glob("*.*"), *OWN.glob("road/*")):
        shutil.copy(own, folder)
    (folder / "drive.csv").write_text(capture_csv())
    # One bus each, as a capture has.
    for name, other, one in (("candump.log", b"vcan1", b"vcan0"), ("log.asc", b" 2 ", b" 1 ")):
        (folder / name).write_bytes((folder / name).read_bytes().replace(other, one))
    for suffix in ("blf", "mf4"):
        record(folder / f"log.{suffix}", [m for m in MESSAGES if m.channel == 0] * 4)


def _trainings() -> None:
    """Detectors, a policy over states of their kind, its fusion baselines, and decisions; of the detectors' loop a checkpoint too."""
    stores = [
        gnn_data.write(Path(f"{s}.safetensors"), gnn_data.MIXED, np.random.default_rng(i))
        for i, s in enumerate(("fit", "select"))
    ]
    for kind, module in (("gat", gat), ("vgae", vgae)):
        folder = RUNS / f"{kind}_{VARIANT}"
        folder.mkdir(parents=True)
        call = gnn_data.call(stores, folder, kind, epochs=2)
        module.main(call)
    Checkpoint(call, RUNS / "checkpointed").save(
        {"a": np.ones((2, 3), np.float32)}, {"epoch": 1, "history": [{"loss": 0.5}]}
    )
    splits = {
        s: written(Path(f"{s}.parquet"), synthetic(n, 2, 60, ("a", "b")))
        for n, s in enumerate(("fuse", "select", "calibrate", SCENARIO))
    }
    quick = {"steps": 60, "environments": 32, "batch_size": 32, "evaluate_every": 20, "networks": {"small": [16]}}
    for kind, module in (("dqn", dqn), ("fusion_baselines", fit_baselines)):
        folder = RUNS / f"{kind}_{VARIANT}"
        call = call_of(
            folder,
            VARIANT,
            splits,
            **quick,
            fusion_baselines=["fixed_weight", "hysteresis", "cusum", "logistic", "bandit"],
        )
        output = {name: folder / file for name, file in gnn_data.OUTPUTS.items()}
        wildcards = {"dataset": "d", "instance": ""}
        spec = json.dumps({**json.loads(call.spec), **call.constants, "wildcards": wildcards})
        module.main(replace(call, wildcards=wildcards, output=output, spec=spec))
    models = [RUNS / f"{kind}_{VARIANT}/model.safetensors" for kind in ("dqn", "fusion_baselines")]
    decide.main(decide_call(splits[SCENARIO], *models, Path("decisions.parquet"), "calibrate"))
    for folder in RUNS.iterdir():
        evaluate_data.write_benchmark(folder)


def _stream() -> None:
    """The windows of a store as train_gnn sends them: graphs, and outputs of the detectors."""
    import polars as pl  # noqa: PLC0415

    header = GraphStore("graphs.safetensors").header
    outputs = {"gat_logit": pa.float32(), "vgae_error": pa.float32()}
    schema = streams.widened(streams.schema_of_graphs(header), outputs, **{KEY: as_json(DETECTORS)})
    wide, narrow = len(header["node_features"]), len(header["edge_features"])
    keys = (
        GraphStore("graphs.safetensors")
        .keys()[:4]
        .with_columns(pl.lit(1.0).cast(pl.Float32).alias("gat_logit"), pl.lit(2.0).cast(pl.Float32).alias("vgae_error"))
    )
    graph = {
        "x": [0.5] * (2 * wide),
        "node_id": [1, 2],
        "node_count": [3, 4],
        "edge_source": [0],
        "edge_target": [1],
        "edge_attr": [0.25] * narrow,
    }
    sink = io.BytesIO()
    with streams.sending(sink, schema) as send:  # type: ignore[arg-type]
        for row in keys.to_dicts():
            send(pa.RecordBatch.from_pylist([{**graph, **row}], schema=schema))
    Path("stream.arrow").write_bytes(sink.getvalue())


def make() -> None:
    """Write all of them into the current directory, which is empty."""
    torch.set_num_threads(1)
    _captures()
    frames = Path("frames.parquet")
    ingest.main(ingest_call(Path("captures/drive.csv"), "can-train-and-test", frames))
    graphs.main(graphs_call(frames, Path("graphs.safetensors")))
    (learner := BusLearner("")).learn(chunks(Recording(frames), Block(0, 0, 900), ALL), "0" * 64)
    profiles.save(Path("profile.safetensors"), [learner], {"vehicle": "van"})
    _trainings()
    _stream()
    (folder := RUNS / "eval_large").mkdir()
    evaluate.main(evaluate_data.call(str(folder), evaluate_data.decisions("large", 0.4), variant="large"))
    evaluate_data.write_benchmark(folder)
    texts: dict[str, str] = {
        "data/fuzz/manifest.yaml": MANIFEST,
        "config.yaml": CONFIG,
        "folds.yaml": FOLDS,
        "sweep.yaml": SWEEP,
        "points.tsv": POINTS,
        "results.csv": RESULTS,
    }
    for name, text in texts.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def quietly(action: Callable[[], None]) -> None:
    """Call it without what it logs."""
    import logging  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    action()
