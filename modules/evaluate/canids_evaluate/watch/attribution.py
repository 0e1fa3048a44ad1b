"""Which arbitration IDs carried an alarm, and how they differ there from their own past.

Of every ID, its node features in the alarmed windows are set against those in the windows before that raised no alarm. A
feature's deviation is the difference of the means in standard deviations of the past, which count as at least
`FLOOR` of the spread over all IDs: an ID that never varies would otherwise make much of nothing.
"""

from collections import deque
from collections.abc import Iterable
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
"""Node features (README of preprocess) by which an ID is judged."""
FLOOR = 0.25
PAST = 8
"""Quiet windows with an ID that make a past to compare with."""
LONGEST = 2000
"""Quiet windows that a past holds, at most."""
MOST_IDS = 1 << 16
"""Arbitration IDs told apart, where they come by the thousand."""
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


def columns_of(names: list[str], where: Any) -> list[int]:
    """Place of each of `FEATURES` among node features; raises `CanidsError` naming `where` they come from if one is not there."""
    if absent := [f for f in FEATURES if f not in names]:
        raise CanidsError(f"{where}: no node feature '{absent[0]}'; alarms are explained with features: relative")
    return [names.index(f) for f in FEATURES]


@dataclass(frozen=True)
class Nodes:
    """The nodes of a window, n of them, and how long it lasts.

    Attributes:
        ids: [n] u32 arbitration ID, bit 31 for a 29-bit one; counts: [n] frames.
        x: [n, 5] the `FEATURES`.
        seconds: from first to last frame.
    """

    ids: np.ndarray
    counts: np.ndarray
    x: np.ndarray
    seconds: float


@dataclass
class _Sums:
    """Of an ID in an alarm: frames, and the features weighted by them."""

    frames: int
    x: np.ndarray


class Behind:
    """What is behind an alarm, from windows handed over one by one; memory does not grow with their number.

    The past are the last `LONGEST` windows without alarm, and the IDs that were ever seen; of these, those in the past alone are
    kept once there are more than `MOST_IDS`. Of an alarm, sums by ID are kept, for as many IDs at most.
    """

    def __init__(self) -> None:
        self._past: deque[Nodes] = deque(maxlen=LONGEST)
        self._known: set[int] = set()
        self.clear()

    def clear(self) -> None:
        """The alarm is over: what came with it is past now."""
        if hasattr(self, "_ids"):
            self._past.extend(self._between)
            self._known |= self._new | self._ids.keys()
            self._bound()
        self._ids: dict[int, _Sums] = {}
        self._new: set[int] = set()
        self._between: deque[Nodes] = deque(maxlen=LONGEST)
        self._seconds, self._new_frames = 0.0, 0

    def quiet(self, nodes: Nodes, during: bool) -> None:
        """A window without alarm; `during` an alarm, to which the next windows may still belong, it is past only later."""
        if during:
            self._between.append(nodes)
            self._new |= self._unknown(nodes)
        else:
            self._past.append(nodes)
            self._known.update(nodes.ids.tolist())
            self._bound()

    def alarmed(self, nodes: Nodes) -> None:
        """A window of the alarm."""
        self._seconds += nodes.seconds
        self._new |= self._unknown(nodes)
        for can_id, count, x in zip(nodes.ids.tolist(), nodes.counts.tolist(), nodes.x.astype(np.float64), strict=True):
            if can_id not in self._known:
                self._new_frames += count
            if can_id in self._ids:
                sums = self._ids[can_id]
                sums.frames += count
                sums.x += count * x
            elif len(self._ids) < MOST_IDS:
                self._ids[can_id] = _Sums(count, count * x)

    def _unknown(self, nodes: Nodes) -> set[int]:
        return {i for i in nodes.ids.tolist() if i not in self._known} if len(self._new) < MOST_IDS else set()

    def _bound(self) -> None:
        if len(self._known) > MOST_IDS:
            self._known = set(chain.from_iterable(nodes.ids.tolist() for nodes in self._past))

    def newcomers(self) -> tuple[int, float]:
        """How many IDs of the alarm were not seen before it, and their frames a second."""
        return len(self._new & self._ids.keys()), self._new_frames / max(self._seconds, 1e-9)

    def suspects(self, most: int) -> list[Suspect]:
        """IDs of the alarm against the past, `most` at most.

        First the busiest of those without a past, then the others, the most deviant first. None where there are fewer than
        `PAST` quiet windows to compare with.
        """
        if len(self._past) < PAST:
            return []
        seconds = sum(nodes.seconds for nodes in self._past)
        ids, counts, x = (np.concatenate(part) for part in zip(*_arrays(self._past), strict=True))
        order = np.argsort(ids, kind="stable")
        ids, counts, x = ids[order], counts[order], x[order].astype(np.float64)
        everywhere = np.maximum(x.std(axis=0), 1e-3)
        found = []
        for can_id, sums in sorted(self._ids.items()):
            old = slice(*np.searchsorted(ids, [can_id, can_id + 1]).tolist())
            now, past = sums.x / sums.frames, x[old]
            deviation = np.inf
            if len(past) >= PAST:
                spread = np.maximum(past.std(axis=0), FLOOR * everywhere)
                deviation = float(np.abs((now - past.mean(axis=0)) / spread).max())
            rate = sums.frames / max(self._seconds, 1e-9)
            usual = float(counts[old].sum()) / seconds if seconds else 0.0
            interval, novel = float(2.0 ** now[0]), float(now[2])
            what = _words(len(past) if can_id in self._known else None, rate, usual, interval, float(now[1]), novel)
            found.append(Suspect(can_id, sums.frames, rate, usual, interval, novel, deviation, what))
        new = sorted((s for s in found if np.isinf(s.deviation)), key=lambda s: (-s.frames, s.can_id))
        known = sorted((s for s in found if not np.isinf(s.deviation)), key=lambda s: (-s.deviation, s.can_id))
        telling = [s for s in known if s.deviation >= _TELLING]
        named = [*new[:_NEW_NAMED], *telling][:most]
        return named or known[:1]


def _arrays(windows: Iterable[Nodes]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [(nodes.ids, nodes.counts, nodes.x) for nodes in windows]


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
