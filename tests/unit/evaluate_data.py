"""Synthetic decisions and graph stores for the tests of the module evaluate, made with the shared writers."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_shared.graphstore import GraphWriter
from canids_shared.tables import DECISIONS, KEYS, write


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


def write_decisions(path: Path, table: pl.DataFrame, noise: float, rng: np.random.Generator) -> None:
    """Decisions whose scores follow the label, the worse the larger `noise`."""
    label = table["label"].fill_null(0).to_numpy().astype(float)

    def score(level: float) -> np.ndarray:
        raw = label + level * rng.normal(size=len(label))
        return (1 / (1 + np.exp(-4 * (raw - 0.5)))).astype(np.float32)

    columns = {f"{m}_score": score(noise * k) for m, k in (("vgae", 1.6), ("gat", 1.2), ("fusion", 1.0))}
    rivals = {f"rival_{m}_score": score(noise) for m in ("fixed_weight", "hysteresis")}
    alarms = {c.replace("_score", "_alarm"): (s > 0.7).astype(np.float32) for c, s in rivals.items()}
    alarm, action = columns["fusion_score"] > 0.6, np.zeros(len(label), np.int16)
    frame = table.with_columns(**{k: pl.Series(v) for k, v in {**columns, "alarm": alarm, "action": action}.items()})
    write(path, DECISIONS, frame.with_columns(**{k: pl.Series(v) for k, v in {**rivals, **alarms}.items()}), {})


def write_store(
    path: Path, windows: list[dict[int, int]], labels: list[int], capture: str = "c", sha: str = ""
) -> None:
    """Graph store of one capture; each window is arbitration ID → number of frames."""
    n = len(windows)
    counts = [len(w) for w in windows]
    nodes = sum(counts)
    flat = np.array([pair for w in windows for pair in sorted(w.items())], dtype=np.int64).reshape(nodes, 2)
    statistics = np.array([[len(w), max(w.values()), sum(w)] for w in windows], dtype=np.float32).reshape(n, 3)
    header = {
        "node_features": ["share"],
        "edge_features": ["count"],
        "statistics": ["ids", "highest", "sum"],
        "attacks": ["", "dos"],
        "captures": [capture],
        "vehicles": ["van"],
        "sources": {capture: {"sha256": sha or capture}},
    }
    with GraphWriter(path) as writer:
        writer.append(
            {
                "y": np.array(labels),
                "n_attacked": np.maximum(labels, 0),
                "attack": np.maximum(labels, 0),
                "capture": np.zeros(n),
                "vehicle": np.zeros(n),
                "window": np.arange(n),
                "t_start": np.arange(n, dtype=float),
                "t_end": np.arange(n) + 1.0,
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
        writer.close(header)
