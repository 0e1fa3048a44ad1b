"""Turn the frames of a split into the graph store.

`python -m canids_preprocess.graphs --spec JSON --output X.safetensors --frames A.parquet B.parquet …`

With a list `each` of splits in the spec, as many outputs. Frames of auxiliary captures follow `--auxiliary`; the spec's `auxiliary`
is the name of their dataset, which comes before theirs in the store: `simulated_fleet.dos-van-2`.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canids_preprocess.windowing.cutting import check_windows
from canids_preprocess.windowing.frames import Recording, clock_of
from canids_preprocess.windowing.members import members
from canids_preprocess.windowing.splits import Block, blocks, restarts
from canids_preprocess.windowing.windows import FEATURES, append, mark_intervals, survey
from canids_shared.contracts import tables
from canids_shared.contracts.graph_store import writing
from canids_shared.contracts.manifest import SPLITS
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point

_SOURCE = ("sha256", "vehicle", "attack", "content", "rows_read")
_METADATA = (*_SOURCE, "capture", "frames", "attacked", "attacks")
_WINDOWS = ("window", "stride", "window_unit", "features")
log = logging.getLogger(__name__)


def metadata_of(call: entry_point.Call) -> dict[Recording, dict[str, Any]]:
    """Metadata of the frames of a call's captures, and whether each is `auxiliary`; frames of several buses are a capture each: no window
    holds frames of two.

    Raises `CanidsError` naming the file that is damaged or lacks some of it.
    """
    joining = call.inputs.get("auxiliary", [])
    captures = {path: tables.read_metadata(path, tables.FRAMES) for path in [*call.inputs["frames"], *joining]}
    for path, metadata in captures.items():
        if missing := [key for key in _METADATA if key not in metadata]:
            raise CanidsError(f"{path}: its metadata lacks '{missing[0]}'; delete it and run again")
        metadata["auxiliary"] = path in joining
        if metadata["auxiliary"]:
            metadata["capture"] = f"{call.constants['auxiliary']}.{metadata['capture']}"
    return dict(chain.from_iterable(_by_bus(path, metadata) for path, metadata in captures.items()))


def _by_bus(path: Path, metadata: dict[str, Any]) -> Iterator[tuple[Recording, dict[str, Any]]]:
    channels: dict[str, int] = metadata.get("channels") or {}
    if not channels:
        yield Recording(path), metadata
    for number, (channel, frames) in enumerate(channels.items()):
        # Another bus of the same file is other content.
        own = {"frames": frames, "sha256": sha256(f"{metadata['sha256']} {channel}".encode()).hexdigest()}
        if len(channels) > 1:
            plain = re.sub("[^A-Za-z0-9_.-]", "-", channel) or "none"
            same = [c for c in list(channels)[:number] if re.sub("[^A-Za-z0-9_.-]", "-", c) == plain]
            own["capture"] = f"{metadata['capture']}.{plain}" + (f"-{number}" if same else "")
            own["entry"] = metadata["capture"]
            if (
                metadata["content"] == "labelled"
                and channel not in metadata["channels_attacked"]
                and not metadata["attacked"]
            ):
                # The attack is on another bus of the log.
                own |= {"content": "attack-free", "attack": None, "attacks": []}
        yield Recording(path, channel if len(channels) > 1 else None), metadata | own


def _source(metadata: dict[str, Any]) -> dict[str, Any]:
    """What a store says of a capture; also the rate of which a log without times has its intervals, and the host of injected attacks."""
    further = {key: metadata[key] for key in ("assumed_rate", "host") if metadata.get(key)}
    return {**{key: metadata[key] for key in _SOURCE}, **further}


def header_of(call: entry_point.Call, captures: list[dict[str, Any]], counts: list[dict[str, int]]) -> dict[str, Any]:
    """Header of the graph store, from the metadata of the split's captures and the counts of their windows and frames."""
    kind = FEATURES[call.config["features"]]
    names = [metadata["capture"] for metadata in captures]
    return {
        "dataset": call.wildcards["dataset"],
        "split": call.wildcards["split"],
        "instance": call.instance,
        "code": call.constants.get("code", ""),
        **{key: call.config[key] for key in _WINDOWS},
        "node_features": list(kind.NODE_FEATURES),
        "edge_features": list(kind.EDGE_FEATURES),
        "statistics": list(kind.STATISTICS),
        "attacks": ["", *dict.fromkeys(name for metadata in captures for name in metadata["attacks"])],
        "captures": names,
        "vehicles": sorted({metadata["vehicle"] for metadata in captures}),
        "auxiliary_captures": [metadata["capture"] for metadata in captures if metadata["auxiliary"]],
        "sources": {metadata["capture"]: _source(metadata) for metadata in captures},
        "counts": dict(zip(names, counts, strict=True)),
    }


