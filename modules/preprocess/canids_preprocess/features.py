"""Per-frame features `relative`: causal, relative to the arbitration ID's own past, free of the ID itself.

A `Tracker` holds the running statistics of a bus; frames are fed to it in chunks of any size, and the features of a
frame depend on that frame and those before it alone. The README of this module gives formula and unit of each.
"""

from typing import Any

import numpy as np
from numba import njit

FRAME_FEATURES = (
    "interval_ratio",
    "payload_distance",
    "payload_deviation",
    "alternation",
    "bytes_changed",
    "novel_bits",
    "byte_jump",
    "first_sighting",
    "young",
    "newcomer",
    "dlc",
    "dlc_changed",
    "bus_gap_ratio",
    "overdue",
)
MAX_BYTES = 64
EXTENDED = np.uint32(1 << 31)
"""Marks a 29-bit arbitration ID in `node_id`, so that it differs from the 11-bit one of the same value."""

_SHORTEST = 1e-6  # s; two frames of a classical bus at 1 Mbit/s cannot follow each other faster
_CLIP = 8.0  # log2 units; a factor of 256
_ESTABLISHED = 32  # sightings after which an ID has an interval worth the name
_TRUSTED = 8.0  # sightings after which deviations from the ID's own past count in full
_SETTLING = 2.0  # s from the first frame of a bus until an ID not seen before is news
_OVERDUE_EVERY = 50  # frames between two counts of overdue IDs
_OVERDUE_FROM, _OVERDUE_TO = 4.0, 16.0  # multiples of the usual interval; beyond, the ID is no longer expected
_SLOWEST = 1.0 / 4096.0  # octaves; smallest step of a running median, so that seconds of attack move it little
_WARM_UP_BUS, _SLOWEST_BUS = 512, 1.0 / 131072.0  # the same for the gap between any two frames
_BIT, _BYTE = 64.0, 256.0  # bits, and values of a byte, that are learnt as fast as an octave
_EARLY = 1.0 / 16.0  # octaves, beside four times the usual scatter; what comes earlier is not a periodic ID's own
_REGULAR = 0.25  # log2 units; the running median of |interval_ratio| below which an ID counts as periodic

# Columns of the per-ID state.
_SEEN, _LEVEL, _IRREGULAR, _DISTANCE, _SPREAD, _FIRST = range(6)
_LAST, _DLC, _OLDER_DLC = range(6, 9)  # of the last frame on time, and the one before it
_ANY, _ANY_DLC = range(9, 11)  # of the last frame, on time or not
_WIDTH = 11


