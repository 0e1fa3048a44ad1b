"""Drift of traffic from what the detectors were trained on, overall and by arbitration ID.

Node features of windows without an alarm are standardised with mean and spread of the attack-free windows of the training split
`fit`: those of the dataset's own captures, where it has any. Drift is the root mean square, over the features, of their means: 0
is no drift, 1 is on average a training standard deviation.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from canids_evaluate.watch.attribution import name_of
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError

OVERALL, OF_AN_ID = 0.5, 2.0
"""Drift above which there is a warning. Single IDs differ more from the mean of all nodes, so their limit is higher."""
_ENDS = 0.4
"""Drift below which a warning ends; the distance to `OVERALL` keeps it from flapping."""
_BLOCK, _BLOCKS = 100, 10
"""Windows that are summed together, and blocks that are kept, on a followed bus. Drift of a hundred windows of a vehicle lies within
0.1 of that of all of its windows."""
_NAMED = 10
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


@dataclass(frozen=True)
class FeatureSums:
    """Sums over nodes by arbitration ID: IDs [I], number of nodes [I], sum of the standardised features [I, F]."""

    ids: np.ndarray
    count: np.ndarray
    total: np.ndarray

    @classmethod
    def by_id(cls, ids: np.ndarray, count: np.ndarray, total: np.ndarray) -> "FeatureSums":
        """Add up rows [n] that belong to the same ID."""
        # [I] and [n]: one weighted count per column adds up the rows of each ID.
        unique, place = np.unique(ids, return_inverse=True)
        added = [np.bincount(place, weights=column, minlength=len(unique)) for column in (count, *total.T)]
        return cls(unique, added[0], np.stack(added[1:], axis=1))

    @classmethod
    def joined(cls, parts: Iterable["FeatureSums"]) -> "FeatureSums":
        """The sums of several parts together."""
        ids, count, total = zip(*((part.ids, part.count, part.total) for part in parts), strict=True)
        return cls.by_id(np.concatenate(ids), np.concatenate(count), np.concatenate(total))


class TrainingReference:
    """Mean and spread [F] of the node features in the attack-free windows of a training split."""

    def __init__(self, fit: GraphStore, names: list[str], where: Any) -> None:
        """Raises `CanidsError` if the split has other node features than these `names` of `where`, or no attack-free window."""
        if names != fit.header["node_features"]:
            raise CanidsError(f"{where}: other node features than {fit.path}")
        normal = fit["y"] == 0  # [W]
        recorded = normal & ~fit.is_auxiliary
        chosen = recorded if recorded.any() else normal
        if not chosen.any():
            raise CanidsError(f"{fit.path}: no attack-free window")
        # First and second moments, a chunk of nodes at a time: the split may be larger than memory.
        count, total, squares = 0, np.zeros(len(names)), np.zeros(len(names))
        for rows in _nodes(fit, chosen):
            x = np.asarray(fit["x"][rows], dtype=np.float64)  # [n, F]
            count, total, squares = count + len(x), total + x.sum(axis=0), squares + (x**2).sum(axis=0)
        self.names, self.mean = names, total / count
        self.spread = np.maximum(np.sqrt(np.maximum(squares / count - self.mean**2, 0)), 1e-2)

    def sums(self, ids: np.ndarray, x: np.ndarray) -> FeatureSums:
        """Sums over nodes with these IDs [n] and features [n, F]; outliers are clipped, or a few would make the mean."""
        return FeatureSums.by_id(ids, np.ones(len(ids)), np.clip((x - self.mean) / self.spread, -_CLIP, _CLIP))

    def drift(self, parts: Iterable[FeatureSums]) -> Drift:
        """Drift of the windows that these sums are over."""
        sums = FeatureSums.joined(parts)
        moved = sums.total.sum(axis=0) / sums.count.sum()  # [F]
        by_id = dict(zip(sums.ids.tolist(), _rms(sums.total / sums.count[:, None]).tolist(), strict=True))
        most = np.argsort(-np.abs(moved))[:3]
        return Drift(
            float(_rms(moved)),
            {self.names[i]: float(moved[i]) for i in most},
            dict(sorted(by_id.items(), key=lambda item: -item[1])),
        )


def measure(store: GraphStore, normal: np.ndarray, fit: GraphStore) -> Drift:
    """Drift of the windows of `store` without an alarm (`normal`, bool [W]) from the training split.

    Raises `CanidsError` if the two have other features, or there is nothing to compare.
    """
    reference = TrainingReference(fit, store.header["node_features"], store.path)
    if not normal.any():
        raise CanidsError("every window raises an alarm")
    return from_reference(reference, store, normal)


def from_reference(reference: TrainingReference, store: GraphStore, normal: np.ndarray) -> Drift:
    """Drift of the windows `normal` (bool [W], one at least) of a store."""
    return reference.drift([reference.sums(store["node_id"][rows], store["x"][rows]) for rows in _nodes(store, normal)])


class RecentDrift:
    """Drift of a followed bus: of its last thousand windows without an alarm, computed every hundred.

    Attributes:
        on: whether there is drift; times: how often it has begun.
    """

    def __init__(self, reference: TrainingReference) -> None:
        self.on, self.times = False, 0
        self._reference = reference
        self._blocks: deque[FeatureSums] = deque(maxlen=_BLOCKS)
        self._next: list[tuple[np.ndarray, np.ndarray]] = []
        self._windows = 0

    def update(self, windows: int, ids: np.ndarray, x: np.ndarray) -> Drift | None:
        """Add windows without an alarm, by IDs [n] and features [n, F] of their nodes; returns the drift where it begins or ends."""
        self._next.append((ids, x))
        self._windows += windows
        if self._windows < _BLOCK:
            return None
        self._close_block()
        drift = self._reference.drift(self._blocks)
        # Begins above the upper limit and ends below the lower one; in between it stays as it is.
        if self.on == (drift.overall > (_ENDS if self.on else OVERALL)):
            return None
        self.on = not self.on
        self.times += self.on
        return drift

    def drift(self) -> Drift | None:
        """Drift of the last windows; None if none came without an alarm."""
        if self._next:
            self._close_block()
        return self._reference.drift(self._blocks) if self._blocks else None

    def _close_block(self) -> None:
        ids, x = (np.concatenate(part) for part in zip(*self._next, strict=True))
        self._blocks.append(self._reference.sums(ids, x))
        self._next, self._windows = [], 0


def in_words(drift: Drift | str) -> list[str]:
    """Drift, or the reason why it is unknown, in sentences; a warning begins in bold."""
    if isinstance(drift, str):
        return [f"Not known: {drift}."]
    moved = ", ".join(f"{name} {by:+.1f}" for name, by in drift.features.items())
    far = {i: by for i, by in drift.by_id.items() if by > OF_AN_ID}
    warn = drift.overall > OVERALL
    sentences = [
        ("**Warning**: this traffic is unlike what the detectors were trained on. " if warn else "")
        + f"Overall {drift.overall:.2f} standard deviations of the training traffic (warning above {OVERALL}); most in {moved}."
    ]
    if warn:
        sentences.append(
            "Thresholds may not hold: calibrate them on the capture's first, attack-free seconds (`recalibrate`)."
        )
    if far:
        names = ", ".join(f"{name_of(i)} ({by:.1f})" for i, by in list(far.items())[:_NAMED])
        sentences.append(f"{len(far)} arbitration IDs beyond {OF_AN_ID}: {names}.")
    return sentences


def _nodes(store: GraphStore, windows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of the nodes of the flagged windows (bool [W]), a chunk at a time."""
    flagged = np.repeat(windows, np.diff(store["node_ptr"]))
    for begin in range(0, len(flagged), _CHUNK):
        rows = begin + np.flatnonzero(flagged[begin : begin + _CHUNK])
        if len(rows):
            yield rows


def _rms(values: np.ndarray) -> np.ndarray:
    """Root mean square over the last axis."""
    return np.asarray(np.sqrt((values**2).mean(axis=-1)))
