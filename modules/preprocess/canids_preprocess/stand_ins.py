"""Stand-ins of this module's files (`stand_in: true`): a few frames a capture, a few windows of two nodes in every split."""

import hashlib
from hashlib import sha256
from typing import Any

import numpy as np
import polars as pl

from canids_preprocess import capture_inventory, simulated
from canids_preprocess.enrolment import profiles
from canids_preprocess.enrolment.learning import BusLearner
from canids_preprocess.graphs import header_of
from canids_preprocess.windowing.members import members, metadata_of
from canids_shared.contracts import tables
from canids_shared.contracts.arrays.graph_layout import PER_EDGE, PER_NODE, PER_WINDOW
from canids_shared.contracts.graph_store import writing
from canids_shared.files import sha256_of, write_text
from canids_shared.jobs import stand_in_runner
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.stand_in_runner import StandIn

FRAMES, WINDOWS = 16, 8


def capture(call: Call) -> None:
    """A capture in the format of can-train-and-test, and its frames; its payloads differ from those of the others."""
    simulation, reading = simulated.calls(call)
    payload = hashlib.sha256(call.constants["capture"]["name"].encode()).hexdigest()[:16]
    rows = [f"{1_600_000_000 + i / 100:.6f},{0x100 + i % 2:03X},{payload},0" for i in range(FRAMES)]
    write_text(simulation.output["output"], "\n".join(["timestamp,arbitration_id,data_field,attack", *rows]) + "\n")
    frames(reading)


def frames(call: Call) -> None:
    """Frames 10 ms apart, every other one attacked if the capture is labelled."""
    entry = call.constants["capture"]
    (raw,) = call.inputs["host" if "host" in call.inputs else "capture"]
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
        # Captures injected into one host are no copies of each other.
        "sha256": sha256(f"{sha256_of(raw)} {entry['name'] if 'host' in call.inputs else ''}".encode()).hexdigest(),
        **({"host": entry["host"]} if "host" in call.inputs else {}),
        **{"rows_read": FRAMES, "frames": FRAMES, "rejects": 0, "stepped_back": 0},
    }
    frame = pl.DataFrame(columns, schema=tables.FRAMES.columns, strict=False)
    tables.write(call.output["output"], tables.FRAMES, frame, metadata)
    rejects = pl.DataFrame(schema=tables.REJECTS.columns)
    tables.write(call.output["rejects"], tables.REJECTS, rejects, {"capture": entry["name"]})


def graphs(call: Call) -> None:
    """Eight windows of every capture of the split, each a pair of IDs that follow each other; attacked in pairs."""
    by_path = metadata_of(call)
    captures = [by_path[path] for path in members(call, by_path)]
    header = header_of(call, captures, [{"windows": WINDOWS, "frames": FRAMES, "dropped": 0}] * len(captures), {})
    lengths = {**dict.fromkeys(PER_WINDOW, WINDOWS), **dict.fromkeys((*PER_NODE, *PER_EDGE), 2 * WINDOWS)}
    widths = {"x": "node_features", "edge_attr": "edge_features", "statistics": "statistics"}
    zeros = {
        name: np.zeros((length, len(header[widths[name]])) if name in widths else length)
        for name, length in lengths.items()
    }
    count = np.arange(WINDOWS)
    size = {"windows": WINDOWS, "nodes": 2 * WINDOWS, "edges": 2 * WINDOWS}
    with writing(call.output["output"], header, **{name: n * len(captures) for name, n in size.items()}) as writer:
        for index, metadata in enumerate(captures):
            attacked = count // 2 % 2 if metadata["attacks"] else np.zeros(WINDOWS)
            attack = header["attacks"].index(metadata["attacks"][0]) if metadata["attacks"] else 0
            windows = {
                "y": np.full(WINDOWS, -1) if metadata["content"] == "unlabelled" else attacked,
                "n_attacked": attacked,
                "attack": attacked * attack,
                "capture": np.full(WINDOWS, index),
                "vehicle": np.full(WINDOWS, header["vehicles"].index(metadata["vehicle"])),
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
            writer.append(zeros | windows)


def profile(call: Call) -> None:
    """The profile of a bus with one arbitration ID, seen in two frames."""
    learner = BusLearner("")
    frames = {"timestamp": np.arange(2.0), "node_id": np.full(2, 0x100, np.uint32)}
    learner.learn([frames | {"offset": np.zeros(3, np.int64), "payload": np.zeros(0, np.uint8)}], "0" * 64)
    profiles.save(call.output["output"], [learner], call.made_for("dataset", "instance", "vehicle"))


STAND_INS = {
    "simulated": StandIn(capture, simulated.OUTPUTS, each=()),
    "ingest": StandIn(frames, ("output", "rejects")),
    "inject": StandIn(frames, ("output", "rejects")),
    "capture_inventory": StandIn(capture_inventory.main),
    "graphs": StandIn(graphs, each=()),
    "profile": StandIn(profile),
}

if __name__ == "__main__":
    stand_in_runner.run(STAND_INS)
