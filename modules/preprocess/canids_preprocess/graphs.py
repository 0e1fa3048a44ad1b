"""Turn the frames of a split into the graph store.

`python -m canids_preprocess.graphs --spec JSON --output X.safetensors --frames A.parquet B.parquet …`
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canids_preprocess.cutting import FEATURES, Survey, append, mark_intervals, survey
from canids_preprocess.frames import clock_of
from canids_preprocess.kinds import kind_of
from canids_preprocess.splits import Block, blocks, restarts
from canids_shared.contracts import tables
from canids_shared.contracts.graph_store import writing
from canids_shared.contracts.manifest import LEFT_OUT, SPLITS
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point

SOURCE = ("sha256", "vehicle", "attack", "content", "rows_read")
_HEAD = (*SOURCE, "capture", "frames", "attacked", "attacks")
_FOLD_KEYS = {"vehicles": "vehicle", "attacks": "attack", "captures": "capture"}
log = logging.getLogger(__name__)


def _check_fold(call: entry_point.Call, heads: list[dict[str, Any]]) -> None:
    for kind, key in _FOLD_KEYS.items():
        known = {h[key] for h in heads if h[key]}
        for name in call.config["leave_out"].get(kind, []):
            if name not in known:
                raise CanidsError(
                    f"leave_out.{kind}: the training captures of dataset '{call.wildcards['dataset']}' have no "
                    f"{key} '{name}'; they have {', '.join(sorted(known)) or 'none'}"
                )


def members(call: entry_point.Call, heads: dict[Path, dict[str, Any]]) -> list[Path]:
    """The captures of the split: what the fold leaves out or keeps, each content once."""
    leave_out = call.config["leave_out"]
    auxiliary_captures = call.constants.get("auxiliary_captures", [])
    if leave_out:
        _check_fold(call, [head for head in heads.values() if head["capture"] not in auxiliary_captures])

    def is_left(head: dict[str, Any]) -> bool:
        if head["capture"] in auxiliary_captures:
            # Auxiliary captures have vehicles of their own, but the kinds of attack that all have. A name that tells no kind
            # leaves out all of them: any could be its relative.
            kinds = {kind_of(attack) for attack in leave_out.get("attacks", [])}
            return bool(head["attack"] and kinds and (None in kinds or kind_of(head["attack"]) in kinds))
        return any(head[key] in leave_out.get(kind, []) for kind, key in _FOLD_KEYS.items())

    # By content: a copy of a left-out capture under another name is left out with it.
    left = {head["sha256"] for head in heads.values() if is_left(head)}
    members: dict[str, Path] = {}
    # In the order of names: another order in the manifest, or of a job's inputs, makes the same store.
    for path, head in sorted(heads.items(), key=lambda item: str(item[1]["capture"])):
        if leave_out and (head["sha256"] in left) != (call.wildcards["split"] == LEFT_OUT):
            continue
        if head["sha256"] in members:
            log.info("%s has the same content as an earlier capture and counts once", head["capture"])
            continue
        members[head["sha256"]] = path
    if not any(heads[path]["capture"] not in auxiliary_captures for path in members.values()):
        raise CanidsError(f"leave_out leaves no capture for split '{call.wildcards['split']}'")
    return list(members.values())


def _blocks(
    path: Path, capture: str, config: dict[str, Any], split: str
) -> tuple[list[Block], list[Block], Callable[[int], int]]:
    """A split's blocks of a training capture, its restarts, and the number of the window that begins at a frame."""
    clock = clock_of(path)
    origin = clock.time_of(0)
    cut, window, stride = config["blocks"], config["window"], config["stride"]
    span = clock.end - origin
    by_count = config["window_unit"] == "frames"
    again = config["restarts"]
    if again["length"] > again["every"]:
        raise CanidsError(f"restarts.length: {again['length']} s are longer than restarts.every ({again['every']} s)")
    if not by_count and 0 < again["length"] <= window:
        raise CanidsError(f"restarts.length: {again['length']} s hold no whole window of {window} s; 0 leaves them out")
    if cut["gap"] <= (window * span / clock.frames if by_count else window):
        raise CanidsError(f"blocks.gap: {cut['gap']} s of {capture} are no longer than a window")
    frames_a_window = window if by_count else int(np.ceil(window * clock.frames / max(span, 1e-9)))
    chosen = blocks(clock, **cut, window=frames_a_window)[split]
    parts = [part for block in chosen for part in restarts(clock, block, **again)]

    def number(frame: int) -> int:
        if by_count:
            return int(frame // stride)
        return int((clock.time_of(frame) - origin) // stride)

    return chosen, parts, number


class _Part(NamedTuple):
    """What a capture gives to a split: its blocks, each with the number of its first window and what comes of it."""

    path: Path
    head: dict[str, Any]
    blocks: list[tuple[Block, int, Survey]]
    counts: dict[str, int]


def _part(path: Path, head: dict[str, Any], config: dict[str, Any], split: str) -> _Part:
    if split in SPLITS:
        once, again, number = _blocks(path, head["capture"], config, split)
    else:
        once, again, number = [Block(0, 0, head["frames"])], [], lambda _: 0
    blocks = [(block, number(block.start), survey(path, block, config)) for block in once]
    total = sum((found for _, _, found in blocks), Survey())
    counts = {"windows": total.windows, "frames": total.frames, "dropped": total.dropped}
    if split in SPLITS:
        # Numbered beyond the capture's end, so that they look adjacent to nothing.
        beyond = number(head["frames"]) + 2
        cold = [(block, beyond + number(block.start), survey(path, block, config)) for block in again]
        counts["restarted"] = sum(found.windows for _, _, found in cold)
        blocks += cold
    return _Part(path, head, blocks, counts)


def main(call: entry_point.Call) -> None:
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
    for path, head in heads.items():
        if missing := [key for key in _HEAD if key not in head]:
            raise CanidsError(f"{path}: its metadata lacks '{missing[0]}'; delete it and run again")
    parts = [_part(path, heads[path], config, split) for path in members(call, heads)]
    amount = sum((found for part in parts for _, _, found in part.blocks), Survey())
    if not amount.windows:
        raise CanidsError(
            f"split '{split}' of dataset '{call.wildcards['dataset']}' has no whole window of "
            f"{config['window']} {config['window_unit']}"
        )
    vehicles = sorted({part.head["vehicle"] for part in parts})
    attacks = ["", *dict.fromkeys(name for part in parts for name in part.head["attacks"])]
    features = FEATURES[config["features"]]
    header = {
        "dataset": call.wildcards["dataset"],
        "split": split,
        "window": config["window"],
        "stride": config["stride"],
        "window_unit": config["window_unit"],
        "features": config["features"],
        "node_features": list(features.NODE_FEATURES),
        "edge_features": list(features.EDGE_FEATURES),
        "statistics": list(features.STATISTICS),
        "attacks": attacks,
        "captures": [part.head["capture"] for part in parts],
        "vehicles": vehicles,
        "auxiliary_captures": [
            c for c in (part.head["capture"] for part in parts) if c in call.constants.get("auxiliary_captures", [])
        ],
        "sources": {part.head["capture"]: {k: part.head[k] for k in SOURCE} for part in parts},
        "counts": {part.head["capture"]: part.counts for part in parts},
    }
    size = {"windows": amount.windows, "nodes": amount.nodes, "edges": amount.edges}
    with writing(call.output["output"], header, **size) as writer:
        for index, part in enumerate(parts):
            head = part.head
            mark = partial(
                mark_intervals,
                intervals=np.array(head["attacked"]).reshape(-1, 2),
                attack=attacks.index(head["attack"] or head["attacks"][0]) if head["attacked"] else 0,
            )
            ids = {"capture": index, "vehicle": vehicles.index(head["vehicle"])}
            for block, first, _ in part.blocks:
                append(writer, part.path, block, first=first, ids=ids, config=config, attacks=attacks, mark=mark)
            log.info("%s: %s", head["capture"], part.counts)


if __name__ == "__main__":
    entry_point.run(main, inputs=["frames"])
