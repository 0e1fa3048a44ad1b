"""Windows of consecutive frames as graphs: a node per arbitration ID, an edge where one ID's frame follows another's."""

from typing import Any

import numpy as np
from numba import njit

from canids_preprocess.features import FRAME_FEATURES, Tracker

_AGGREGATES = ("mean", "min", "max")
NODE_FEATURES = (*(f"{name}_{how}" for name in FRAME_FEATURES for how in _AGGREGATES), "share")
EDGE_FEATURES = ("count", "share", "gap_mean", "gap_min", "position", "reciprocal")
COMMON_STATISTICS = ("distinct_ids", "largest_share", "id_entropy", "edges", "frames_per_s")
STATISTICS = (
    *(f"{name}_{how}" for name in FRAME_FEATURES for how in ("mean", "std", "min", "max")),
    *COMMON_STATISTICS,
)
_SHORTEST = 1e-6  # s, as in `features`


def of_frames(tracker: Tracker, frames: dict[str, Any], room: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of the next frames, and a number for each one's ID; see `Tracker.feed`."""
    return tracker.feed(frames, room)


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def count(slot: np.ndarray, n_slots: int, starts: np.ndarray, stops: np.ndarray) -> tuple[int, int]:
    """Nodes and edges of all the windows `starts[w]:stops[w]`; `slot` as in `build`."""
    most = min((stops - starts).max(), n_slots)
    node_of, seen_in = np.empty(n_slots, np.int32), np.full(n_slots, -1, np.int32)
    pair_seen_in = np.full((most, most), -1, np.int32)
    nodes, edges = 0, 0
    for w in range(len(starts)):
        n, before = 0, -1
        for f in range(starts[w], stops[w]):
            me = slot[f]
            if seen_in[me] != w:
                seen_in[me] = w
                node_of[me] = n
                n += 1
            here = node_of[me]
            if before >= 0 and pair_seen_in[before, here] != w:
                pair_seen_in[before, here] = w
                edges += 1
            before = here
        nodes += n
    return nodes, edges


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def label(
    labels: np.ndarray,
    attacks: np.ndarray,
    timestamp: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    y: np.ndarray,
    n_attacked: np.ndarray,
    attack: np.ndarray,
    t_start: np.ndarray,
    t_end: np.ndarray,
) -> None:
    """Label windows `starts[w]:stops[w]` by their frames' labels (1, 0, -1 unknown) [n] and attacks [n], into arrays [W].

    A window is attacked if any of its frames is, else unknown if any is; of several attacks the highest index counts.
    """
    for w in range(len(starts)):
        first = starts[w]
        count, unknown, kind, low, high = 0, 0, attacks[first], timestamp[first], timestamp[first]
        for f in range(first, stops[w]):
            count += labels[f] == 1
            unknown += labels[f] < 0
            kind = max(kind, attacks[f])
            low = min(low, timestamp[f])
            high = max(high, timestamp[f])
        y[w] = 1 if count else (-1 if unknown else 0)
        n_attacked[w] = count
        attack[w] = kind
        t_start[w] = low
        t_end[w] = high


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def summarise(features: np.ndarray, starts: np.ndarray, stops: np.ndarray, out: np.ndarray) -> None:
    """Mean, standard deviation, minimum and maximum of each of P features over each window, into `out[:, :4 * P]`."""
    n_features = features.shape[1]
    mean, square = np.empty(n_features), np.empty(n_features)
    low, high = np.empty(n_features, np.float32), np.empty(n_features, np.float32)
    for w in range(len(starts)):
        first, window = starts[w], stops[w] - starts[w]
        mean[:] = 0.0
        square[:] = 0.0
        low[:] = features[first]
        high[:] = features[first]
        for f in range(first, stops[w]):
            for p in range(n_features):
                value = features[f, p]
                mean[p] += value
                low[p] = min(low[p], value)
                high[p] = max(high[p], value)
        mean /= window
        for f in range(first, stops[w]):
            for p in range(n_features):
                square[p] += (features[f, p] - mean[p]) ** 2
        for p in range(n_features):
            out[w, 4 * p] = mean[p]
            out[w, 4 * p + 1] = np.sqrt(square[p] / window)
            out[w, 4 * p + 2] = low[p]
            out[w, 4 * p + 3] = high[p]


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def build(  # noqa: PLR0915 (one compiled loop)
    features: np.ndarray,
    timestamp: np.ndarray,
    node_key: np.ndarray,
    slot: np.ndarray,
    n_slots: int,
    starts: np.ndarray,
    stops: np.ndarray,
    node_id: np.ndarray,
    node_count: np.ndarray,
    x: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    edge_attr: np.ndarray,
    statistics: np.ndarray,
    node_counts: np.ndarray,
    edge_counts: np.ndarray,
) -> tuple[int, int]:
    """Fill the arrays of the graph store for windows `starts[w]:stops[w]`; returns nodes and edges written.

    Nodes come in the order in which their IDs first appear in the window, edges in the order in which the pair first
    does: renaming the IDs changes nothing.

    Args:
        features: [n, P] per-frame features.
        timestamp: [n] seconds.
        node_key: [n] arbitration ID, bit 31 set if extended.
        slot: [n] the same as a number below `n_slots`.
        starts, stops: [W] first frame of each window, and the one behind its last.
        statistics: [W, 5], for `COMMON_STATISTICS`; the features' are made by `summarise`.
    """
    n_features = features.shape[1]
    most = min((stops - starts).max(), n_slots)
    node_of = np.full(n_slots, -1, np.int32)  # node of each ID in the window
    pair = np.full((most, most), -1, np.int32)  # edge of each pair of nodes
    total = np.empty((most, n_features))
    low = np.empty((most, n_features), np.float32)
    high = np.empty((most, n_features), np.float32)
    nodes, edges = 0, 0
    for w in range(len(starts)):
        first, window = starts[w], stops[w] - starts[w]
        n, e, before = 0, 0, 0
        span = max(timestamp[first + window - 1] - timestamp[first], _SHORTEST)
        usual_gap = np.log2(span / window)
        for k in range(window):
            f = first + k
            here = node_of[slot[f]]
            if here < 0:
                here = n
                node_of[slot[f]] = n
                node_id[nodes + n] = node_key[f]
                node_count[nodes + n] = 0
                for p in range(n_features):
                    total[n, p] = 0.0
                    low[n, p] = features[f, p]
                    high[n, p] = features[f, p]
                n += 1
            node_count[nodes + here] += 1
            for p in range(n_features):
                value = features[f, p]
                total[here, p] += value
                low[here, p] = min(low[here, p], value)
                high[here, p] = max(high[here, p], value)
            if k > 0:
                gap = np.log2(max(timestamp[f] - timestamp[f - 1], _SHORTEST)) - usual_gap
                at = pair[before, here]
                if at < 0:
                    at = e
                    pair[before, here] = e
                    source[edges + e] = before
                    target[edges + e] = here
                    edge_attr[edges + e, 0] = 0.0
                    edge_attr[edges + e, 2] = 0.0
                    edge_attr[edges + e, 3] = gap
                    edge_attr[edges + e, 4] = k / window
                    e += 1
                edge_attr[edges + at, 0] += 1.0
                edge_attr[edges + at, 2] += gap
                edge_attr[edges + at, 3] = min(edge_attr[edges + at, 3], gap)
            before = here

        entropy, largest = 0.0, 0.0
        for j in range(n):
            count = node_count[nodes + j]
            share = count / window
            for p in range(n_features):
                x[nodes + j, 3 * p] = total[j, p] / count
                x[nodes + j, 3 * p + 1] = low[j, p]
                x[nodes + j, 3 * p + 2] = high[j, p]
            x[nodes + j, 3 * n_features] = share
            entropy -= share * np.log2(share)
            largest = max(largest, share)
        for j in range(e):
            a, b = source[edges + j], target[edges + j]
            count = edge_attr[edges + j, 0]
            edge_attr[edges + j, 0] = np.log2(1.0 + count)
            edge_attr[edges + j, 1] = count / node_count[nodes + a]
            edge_attr[edges + j, 2] /= count
            edge_attr[edges + j, 5] = 1.0 if pair[b, a] >= 0 else 0.0
        for j in range(e):
            pair[source[edges + j], target[edges + j]] = -1

        for k in range(first, stops[w]):
            node_of[slot[k]] = -1
        statistics[w, 0] = n
        statistics[w, 1] = largest
        statistics[w, 2] = entropy
        statistics[w, 3] = e
        statistics[w, 4] = window / span
        node_counts[w] = n
        edge_counts[w] = e
        nodes += n
        edges += e
    return nodes, edges