_BITS = np.array([bin(value).count("1") for value in range(256)], np.uint8)  # set bits of a byte


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _step(  # noqa: PLR0912, PLR0915 (one compiled loop)
    timestamp: np.ndarray,
    slot: np.ndarray,
    offset: np.ndarray,
    payload: np.ndarray,
    state: np.ndarray,
    last_bytes: np.ndarray,
    older_bytes: np.ndarray,
    any_bytes: np.ndarray,
    toggled: np.ndarray,
    usual_change: np.ndarray,
    bus: np.ndarray,
    n_slots: int,
    out: np.ndarray,
) -> None:
    """Features of every frame of a chunk; updates all state in place.

    `payload[offset[i]:offset[i + 1]]` are the bytes of frame i; `bus` holds the time of the last frame, the running
    level of the gap between frames, the number of frames, the share of overdue IDs, and the time of the first frame.
    """
    for i in range(len(timestamp)):
        now = timestamp[i]
        me = state[slot[i]]
        seen = me[_SEEN]
        size = offset[i + 1] - offset[i]
        bits = 8.0 * max(size, 1)

        # Bus: gap to the frame before against a running median of its logarithm, slow enough to outlast an attack.
        gap_ratio = 0.0
        if bus[2] > 0:
            gap = np.log2(max(now - bus[0], _SHORTEST))
            if bus[2] > 1:
                gap_ratio = gap - bus[1]
                step = 2.0 / bus[2] if bus[2] < _WARM_UP_BUS else _SLOWEST_BUS
                bus[1] += min(max(gap_ratio, -step), step)
            else:
                bus[1] = gap
        else:
            bus[4] = now
        bus[0] = max(now, bus[0])
        bus[2] += 1
        if bus[2] % _OVERDUE_EVERY == 0:
            known, overdue = 0, 0
            for s in range(n_slots):
                if state[s, _SEEN] >= _ESTABLISHED and state[s, _IRREGULAR] < _REGULAR:
                    silent = (now - state[s, _LAST]) / 2.0 ** state[s, _LEVEL]
                    if silent <= _OVERDUE_TO:
                        known += 1
                        if silent >= _OVERDUE_FROM:
                            overdue += 1
            bus[3] = overdue / max(known, 1)

        # Interval of this ID against a running median of its logarithm (frugal streaming: Ma, Muthukrishnan and
        # Sandler 2013), from the ID's last frame on time or from its last frame, whichever fits better: after an injected
        # frame the sender's next one follows on the sender's last, and after a mistaken verdict on the one in between.
        ratio, on_time, fits_any = 0.0, True, False
        learn = max(1.0 / max(seen, 1.0), _SLOWEST)
        if seen == 1:
            me[_LEVEL] = np.log2(max(now - me[_LAST], _SHORTEST))
            me[_IRREGULAR] = 1.0  # periodic only once it has shown to be
        elif seen > 1:
            ratio = min(max(np.log2(max(now - me[_LAST], _SHORTEST)) - me[_LEVEL], -_CLIP), _CLIP)
            if me[_ANY] > me[_LAST]:
                other = min(max(np.log2(max(now - me[_ANY], _SHORTEST)) - me[_LEVEL], -_CLIP), _CLIP)
                fits_any = abs(other) < abs(ratio)
                ratio = other if fits_any else ratio
            # What comes early moves the statistics by the square of that less, and what comes far too early not at all:
            # neither does a flood soon look usual, nor the traffic after it unusual.
            learn *= np.exp2(2.0 * min(ratio, 0.0))
            on_time = ratio >= -(_EARLY + 4.0 * me[_IRREGULAR]) or me[_IRREGULAR] >= _REGULAR or seen < _TRUSTED
            me[_LEVEL] += min(max(ratio, -learn), learn)
            me[_IRREGULAR] += min(max(abs(ratio) - me[_IRREGULAR], -learn), learn)

        # Payload against the frame that the interval counts from, and for alternation against the last on time before
        # that; the bits that ever toggled; each byte's usual change.
        distance, older, changed, novel, jump = 0, 0, 0, 0, 1.0
        mine, before, ever, usual = last_bytes[slot[i]], older_bytes[slot[i]], toggled[slot[i]], usual_change[slot[i]]
        latest = any_bytes[slot[i]]
        for b in range(size):
            value, last = payload[offset[i] + b], latest[b] if fits_any else mine[b]
            if seen > 0:
                flipped = value ^ last
                older += _BITS[value ^ (mine[b] if fits_any else before[b])]
                if flipped:
                    distance += _BITS[flipped]
                    changed += 1
                    novel += _BITS[flipped & ~ever[b]]
                    change = abs(np.int64(value) - np.int64(last))
                    change = min(change, 256 - change)  # counters wrap
                    jump = max(jump, (1.0 + change) / (1.0 + usual[b]))
                    if on_time:
                        ever[b] |= flipped
                        usual[b] += min(max(change - usual[b], -_BYTE * learn), _BYTE * learn)
                elif on_time and usual[b] > 0.0:
                    usual[b] -= min(usual[b], _BYTE * learn)
            latest[b] = value
            if on_time:
                before[b] = mine[b]
                mine[b] = value
        # Of a shorter frame the rest counts as zeros.
        for b in range(size, me[_ANY_DLC]):
            latest[b] = 0
        if on_time:
            for b in range(size, max(me[_DLC], me[_OLDER_DLC])):
                before[b] = mine[b]
                mine[b] = 0
        deviation = 0.0
        if seen == 1:
            me[_DISTANCE] = distance
        elif seen > 1:
            off = distance - me[_DISTANCE]
            deviation = min(max(off / (me[_SPREAD] + 1.0), -_CLIP), _CLIP)
            if on_time:
                me[_DISTANCE] += min(max(off, -_BIT * learn), _BIT * learn)
                me[_SPREAD] += min(max(abs(off) - me[_SPREAD], -_BIT * learn), _BIT * learn)

        # An ID that is new means little on a bus just switched on, and a deviation little from what was seen but twice.
        settled = min(max(now - bus[4], 0.0) / _SETTLING, 1.0)
        trust = min(seen / _TRUSTED, 1.0)
        if seen == 0:
            me[_FIRST] = now
        row = out[i]
        row[0] = ratio * trust
        row[1] = distance / bits
        row[2] = deviation * trust
        row[3] = max(distance - older, 0) / bits if seen > 1 else 0.0
        row[4] = changed / max(size, 1)
        row[5] = novel / bits if seen >= _ESTABLISHED else 0.0
        row[6] = np.log2(jump) * trust if seen > 1 else 0.0
        row[7] = settled if seen == 0 else 0.0
        row[8] = settled / (1.0 + seen)
        row[9] = min(max((me[_FIRST] - bus[4]) / max(now - bus[4], _SETTLING), 0.0), 1.0)
        row[10] = size / 8.0
        row[11] = 1.0 if seen > 0 and me[_ANY_DLC if fits_any else _DLC] != size else 0.0
        row[12] = min(max(gap_ratio, -_CLIP), _CLIP)
        row[13] = bus[3]

        me[_SEEN] = seen + 1
        me[_ANY] = max(now, me[_ANY]) if seen > 0 else now
        me[_ANY_DLC] = size
        if on_time:
            me[_LAST] = me[_ANY]
            me[_OLDER_DLC] = me[_DLC]
            me[_DLC] = size


