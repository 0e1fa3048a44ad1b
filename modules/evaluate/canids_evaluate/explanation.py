"""Which arbitration IDs carried an alarm, and how they differ there from their own past.

Of every ID, its node features in the alarmed windows are set against those in the windows before that raised no alarm. A
feature's deviation is the difference of the means in standard deviations of the past, which count as at least
`FLOOR` of the spread over all IDs: an ID that never varies would otherwise make much of nothing.
"""

from dataclasses import dataclass

import numpy as np

from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphStore

FEATURES = (
    "interval_ratio_mean",
    "payload_deviation_mean",
    "novel_bits_mean",
    "dlc_changed_mean",
    "first_sighting_max",
)
"""Node features (README of preprocess) by which an ID is judged."""
FLOOR = 0.25
PAST = 8
"""Quiet windows with an ID that make a past to compare with."""
_NEW_NAMED = 2
"""IDs without a past that are named; of random ones there are hundreds."""

_TELLING = 3.0
"""Deviations below, in standard deviations, say nothing, unless nothing else is there to be said."""


@dataclass(frozen=True)
class Suspect:
    """An ID in an alarm.

    Attributes:
        can_id: with bit 31 for a 29-bit one.
        frames, frames_per_s: in the alarm; usual_frames_per_s: before it.
        interval: how long its intervals are, as a multiple of the usual ones.
        novel_bits: share of the payload's bits that change and never had before.
        deviation: the largest deviation of a feature, in standard deviations; infinite for an ID without a past.
        what: the same in words.
    """

    can_id: int
    frames: int
    frames_per_s: float
    usual_frames_per_s: float
    interval: float
    novel_bits: float
    deviation: float
    what: str


def name_of(can_id: int) -> str:
    """An arbitration ID as candump writes it: three hexadecimal digits, eight for a 29-bit one."""
    return f"{can_id & 0x1FFFFFFF:08X}" if can_id >> 31 else f"{can_id:03X}"


def columns_of(store: GraphStore) -> dict[str, int]:
    """Place of each of `FEATURES` in `x`; raises `CanidsError` if the store was made with other features."""
    names = store.header["node_features"]
    if absent := [f for f in FEATURES if f not in names]:
        raise CanidsError(f"{store.path}: no node feature '{absent[0]}'; alarms are explained with features: relative")
    return {f: names.index(f) for f in FEATURES}


class Explainer:
    """Explains alarms of one store."""

    def __init__(self, store: GraphStore) -> None:
        self.store = store
        self._columns = list(columns_of(store).values())
        x = store["x"]
        self._spread = np.maximum(x[:, self._columns].std(axis=0), 1e-3) if len(x) else np.ones(len(self._columns))
        window = np.repeat(np.arange(len(store)), np.diff(store["node_ptr"]))
        key = store["capture"][window].astype(np.int64) << 32 | store["node_id"]
        found, first, place = np.unique(key, return_index=True, return_inverse=True)
        self._key, self._first = key, window[first][place] if len(found) else window

    def _rows(self, windows: np.ndarray) -> np.ndarray:
        """Rows of the nodes of the windows [n]."""
        ptr = self.store["node_ptr"]
        begin, count = ptr[windows], ptr[windows + 1] - ptr[windows]
        return np.repeat(begin - (np.cumsum(count) - count), count) + np.arange(count.sum())

    def newcomers(self, alarmed: np.ndarray) -> tuple[int, float]:
        """How many IDs of the alarmed windows [n] the capture did not have before the first of them, and their frames a second."""
        store, rows = self.store, self._rows(alarmed)
        new = rows[self._first[rows] >= alarmed[0]]
        seconds = float((store["t_end"][alarmed] - store["t_start"][alarmed]).sum())
        return len(np.unique(self._key[new])), float(store["node_count"][new].sum()) / max(seconds, 1e-9)

    def suspects(self, alarmed: np.ndarray, past: np.ndarray, most: int) -> list[Suspect]:
        """IDs of the alarmed windows [n] against quiet windows [m] before them, `most` at most.

        First the busiest of those without a past, then the others, the most deviant first. None where there are fewer than
        `PAST` quiet windows to compare with.
        """
        store = self.store
        if len(past) < PAST:
            return []
        duration, quiet_s = (float((store["t_end"][w] - store["t_start"][w]).sum()) for w in (alarmed, past))
        here, before = self._rows(alarmed), self._rows(past)
        ids, counts = store["node_id"], store["node_count"]
        found = []
        for can_id in np.unique(ids[here]):
            rows, old = here[ids[here] == can_id], before[ids[before] == can_id]
            x = store["x"][rows][:, self._columns].astype(np.float64)
            now = (counts[rows] / counts[rows].sum()) @ x
            deviation = np.inf
            if len(old) >= PAST:
                usual = store["x"][old][:, self._columns].astype(np.float64)
                spread = np.maximum(usual.std(axis=0), FLOOR * self._spread)
                deviation = float(np.abs((now - usual.mean(axis=0)) / spread).max())
            frames = int(counts[rows].sum())
            rate = frames / max(duration, 1e-9)
            usual_rate = float(counts[old].sum()) / quiet_s if quiet_s else 0.0
            interval, novel = float(2.0 ** now[0]), float(now[2])
            never = bool(self._first[rows].min() >= alarmed[0])
            what = _words(None if never else len(old), rate, usual_rate, interval, float(now[1]), novel)
            found.append(Suspect(int(can_id), frames, rate, usual_rate, interval, novel, deviation, what))
        new = sorted((s for s in found if np.isinf(s.deviation)), key=lambda s: (-s.frames, s.can_id))
        known = sorted((s for s in found if not np.isinf(s.deviation)), key=lambda s: (-s.deviation, s.can_id))
        telling = [s for s in known if s.deviation >= _TELLING]
        named = [*new[:_NEW_NAMED], *telling][:most]
        return named or known[:1]


def _words(past: int | None, rate: float, usual: float, interval: float, payload: float, novel: float) -> str:
    if past is None or past < PAST:
        return f"{'never' if past is None else 'hardly'} seen before, {rate:,.0f} frames/s"
    parts = []
    if rate > 1.5 * usual or rate * 1.5 < usual:
        parts.append(f"{rate:,.1f} frames/s, usually {usual:,.1f}")
    if not 0.67 < interval < 1.5:
        parts.append(f"intervals {interval:.2g} times as long as usual")
    if novel > 0.005:
        parts.append(f"{100 * novel:.1f} % of the bits change that never had before")
    elif abs(payload) > 1:
        parts.append("payloads change more than usual" if payload > 0 else "payloads change less than usual")
    return "; ".join(parts) or "little that stands out by itself"
