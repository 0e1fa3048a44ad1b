"""How far traffic has drifted from what the detectors were trained on, overall and for every arbitration ID.

Node features of windows without an alarm are standardised with mean and spread of the attack-free windows of the training split
`fit`, those of the dataset's own captures where it has any. Drift is the displacement of their mean, root mean square over the
features: 0, no drift; 1, on average a training standard deviation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphStore

OVERALL, OF_AN_ID = 0.5, 2.0
"""Drift from which on there is a warning. Single IDs differ from the average of all, so they may lie further off."""
_CLIP = 5.0
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Drift:
    """Displacement of the features' means, in training standard deviations.

    Attributes:
        overall: of all nodes; features: the three that moved most, with their displacement.
        by_id: arbitration ID → drift, the largest first.
    """

    overall: float
    features: dict[str, float]
    by_id: dict[int, float]


def measure(store: GraphStore, quiet: np.ndarray, fit: GraphStore) -> Drift:
    """Drift of the windows flagged in `quiet` (bool [W]) of `store` from the training split.

    Raises `CanidsError` if the two have other features, or there is nothing to compare.
    """
    names = store.header["node_features"]
    if names != fit.header["node_features"]:
        raise CanidsError(f"{store.path}: other node features than {fit.path}")
    if not quiet.any():
        raise CanidsError("every window raises an alarm")
    mean, spread = _usual(fit)
    ids, place = np.unique(store["node_id"], return_inverse=True)
    total, count = np.zeros((len(ids), len(names))), np.zeros(len(ids))
    for rows in _nodes(store, quiet):
        standard = np.clip((store["x"][rows] - mean) / spread, -_CLIP, _CLIP)
        count += np.bincount(place[rows], minlength=len(ids))
        for column in range(len(names)):
            total[:, column] += np.bincount(place[rows], weights=standard[:, column], minlength=len(ids))
    moved = total.sum(axis=0) / count.sum()
    seen = np.flatnonzero(count)
    by_id = {int(ids[i]): _rms(total[i] / count[i]) for i in seen}
    most = np.argsort(-np.abs(moved))[:3]
    return Drift(
        _rms(moved),
        {names[i]: float(moved[i]) for i in most},
        dict(sorted(by_id.items(), key=lambda item: -item[1])),
    )


def _usual(fit: GraphStore) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of the node features of what is usual in the training split."""
    captures, companions = fit.header["captures"], fit.header.get("companions", [])
    usual = fit["y"] == 0
    own = usual & ~np.isin(fit["capture"], [captures.index(name) for name in companions])
    chosen = own if own.any() else usual
    if not chosen.any():
        raise CanidsError(f"{fit.path}: no attack-free window")
    width = len(fit.header["node_features"])
    count, total, squares = 0, np.zeros(width), np.zeros(width)
    for rows in _nodes(fit, chosen):
        x = np.asarray(fit["x"][rows], dtype=np.float64)
        count, total, squares = count + len(x), total + x.sum(axis=0), squares + (x**2).sum(axis=0)
    mean = total / count
    return mean, np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1e-2)


def _nodes(store: GraphStore, windows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of the nodes of the flagged windows (bool [W]), a chunk at a time."""
    ptr = store["node_ptr"]
    flagged = np.repeat(windows, np.diff(ptr))
    for begin in range(0, len(flagged), _CHUNK):
        rows = begin + np.flatnonzero(flagged[begin : begin + _CHUNK])
        if len(rows):
            yield rows


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
