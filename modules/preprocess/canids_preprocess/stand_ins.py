"""Stand-ins of this module's files (`stand_in: true`): a few frames a capture, a few windows of two nodes in every split."""

import hashlib
from typing import Any

import numpy as np
import polars as pl

from canids_preprocess import account
from canids_preprocess.cutting import FEATURES
from canids_preprocess.graphs import SOURCE, members
from canids_shared.contracts import tables
from canids_shared.contracts.graph_store import PER_EDGE, PER_NODE, PER_WINDOW, writing
from canids_shared.files import sha256_of, write_text
from canids_shared.jobs import stand_in_runner
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.stand_in_runner import StandIn

FRAMES, WINDOWS = 16, 8


def capture(call: Call) -> None:
    """A capture in the format of can-train-and-test; its payloads tell it from the others."""
    payload = hashlib.sha256(call.constants["capture"]["name"].encode()).hexdigest()[:16]
    rows = [f"{1_600_000_000 + i / 100:.6f},{0x100 + i % 2:03X},{payload},0" for i in range(FRAMES)]
    write_text(call.output["output"], "\n".join(["timestamp,arbitration_id,data_field,attack", *rows]) + "\n")


def frames(call: Call) -> None:
    """Frames 10 ms apart, every other one attacked where the manifest says that there are labels and an attack."""
    entry, (raw,) = call.constants["capture"], call.inputs["capture"]
    known = entry["content"] != "unlabelled"
    attack = (entry["attack"] or "attack") if entry["content"] == "labelled" else ""
    label = [i % 2 if attack else 0 if known else None for i in range(FRAMES)]
    columns: dict[str, Any] = {
        "timestamp": 1.6e9 + np.arange(FRAMES) / 100,
        "can_id": 0x100 + np.arange(FRAMES) % 2,
        "extended": [False] * FRAMES,
        "remote": [False] * FRAMES,
        "fd": [False] * FRAMES,
        "dlc": [8] * FRAMES,
        "payload": [bytes(8)] * FRAMES,
        "channel": [None] * FRAMES,
        "label": label,
        "attack": [attack if attacked else "" for attacked in label],
    }
    metadata = {
        **{key: entry[key] for key in ("vehicle", "format", "content", "attack")},
        "capture": entry["name"],
        "attacks": [attack] if attack else [],
        "attacked": [],
        "sha256": sha256_of(raw),
        **{"rows_read": FRAMES, "frames": FRAMES, "rejects": 0, "stepped_back": 0},
    }
    frame = pl.DataFrame(columns, schema=tables.FRAMES.columns, strict=False)
    tables.write(call.output["output"], tables.FRAMES, frame, metadata)
    rejects = pl.DataFrame(schema=tables.REJECTS.columns)
    tables.write(call.output["rejects"], tables.REJECTS, rejects, {"capture": entry["name"]})


def graphs(call: Call) -> None:
    """Eight windows of every capture of the split, each a pair of IDs that follow each other; attacked in pairs."""
    all_heads = {path: tables.read_metadata(path, tables.FRAMES) for path in call.inputs["frames"]}
    heads = [all_heads[path] for path in members(call, all_heads)]
    kind = FEATURES[call.config["features"]]
    vehicles = sorted({head["vehicle"] for head in heads})
    attacks = ["", *dict.fromkeys(name for head in heads for name in head["attacks"])]
    names = [head["capture"] for head in heads]
    header = {
        "dataset": call.wildcards["dataset"],
        "split": call.wildcards["split"],
        **{key: call.config[key] for key in ("window", "stride", "window_unit", "features")},
        "node_features": list(kind.NODE_FEATURES),
        "edge_features": list(kind.EDGE_FEATURES),
        "statistics": list(kind.STATISTICS),
        "attacks": attacks,
        "captures": names,
        "vehicles": vehicles,
        "auxiliary_captures": [name for name in names if name in call.constants.get("auxiliary_captures", [])],
        "sources": {head["capture"]: {key: head[key] for key in SOURCE} for head in heads},
        "counts": {name: {"windows": WINDOWS, "frames": FRAMES, "dropped": 0} for name in names},
    }
    widths = {"x": len(kind.NODE_FEATURES), "edge_attr": len(kind.EDGE_FEATURES), "statistics": len(kind.STATISTICS)}
    count = np.arange(WINDOWS)
    with writing(
        call.output["output"],
        header,
        windows=WINDOWS * len(heads),
        nodes=2 * WINDOWS * len(heads),
        edges=2 * WINDOWS * len(heads),
    ) as writer:
        for number, head in enumerate(heads):
            units = {**dict.fromkeys(PER_WINDOW, 1), **dict.fromkeys((*PER_NODE, *PER_EDGE), 2)}
            chunk: dict[str, np.ndarray] = {
                name: np.zeros((unit * WINDOWS, *([widths[name]] if name in widths else [])))
                for name, unit in units.items()
            }
            attacked = count // 2 % 2 if head["attacks"] else np.zeros(WINDOWS)
            chunk |= {
                "y": np.full(WINDOWS, -1) if head["content"] == "unlabelled" else attacked,
                "n_attacked": attacked,
                "attack": attacked * (attacks.index(head["attacks"][0]) if head["attacks"] else 0),
                "capture": np.full(WINDOWS, number),
                "vehicle": np.full(WINDOWS, vehicles.index(head["vehicle"])),
                "window": count,
                "t_start": 1.6e9 + count,
                "t_end": 1.6e9 + count + 0.9,
                "node_id": 0x100 + np.arange(2 * WINDOWS) % 2,
                "node_count": np.ones(2 * WINDOWS),
                "edge_source": np.arange(2 * WINDOWS) % 2,
                "edge_target": 1 - np.arange(2 * WINDOWS) % 2,
                "node_counts": np.full(WINDOWS, 2),
                "edge_counts": np.full(WINDOWS, 2),
            }
            writer.append(chunk)


STAND_INS = {
    "simulate": StandIn(capture),
    "ingest": StandIn(frames, ("output", "rejects")),
    "account": StandIn(account.main),
    "graphs": StandIn(graphs),
}

if __name__ == "__main__":
    stand_in_runner.run(STAND_INS)
