"""Attribution of an alarm to arbitration IDs: how their node features in the alarm differ from those before it.

Of every ID, the node features in the alarmed windows are compared with those in the earlier windows without an alarm. A feature's
deviation is the difference of the means in standard deviations of the past. A standard deviation counts as at least `FLOOR` of the
spread over all IDs: an ID that never varies would otherwise deviate without bound.
"""

from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from canids_shared.errors import CanidsError

FEATURES = (
    "interval_ratio_mean",
    "payload_deviation_mean",
    "novel_bits_mean",
    "dlc_changed_mean",
    "first_sighting_max",
)
"""Node features (README of preprocess) that are compared."""
_FIRST_SIGHTING = FEATURES.index("first_sighting_max")
FLOOR = 0.25
PAST = 8
"""Fewest normal windows with an ID that count as a past."""
LONGEST = 2000
"""Most normal windows that a past holds."""
MOST_IDS = 1 << 16
"""Most arbitration IDs that are kept, where an attack sends thousands."""
_NEW_NAMED = 2
"""IDs without a past that are named; an attack with random IDs has hundreds."""
_NOTABLE = 3.0
"""Deviation, in standard deviations, below which an ID is named only if it is the only one."""


@dataclass(frozen=True)
class IdAttribution:
    """An arbitration ID in an alarm.

    Attributes:
        can_id: bit 31 is set for a 29-bit ID.
        frames, frames_per_s: in the alarm; usual_frames_per_s: before it.
        interval: mean interval between its frames as a multiple of the usual one.
        novel_bits: mean of the feature: bits that change and never changed before, against those that do (README of preprocess).
        deviation: largest deviation of a feature, in standard deviations; infinite for an ID without a past.
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
    """An arbitration ID as candump writes it: three hexadecimal digits, eight for a 29-bit ID."""
    return f"{can_id & 0x1FFFFFFF:08X}" if can_id >> 31 else f"{can_id:03X}"


def feature_columns(names: list[str], where: Any) -> list[int]:
    """Positions of `FEATURES` among node features; raises `CanidsError` naming `where` they come from if one is missing."""
    if absent := [f for f in FEATURES if f not in names]:
        raise CanidsError(
            f"{where}: no node feature '{absent[0]}'; alarms are attributed to IDs by those of `features: relative`"
        )
    return [names.index(f) for f in FEATURES]


@dataclass(frozen=True)
class Nodes:
    """The n nodes of a window, and the window's length.

    Attributes:
        ids: [n] u32 arbitration ID, bit 31 set for a 29-bit ID; counts: [n] frames.
        x: [n, 5] the `FEATURES`.
        seconds: from first to last frame.
    """

    ids: np.ndarray
    counts: np.ndarray
    x: np.ndarray
    seconds: float


@dataclass
class _IdSum:
    """Frames of an ID in an alarm, and the sum of its features weighted by them [5]."""

    frames: int
    x: np.ndarray


class AlarmAttribution:
    """Attribution of an alarm, from windows added one by one; memory does not grow with their number.

    The past is the last `LONGEST` windows without an alarm. IDs that occurred at any time are kept too; once there are more than
    `MOST_IDS`, only those in the past are. For an alarm, sums by ID are kept for at most `MOST_IDS` IDs.
    """

    def __init__(self, enrolled: bool = False) -> None:
        """`enrolled`: the vehicle has a profile, by which `first_sighting` is 0 in the first window of the IDs that it knows."""
        self._enrolled = enrolled
        self._past: deque[Nodes] = deque(maxlen=LONGEST)
        self._known: set[int] = set()
        self._begin()

    def _begin(self) -> None:
        self._ids: dict[int, _IdSum] = {}
        self._new: set[int] = set()
        self._between: deque[Nodes] = deque(maxlen=LONGEST)
        self._seconds, self._new_frames = 0.0, 0

    def end_alarm(self) -> None:
        """End the alarm: its IDs, and the normal windows within it, become the past."""
        self._past.extend(self._between)
        self._known |= self._new | self._ids.keys()
        self._forget()
        self._begin()

    def add_normal(self, nodes: Nodes, during: bool) -> None:
        """Add a window without an alarm; `during` an alarm that may go on, it joins the past only when the alarm ends."""
        if during:
            self._between.append(nodes)
            self._new |= self._unknown(nodes)
        else:
            self._past.append(nodes)
            self._known.update(nodes.ids.tolist())
            self._forget()

    def add_alarm(self, nodes: Nodes) -> None:
        """Add a window of the alarm."""
        self._seconds += nodes.seconds
        # `_known` stays that of the alarm's beginning, so an ID of the attack counts as new in all of its windows.
        self._new |= self._unknown(nodes)
        for can_id, count, x in zip(nodes.ids.tolist(), nodes.counts.tolist(), nodes.x.astype(np.float64), strict=True):
            if can_id not in self._known:
                self._new_frames += count
            if can_id in self._ids:
                # Weighted by frames: a window with few frames of an ID carries little about it.
                sums = self._ids[can_id]
                sums.frames += count
                sums.x += count * x
            elif len(self._ids) < MOST_IDS:
                self._ids[can_id] = _IdSum(count, count * x)

    def _unknown(self, nodes: Nodes) -> set[int]:
        if self._enrolled:
            self._known.update({*nodes.ids[nodes.x[:, _FIRST_SIGHTING] == 0].tolist()} - self._new)
        return {i for i in nodes.ids.tolist() if i not in self._known} if len(self._new) < MOST_IDS else set()

    def _forget(self) -> None:
        # An attack with random IDs would fill the memory; those of the past are the ones that matter.
        if len(self._known) > MOST_IDS:
            self._known = set(chain.from_iterable(nodes.ids.tolist() for nodes in self._past))

    def new_ids(self) -> tuple[int, float]:
        """Number of the alarm's IDs that did not occur before it, and their frames per second."""
        return len(self._new & self._ids.keys()), self._new_frames / max(self._seconds, 1e-9)

    def ids(self, most: int) -> list[IdAttribution]:
        """IDs of the alarm compared with the past, at most `most`.

        The busiest of those without a past come first, then the others, the most deviant first. The list is empty where the
        past has fewer than `PAST` windows.
        """
        if len(self._past) < PAST:
            return []
        seconds = sum(nodes.seconds for nodes in self._past)
        # All nodes of the past, sorted by ID: the rows of an ID lie side by side and two binary searches find them.
        ids = np.concatenate([nodes.ids for nodes in self._past])
        order = np.argsort(ids, kind="stable")
        ids = ids[order]  # [N]
        counts = np.concatenate([nodes.counts for nodes in self._past])[order]  # [N]
        x = np.concatenate([nodes.x for nodes in self._past])[order].astype(np.float64)  # [N, 5]
        spread_of_all = np.maximum(x.std(axis=0), 1e-3)
        alarmed = np.array(sorted(self._ids))
        begins, ends = (np.searchsorted(ids, alarmed, side).tolist() for side in ("left", "right"))
        rows_of = {can_id: slice(*rows) for can_id, *rows in zip(alarmed.tolist(), begins, ends, strict=True)}
        # An attack may draw thousands of IDs; of those without a past only the busiest are compared, as only they are named.
        past = {can_id: rows.stop - rows.start >= PAST for can_id, rows in rows_of.items()}
        busiest = sorted((i for i in rows_of if not past[i]), key=lambda i: (-self._ids[i].frames, i))[:_NEW_NAMED]
        attributions = []
        for can_id in (*busiest, *(i for i in rows_of if past[i])):
            rows, sums = rows_of[can_id], self._ids[can_id]
            now, before = sums.x / sums.frames, x[rows]  # [5], [windows of the past with this ID, 5]
            deviation = np.inf
            if past[can_id]:
                # The largest over the features, since an attack changes some of them only.
                spread = np.maximum(before.std(axis=0), FLOOR * spread_of_all)
                deviation = float(np.abs((now - before.mean(axis=0)) / spread).max())
            rate = sums.frames / max(self._seconds, 1e-9)
            usual = float(counts[rows].sum()) / seconds if seconds else 0.0
            # Features hold the logarithm (base 2) of the interval's ratio to the usual one.
            interval, novel = float(2.0 ** now[0]), float(now[2])
            what = _words(len(before) if can_id in self._known else None, rate, usual, interval, float(now[1]), novel)
            attributions.append(
                IdAttribution(can_id, sums.frames, rate, usual, interval, novel, deviation, what),
            )
        new = sorted((a for a in attributions if np.isinf(a.deviation)), key=lambda a: (-a.frames, a.can_id))
        known = sorted((a for a in attributions if not np.isinf(a.deviation)), key=lambda a: (-a.deviation, a.can_id))
        notable = [a for a in known if a.deviation >= _NOTABLE]
        return [*new[:_NEW_NAMED], *notable][:most] or known[:1]


def _words(past: int | None, rate: float, usual: float, interval: float, payload: float, novel: float) -> str:
    """What is unusual about an ID; `past` is the number of normal windows with it, None if it never occurred before."""
    if past is None or past < PAST:
        return f"{'never' if past is None else 'hardly'} seen before, {rate:,.0f} frames/s"
    parts = []
    if rate > 1.5 * usual or rate * 1.5 < usual:
        parts.append(f"{rate:,.1f} frames/s, usually {usual:,.1f}")
    if not 0.67 < interval < 1.5:
        parts.append(f"intervals {interval:.2g} times as long as usual")
    if novel > 0.005:
        parts.append("bits change that never had before")
    elif abs(payload) > 1:
        parts.append("payloads change more than usual" if payload > 0 else "payloads change less than usual")
    return "; ".join(parts) or "little that stands out by itself"
