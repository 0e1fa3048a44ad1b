"""Features `published`: the eleven node and eleven edge features of the published pipeline, for comparison with it.

They are those of its graph construction (window of frames, node = arbitration ID, edge = one ID's frame followed by
another's; Frenken et al. 2025, KD-GAT). A node's first feature is the arbitration ID itself, so what is learnt on one
vehicle means little on another: that is why `relative` is the default.
"""

from typing import Any

import numpy as np
from numba import njit

from canids_preprocess.features import Tracker
from canids_preprocess.windows import COMMON_STATISTICS

BYTES = 8
BYTE_FEATURES = tuple(f"byte_{b}" for b in range(BYTES))
NODE_FEATURES = ("can_id", *BYTE_FEATURES, "count", "position")
EDGE_FEATURES = (
    "count",
    "frequency",
    "interval_mean",
    "interval_std",
    "regularity",
    "first",
    "last",
    "span",
    "reciprocal",
    "degree_product",
    "degree_ratio",
)
STATISTICS = (*(f"{name}_{how}" for name in BYTE_FEATURES for how in ("mean", "std", "min", "max")), *COMMON_STATISTICS)
_SHORTEST = 1e-6  # s, as in `features`
_ID_BITS = 0x1FFFFFFF


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def payload_bytes(offset: np.ndarray, payload: np.ndarray, room: int) -> np.ndarray:
    """The first eight bytes of each frame as shares of 255, float32 [room + n, 8]; bytes that a frame lacks are 0."""
    out = np.zeros((room + len(offset) - 1, BYTES), np.float32)
    for i in range(len(offset) - 1):
        for b in range(min(offset[i + 1] - offset[i], BYTES)):
            out[room + i, b] = payload[offset[i] + b] / 255.0
    return out


def of_frames(tracker: Tracker, frames: dict[str, Any], room: int) -> tuple[np.ndarray, np.ndarray]:
    """As `windows.of_frames`; nothing of the past is needed but which IDs there were."""
    return payload_bytes(frames["offset"], frames["payload"], room), tracker.slots.number(frames["key"])


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def build(  # noqa: PLR0912, PLR0915 (one compiled loop)
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
    """As `windows.build`, with `features` from `payload_bytes` [n, 8] and the published nodes' and edges' features.

    Positions and intervals count frames within the window, as published; a degree is how often the ID begins or ends a
    transition.
    """
    most = min((stops - starts).max(), n_slots)
    node_of = np.full(n_slots, -1, np.int32)
    pair = np.full((most, most), -1, np.int32)
    total = np.empty((most, BYTES))
    degree = np.empty(most)
    nodes, edges = 0, 0
    for w in range(len(starts)):
        first, window = starts[w], stops[w] - starts[w]
        n, e, before = 0, 0, 0
        for k in range(window):
            f = first + k
            here = node_of[slot[f]]
            if here < 0:
                here = n
                node_of[slot[f]] = n
                node_id[nodes + n] = node_key[f]
                node_count[nodes + n] = 0
                degree[n] = 0.0
                total[n] = 0.0
                n += 1
            node_count[nodes + here] += 1
            for b in range(BYTES):
                total[here, b] += features[f, b]
            x[nodes + here, 10] = k / max(window - 1, 1)
            if k > 0:
                degree[before] += 1.0
                degree[here] += 1.0
                at, step = pair[before, here], k - 1
                if at < 0:
                    at = e
                    pair[before, here] = e
                    source[edges + e] = before
                    target[edges + e] = here
                    edge_attr[edges + e] = 0.0
                    edge_attr[edges + e, 5] = step
                    e += 1
                else:
                    interval = step - edge_attr[edges + at, 6]
                    edge_attr[edges + at, 2] += interval
                    edge_attr[edges + at, 3] += interval * interval
                edge_attr[edges + at, 0] += 1.0
                edge_attr[edges + at, 6] = step
            before = here

        entropy, largest, fewest = 0.0, 0.0, 1.0
        for j in range(n):
            share = node_count[nodes + j] / window
            entropy -= share * np.log2(share)
            largest, fewest = max(largest, share), min(fewest, share)
        for j in range(n):
            count = node_count[nodes + j]
            x[nodes + j, 0] = node_id[nodes + j] & _ID_BITS
            for b in range(BYTES):
                x[nodes + j, 1 + b] = total[j, b] / count
            share = count / window
            x[nodes + j, 9] = (share - fewest) / (largest - fewest) if largest > fewest else 1.0
        steps = window - 1
        for j in range(e):
            a, b = source[edges + j], target[edges + j]
            row = edge_attr[edges + j]
            count = row[0]
            row[1] = count / steps
            row[4] = 0.0
            if count > 1:
                mean = row[2] / (count - 1)
                row[3] = np.sqrt(max(row[3] / (count - 1) - mean * mean, 0.0))
                row[2] = mean
                row[4] = 1.0 / (1.0 + row[3])
            row[5] /= steps
            row[6] /= steps
            row[7] = row[6] - row[5]
            row[8] = 1.0 if pair[b, a] >= 0 else 0.0
            row[9] = degree[a] * degree[b]
            row[10] = degree[a] / degree[b]
        for j in range(e):
            pair[source[edges + j], target[edges + j]] = -1
        for k in range(first, stops[w]):
            node_of[slot[k]] = -1

        span = max(timestamp[stops[w] - 1] - timestamp[first], _SHORTEST)
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
