"""Windows of consecutive frames as graphs: a node per arbitration ID, an edge where one ID's frame follows another's."""

import numpy as np
from numba import njit

from canids_preprocess.features import FRAME_FEATURES

_AGGREGATES = ("mean", "min", "max")
NODE_FEATURES = (*(f"{name}_{how}" for name in FRAME_FEATURES for how in _AGGREGATES), "share")
EDGE_FEATURES = ("count", "share", "gap_mean", "gap_min", "position", "reciprocal")
STATISTICS = (
    *(f"{name}_{how}" for name in FRAME_FEATURES for how in ("mean", "std", "min", "max")),
    "distinct_ids",
    "largest_share",
    "id_entropy",
    "edges",
    "frames_per_s",
)
_SHORTEST = 1e-6  # s, as in `features`


@njit(cache=True)  # type: ignore[untyped-decorator]
def build(  # noqa: PLR0912, PLR0915 (one compiled loop)
    features: np.ndarray,
    timestamp: np.ndarray,
    node_key: np.ndarray,
    starts: np.ndarray,
    window: int,
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
    """Fill the arrays of the graph store for windows `starts[w]:starts[w] + window`; returns nodes and edges written.

    Nodes come in the order in which their IDs first appear in the window, edges in the order in which the pair first
    does: renaming the IDs changes nothing.

    Args:
        features: [n, P] per-frame features.
        timestamp: [n] seconds.
        node_key: [n] arbitration ID, bit 31 set if extended.
        starts: [W] first frame of each window.
    """
    n_features = features.shape[1]
    local = np.empty(window, np.int64)  # node of each frame in the window
    pair = np.full((window, window), -1, np.int64)  # edge of each pair of nodes
    nodes, edges = 0, 0
    for w in range(len(starts)):
        first = starts[w]
        n, e = 0, 0
        begin = timestamp[first]
        span = max(timestamp[first + window - 1] - begin, _SHORTEST)
        for k in range(window):
            f = first + k
            here = -1
            for j in range(n):
                if node_id[nodes + j] == node_key[f]:
                    here = j
                    break
            if here < 0:
                here = n
                node_id[nodes + n] = node_key[f]
                node_count[nodes + n] = 0
                for p in range(n_features):
                    x[nodes + n, 3 * p] = 0.0
                    x[nodes + n, 3 * p + 1] = features[f, p]
                    x[nodes + n, 3 * p + 2] = features[f, p]
                n += 1
            local[k] = here
            node_count[nodes + here] += 1
            for p in range(n_features):
                value = features[f, p]
                x[nodes + here, 3 * p] += value
                x[nodes + here, 3 * p + 1] = min(x[nodes + here, 3 * p + 1], value)
                x[nodes + here, 3 * p + 2] = max(x[nodes + here, 3 * p + 2], value)
            if k > 0:
                a, b = local[k - 1], here
                gap = np.log2(max(timestamp[f] - timestamp[f - 1], _SHORTEST) * window / span)
                at = pair[a, b]
                if at < 0:
                    at = e
                    pair[a, b] = e
                    source[edges + e] = a
                    target[edges + e] = b
                    edge_attr[edges + e, 0] = 0.0
                    edge_attr[edges + e, 2] = 0.0
                    edge_attr[edges + e, 3] = gap
                    edge_attr[edges + e, 4] = k / window
                    e += 1
                edge_attr[edges + at, 0] += 1.0
                edge_attr[edges + at, 2] += gap
                edge_attr[edges + at, 3] = min(edge_attr[edges + at, 3], gap)
        entropy, largest = 0.0, 0.0
        for j in range(n):
            count = node_count[nodes + j]
            share = count / window
            for p in range(n_features):
                x[nodes + j, 3 * p] /= count
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
        for p in range(n_features):
            total, square = 0.0, 0.0
            low, high = features[first, p], features[first, p]
            for f in range(first, first + window):
                value = features[f, p]
                total += value
                low = min(low, value)
                high = max(high, value)
            mean = total / window
            for f in range(first, first + window):
                square += (features[f, p] - mean) ** 2
            statistics[w, 4 * p] = mean
            statistics[w, 4 * p + 1] = np.sqrt(square / window)
            statistics[w, 4 * p + 2] = low
            statistics[w, 4 * p + 3] = high
        statistics[w, 4 * n_features] = n
        statistics[w, 4 * n_features + 1] = largest
        statistics[w, 4 * n_features + 2] = entropy
        statistics[w, 4 * n_features + 3] = e
        statistics[w, 4 * n_features + 4] = window / span
        node_counts[w] = n
        edge_counts[w] = e
        nodes += n
        edges += e
    return nodes, edges
