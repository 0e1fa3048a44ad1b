"""Windows of a block of frames as the arrays of the graph store: counted beforehand, then built chunk by chunk."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from canids_preprocess.features import published, relative
from canids_preprocess.features.id_index import IdIndex
from canids_preprocess.features.topology import label, summarise, topology_of
from canids_preprocess.windowing.cutting import Cut, cuts, pending_count
from canids_preprocess.windowing.frames import ALL, TIMES_AND_IDS, Frames, Recording, attack_index, chunks
from canids_preprocess.windowing.splits import Block
from canids_shared.contracts.graph_store import GraphWriter

_MOST_ROWS = 1 << 20  # frames of the windows handled at once; windows may overlap
FEATURES = {"relative": relative, "published": published}
"""By the option `features`: names of features (nodes, edges, statistics), frame features (`step`), and graphs (`fill`)."""


def _groups(cut: Cut) -> Iterator[slice]:
    """Slices of the windows that hold some `_MOST_ROWS` frames together, one window at least."""
    if not len(cut.starts):
        return
    # Windows whose frames, counted from the first window on, end in the same multiple of `_MOST_ROWS` form a group.
    border = np.cumsum(cut.stops - cut.starts) // _MOST_ROWS
    edges = np.concatenate([[0], np.flatnonzero(np.diff(border)) + 1, [len(cut.starts)]])
    for first, last in pairwise(edges.tolist()):
        yield slice(first, last)


def survey(recording: Recording, block: Block, config: dict[str, Any]) -> Counter[str]:
    """Count what `append` is going to append of a block: the store's header comes before its arrays.

    Returns the numbers of `frames`, those `dropped` because no window holds them, `windows`, their `nodes` and `edges`.

    Args:
        recording: the frames.
        block: which of them.
        config: `window`, `stride` and `window_unit`.
    """
    ids = IdIndex()
    total = Counter(frames=block.stop - block.start)
    used, covered = 0, 0  # frames in windows, and the end of the last window

    def prepare(frames: Frames, _: Frames) -> Frames:
        return {"timestamp": frames["timestamp"], "id_index": ids.look_up(frames["node_id"])}

    for cut in cuts(
        recording.path, chunks(recording, block, TIMES_AND_IDS), block.start - block.prime, config, prepare
    ):
        for group in _groups(cut):
            starts, stops = cut.starts[group], cut.stops[group]
            graph = topology_of(cut.frames["id_index"], ids.count, starts, stops)
            total.update(windows=len(starts), nodes=len(graph.node_count), edges=len(graph.source))
            # Overlapping windows share frames: of each, only what lies behind the end of the one before counts.
            ends = np.concatenate([[covered - cut.begin], stops[:-1]])
            used += int(np.maximum(stops - np.maximum(starts, ends), 0).sum())
            covered = cut.begin + int(stops[-1])
    total["dropped"] = total["frames"] - used
    return total


def _arrays(pending: Frames, starts: np.ndarray, stops: np.ndarray, n_ids: int, features: str) -> dict[str, np.ndarray]:
    """The arrays of `GraphWriter.append` for some windows, without number, capture and vehicle."""
    kind = FEATURES[features]
    frame_features, timestamp = pending["features"], pending["timestamp"]
    graph = topology_of(pending["id_index"], n_ids, starts, stops)
    x = np.empty((len(graph.node_count), len(kind.NODE_FEATURES)), np.float32)
    edge_attr = np.empty((len(graph.source), len(kind.EDGE_FEATURES)), np.float32)
    kind.fill(frame_features, timestamp, pending["node_id"], starts, stops, graph, x, edge_attr)
    labels = label(pending["label"], pending["attack"], timestamp, starts, stops)
    return {
        "node_id": pending["node_id"][graph.first_frame],
        "node_count": graph.node_count,
        "x": x,
        "edge_source": graph.source,
        "edge_target": graph.target,
        "edge_attr": edge_attr,
        "statistics": summarise(frame_features, starts, stops),
        "node_counts": graph.node_counts,
        "edge_counts": graph.edge_counts,
        **dict(zip(("y", "n_attacked", "attack", "t_start", "t_end"), labels, strict=True)),
    }


def windows_of(
    path: Path,
    source: Iterable[Frames],
    skip: int,
    config: dict[str, Any],
    attacks: list[str],
    most_ids: int | None = None,
    past: relative.BusState | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of `GraphWriter.append`, without `capture` and `vehicle`, of windows as soon as they are complete.

    Args:
        path: where the frames come from, for messages.
        source: the frames, chunk by chunk.
        skip: frames at the beginning that only warm up the running statistics.
        config: `window`, `stride`, `window_unit` and `features`.
        attacks: names of attacks, the first of which stands for none.
        most_ids: arbitration IDs above which those seen least are forgotten; without it memory grows with their number.
        past: what is known of the bus, a profile's; it is updated in place. By default nothing.
    """
    state, step = past or relative.BusState(), FEATURES[config["features"]].step

    def prepare(frames: Frames, pending: Frames) -> Frames:
        # Frames that wait for their window refer to IDs by index, so these IDs stay and are renumbered.
        if most_ids and state.ids.count > most_ids:
            needed = state.forget(most_ids // 2, pending["id_index"] if pending else np.zeros(0, np.int32))
            pending |= {"id_index": needed} if pending else {}
        # The features of pending frames stay as they were: only new frames go through `step`, each once.
        features, id_index = step(frames, state, pending_count(pending))
        return {
            "features": features,
            "id_index": id_index,
            "timestamp": frames["timestamp"],
            "node_id": frames["node_id"],
            "label": frames["label"],
            "attack": attack_index(path, frames, attacks),
        }

    for cut in cuts(path, source, skip, config, prepare):
        for group in _groups(cut):
            arrays = _arrays(cut.frames, cut.starts[group], cut.stops[group], state.ids.count, config["features"])
            arrays["window"] = cut.number[group]
            yield arrays


def append(
    writer: GraphWriter,
    recording: Recording,
    block: Block,
    *,
    first: int,
    ids: dict[str, int],
    config: dict[str, Any],
    attacks: list[str],
    mark: Callable[[dict[str, np.ndarray]], None],
    past: relative.BusState | None = None,
) -> None:
    """Append the windows of one block, numbered from `first`.

    Args:
        writer: the store.
        recording: the frames.
        block: which of them.
        first: number of the window that begins with the block.
        ids: indices of `capture` and `vehicle`.
        config: `window`, `stride`, `window_unit` and `features`.
        attacks: names of attacks, the first of which stands for none.
        mark: labels windows of which no frame is labelled.
        past: what is known of the bus (`windows_of`).
    """
    source = chunks(recording, block, ALL)
    for arrays in windows_of(recording.path, source, block.start - block.prime, config, attacks, past=past):
        mark(arrays)
        arrays["window"] += first
        for name, index in ids.items():
            arrays[name] = np.full(len(arrays["y"]), index)
        writer.append(arrays)


def mark_intervals(arrays: dict[str, np.ndarray], intervals: list[tuple[float, float, int]]) -> None:
    """Label windows that overlap an interval (seconds, index of its attack): suppression leaves no frame to label."""
    for start, end, attack in intervals:
        inside = (arrays["t_end"] >= start) & (arrays["t_start"] <= end)
        arrays["y"] = np.where(inside, 1, arrays["y"])
        arrays["attack"] = np.where(inside & (arrays["attack"] == 0), attack, arrays["attack"])