class Tracker:
    """Running statistics of one bus, fed frame by frame in time order.

    Memory grows with the number of distinct arbitration IDs, not with the number of frames.
    """

    def __init__(self) -> None:
        self._slot_of_standard = np.full(1 << 11, -1, np.int32)
        self._slot_of_extended: dict[int, int] = {}
        self.n_slots = 0
        self._bus = np.zeros(5)
        self._arrays: dict[str, np.ndarray] = {
            "state": np.zeros((64, _WIDTH)),
            "last_bytes": np.zeros((64, MAX_BYTES), np.uint8),
            "older_bytes": np.zeros((64, MAX_BYTES), np.uint8),
            "any_bytes": np.zeros((64, MAX_BYTES), np.uint8),
            "toggled": np.zeros((64, MAX_BYTES), np.uint8),
            "usual_change": np.zeros((64, MAX_BYTES), np.float32),
        }

    def slots(self, can_id: np.ndarray, extended: np.ndarray) -> np.ndarray:
        """Number of each frame's ID, counted in the order of first sighting."""
        slots = np.empty(len(can_id), np.int32)
        standard = ~extended
        unknown = standard.copy()
        unknown[standard] = self._slot_of_standard[can_id[standard]] < 0
        unknown |= extended
        keys = can_id.astype(np.int64) | (extended.astype(np.int64) << 31)
        fresh, first = np.unique(keys[unknown], return_index=True)
        for key in fresh[np.argsort(first)].tolist():
            if key >> 31:
                if key not in self._slot_of_extended:
                    self._slot_of_extended[key] = self.n_slots
                    self.n_slots += 1
            else:
                self._slot_of_standard[key] = self.n_slots
                self.n_slots += 1
        slots[standard] = self._slot_of_standard[can_id[standard]]
        if extended.any():
            slots[extended] = [self._slot_of_extended[key] for key in keys[extended].tolist()]
        return slots

    def _grow(self) -> None:
        capacity = len(self._arrays["state"])
        while capacity < self.n_slots:
            capacity *= 2
        for name, array in self._arrays.items():
            if len(array) < capacity:
                grown = np.zeros((capacity, *array.shape[1:]), array.dtype)
                grown[: len(array)] = array
                self._arrays[name] = grown

    def feed(self, frames: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Features of the next frames, float32 [n, len(FRAME_FEATURES)], and a number for each one's ID, int32 [n].

        IDs are numbered from 0 in the order of first sighting; `n_slots` says how many there are so far.

        Args:
            frames: `timestamp` [n] f64 s, `can_id` [n] u32, `extended` [n] bool, `offset` [n+1] i64 into `payload` u8.
        """
        slot = self.slots(frames["can_id"], frames["extended"])
        self._grow()
        out = np.empty((len(slot), len(FRAME_FEATURES)), np.float32)
        a = self._arrays
        _step(
            frames["timestamp"],
            slot,
            frames["offset"],
            frames["payload"],
            a["state"],
            a["last_bytes"],
            a["older_bytes"],
            a["any_bytes"],
            a["toggled"],
            a["usual_change"],
            self._bus,
            self.n_slots,
            out,
        )
        return out, slot
