"""A rule without a network: the arbitration IDs on the bus, and the number of frames of each in a window."""

from dataclasses import dataclass

import numpy as np

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError


@dataclass(frozen=True)
class IdRate:
    """Arbitration IDs of attack-free traffic.

    Attributes:
        ids: u32 [K], sorted.
        highest: i64 [K], the most frames of that ID in one attack-free window.
    """

    ids: np.ndarray
    highest: np.ndarray

    def score(self, store: GraphStore) -> np.ndarray:
        """Score of each window, f64 [W] in [0, 1]: 0 where every ID is known and none is more frequent than it was.

        With `u` the share of frames whose ID is unknown and `e` the largest relative excess of a known ID's count over
        its highest, the score is `1 - (1 - u) / (1 + e)`.
        """
        window, ids, count = _nodes(store)  # [ΣN] each
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        known = self.ids[place] == ids
        frames = np.bincount(window, weights=count, minlength=len(store))
        unknown = np.bincount(window, weights=np.where(known, 0, count), minlength=len(store))
        # Of a window, the ID that is most above its highest count counts.
        excess = np.zeros(len(store))
        np.maximum.at(excess, window, np.where(known, count / self.highest[place] - 1, 0))
        return np.asarray(1 - (1 - unknown / np.maximum(frames, 1)) / (1 + excess))


def _nodes(store: GraphStore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per node: its window, its arbitration ID, its number of frames."""
    window = np.repeat(np.arange(len(store)), np.diff(store["node_ptr"]))
    return window, np.asarray(store["node_id"]), np.asarray(store["node_count"], dtype=np.int64)


def learn(store: GraphStore) -> IdRate:
    """Learn the table from the attack-free windows of `fit`, auxiliary captures left out.

    Raises `CanidsError` if there is none.
    """
    window, ids, count = _nodes(store)
    free = ((np.asarray(store["y"]) == 0) & ~store.is_auxiliary)[window]
    if not free.any():
        raise CanidsError(f"{store.path}: no attack-free window; give the dataset an attack-free training capture")
    # Most frames of each ID in one attack-free window.
    known, place = np.unique(ids[free], return_inverse=True)
    highest = np.zeros(len(known), dtype=np.int64)
    np.maximum.at(highest, place, count[free])
    return IdRate(known, highest)
