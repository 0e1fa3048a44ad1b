"""Small synthetic captures for the tests of shared and preprocess, and the calls that a rule would make of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_preprocess import graphs
from canids_preprocess.features.frame_kernel import EXTENDED_BIT, FRAME_FEATURES
from canids_preprocess.features.relative import BusState, step
from canids_preprocess.windowing.clock import Clock
from canids_shared.contracts import tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.jobs.entry_point import Call

HEADER = "timestamp,arbitration_id,data_field,attack\n"
BLOCKS: dict[str, Any] = {
    "shares": {"fit": 0.5, "select": 0.125, "fuse": 0.25, "calibrate": 0.125},
    "repeats": 1,
    "gap": 2.0,
}
GRAPHS: dict[str, Any] = {
    "window": 20,
    "stride": 20,
    "window_unit": "frames",
    "features": "relative",
    "blocks": BLOCKS,
    "restarts": {"every": 10.0, "length": 0.0},
    "leave_out": {},
}


def csv(*rows: str) -> bytes:
    """A capture in the format of can-train-and-test."""
    return (HEADER + "".join(f"{row}\n" for row in rows)).encode()


def frames(
    timestamp: Sequence[float] | np.ndarray,
    can_id: Sequence[int] | np.ndarray,
    payload: Sequence[bytes] | None = None,
    label: Sequence[int | None] | np.ndarray | None = None,
    *,
    extended: Sequence[bool] | np.ndarray | None = None,
    attack: str = "dos",
) -> pl.DataFrame:
    """Frames by the contract; payloads default to eight zero bytes, labels to 0, identifiers to 11 bits."""
    n = len(timestamp)
    payload = [bytes(8)] * n if payload is None else list(payload)
    label = [0] * n if label is None else [None if v is None else int(v) for v in label]
    columns: dict[str, Any] = {
        "timestamp": timestamp,
        "can_id": can_id,
        "extended": [False] * n if extended is None else extended,
        "remote": [False] * n,
        "fd": [len(p) > 8 for p in payload],
        "dlc": [len(p) for p in payload],
        "payload": payload,
        "channel": [None] * n,
        "label": label,
        "attack": [attack if v == 1 else "" for v in label],
    }
    return pl.DataFrame(
        {
            k: pl.Series(k, np.asarray(v).tolist() if k != "payload" else v, dtype=tables.FRAMES.columns[k])
            for k, v in columns.items()
        }
    )


def traffic(n: int, rng: np.random.Generator, seconds: float | None = None) -> pl.DataFrame:
    """`n` frames of a few IDs in random order: 11 and 29 bits with equal values, 0 to 64 bytes, attacked or not.

    Times advance over `seconds`, or else stand still, step back by up to 0.3 ms and leap as well.
    """
    if seconds is None:
        steps = rng.choice([0.0, -3e-4, 1e-4, 1e-3, 0.1, 30.0, 1e5], n, p=[0.1, 0.1, 0.3, 0.3, 0.17, 0.02, 0.01])
        timestamp = 1.6e9 + np.cumsum(steps)
    else:
        timestamp = 1.6e9 + np.sort(rng.random(n)) * seconds
    size = rng.choice([0, 1, 7, 8, 64], n, p=[0.1, 0.1, 0.1, 0.6, 0.1])
    alphabet = rng.integers(0, 256, int(rng.integers(1, 4)))
    payload = [rng.choice(alphabet, s).astype(np.uint8).tobytes() for s in size]
    can_id = rng.choice(rng.choice(2048, 6, replace=False), n)
    return frames(timestamp, can_id, payload, rng.random(n) < 0.02, extended=rng.random(n) < 0.3)


def fed(table: pl.DataFrame) -> dict[str, Any]:
    """What `step` reads of some frames."""
    payload = table["payload"].to_list()
    return {
        "timestamp": table["timestamp"].to_numpy(),
        "node_id": table["can_id"].to_numpy() | table["extended"].to_numpy().astype(np.uint32) << EXTENDED_BIT,
        "offset": np.cumsum([0, *map(len, payload)]),
        "payload": np.frombuffer(b"".join(payload), np.uint8),
    }


def clock(timestamp: np.ndarray, attacked: np.ndarray) -> Clock:
    """The clock of frames that are in memory."""
    return Clock(iter([(timestamp, attacked)]), lambda _: timestamp)


def features(table: pl.DataFrame) -> dict[str, np.ndarray]:
    """All features of a capture by name, each [n] float32."""
    return dict(zip(FRAME_FEATURES, step(fed(table), BusState())[0].T, strict=True))


def write_frames(path: Path, table: pl.DataFrame, **metadata: Any) -> Path:
    """Write frames as ingest does; `metadata` overrides what it says of them."""
    known = {"vehicle": "van", "format": "can-train-and-test", "content": "labelled", "attack": "dos"}
    counts = {"rows_read": len(table), "frames": len(table), "rejects": 0, "stepped_back": 0, "attacked": []}
    name = metadata.get("capture", path.stem)
    attacks = sorted(
        {*table.filter(pl.col("label") == 1)["attack"], *([metadata["attack"]] if metadata.get("attacked") else [])}
    )
    written = {"capture": name, "sha256": name, **known, **counts, "attacks": attacks, **metadata}
    tables.write(path, tables.FRAMES, table, written)
    return path


def call(
    wildcards: dict[str, str],
    config: dict[str, Any],
    output: Path | dict[str, Path],
    inputs: dict[str, list[Path]],
    **constants: Any,
) -> Call:
    """What `canids_shared.jobs.entry_point.run` hands to an entry point."""
    spec = json.dumps({"wildcards": wildcards, "config": config, **constants})
    outputs = output if isinstance(output, dict) else {"output": output}
    return Call(wildcards, config, constants, outputs, inputs, spec)


def built(folder: Path, *paths: Path, split: str = "test", **config: Any) -> GraphStore:
    """The store of a split of these captures."""
    output = folder / f"{split}.safetensors"
    wildcards = {"dataset": "fleet", "split": split, "instance": ""}
    graphs.main(call(wildcards, {**GRAPHS, **config}, output, {"frames": list(paths)}))
    return GraphStore(output)