def _check_restarts(config: dict[str, Any]) -> None:
    """Raise `CanidsError` unless restarts follow each other, and can hold a window."""
    length, every = config["restarts"]["length"], config["restarts"]["every"]
    if length > every:
        raise CanidsError(f"restarts.length: {length} s are longer than restarts.every ({every} s)")
    if config["window_unit"] == "seconds" and 0 < length <= config["window"]:
        raise CanidsError(
            f"restarts.length: {length} s hold no whole window of {config['window']} s; 0 leaves them out"
        )


def _blocks(
    recording: Recording, capture: str, config: dict[str, Any], split: str
) -> tuple[list[Block], list[Block], Callable[[int], int]]:
    """A split's blocks of a training capture, its restarts, and the number of the window that begins at a frame."""
    clock = clock_of(recording)
    origin = clock.time_of(0)
    cut, window, stride = config["blocks"], config["window"], config["stride"]
    span = clock.end - origin
    by_count = config["window_unit"] == "frames"
    if cut["gap"] <= (window * span / clock.frames if by_count else window):
        raise CanidsError(f"blocks.gap: {cut['gap']} s of {capture} are no longer than a window")
    # Blocks are cut by frames: a window in seconds counts as many as it holds on average.
    frames_per_window = window if by_count else int(np.ceil(window * clock.frames / max(span, 1e-9)))
    # A restart is a stretch of a block of this split, so it leaks nothing of another split.
    chosen = blocks(clock, **cut, window=frames_per_window)[split]
    restarted = [part for block in chosen for part in restarts(clock, block, **config["restarts"])]

    def number(frame: int) -> int:
        if by_count:
            return int(frame // stride)
        return int((clock.time_of(frame) - origin) // stride)

    return chosen, restarted, number


class _Part(NamedTuple):
    """Part of a split from one capture: its blocks, each with the number of its first window and the size of its windows."""

    recording: Recording
    metadata: dict[str, Any]
    blocks: list[tuple[Block, int, Counter[str]]]
    counts: dict[str, int]


def _part(recording: Recording, metadata: dict[str, Any], config: dict[str, Any], split: str) -> _Part:
    if split in SPLITS:
        once, again, number = _blocks(recording, metadata["capture"], config, split)
    else:
        once, again, number = [Block(0, 0, metadata["frames"])], [], lambda _: 0
    # Window numbers count along the whole capture, so that windows of neighbouring blocks are not taken for adjacent.
    parts = [(block, number(block.start), survey(recording, block, config)) for block in once]
    total = sum((size for _, _, size in parts), Counter())
    counts = {key: total[key] for key in ("windows", "frames", "dropped")}
    if split in SPLITS:
        # Numbered beyond the capture's end, so that they look adjacent to nothing.
        beyond = number(metadata["frames"]) + 2
        restarted = [(block, beyond + number(block.start), survey(recording, block, config)) for block in again]
        counts["restarted"] = sum(size["windows"] for _, _, size in restarted)
        parts += restarted
    return _Part(recording, metadata, parts, counts)


def main(call: entry_point.Call) -> None:
    """Entry point. Raises `CanidsError` if options contradict each other, a capture is damaged, or the split has no window."""
    split, config = call.wildcards["split"], call.config
    check_windows(config)
    if split in SPLITS:
        _check_restarts(config)
    captures = metadata_of(call)
    # Two passes over the frames: the first counts, since the header with all sizes stands at the beginning of the store.
    parts = [_part(recording, captures[recording], config, split) for recording in members(call, captures)]
    amount = sum((size for part in parts for _, _, size in part.blocks), Counter())
    if not amount["windows"]:
        raise CanidsError(
            f"split '{split}' of dataset '{call.wildcards['dataset']}' has no whole window of "
            f"{config['window']} {config['window_unit']}"
        )
    header = header_of(call, [part.metadata for part in parts], [part.counts for part in parts])
    attacks, vehicles = header["attacks"], header["vehicles"]
    size = {key: amount[key] for key in ("windows", "nodes", "edges")}
    with writing(call.output["output"], header, **size) as writer:
        for index, (recording, metadata, part_blocks, counts) in enumerate(parts):
            # Under suppression no frame is labelled: windows that overlap the attack's intervals are marked afterwards.
            named = metadata["attack"] or "attack"
            intervals = [(a, b, attacks.index(kind[0] if kind else named)) for a, b, *kind in metadata["attacked"]]
            mark = partial(mark_intervals, intervals=intervals)
            ids = {"capture": index, "vehicle": vehicles.index(metadata["vehicle"])}
            for block, first, _ in part_blocks:
                append(writer, recording, block, first=first, ids=ids, config=config, attacks=attacks, mark=mark)
            log.info("%s: %s", metadata["capture"], counts)


if __name__ == "__main__":
    entry_point.run(main, inputs=["frames", "auxiliary"], each=())
