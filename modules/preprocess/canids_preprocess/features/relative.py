"""Features `relative`: causal, relative to each arbitration ID's own past, free of the ID itself.

`step` computes the frame features of the next frames of a bus from what is remembered of it (`BusState`). It is the one
definition for finished captures, whose chunks it is mapped over, and for a bus that is followed. `fill` turns the frame
features of windows into features of nodes and edges.
"""

from typing import Any

import numpy as np
from numba import njit

from canids_preprocess.features.frame_kernel import (
    BUS_COLUMNS,
    COLUMNS,
    FRAME_FEATURES,
    LATEST,
    MAX_BYTES,
    SEEN,
    WIDTH,
    IdStates,
    frame_features,
    rest,
    shift,
)
from canids_preprocess.features.id_index import IdIndex
from canids_preprocess.features.topology import SUMMARIES, Topology

NODE_FEATURES = tuple(f"{name}_{how}" for name in FRAME_FEATURES for how in ("mean", "min", "max"))
EDGE_FEATURES = ("gap_mean", "gap_min", "reciprocal")
STATISTICS = tuple(f"{name}_{how}" for name in FRAME_FEATURES for how in SUMMARIES)
_SHORTEST = 1e-6  # s, as in `frame_kernel`


class BusState:
    """What is remembered of one bus: running statistics of the bus and of each arbitration ID.

    Memory grows with the number of distinct IDs, not with the number of frames; `forget` bounds it.

    Attributes:
        ids: the IDs; their indices are the rows of `by_id`.
        bus: float64 [10], the `frame_kernel.BUS_COLUMNS`.
        by_id: a row per ID.
        at_rest: whether times count from the next frame on, whose time is unknown yet.
    """

    def __init__(self) -> None:
        self.ids = IdIndex()
        self.bus = np.zeros(len(BUS_COLUMNS))
        words = {name: np.zeros((64, MAX_BYTES // 8), np.uint64) for name in ("last", "older", "latest", "toggled")}
        self.by_id = IdStates(np.zeros((64, WIDTH)), usual_change=np.zeros((64, MAX_BYTES), np.float32), **words)
        self.at_rest = False

    def rest(self) -> None:
        """End one stretch of traffic: the next frames follow at another time, and their past is a profile."""
        if not self.at_rest and self.ids.count:
            rest(self.by_id, self.bus, self.ids.count)
            self.at_rest = True

    def resume(self, time: float) -> None:
        """Begin a stretch of traffic with a frame at `time` (s)."""
        if self.at_rest:
            shift(self.by_id, self.bus, self.ids.count, time)
            self.at_rest = False

    def sightings(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each ID how often it was seen, and in seconds when first since the bus's first frame, and its usual interval, [N] each."""
        seen, level, first = (self.by_id.state[: self.ids.count, COLUMNS.index(n)] for n in ("seen", "level", "first"))
        return seen, first - self.bus[4], np.exp2(level)

    def arrays(self) -> dict[str, np.ndarray]:
        """What is remembered, as the arrays of a bus in a profile (`canids_shared.contracts.arrays.profile`); it is at rest then."""
        self.rest()
        rows = {name: array[: self.ids.count].copy() for name, array in self.by_id._asdict().items()}
        return {"ids": self.ids.ids().astype(np.uint32), "bus": self.bus.copy(), **rows}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> "BusState":
        """A bus of a profile, whose arrays are those of `layout`."""
        state = cls()
        state.look_up(arrays["ids"])
        state.bus[:] = arrays["bus"]
        for name, array in state.by_id._asdict().items():
            array[: state.ids.count] = arrays[name]
        state.by_id.state[: state.ids.count, [COLUMNS.index("last"), LATEST, COLUMNS.index("before")]] = -np.inf
        state.at_rest = True
        return state

    @classmethod
    def layout(cls, n_ids: int) -> dict[str, tuple[str, list[int]]]:
        """Type and shape of the arrays of `arrays`, with so many IDs."""
        empty = cls()
        rows = {name: (str(array.dtype), [n_ids, *array.shape[1:]]) for name, array in empty.by_id._asdict().items()}
        return {"ids": ("uint32", [n_ids]), "bus": ("float64", [len(empty.bus)]), **rows}

    def look_up(self, ids: np.ndarray) -> np.ndarray:
        """Index of each frame's ID, int32 [n]; new IDs get rows of zeros."""
        id_index = self.ids.look_up(ids)
        capacity = len(self.by_id.state)
        if capacity < self.ids.count:
            added = (1 << (self.ids.count - 1).bit_length()) - capacity
            grown = (np.concatenate([a, np.zeros((added, *a.shape[1:]), a.dtype)]) for a in self.by_id)
            self.by_id = IdStates(*grown)
        return id_index

    def forget(self, most: int, needed: np.ndarray) -> np.ndarray:
        """Forget all IDs but the `most` seen most often (of equals, the latest), and those with the indices `needed` [n].

        The remaining IDs get new indices. An ID that is forgotten counts as never seen when it comes back; the first to go
        are those of a sender that draws them at random.

        Returns the new indices of `needed`, int32 [n].
        """
        state = self.by_id.state[: self.ids.count]
        order = np.lexsort((-state[:, LATEST], -state[:, SEEN]))
        kept = np.union1d(order[:most], needed)
        renumbered = np.full(self.ids.count, -1, np.int32)
        renumbered[kept] = np.arange(len(kept))
        for array in self.by_id:
            array[: len(kept)] = array[kept]
            array[len(kept) :] = 0
        self.ids.keep(kept)
        of_needed: np.ndarray = renumbered[needed]
        return of_needed


def step(frames: dict[str, Any], state: BusState, reserve: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frame features of the next frames of a bus, in time order; `state` is updated in place.

    Chunks of any size give the same features.

    Args:
        frames: `timestamp` [n] f64 s, `node_id` [n] u32 (arbitration ID, bit 31 set if extended), `offset` [n+1] i64 into
            `payload` u8.
        state: what is remembered of the frames before.
        reserve: rows at the beginning that are left to the caller, who may have earlier frames to put there.

    Returns features, float32 [reserve + n, len(FRAME_FEATURES)], and the index of each frame's ID, int32 [n].
    """
    if state.at_rest and len(frames["timestamp"]):
        state.resume(float(frames["timestamp"][0]))
    id_index = state.look_up(frames["node_id"])
    out = np.empty((reserve + len(id_index), len(FRAME_FEATURES)), np.float32)
    frame_features(
        frames["timestamp"],
        id_index,
        frames["offset"],
        frames["payload"],
        state.by_id,
        state.bus,
        state.ids.count,
        out[reserve:],
    )
    return out, id_index


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def fill(
    features: np.ndarray,
    timestamp: np.ndarray,
    node_id: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    graph: Topology,
    x: np.ndarray,
    edge_attr: np.ndarray,
) -> None:
    """Fill in the features of nodes, `x` [ΣN, 3 P], and edges, `edge_attr` [ΣE, 3], of windows `starts[w]:stops[w]`.

    Args:
        features: [n, P] frame features.
        timestamp, node_id: [n] seconds, and arbitration ID (bit 31 set if extended).
        starts, stops: [W] first frame of each window, and the one behind its last.
        graph: nodes and edges of the windows.
    """
    n_features = features.shape[1]
    most = graph.node_counts.max()
    # Of one window at a time: small enough to stay in the cache, and contiguous, so that the inner loops are vectorised.
    total = np.empty((most, n_features))
    low = np.empty((most, n_features), np.float32)
    high = np.empty((most, n_features), np.float32)
    transitions = np.empty(graph.edge_counts.max(), np.int64)
    row, node, edge = 0, 0, 0
    for w in range(len(starts)):
        first, window, n, e = starts[w], stops[w] - starts[w], graph.node_counts[w], graph.edge_counts[w]
        met = np.uint64(0)  # nodes so far, which are numbered in the order of their first frames
        transitions[:e] = 0
        # Gaps count against the window's mean gap, in octaves: a slower bus has the same features.
        span = max(timestamp[stops[w] - 1] - timestamp[first], _SHORTEST)
        usual_gap = np.log2(span / window)
        for k in range(window):
            f = first + k
            here = np.uint64(graph.node_of_frame[row + k])
            if here == met:
                met += np.uint64(1)
                for p in range(n_features):
                    value = features[f, p]
                    total[here, p] = 0.0 + value
                    low[here, p] = value
                    high[here, p] = value
            else:
                for p in range(n_features):
                    value = features[f, p]
                    total[here, p] += value
                    low[here, p] = min(low[here, p], value)
                    high[here, p] = max(high[here, p], value)
            if k > 0:
                # Until all frames are seen, column 0 sums the gaps.
                gap = np.log2(max(timestamp[f] - timestamp[f - 1], _SHORTEST)) - usual_gap
                j = graph.edge_of_frame[row + k]
                if transitions[j] == 0:
                    edge_attr[edge + j, 0] = 0.0
                    edge_attr[edge + j, 1] = gap
                transitions[j] += 1
                edge_attr[edge + j, 0] += gap
                edge_attr[edge + j, 1] = min(edge_attr[edge + j, 1], gap)

        for j in range(n):
            count = graph.node_count[node + j]
            for p in range(n_features):
                x[node + j, 3 * p] = total[j, p] / count
                x[node + j, 3 * p + 1] = low[j, p]
                x[node + j, 3 * p + 2] = high[j, p]
        for j in range(e):
            edge_attr[edge + j, 0] /= transitions[j]
            edge_attr[edge + j, 2] = 1.0 if graph.reciprocal[edge + j] else 0.0
        row += window
        node += n
        edge += e
