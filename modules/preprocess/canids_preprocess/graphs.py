"""Turn the frames of a split into the graph store.

`python -m canids_preprocess.graphs --spec JSON --output X.safetensors --frames A.parquet B.parquet …`
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from canids_preprocess.cutting import FEATURES, append, mark_intervals
from canids_preprocess.splits import Block, blocks, restarts
from canids_shared import cli, tables
from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphWriter
from canids_shared.manifest import LEFT_OUT, SPLITS

_FOLD_KEYS = {"vehicles": "vehicle", "attacks": "attack", "captures": "capture"}
log = logging.getLogger(__name__)


def _check_fold(call: cli.Call, heads: list[dict[str, Any]]) -> None:
    for kind, key in _FOLD_KEYS.items():
        known = {h[key] for h in heads if h[key]}
        for name in call.config["leave_out"].get(kind, []):
            if name not in known:
                raise CanidsError(
                    f"leave_out.{kind}: the training captures of dataset '{call.wildcards['dataset']}' have no "
                    f"{key} '{name}'; they have {', '.join(sorted(known)) or 'none'}"
                )


def _members(call: cli.Call, heads: dict[Path, dict[str, Any]]) -> list[Path]:
    """The captures of the split: what the fold leaves out or keeps, each content once."""
    leave_out = call.config["leave_out"]
    if leave_out:
        _check_fold(call, list(heads.values()))
    # By content: a copy of a left-out capture under another name is left out with it.
    left = {
        head["sha256"]
        for head in heads.values()
        if any(head[key] in leave_out.get(kind, []) for kind, key in _FOLD_KEYS.items())
    }
    members: dict[str, Path] = {}
    # In the order of names: another order in the manifest, or of a job's inputs, makes the same store.
    for path, head in sorted(heads.items(), key=lambda item: str(item[1]["capture"])):
        if leave_out and (head["sha256"] in left) != (call.wildcards["split"] == LEFT_OUT):
            continue
        if head["sha256"] in members:
            log.info("%s has the same content as an earlier capture and counts once", head["capture"])
            continue
        members[head["sha256"]] = path
    if not members:
        raise CanidsError(f"leave_out leaves no capture for split '{call.wildcards['split']}'")
    return list(members.values())


def _blocks(
    path: Path, capture: str, config: dict[str, Any], split: str
) -> tuple[list[Block], list[Block], Callable[[int], int]]:
    """A split's blocks of a training capture, its restarts, and the number of the window that begins at a frame."""
    frames, _ = tables.read(path, tables.FRAMES, columns=["timestamp", "label"])
    timestamp = frames["timestamp"].to_numpy(writable=True)
    np.maximum.accumulate(timestamp, out=timestamp)  # steps back within the tolerance
    cut, window, stride = config["blocks"], config["window"], config["stride"]
    span = float(timestamp[-1] - timestamp[0])
    by_count = config["window_unit"] == "frames"
    again = config["restarts"]
    if again["length"] > again["every"]:
        raise CanidsError(f"restarts.length: {again['length']} s are longer than restarts.every ({again['every']} s)")
    if not by_count and 0 < again["length"] <= window:
        raise CanidsError(f"restarts.length: {again['length']} s hold no whole window of {window} s; 0 leaves them out")
    if cut["gap"] <= (window * span / len(timestamp) if by_count else window):
        raise CanidsError(f"blocks.gap: {cut['gap']} s of {capture} are no longer than a window")
    chosen = blocks(
        timestamp,
        (frames["label"] == 1).fill_null(False).to_numpy(),
        **cut,
        window=window if by_count else int(np.ceil(window * len(timestamp) / max(span, 1e-9))),
    )[split]
    parts = [part for block in chosen for part in restarts(timestamp, block, **again)]

    def number(frame: int) -> int:
        if by_count:
            return int(frame // stride)
        return int((timestamp[min(frame, len(timestamp) - 1)] - timestamp[0]) // stride)

    return chosen, parts, number


def main(call: cli.Call) -> None:
    """Entry point."""
    split = call.wildcards["split"]
    config = call.config
    if config["window_unit"] == "frames" and not (
        config["window"] == int(config["window"]) >= 2 and config["stride"] == int(config["stride"]) >= 1
    ):
        raise CanidsError(
            f"window {config['window']}, stride {config['stride']}: whole numbers of frames, from 2 and 1; "
            "for seconds set window_unit to seconds"
        )
    heads = {path: tables.read_metadata(path, tables.FRAMES) for path in call.inputs["frames"]}
    members = _members(call, heads)
    captures: list[str] = []
    vehicles = sorted({heads[p]["vehicle"] for p in members})
    attacks = [""]
    counts: dict[str, dict[str, int]] = {}
    sources = {}
    with GraphWriter(call.output["output"]) as writer:
        for path in members:
            head = heads[path]
            captures.append(head["capture"])
            sources[head["capture"]] = {k: head[k] for k in ("sha256", "vehicle", "attack", "content", "rows_read")}
            ids = {"capture": len(captures) - 1, "vehicle": vehicles.index(head["vehicle"])}
            name = head["attack"] or "attack"
            if head["attacked"] and name not in attacks:
                attacks.append(name)
            index = attacks.index(name) if head["attacked"] else 0
            mark = partial(mark_intervals, intervals=np.array(head["attacked"]).reshape(-1, 2), attack=index)
            count = partial(append, writer, path, ids=ids, config=config, attacks=attacks, mark=mark)
            if split in SPLITS:
                once, again, number = _blocks(path, head["capture"], config, split)
            else:
                once, again, number = [Block(0, 0, head["frames"])], [], lambda _: 0
            rows = [count(block, first=number(block.start)) for block in once]
            counts[head["capture"]] = {k: sum(r[k] for r in rows) for k in ("windows", "frames", "dropped")}
            if split in SPLITS:
                # Numbered beyond the capture's end, so that they look adjacent to nothing.
                cold = [count(block, first=number(head["frames"]) + 2 + number(block.start)) for block in again]
                counts[head["capture"]]["restarted"] = sum(r["windows"] for r in cold)
            log.info("%s: %s", head["capture"], counts[head["capture"]])
        if not any(c["windows"] for c in counts.values()):
            raise CanidsError(
                f"split '{split}' of dataset '{call.wildcards['dataset']}' has no whole window of "
                f"{config['window']} {config['window_unit']}"
            )
        header = {
            "dataset": call.wildcards["dataset"],
            "split": split,
            "window": config["window"],
            "stride": config["stride"],
            "window_unit": config["window_unit"],
            "features": config["features"],
            "node_features": list(FEATURES[config["features"]].NODE_FEATURES),
            "edge_features": list(FEATURES[config["features"]].EDGE_FEATURES),
            "statistics": list(FEATURES[config["features"]].STATISTICS),
            "attacks": attacks,
            "captures": captures,
            "vehicles": vehicles,
            "sources": sources,
            "counts": counts,
        }
        writer.close(header)


if __name__ == "__main__":
    cli.run(main, inputs=["frames"])
