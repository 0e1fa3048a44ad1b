"""Principal components of node features: what an autoencoder learns if it is linear and sees no edge."""

from collections.abc import Callable

import numpy as np
from sklearn.preprocessing import StandardScaler

from canids_shared.contracts.graph_store import GraphStore

_COMPONENTS = 16
_NODES = 200_000
"""Nodes of attack-free windows that it learns from, at most."""


def learn(
    fit: GraphStore, seed: int, learnt: np.ndarray | None = None
) -> Callable[[GraphStore, np.ndarray | None], np.ndarray]:
    """Learn from the nodes of attack-free windows, of all or of those `learnt` (bool [W]).

    The function returned gives the score, f64 [W] in [0, 1), of each window of a store, or of those that its second argument
    chooses (bool). It is e / (1 + e), e the mean over a window's nodes of the squared residual of their standardised features.
    """
    sizes = np.diff(np.asarray(fit["node_ptr"]))
    free = (np.asarray(fit["y"]) == 0) if learnt is None else (np.asarray(fit["y"]) == 0) & learnt
    rows = np.flatnonzero(np.repeat(free, sizes))
    if len(rows) > _NODES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _NODES, replace=False))
    x = np.asarray(fit["x"][rows], dtype=np.float64)
    scaler = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    # Of the largest variances, [F, K]; of few features not all, or nothing would be left over.
    components = np.linalg.eigh(scaled.T @ scaled)[1][:, -min(_COMPONENTS, max(1, x.shape[1] // 2)) :]

    def scores(store: GraphStore, chosen: np.ndarray | None = None) -> np.ndarray:
        sizes = np.diff(np.asarray(store["node_ptr"]))
        chosen = np.ones(len(sizes), dtype=bool) if chosen is None else chosen
        if not chosen.any():
            return np.zeros(0)
        nodes, counts = np.flatnonzero(np.repeat(chosen, sizes)), sizes[chosen]
        error = np.zeros(len(nodes))
        for first in range(0, len(error), _NODES):  # a store may be larger than memory
            part = nodes[first : first + _NODES]
            scaled = scaler.transform(np.asarray(store["x"][part], dtype=np.float64))
            residual = scaled - scaled @ components @ components.T
            error[first : first + _NODES] = (residual**2).mean(axis=1)
        mean = np.add.reduceat(error, np.cumsum(counts) - counts) / counts
        return np.asarray(mean / (1 + mean))

    return scores
