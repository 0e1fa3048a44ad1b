"""Graphs of windows without their features: nodes and edges, labels, statistics of the whole window.

A window's nodes are its arbitration IDs, in the order of their first frames; an edge leads from one ID to another where a
frame of the one is followed by a frame of the other, in the order in which the pairs first occur. So renaming the IDs
changes nothing. Both kinds of features (`relative`, `published`) fill in what nodes and edges hold.

Compiled loops keep the constants that they use in their own file, since Numba's cache does not notice a change in another
one; for the same reason the fields of `Topology` keep their order.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

SUMMARIES = ("mean", "std", "min", "max")


class Topology(NamedTuple):
    """Nodes and edges of W windows; their frames [n] lie one window behind the other, so overlapping windows repeat some.

    Attributes:
        node_of_frame, edge_of_frame: int16 [n], counted within the window; the edge leads from the frame before to this
            one, and is -1 for a window's first frame.
        first_frame: int64 [ΣN] first frame of each node.
        node_count: int32 [ΣN] frames of each node.
        source, target: int16 [ΣE] nodes of each edge.
        reciprocal: bool [ΣE], whether the opposite edge exists.
        node_counts, edge_counts: int64 [W].
    """

    node_of_frame: np.ndarray
    edge_of_frame: np.ndarray
    first_frame: np.ndarray
    node_count: np.ndarray
    source: np.ndarray
    target: np.ndarray
    reciprocal: np.ndarray
    node_counts: np.ndarray
    edge_counts: np.ndarray


def topology_of(id_index: np.ndarray, n_ids: int, starts: np.ndarray, stops: np.ndarray) -> Topology:
    """Nodes and edges of the windows `starts[w]:stops[w]`.

    Args:
        id_index: int32 [frames] index of each frame's ID, below `n_ids`.
        n_ids: number of IDs.
        starts, stops: int64 [W] first frame of each window, and the one behind its last.
    """
    n, windows = int((stops - starts).sum()), len(starts)
    # Every frame may begin a node and an edge; what is left over is cut off.
    types = (np.int16, np.int16, np.int64, np.int32, np.int16, np.int16, np.bool_)
    whole = Topology(*(np.empty(n, kind) for kind in types), *(np.empty(windows, np.int64) for _ in range(2)))
    nodes, edges = _topology(id_index, n_ids, starts, stops, whole)
    of_nodes = {name: getattr(whole, name)[:nodes] for name in ("first_frame", "node_count")}
    of_edges = {name: getattr(whole, name)[:edges] for name in ("source", "target", "reciprocal")}
    return whole._replace(**of_nodes, **of_edges)


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _topology(
    id_index: np.ndarray, n_ids: int, starts: np.ndarray, stops: np.ndarray, graph: Topology
) -> tuple[int, int]:
    """Fill the arrays of `graph`; returns how many nodes and edges there are."""
    # Two tables answer "is this ID, is this pair in the window already?". They are allocated once, and after each window
    # only the places that it used are cleared: a vehicle has many more IDs and pairs than one window.
    most = min((stops - starts).max(), n_ids)
    node_of_id = np.full(n_ids, -1, np.int32)
    edge_of_pair = np.full((most, most), -1, np.int32)
    nodes, edges, row = 0, 0, 0
    for w in range(len(starts)):
        n, e, before = 0, 0, -1  # nodes and edges of this window so far, and the node of the frame before
        for f in range(starts[w], stops[w]):
            here = node_of_id[id_index[f]]
            if here < 0:
                here = n
                node_of_id[id_index[f]] = n
                graph.first_frame[nodes + n] = f
                graph.node_count[nodes + n] = 0
                n += 1
            graph.node_count[nodes + here] += 1
            graph.node_of_frame[row] = here
            edge = -1
            if before >= 0:
                edge = edge_of_pair[before, here]
                if edge < 0:
                    edge = e
                    edge_of_pair[before, here] = e
                    graph.source[edges + e] = before
                    graph.target[edges + e] = here
                    e += 1
            graph.edge_of_frame[row] = edge
            before = here
            row += 1
        # Only now are all edges known, so that opposite ones can be looked up. Then both tables are cleared.
        for j in range(edges, edges + e):
            graph.reciprocal[j] = edge_of_pair[graph.target[j], graph.source[j]] >= 0
        for j in range(edges, edges + e):
            edge_of_pair[graph.source[j], graph.target[j]] = -1
        for j in range(nodes, nodes + n):
            node_of_id[id_index[graph.first_frame[j]]] = -1
        graph.node_counts[w] = n
        graph.edge_counts[w] = e
        nodes += n
        edges += e
    return nodes, edges


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def label(
    labels: np.ndarray, attacks: np.ndarray, timestamp: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels of the windows `starts[w]:stops[w]` by their frames' labels (1, 0, -1 unknown) [n] and attacks [n].

    A window is attacked if any of its frames is, else unknown if any is; of several attacks the highest index counts.
    Returns label, number of attacked frames, attack, first and last time, each [W].
    """
    windows = len(starts)
    y, n_attacked, attack = np.empty(windows, np.int8), np.empty(windows, np.int32), np.empty(windows, np.int16)
    t_start, t_end = np.empty(windows), np.empty(windows)
    for w in range(len(starts)):
        first = starts[w]
        count, unknown, kind, low, high = 0, 0, attacks[first], timestamp[first], timestamp[first]
        for f in range(first, stops[w]):
            count += labels[f] == 1
            unknown += labels[f] < 0
            kind = max(kind, attacks[f])
            # Timestamps may step back a little, so the window's times are not those of its first and last frame.
            low = min(low, timestamp[f])
            high = max(high, timestamp[f])
        y[w] = 1 if count else (-1 if unknown else 0)
        n_attacked[w] = count
        attack[w] = kind
        t_start[w] = low
        t_end[w] = high
    return y, n_attacked, attack, t_start, t_end


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def summarise(features: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Statistics of each window, float32 [W, 4 P]: `SUMMARIES` of each of P frame features."""
    n_features = features.shape[1]
    out = np.empty((len(starts), 4 * n_features), np.float32)
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
        # A second pass for the deviations: sums of squares alone would lose their digits where the mean is large.
        for f in range(first, stops[w]):
            for p in range(n_features):
                square[p] += (features[f, p] - mean[p]) ** 2
        for p in range(n_features):
            out[w, 4 * p] = mean[p]
            out[w, 4 * p + 1] = np.sqrt(square[p] / window)
            out[w, 4 * p + 2] = low[p]
            out[w, 4 * p + 3] = high[p]
    return out
