"""The frames of a block, cut into windows and turned into the arrays of the graph store, chunk by chunk."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canids_preprocess import published, windows
from canids_preprocess.features import Tracker
from canids_preprocess.frames import ALL, TIMES_AND_IDS, Frames, attack_index, chunks
from canids_preprocess.slots import Slots
from canids_preprocess.splits import Block
from canids_shared.contracts.graph_store import GraphWriter
from canids_shared.errors import CanidsError

_MOST_ROWS = 1 << 20  # frames of the windows handled at once; windows may overlap
_MOST_WINDOWS = 1 << 20  # of time, between two frames
FEATURES = {"relative": windows, "published": published}
"""What makes the graphs: names of features (nodes, edges, statistics), `of_frames`, and the kernel `build`."""


@dataclass
class Count:
    """Cuts windows of `window` frames, one every `stride` frames; the incomplete tail is left."""

    window: int
    stride: int
    done: int = 0
    ahead: int = 0

    def cut(self, timestamp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First frame, end and number of each window that is complete in what is pending, int64 [W] each."""
        usable = len(timestamp) - self.ahead - self.window
        count = usable // self.stride + 1 if usable >= 0 else 0
        starts = self.ahead + self.stride * np.arange(count)
        number = self.done + np.arange(count)
        self.done += count
        self.ahead += self.stride * count
        return starts, starts + self.window, number

    def release(self, pending: int) -> int:
        """How many of the pending frames no later window needs."""
        free = min(self.ahead, pending)
        self.ahead -= free
        return free


