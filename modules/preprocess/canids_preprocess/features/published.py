"""Features `published`: the eleven node and eleven edge features of the published pipeline, for comparison with it.

They are those of its graph construction (window of frames, node = arbitration ID, edge = one ID's frame followed by
another's; Frenken et al. 2025, KD-GAT). A node's first feature is the arbitration ID itself, so what is learnt on one
vehicle means little on another: that is why `relative` is the default.
"""

from typing import Any

import numpy as np
from numba import njit

from canids_preprocess.features.relative import BusState
from canids_preprocess.features.topology import SUMMARIES, Topology

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
STATISTICS = tuple(f"{name}_{how}" for name in BYTE_FEATURES for how in SUMMARIES)
_ID_BITS = 0x1FFFFFFF


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def payload_bytes(offset: np.ndarray, payload: np.ndarray, reserve: int) -> np.ndarray:
    """First eight bytes of each frame as shares of 255, float32 [reserve + n, 8]; bytes that a frame lacks are 0."""
    out = np.zeros((reserve + len(offset) - 1, BYTES), np.float32)
    for i in range(len(offset) - 1):
        for b in range(min(offset[i + 1] - offset[i], BYTES)):
            out[reserve + i, b] = payload[offset[i] + b] / 255.0
    return out


def step(frames: dict[str, Any], state: BusState, reserve: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """As `relative.step`, with the payload's bytes [reserve + n, 8] as features; of the past only the IDs are remembered."""
    return payload_bytes(frames["offset"], frames["payload"], reserve), state.ids.look_up(frames["node_id"])


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def fill(  # noqa: PLR0915 (one compiled loop)
    features: np.ndarray,
    timestamp: np.ndarray,
    node_id: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    graph: Topology,
    x: np.ndarray,
    edge_attr: np.ndarray,
) -> None:
    """As `relative.fill`, with `features` from `payload_bytes` [n, 8] and the published features of nodes and edges.

    Positions and intervals count frames within the window, as published; a degree is how often the ID begins or ends a
    transition.
    """
    most = graph.node_counts.max()
    total, degree = np.empty((most, BYTES)), np.empty(most)
    row, node, edge = 0, 0, 0
    for w in range(len(starts)):
        first, window, n, e = starts[w], stops[w] - starts[w], graph.node_counts[w], graph.edge_counts[w]
        total[:n] = 0.0
        degree[:n] = 0.0
        edge_attr[edge : edge + e] = 0.0
        # Sums over the window's frames. Until all are seen, an edge's columns hold: 0 the transitions, 2 and 3 the sums of
        # their intervals and of the intervals' squares, 5 and 6 the first and the last transition.
        before = 0
        for k in range(window):
            here = graph.node_of_frame[row + k]
            for b in range(BYTES):
                total[here, b] += features[first + k, b]
            x[node + here, 10] = k / max(window - 1, 1)
            if k > 0:
                degree[before] += 1.0
                degree[here] += 1.0
                at, transition = edge + graph.edge_of_frame[row + k], k - 1
                if edge_attr[at, 0] == 0.0:
                    edge_attr[at, 5] = transition
                else:
                    interval = transition - edge_attr[at, 6]
                    edge_attr[at, 2] += interval
                    edge_attr[at, 3] += interval * interval
                edge_attr[at, 0] += 1.0
                edge_attr[at, 6] = transition
            before = here

        # Nodes: the ID, its mean payload, its frames on a scale from the rarest ID of the window to the most frequent.
        largest, fewest = 0.0, 1.0
        for j in range(node, node + n):
            share = graph.node_count[j] / window
            largest, fewest = max(largest, share), min(fewest, share)
        for j in range(n):
            count = graph.node_count[node + j]
            x[node + j, 0] = node_id[graph.first_frame[node + j]] & _ID_BITS
            for b in range(BYTES):
                x[node + j, 1 + b] = total[j, b] / count
            share = count / window
            x[node + j, 9] = (share - fewest) / (largest - fewest) if largest > fewest else 1.0

        # Edges: the sums become means, deviations and shares of the window.
        transitions = window - 1
        for j in range(edge, edge + e):
            a, b = graph.source[j], graph.target[j]
            values = edge_attr[j]  # a view: what is written here stands in the array
            count = values[0]
            values[1] = count / transitions
            values[4] = 0.0
            if count > 1:
                mean = values[2] / (count - 1)
                values[3] = np.sqrt(max(values[3] / (count - 1) - mean * mean, 0.0))
                values[2] = mean
                values[4] = 1.0 / (1.0 + values[3])
            values[5] /= transitions
            values[6] /= transitions
            values[7] = values[6] - values[5]
            values[8] = 1.0 if graph.reciprocal[j] else 0.0
            values[9] = degree[a] * degree[b]
            values[10] = degree[a] / degree[b]
        row += window
        node += n
        edge += e
