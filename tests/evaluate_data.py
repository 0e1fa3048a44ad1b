"""Synthetic decisions, graph stores and trainings for the tests of the module evaluate, and calls of its entry points on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from training_records import record

from canids_evaluate import summary, window_baselines
from canids_evaluate.planning import FIGURES
from canids_shared.contracts import training_run
from canids_shared.contracts.detectors import DETECTORS, KEY, Detector, as_json
from canids_shared.contracts.graph_store import GraphStore, writing
from canids_shared.contracts.tables import DECISIONS, KEYS, write
from canids_shared.jobs.entry_point import Call

CONFIG = {
    "seed": 0,
    "bootstrap": 20,
    "bootstrap_block": 5.0,
    "false_alarm_budget": 0.01,
    "evidence": 1,
    "episode_gap": 1.0,
    "trees": 5,
}
SCENARIOS = ["test_known", "test_unknown"]
UNLABELLED = "test_unlabelled"
LOG = Path("experimentruns/test_readings.jsonl")


def keys(labels: list[int | None], capture: str = "c", attack: str = "dos", **columns: list[Any]) -> pl.DataFrame:
    """Key columns of one capture of windows of one second each, without gaps."""
    n = len(labels)
    values: dict[str, Any] = {
        "capture": [capture] * n,
        "vehicle": ["van"] * n,
        "window": range(n),
        "t_start": np.arange(n, dtype=float),
        "t_end": np.arange(n) + 1.0,
        "label": labels,
        "attack": [attack if v == 1 else "" for v in labels],
        **columns,
    }
    return pl.DataFrame({k: pl.Series(k, list(v), dtype=KEYS[k]) for k, v in values.items()})


def episodes(windows: int, attacked: float, rng: np.random.Generator) -> list[int]:
    """Labels with about that share attacked, in episodes of ten windows."""
    return [int(v) for v in np.repeat(rng.random(-(-windows // 10)) < attacked, 10)[:windows]]


def write_decisions(
    path: Path,
    table: pl.DataFrame,
    noise: float,
    rng: np.random.Generator,
    detectors: Sequence[Detector] = DETECTORS,
    **metadata: str,
) -> None:
    """Decisions whose scores follow the label, the worse the larger `noise`."""
    label = table["label"].fill_null(0).to_numpy().astype(float)

    def score(level: float) -> np.ndarray:
        raw = label + level * rng.normal(size=len(label))
        return (1 / (1 + np.exp(-4 * (raw - 0.5)))).astype(np.float32)

    columns = {d.decided: score(noise * (1.6 if d.supervised else 1.2)) for d in detectors}
    columns["fusion_score"] = score(noise)
    fusion_baselines = {f"baseline_{m}_score": score(noise) for m in ("fixed_weight", "hysteresis")}
    alarms = {c.replace("_score", "_alarm"): (s > 0.7).astype(np.float32) for c, s in fusion_baselines.items()}
    alarm = columns["fusion_score"] > 0.6
    action = alarm.astype(np.int16)
    frame = table.with_columns(**{k: pl.Series(v) for k, v in {**columns, "alarm": alarm, "action": action}.items()})
    values = {"q_chosen": score(noise), "q_other": -score(noise)}
    frame = frame.with_columns(**{k: pl.Series(v) for k, v in {**fusion_baselines, **alarms, **values}.items()})
    write(path, DECISIONS, frame, {KEY: as_json(detectors), "split": path.stem, "policy": "p", **metadata})


def write_store(
    path: Path, windows: list[dict[int, int]], labels: list[int], capture: str = "c", sha: str = ""
) -> None:
    """Graph store of one capture; each window is arbitration ID → number of frames."""
    _write(path, windows, {capture: ("dos", labels)}, {capture: sha or capture})


def write_split(
    path: Path,
    captures: dict[str, tuple[str, list[int]]],
    rng: np.random.Generator,
    auxiliary_captures: list[str] | None = None,
) -> pl.DataFrame:
    """Graph store of several captures (name → attack and labels), in whose attacked windows ID 0 floods; its keys."""
    labels = [v for _, capture_labels in captures.values() for v in capture_labels]
    windows = [{**dict(zip(range(9), rng.integers(1, 6, 9), strict=True)), 0: 40 if v else 3} for v in labels]
    _write(path, windows, captures, {c: c for c in captures}, auxiliary_captures)
    return GraphStore(path).keys()


def _write(
    path: Path,
    windows: list[dict[int, int]],
    captures: dict[str, tuple[str, list[int]]],
    hashes: dict[str, str],
    auxiliary_captures: list[str] | None = None,
) -> None:
    labels = np.array([v for _, capture_labels in captures.values() for v in capture_labels])
    number = np.concatenate([np.arange(len(capture_labels)) for _, capture_labels in captures.values()])
    kinds = ["", *dict.fromkeys(attack for attack, _ in captures.values())]
    kind = np.concatenate(
        [np.maximum(capture_labels, 0) * kinds.index(attack) for attack, capture_labels in captures.values()]
    )
    n = len(windows)
    counts = [len(w) for w in windows]
    nodes = sum(counts)
    flat = np.array([pair for w in windows for pair in sorted(w.items())], dtype=np.int64).reshape(nodes, 2)
    statistics = np.array([[len(w), max(w.values()), sum(w)] for w in windows], dtype=np.float32).reshape(n, 3)
    header = {
        "node_features": ["share"],
        "edge_features": ["count"],
        "statistics": ["ids", "highest", "sum"],
        "attacks": kinds,
        "captures": list(captures),
        "vehicles": ["van"],
        "auxiliary_captures": auxiliary_captures or [],
        "sources": {c: {"sha256": h, "vehicle": "van", "attack": captures[c][0]} for c, h in hashes.items()},
    }
    with writing(path, header, windows=n, nodes=nodes, edges=n) as writer:
        writer.append(
            {
                "y": labels,
                "n_attacked": np.maximum(labels, 0),
                "attack": kind,
                "capture": np.repeat(
                    np.arange(len(captures)), [len(capture_labels) for _, capture_labels in captures.values()]
                ),
                "vehicle": np.zeros(n),
                "window": number,
                "t_start": number.astype(float),
                "t_end": number + 1.0,
                "statistics": statistics,
                "x": np.ones((nodes, 1)),
                "node_id": flat[:, 0],
                "node_count": flat[:, 1],
                "edge_source": np.zeros(n),
                "edge_target": np.zeros(n),
                "edge_attr": np.ones((n, 1)),
                "node_counts": np.array(counts),
                "edge_counts": np.ones(n),
            }
        )


def write_training(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """`run.json` and `benchmark.tsv` of a training; `folder` is named like a run (`gat_large`, `dqn_small_kd@x`, …)."""
    name, at, instance = folder.name.partition("@")
    kind, _, variant = name.partition("_")
    size = 16 if variant == "large" else 4
    steps = range(1, 5)
    if kind == "dqn":
        columns = {"step": 100, "reward": -1.0, "select_reward": -0.9}
    else:
        columns = {"fit_loss": 1.0, "select_loss": 1.1}
    history: dict[str, list[float | None]] = {
        c: [k * scale if c == "step" else scale / k for k in steps] for c, scale in columns.items()
    }
    teacher = [f"experimentruns/{folder.parent.name}/{kind}_large/model.safetensors"] if variant == "small_kd" else []
    fields: dict[str, Any] = {
        "instance": at + instance,
        "seed": seed,
        "config": {"seed": seed, kind: {"large": {"width": 16}, "small": {"width": 4}}},
        "inputs": {"teacher": teacher},
        "parameters": size * size,
        "best": 3,
        "history": history,
        "select": {"auroc": 0.9},
        "latency": {"median_ms": 2.0 * size, "device": "cpu"},
        "sizes": {"model": 2048},
    }
    training_run.write(folder / "run.json", record(kind, variant, **{**fields, **changes}))
    write_benchmark(folder)
    return folder / "run.json"


def write_benchmark(folder: Path) -> None:
    """`benchmark.tsv` as Snakemake writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.tsv").write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t345.6\n")