@dataclass
class Time:
    """Cuts windows of `window` seconds, one every `stride` seconds from `origin`; those of fewer than two frames are left out.

    A frame that steps back in time belongs to the window of the frame before it.
    """

    window: float
    stride: float
    origin: float | None = None
    done: int = 0
    free: int = 0

    def cut(self, timestamp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Count.cut`; a window is complete once a frame behind it is there."""
        if not len(timestamp):
            return (np.zeros(0, np.int64),) * 3
        running = np.maximum.accumulate(timestamp)
        if self.origin is None:
            self.origin = float(running[0])
        last = int(np.floor((running[-1] - self.origin - self.window) / self.stride))
        at = int(np.argmax(np.diff(running))) if len(running) > 1 else 0
        if len(running) > 1 and (running[at + 1] - running[at]) / self.stride > _MOST_WINDOWS:
            raise CanidsError(
                f"the timestamps jump by {running[at + 1] - running[at]:.0f} s, from {running[at]:.6f} to "
                f"{running[at + 1]:.6f}: was the clock set? Cut the capture there, or choose a longer stride"
            )
        number = np.arange(self.done, last + 1)
        begin = self.origin + self.stride * number
        starts, stops = np.searchsorted(running, begin), np.searchsorted(running, begin + self.window)
        self.done = max(self.done, last + 1)
        self.free = int(np.searchsorted(running, self.origin + self.stride * self.done))
        whole = stops - starts >= 2
        return starts[whole], stops[whole], number[whole]

    def release(self, pending: int) -> int:
        """How many of the pending frames no later window needs."""
        return min(self.free, pending)


def _arrays(
    pending: Frames, starts: np.ndarray, stops: np.ndarray, n_slots: int, features: str
) -> dict[str, np.ndarray]:
    """The arrays of `GraphWriter.append` for some windows, without number, capture and vehicle."""
    kind = FEATURES[features]
    rows = int((stops - starts).sum())
    out: dict[str, np.ndarray] = {
        "node_id": np.empty(rows, np.uint32),
        "node_count": np.empty(rows, np.int32),
        "x": np.empty((rows, len(kind.NODE_FEATURES)), np.float32),
        "edge_source": np.empty(rows, np.int16),
        "edge_target": np.empty(rows, np.int16),
        "edge_attr": np.empty((rows, len(kind.EDGE_FEATURES)), np.float32),
        "statistics": np.empty((len(starts), len(windows.COMMON_STATISTICS)), np.float32),
        "node_counts": np.empty(len(starts), np.int64),
        "edge_counts": np.empty(len(starts), np.int64),
    }
    nodes, edges = kind.build(
        pending["features"],
        pending["timestamp"],
        pending["key"],
        pending["slot"],
        n_slots,
        starts,
        stops,
        *out.values(),
    )
    summary = np.empty((len(starts), len(kind.STATISTICS)), np.float32)
    windows.summarise(pending["features"], starts, stops, summary)
    summary[:, -len(windows.COMMON_STATISTICS) :] = out["statistics"]
    out["statistics"] = summary
    for name in ("node_id", "node_count", "x"):
        out[name] = out[name][:nodes]
    for name in ("edge_source", "edge_target", "edge_attr"):
        out[name] = out[name][:edges]

    labels: dict[str, np.ndarray] = {
        "y": np.empty(len(starts), np.int8),
        "n_attacked": np.empty(len(starts), np.int32),
        "attack": np.empty(len(starts), np.int16),
        "t_start": np.empty(len(starts)),
        "t_end": np.empty(len(starts)),
    }
    windows.label(pending["label"], pending["attack"], pending["timestamp"], starts, stops, *labels.values())
    return out | labels


def mark_intervals(arrays: dict[str, np.ndarray], intervals: np.ndarray, attack: int) -> None:
    """Label windows that overlap an interval [n, 2] (seconds): an attack that suppresses frames leaves none to label."""
    for start, end in intervals:
        inside = (arrays["t_end"] >= start) & (arrays["t_start"] <= end)
        arrays["y"] = np.where(inside, 1, arrays["y"])
        arrays["attack"] = np.where(inside & (arrays["attack"] == 0), attack, arrays["attack"])


def _slices_of_windows(starts: np.ndarray, stops: np.ndarray) -> Iterator[slice]:
    """Slices of the windows that hold some `_MOST_ROWS` frames together, one window at least."""
    if not len(starts):
        return
    border = np.cumsum(stops - starts) // _MOST_ROWS
    edges = np.concatenate([[0], np.flatnonzero(np.diff(border)) + 1, [len(starts)]])
    for first, last in pairwise(edges.tolist()):
        yield slice(first, last)


@dataclass
class Survey:
    """What the windows of some blocks amount to: frames, those of them in no window, windows, their nodes and edges."""

    frames: int = 0
    dropped: int = 0
    windows: int = 0
    nodes: int = 0
    edges: int = 0

    def __add__(self, other: "Survey") -> "Survey":
        return Survey(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class _Cut(NamedTuple):
    """Frames pending, the first of which is frame `begin` of the block, and the windows that are complete in them."""

    frames: Frames
    begin: int
    starts: np.ndarray
    stops: np.ndarray
    number: np.ndarray


def _cuts(
    path: Path, source: Iterable[Frames], skip: int, config: dict[str, Any], prepare: Callable[[Frames, Frames], Frames]
) -> Iterator[_Cut]:
    """The windows of frames behind the first `skip`, chunk by chunk, cut from what `prepare` makes of each (`timestamp` among it).

    `prepare` is also given the frames that are pending: its `features`, the widest array, have room for them in front.
    """
    cutter: Count | Time
    cutter = (
        Count(int(config["window"]), int(config["stride"]))
        if config["window_unit"] == "frames"
        else Time(config["window"], config["stride"])
    )
    begin = 0
    pending: Frames = {}
    for frames in source:
        held = _count(pending)
        new = prepare(frames, pending)
        warm = min(skip, len(new["timestamp"]))
        skip -= warm
        pending = _joined(pending, new, held) if held else {k: v[warm:] for k, v in new.items()}
        try:
            cut = cutter.cut(pending["timestamp"])
        except CanidsError as error:
            raise CanidsError(f"{path}: {error}") from None
        starts, stops, _ = cut
        if len(starts) and (stops - starts).max() > np.iinfo(np.int16).max:
            raise CanidsError(f"{path}: a window of more than {np.iinfo(np.int16).max} frames; choose shorter ones")
        yield _Cut(pending, begin, *cut)
        free = cutter.release(len(pending["timestamp"]))
        begin += free
        pending = {k: v[free:] for k, v in pending.items()}


def _count(pending: Frames) -> int:
    return len(pending["timestamp"]) if pending else 0


def _joined(pending: Frames, new: Frames, held: int) -> Frames:
    joined = {k: np.concatenate([pending[k], v]) for k, v in new.items() if k != "features"}
    if "features" in new:
        joined["features"] = new["features"]
        joined["features"][:held] = pending["features"]
    return joined


def survey(path: Path, block: Block, config: dict[str, Any]) -> Survey:
    """Count what `append` is going to append of a block.

    Args:
        path: the frames.
        block: which of them.
        config: `window`, `stride` and `window_unit`.
    """
    slots = Slots()
    found = Survey(block.stop - block.start)
    used, covered = 0, 0  # frames in windows, and the end of the last window

    def prepare(frames: Frames, _: Frames) -> Frames:
        return {"timestamp": frames["timestamp"], "slot": slots.number(frames["key"])}

    for cut in _cuts(path, chunks(path, block, TIMES_AND_IDS), block.start - block.prime, config, prepare):
        if not len(cut.starts):
            continue
        nodes, edges = windows.count(cut.frames["slot"], slots.count, cut.starts, cut.stops)
        ends = np.concatenate([[covered - cut.begin], cut.stops[:-1]])
        used += int(np.maximum(cut.stops - np.maximum(cut.starts, ends), 0).sum())
        covered = cut.begin + int(cut.stops[-1])
        found += Survey(windows=len(cut.starts), nodes=nodes, edges=edges)
    found.dropped = found.frames - used
    return found


def windows_of(
    path: Path,
    source: Iterable[Frames],
    skip: int,
    config: dict[str, Any],
    attacks: list[str],
    most_ids: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of `GraphWriter.append`, without `capture` and `vehicle`, of windows as soon as they are complete.

    Args:
        path: where the frames come from, for messages.
        source: the frames, chunk by chunk.
        skip: how many of the first only warm up the running statistics.
        config: `window`, `stride`, `window_unit` and `features`.
        attacks: names of attacks, the first of which stands for none.
        most_ids: arbitration IDs above which those seen least are forgotten; without it memory grows with their number.
    """
    tracker = Tracker()

    def prepare(frames: Frames, pending: Frames) -> Frames:
        if most_ids and tracker.slots.count > most_ids:
            needed = tracker.forget(most_ids // 2, pending["slot"] if pending else np.zeros(0, np.int32))
            pending |= {"slot": needed} if pending else {}
        features, slot = FEATURES[config["features"]].of_frames(tracker, frames, _count(pending))
        return {
            "features": features,
            "slot": slot,
            "timestamp": frames["timestamp"],
            "key": frames["key"],
            "label": frames["label"],
            "attack": attack_index(path, frames, attacks),
        }

    for cut in _cuts(path, source, skip, config, prepare):
        for some in _slices_of_windows(cut.starts, cut.stops):
            arrays = _arrays(cut.frames, cut.starts[some], cut.stops[some], tracker.slots.count, config["features"])
            arrays["window"] = cut.number[some]
            yield arrays


def append(
    writer: GraphWriter,
    path: Path,
    block: Block,
    *,
    first: int,
    ids: dict[str, int],
    config: dict[str, Any],
    attacks: list[str],
    mark: Callable[[dict[str, np.ndarray]], None],
) -> None:
    """Append the windows of one block, numbered from `first`.

    Args:
        writer: the store.
        path: the frames.
        block: which of them.
        first: number of the window that begins with the block.
        ids: indices of `capture` and `vehicle`.
        config: `window`, `stride`, `window_unit` and `features`.
        attacks: names of attacks, the first of which stands for none.
        mark: labels windows of which no frame is labelled.
    """
    for arrays in windows_of(path, chunks(path, block, ALL), block.start - block.prime, config, attacks):
        mark(arrays)
        arrays["window"] += first
        arrays["capture"] = np.full(len(arrays["y"]), ids["capture"])
        arrays["vehicle"] = np.full(len(arrays["y"]), ids["vehicle"])
        writer.append(arrays)
