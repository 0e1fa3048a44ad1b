"""How far traffic has drifted from what the detectors were trained on, overall and for every arbitration ID.

Node features of windows without an alarm are standardised with mean and spread of the attack-free windows of the training split
`fit`, those of the dataset's own captures where it has any. Drift is the displacement of their mean, root mean square over the
features: 0, no drift; 1, on average a training standard deviation.
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
"""Drift from which on there is a warning. Single IDs differ from the average of all, so they may lie further off."""
_OVER = 0.4
"""Drift below which one that was warned of is over; between the two it stays as it is, or it would come and go."""
_BLOCK, _BLOCKS = 100, 10
"""Of a bus's last windows, sums of so many each are kept, so many at most. Drift of a hundred windows of a vehicle lies within 0.1 of
that of all."""
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
class Sums:
    """Of the nodes of some windows: their arbitration IDs [I], and by ID their number [I] and standardised features added up [I, F]."""

    ids: np.ndarray
    count: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, count: np.ndarray, total: np.ndarray) -> "Sums":
        """Rows [n] of which several may be of one ID."""
        own, place = np.unique(ids, return_inverse=True)
        added = [np.bincount(place, weights=column, minlength=len(own)) for column in (count, *total.T)]
        return cls(own, added[0], np.stack(added[1:], axis=1))

    @classmethod
    def joined(cls, parts: Iterable["Sums"]) -> "Sums":
        """Those of all the windows together."""
        ids, count, total = zip(*((part.ids, part.count, part.total) for part in parts), strict=True)
        return cls.of(np.concatenate(ids), np.concatenate(count), np.concatenate(total))


class Usual:
    """Node features of what is usual in a training split: `mean` and `spread` [F]."""

    def __init__(self, fit: GraphStore, names: list[str], where: Any) -> None:
        """Raises `CanidsError` if the split has other node features than these `names` of `where`, or only attacks."""
        if names != fit.header["node_features"]:
            raise CanidsError(f"{where}: other node features than {fit.path}")
        captures, auxiliary_captures = fit.header["captures"], fit.header.get("auxiliary_captures", [])
        usual = fit["y"] == 0
        own = usual & ~np.isin(fit["capture"], [captures.index(name) for name in auxiliary_captures])
        chosen = own if own.any() else usual
        if not chosen.any():
            raise CanidsError(f"{fit.path}: no attack-free window")
        count, total, squares = 0, np.zeros(len(names)), np.zeros(len(names))
        for rows in _nodes(fit, chosen):
            x = np.asarray(fit["x"][rows], dtype=np.float64)
            count, total, squares = count + len(x), total + x.sum(axis=0), squares + (x**2).sum(axis=0)
        self.names, self.mean = names, total / count
        self.spread = np.maximum(np.sqrt(np.maximum(squares / count - self.mean**2, 0)), 1e-2)

    def sums(self, ids: np.ndarray, x: np.ndarray) -> Sums:
        """Of nodes with these IDs [n] and features [n, F]."""
        return Sums.of(ids, np.ones(len(ids)), np.clip((x - self.mean) / self.spread, -_CLIP, _CLIP))

    def drift(self, parts: Iterable[Sums]) -> Drift:
        """Of the windows behind these sums."""
        found = Sums.joined(parts)
        moved = found.total.sum(axis=0) / found.count.sum()
        by_id = dict(zip(found.ids.tolist(), _rms(found.total / found.count[:, None]).tolist(), strict=True))
        most = np.argsort(-np.abs(moved))[:3]
        return Drift(
            float(_rms(moved)),
            {self.names[i]: float(moved[i]) for i in most},
            dict(sorted(by_id.items(), key=lambda item: -item[1])),
        )


def measure(store: GraphStore, quiet: np.ndarray, fit: GraphStore) -> Drift:
    """Drift of the windows flagged in `quiet` (bool [W]) of `store` from the training split.

    Raises `CanidsError` if the two have other features, or there is nothing to compare.
    """
    usual = Usual(fit, store.header["node_features"], store.path)
    if not quiet.any():
        raise CanidsError("every window raises an alarm")
    return usual.drift([usual.sums(store["node_id"][rows], store["x"][rows]) for rows in _nodes(store, quiet)])


class Recent:
    """Drift of a bus that is followed: of its last thousand windows without an alarm, looked at every hundred.

    Attributes:
        on: whether there is drift; times: how often it has begun.
    """

    def __init__(self, usual: Usual) -> None:
        self.on, self.times = False, 0
        self._usual = usual
        self._blocks: deque[Sums] = deque(maxlen=_BLOCKS)
        self._next: list[tuple[np.ndarray, np.ndarray]] = []
        self._windows = 0

    def see(self, windows: int, ids: np.ndarray, x: np.ndarray) -> Drift | None:
        """The next windows without an alarm, by IDs [n] and features [n, F] of their nodes; the drift where it begins or ends."""
        self._next.append((ids, x))
        self._windows += windows
        if self._windows < _BLOCK:
            return None
        self._close()
        found = self._usual.drift(self._blocks)
        if self.on == (found.overall > (_OVER if self.on else OVERALL)):
            return None
        self.on = not self.on
        self.times += self.on
        return found

    def drift(self) -> Drift | None:
        """Of the last windows; None where none came without an alarm."""
        if self._next:
            self._close()
        return self._usual.drift(self._blocks) if self._blocks else None

    def _close(self) -> None:
        ids, x = (np.concatenate(part) for part in zip(*self._next, strict=True))
        self._blocks.append(self._usual.sums(ids, x))
        self._next, self._windows = [], 0


def in_words(found: Drift | str) -> list[str]:
    """Drift, or why it is not known, in sentences; what warns begins in bold."""
    if isinstance(found, str):
        return [f"Not known: {found}."]
    moved = ", ".join(f"{name} {by:+.1f}" for name, by in found.features.items())
    far = {i: by for i, by in found.by_id.items() if by > OF_AN_ID}
    warn = found.overall > OVERALL
    said = [
        ("**Warning**: this traffic is unlike what the detectors were trained on. " if warn else "")
        + f"Overall {found.overall:.2f} standard deviations of the training traffic (warning above {OVERALL}); most in {moved}."
    ]
    if warn:
        said.append(
            "Thresholds may not hold: set them anew on the capture's first, attack-free seconds (`recalibrate`)."
        )
    if far:
        names = ", ".join(f"{name_of(i)} ({by:.1f})" for i, by in list(far.items())[:_NAMED])
        said.append(f"{len(far)} arbitration IDs beyond {OF_AN_ID}: {names}.")
    return said


def _nodes(store: GraphStore, windows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of the nodes of the flagged windows (bool [W]), a chunk at a time."""
    ptr = store["node_ptr"]
    flagged = np.repeat(windows, np.diff(ptr))
    for begin in range(0, len(flagged), _CHUNK):
        rows = begin + np.flatnonzero(flagged[begin : begin + _CHUNK])
        if len(rows):
            yield rows


def _rms(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    return np.asarray(np.sqrt((values**2).mean(axis=-1)))