def call(output: str, inputs: dict[str, list[Path]], **constants: Any) -> Call:
    paths = {"metrics": Path(output) / "metrics.json", "curves": Path(output) / "curves.json"}
    constants = {"scenarios": SCENARIOS, "captures": [], "code": "0123456789abcdef", **constants}
    return Call({"dataset": "d", "instance": ""}, CONFIG, constants, paths, inputs, "{}")


def split(name: str, rng: np.random.Generator) -> dict[str, tuple[str, list[int]]]:
    labels = {a: [-1] * 20 if name == UNLABELLED else episodes(200, 0.4, rng) for a in ("dos", "fuzzing")}
    return {f"{name}-{a}": (a, values) for a, values in labels.items()}


def stores(scenarios: list[str] = SCENARIOS) -> dict[str, list[Path]]:
    rng = np.random.default_rng(0)
    paths = {}
    for name in ["fit", "calibrate", *scenarios]:
        paths[name] = Path(f"graphs/{name}.safetensors")
        write_split(paths[name], split(name, rng), rng)
    return {"fit": [paths["fit"]], "calibrate": [paths["calibrate"]], "scenarios": [paths[s] for s in scenarios]}


def evaluated_baselines(scenarios: list[str] = SCENARIOS) -> dict[str, list[Path]]:
    """The inputs that an evaluation takes from the baselines."""
    folder = Path("window_baselines", "-".join(scenarios))
    if not folder.exists():
        before = LOG.read_bytes() if LOG.exists() else b""
        window_baselines.main(call(str(folder), stores(scenarios), scenarios=scenarios))
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_bytes(before)
    return {"window_baselines": [folder / "metrics.json"], "window_baseline_curves": [folder / "curves.json"]}


def decisions(
    variant: str, noise: float, scenarios: list[str] = SCENARIOS, detectors: Sequence[Detector] = DETECTORS
) -> dict[str, list[Path]]:
    """Decisions on the windows of `stores`, and the baselines on the same."""
    baselines = evaluated_baselines(scenarios)
    rng = np.random.default_rng(int(10 * noise))
    paths = {}
    for i, name in enumerate(["calibrate", *scenarios]):
        paths[name] = Path(f"{variant}/{name}.parquet")
        write_decisions(paths[name], GraphStore(f"graphs/{name}.safetensors").keys(), noise * (1 + i), rng, detectors)
    return {**baselines, "calibrate": [paths["calibrate"]], "scenarios": [paths[s] for s in scenarios]}


def summarised(output: str, **inputs: list[Path]) -> None:
    paths = {"markdown": Path(output, "results.md"), "csv": Path(output, "results.csv")}
    paths |= {name: Path(output, f"{name}.svg") for name in FIGURES}
    summary.main(Call({"dataset": "d", "instance": ""}, {}, {}, paths, inputs, "{}"))
