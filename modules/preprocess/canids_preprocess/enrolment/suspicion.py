"""Whether traffic that a vehicle is enrolled by itself looks attacked, as far as rates and intervals say so.

Thresholds were set on the development captures: 14 attack-free ones of six vehicles, twelve attacked ones of four (the README of this
module has the figures). An injection much slower than the frames of the ID itself leaves no trace here.
"""

import numpy as np

from canids_preprocess.features.frame_kernel import FRAME_FEATURES, SEEN
from canids_preprocess.features.relative import BusState
from canids_preprocess.windowing.frames import Frames

_BUSIER, _QUIETER = 1.1, 0.8
"""Frames in one second, in units of what is usual, beyond which the bus's pace changes."""
_FASTER, _OFTEN = 1.5, 5
"""The same for one arbitration ID; and frames a second from which on it has a rate."""
_EARLY, _EARLY_SHARE = -1.0, 0.0025
"""`interval_ratio` of a frame that comes in less than half of its ID's interval; share of such frames that is suspicious."""
_FEW, _MANY = 5, 0.25
"""Sightings that are few; share of the IDs that may have so few."""
_FROM_S, _INTERVALS, _SIGHTINGS = 2.0, 20.0, 32
"""An ID is new in the middle if it comes after so many seconds, and so many of its own intervals, and so often afterwards."""
_FEWEST_S = 5
"""Whole seconds from which on rates are compared."""


class TrafficRates:
    """Frames of one bus by second and arbitration ID."""

    def __init__(self) -> None:
        self._counts: list[tuple[np.ndarray, np.ndarray]] = []  # keys (second × 2^32 + ID), and how often each
        self._partial: list[int] = []  # seconds that are not whole
        self._begin, self._last, self._next = 0.0, -1, 0
        self._frames = self._early = 0

    def begin(self, time: float) -> None:
        """Begin a stretch of traffic at `time` (s)."""
        self.end()
        self._begin = time

    def end(self) -> None:
        """End a stretch: its last second is not a whole one."""
        if self._last >= self._next:
            self._partial.append(self._last)
        self._next = self._last + 1

    def add(self, frames: Frames, features: np.ndarray) -> None:
        """Count frames of the stretch, with their frame features [n, P]."""
        second = self._next + np.maximum(frames["timestamp"] - self._begin, 0.0).astype(np.int64)
        self._counts.append(np.unique(second << 32 | frames["node_id"], return_counts=True))
        self._last = max(self._last, int(second.max()))
        self._frames += len(second)
        self._early += int(np.count_nonzero(features[:, FRAME_FEATURES.index("interval_ratio")] < _EARLY))

    def warnings(self, state: BusState) -> list[str]:
        """One sentence for each thing about the traffic that looks like an attack; `state` is what was learnt of it."""
        self.end()
        found = self._rates()
        if self._early > _EARLY_SHARE * self._frames:
            found.append(
                f"{self._early / self._frames:.1%} of the frames come in less than half of their ID's interval"
            )
        rows = state.by_id.state[: state.ids.count]
        few = int((rows[:, SEEN] <= _FEW).sum())
        if few > max(_MANY * len(rows), _FEW):
            found.append(f"{few} of {len(rows)} arbitration IDs were seen {_FEW} times or less, as random ones are")
        newcomers = self._new_in_the_middle(state)
        if len(newcomers):
            found.append(f"began long after the others, and was frequent then: {_names(newcomers)}")
        return found

    def _rates(self) -> list[str]:
        """Warnings about frames a second."""
        if not self._counts:
            return []
        keys, inverse = np.unique(np.concatenate([k for k, _ in self._counts]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([n for _, n in self._counts]))
        second, ids = keys >> 32, keys & 0xFFFFFFFF
        whole = ~np.isin(np.arange(self._last + 1), self._partial)
        if whole.sum() < _FEWEST_S:
            return []
        found = []
        pace = np.bincount(second, counts, self._last + 1)[whole]
        low, high = pace.min() / np.median(pace), pace.max() / np.median(pace)
        if high > _BUSIER or low < _QUIETER:
            found.append(f"the bus carries {low:.2f} to {high:.2f} times its usual number of frames in single seconds")
        # Only an ID that comes in every other second has a median; a row for each of these.
        known, row = np.unique(ids, return_inverse=True)
        regular = np.flatnonzero(np.bincount(row) * 2 >= self._last + 1)
        of_id = np.zeros((len(regular), self._last + 1))
        chosen = np.isin(row, regular)
        of_id[np.searchsorted(regular, row[chosen]), second[chosen]] = counts[chosen]
        usual, most = np.median(of_id[:, whole], axis=1), of_id[:, whole].max(axis=1)
        if (faster := (usual >= _OFTEN) & (most > _FASTER * usual)).any():
            ratio = float((most[faster] / usual[faster]).max())
            found.append(
                f"up to {ratio:.1f} times as many frames as usual in a second: {_names(known[regular[faster]])}"
            )
        return found

    @staticmethod
    def _new_in_the_middle(state: BusState) -> np.ndarray:
        """The IDs that were silent for long and frequent then."""
        seen, since, interval = state.sightings()
        new = (since > _FROM_S) & (since > _INTERVALS * interval) & (seen >= _SIGHTINGS)
        ids: np.ndarray = state.ids.ids()[new]
        return ids


def _names(ids: np.ndarray) -> str:
    return ", ".join(id_name(int(i)) for i in ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")


def id_name(node_id: int) -> str:
    """An arbitration ID (bit 31: 29-bit) as logs write it."""
    return f"{node_id & 0x1FFFFFFF:08X}" if node_id >> 31 else f"{node_id:03X}"
