"""How far traffic has drifted from what the detectors were trained on, overall and for every arbitration ID.

Node features of windows without an alarm are standardised with mean and spread of the training split `fit`. Drift is the
displacement of their mean, root mean square over the features: 0, no drift; 1, on average a training standard deviation.
"""

from dataclasses import dataclass

import numpy as np

from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphStore

OVERALL, OF_AN_ID = 0.5, 2.0
"""Drift from which on there is a warning. Single IDs differ from the average of all, so they may lie further off."""
_CLIP = 5.0
_CHUNK = 1 << 20


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
    """Drift of the windows `quiet` [n] of `store` from the training split.

    Raises `CanidsError` if the two have other features, or no window is left.
    """
    names = store.header["node_features"]
    if names != fit.header["node_features"]:
        raise CanidsError(f"{store.path}: other node features than {fit.path}; were both made with the same config?")
    if not len(quiet):
        raise CanidsError(f"{store.path}: every window raises an alarm, so there is no traffic to compare")
    x, count = fit["x"], len(fit["x"])
    parts = [np.asarray(x[i : i + _CHUNK], dtype=np.float64) for i in range(0, count, _CHUNK)]
    mean = sum(p.sum(axis=0) for p in parts) / count
    spread = np.sqrt(sum(((p - mean) ** 2).sum(axis=0) for p in parts) / count)
    of_window = np.repeat(np.arange(len(store)), np.diff(store["node_ptr"]))
    rows = np.flatnonzero(np.isin(of_window, quiet))
    standard = np.clip((store["x"][rows] - mean) / np.maximum(spread, 1e-4), -_CLIP, _CLIP)
    moved = standard.mean(axis=0)
    ids = store["node_id"][rows]
    by_id = {int(i): _rms(standard[ids == i].mean(axis=0)) for i in np.unique(ids)}
    most = np.argsort(-np.abs(moved))[:3]
    return Drift(
        _rms(moved),
        {names[i]: float(moved[i]) for i in most},
        dict(sorted(by_id.items(), key=lambda item: -item[1])),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
