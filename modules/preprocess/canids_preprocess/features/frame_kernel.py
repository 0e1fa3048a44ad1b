"""Compiled loop of the frame features `relative`: what a frame is like beside the past of its own arbitration ID.

Causal: the features of a frame depend on that frame and those before it alone. No ID enters but as the row of its state.
The README of this module gives formula and unit of each feature; `relative.step` is how the loop is called.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

FRAME_FEATURES = (
    "interval_ratio",
    "extra_frame",
    "payload_distance",
    "payload_deviation",
    "novel_bits",
    "byte_jump",
    "first_sighting",
    "young",
    "newcomer",
    "dlc_changed",
    "bus_pace",
    "overdue",
)
MAX_BYTES = 64
EXTENDED_BIT = np.uint32(31)
"""Is set for a 29-bit arbitration ID in `node_id`, so that it differs from the 11-bit one of the same value."""

_SHORTEST = 1e-6  # s; two frames of a classical bus at 1 Mbit/s cannot follow each other faster
_CLIP = 8.0  # log2 units; a factor of 256
_ESTABLISHED = 32  # sightings after which an ID has an interval worth the name
_TRUSTED = 8.0  # sightings after which deviations from the ID's own past count in full
_SETTLING = 2.0  # s, and multiple of the longest usual interval, from a bus's first frame until an unseen ID is news
_PACED = 3  # intervals of an ID after which their mean counts towards the longest
_CROWDED = 2.0**-0.25  # two intervals that are together shorter than so much of two usual ones hold one frame too many
_MOST_CROWDED = 2.0  # octaves
_LITTLE = 1.0 / 64.0  # `newcomer` of an ID that is not alone
_FAST = 0.25  # of the highest usual rate of an ID
_OVERDUE_EVERY = 50  # frames between two counts of overdue IDs
_OVERDUE_FROM, _OVERDUE_TO = 4.0, 16.0  # multiples of the usual interval; beyond, the ID is no longer expected
_SLOWEST = 1.0 / 4096.0  # octaves; smallest step of a running median, so that seconds of attack move it little
_WARM_UP_BUS, _SLOWEST_BUS = 512, 1.0 / 131072.0  # the same for the gap between any two frames
_PACE_OVER = 32.0  # gaps that their mean is over
_BIT, _BYTE = 64.0, 256.0  # bits, and values of a byte, that are learnt as fast as an octave
_EARLY = 1.0 / 16.0  # octaves, beside four times the usual scatter; what comes earlier is not a periodic ID's own
_REGULAR = 0.25  # log2 units; the running median of |interval_ratio| below which an ID counts as periodic

# Columns of the state of an ID. Running medians: LEVEL of the interval's logarithm, IRREGULAR of its deviation, DISTANCE and
# SPREAD of the payload distance and of its deviation.
SEEN, _LEVEL, _IRREGULAR, _DISTANCE, _SPREAD, _FIRST = range(6)
_LAST, _DLC, _OLDER_DLC = range(6, 9)  # of the last frame on time, and the one before it
LATEST, _LATEST_DLC = range(9, 11)  # of the last frame, on time or not
_DUE, _GIVEN_UP = range(11, 13)  # times from which, and up to which, an established periodic ID is overdue
_MOVING = 13  # bits that ever changed
_BEFORE, _PERIOD = range(14, 16)  # time of the frame before the last; usual interval, of an established periodic ID
_ALONE = 16  # s from the last first sighting of another ID that stayed to this one's
_JUMP = 17  # running median of the largest of the bytes' jumps
WIDTH = 18
COLUMNS = (
    *("seen", "level", "irregular", "distance", "spread", "first", "last", "dlc", "older_dlc"),
    *("latest", "latest_dlc", "due", "given_up", "moving", "before", "period", "alone", "jump"),
)
"""Names of the columns, for profiles."""
BUS_COLUMNS = (
    *("last", "level", "frames", "overdue", "first", "appeared"),
    *("slowest", "gap", "fastest", "paced"),
)
"""Names of what is remembered of a bus, in the order of `frame_features`, for profiles."""

_U = np.uint64
_WORD = 8  # bytes of a payload handled at once, the first in the lowest bits
_ONES = _U(0x0101010101010101)  # the lowest bit of each byte
_PAIRS, _FOURS, _EIGHTS = _U(0x5555555555555555), _U(0x3333333333333333), _U(0x0F0F0F0F0F0F0F0F)
_SET_IN_BYTE = np.array([n.bit_count() for n in range(256)])
_LENGTH_OF_BYTE = np.array([n.bit_length() for n in range(256)])


@njit(inline="always")  # type: ignore[untyped-decorator]
def _set_bits(word: np.uint64) -> int:
    """How many bits of a word are set, in the spelling that compilers know as one instruction."""
    word = word - ((word >> _U(1)) & _PAIRS)
    word = (word & _FOURS) + ((word >> _U(2)) & _FOURS)
    word = (word + (word >> _U(4))) & _EIGHTS
    return int((word * _ONES) >> _U(56))


@njit(inline="always")  # type: ignore[untyped-decorator]
def _change(value: np.uint64, other: np.uint64, b: int) -> int:
    """By how much byte `b` of two words differs, modulo 256, since counters wrap: 0 to 128."""
    change = abs(np.int32((value >> _U(8 * b)) & _U(255)) - np.int32((other >> _U(8 * b)) & _U(255)))
    return int(min(change, 256 - change))


@njit(inline="always")  # type: ignore[untyped-decorator]
def _distance(value: np.uint64, other: np.uint64, toggled: np.uint64, size: int) -> int:
    """Bits in which two words of `size` bytes differ; of a byte that moves, no more than its change modulo 256 has digits.

    A measurement that goes from 127 to 128, or a signed one from 0 to -1, turns eight bits over and has hardly changed. That
    it measures, all of these bits must have shown: where one never `toggled` before, each of the byte's counts.
    """
    flipped, bits = value ^ other, 0
    if flipped == _U(0):
        return 0
    for b in range(size):
        turned = (flipped >> _U(8 * b)) & _U(255)
        if turned != _U(0):
            most = 8 if turned & ~(toggled >> _U(8 * b)) != _U(0) else _LENGTH_OF_BYTE[_change(value, other, b)]
            bits += min(_SET_IN_BYTE[np.int64(turned)], most)
    return bits


class IdStates(NamedTuple):
    """What is remembered of each arbitration ID, a row per ID; payloads as words of eight bytes, zeros behind their end.

    Attributes:
        state: float64 [IDs, 18] columns as above (`SEEN`, …).
        last, older: uint64 [IDs, 8] payload of the last frame on time, and of the one before it.
        latest: uint64 [IDs, 8] payload of the last frame, on time or not.
        toggled: uint64 [IDs, 8] bits that ever changed.
        usual_change: float32 [IDs, 64] running median of each byte's change.
    """

    state: np.ndarray
    last: np.ndarray
    older: np.ndarray
    latest: np.ndarray
    toggled: np.ndarray
    usual_change: np.ndarray


def shift(by_id: IdStates, bus: np.ndarray, n_ids: int, seconds: float) -> None:
    """Move all times of the first `n_ids` rows and of the bus by some seconds, in place."""
    by_id.state[:n_ids, [_FIRST, _LAST, LATEST, _DUE, _GIVEN_UP, _BEFORE]] += seconds
    bus[[0, 4]] += seconds


def out_of_range(state: np.ndarray, bus: np.ndarray) -> str:
    """What of a bus as a file has it the loop cannot start from, by name; empty if all is possible.

    Lengths count the words that the loop reads, and compiled code checks no bounds; counts are divisors.
    """
    lengths = state[:, [_DLC, _OLDER_DLC, _LATEST_DLC]]
    if not ((lengths >= 0) & (lengths <= MAX_BYTES)).all():
        return "dlc, older_dlc or latest_dlc"
    if not (state[:, SEEN] >= 0).all():
        return "seen"
    return "" if (bus[[2, 9]] >= 0).all() else "the bus's counts of frames"


def rest(by_id: IdStates, bus: np.ndarray, n_ids: int) -> None:
    """Make what is remembered the past of traffic that begins at time 0, in place: a profile.

    The first frame comes when the bus usually sends the next one. IDs keep their statistics, but the first frame of each is
    compared with none before it: how its last one in the profile relates to it is unknown. So an ID is overdue as if its last
    frame had come at time 0, however long ago that was in the profile, and none is yet.
    """
    state = by_id.state[:n_ids]
    shift(by_id, bus, n_ids, -bus[0] - np.exp2(bus[1]))
    # A period of an ID seen but once is longer than all that was seen.
    once = state[:, SEEN] == 1
    state[once, _LEVEL], state[once, _IRREGULAR] = np.log2(max(-bus[4], _SHORTEST)), 1.0
    state[:, [_LAST, LATEST, _BEFORE]] = -np.inf
    period = np.where(state[:, _PERIOD] > 0, state[:, _PERIOD], -np.inf)
    state[:, _DUE], state[:, _GIVEN_UP] = _OVERDUE_FROM * period, _OVERDUE_TO * period
    bus[3] = 0.0


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def frame_features(  # noqa: PLR0912, PLR0915 (one compiled loop)
    timestamp: np.ndarray,
    id_index: np.ndarray,
    offset: np.ndarray,
    payload: np.ndarray,
    by_id: IdStates,
    bus: np.ndarray,
    n_ids: int,
    out: np.ndarray,
) -> None:
    """Write the features of every frame of a chunk into `out` [n, 12], and update all state in place.

    `payload[offset[i]:offset[i + 1]]` are the bytes of frame i. `bus` holds the time of the last frame, the running level
    of the mean gap, the number of frames, the feature `overdue`, the time of the first frame, how long after it an ID was first seen
    that stayed, the longest usual interval, the mean of the last gaps, the highest usual rate of an ID,
    and the frames that its pace is learnt from.
    """
    state, last, older, latest, toggled, usual_change = by_id
    until_overdue = _OVERDUE_EVERY - int(bus[2]) % _OVERDUE_EVERY
    for i in range(len(timestamp)):
        now = timestamp[i]
        row = np.uint64(id_index[i])
        seen = state[row, SEEN]
        # Frames to compare with: none where the past is a profile, and this is the first frame behind it.
        compared = seen if state[row, _LAST] > -np.inf else 0.0
        size = offset[i + 1] - offset[i]

        # Bus: mean of the last gaps against a running median of its logarithm, slow enough to outlast an attack. The median
        # moves by 2/n octaves at first, so that it arrives soon, then by less and less.
        pace = 0.0
        if bus[2] > 0:
            bus[7] += (max(now - bus[0], 0.0) - bus[7]) / min(bus[2], _PACE_OVER)
            gap = np.log2(max(bus[7], _SHORTEST))
            if bus[2] > 1:
                pace = bus[1] - gap
                bus[9] += 1
                step = 2.0 / bus[9] if bus[9] < _WARM_UP_BUS else _SLOWEST_BUS
                bus[1] -= min(max(pace, -step), step)
            else:
                bus[1] = gap
        else:
            bus[4] = now
        bus[0] = max(now, bus[0])
        bus[2] += 1
        until_overdue -= 1
        if until_overdue == 0:
            # Periodic IDs that are silent for too long: a pass over all of them, so only now and then.
            until_overdue = _OVERDUE_EVERY
            overdue = 0
            for s in range(n_ids):
                if state[s, SEEN] >= _ESTABLISHED and state[s, _DUE] <= now <= state[s, _GIVEN_UP]:
                    overdue += 1
            bus[3] = np.log2(1.0 + overdue)

        # Interval of this ID against a running median of its logarithm (frugal streaming: Ma, Muthukrishnan and
        # Sandler 2013), from the ID's last frame on time or from its last frame, whichever fits better: after an injected
        # frame the sender's next one follows on the sender's last, and after a mistaken verdict on the one in between.
        ratio, on_time, fits_latest = 0.0, True, False
        learn = max(1.0 / max(seen, 1.0), _SLOWEST)
        if compared == 1:
            state[row, _LEVEL] = np.log2(max(now - state[row, _LAST], _SHORTEST))
            state[row, _IRREGULAR] = 1.0  # periodic only once it has shown to be
        elif compared > 1:
            level, irregular = state[row, _LEVEL], state[row, _IRREGULAR]
            ratio = min(max(np.log2(max(now - state[row, _LAST], _SHORTEST)) - level, -_CLIP), _CLIP)
            if state[row, LATEST] > state[row, _LAST]:
                other = min(max(np.log2(max(now - state[row, LATEST], _SHORTEST)) - level, -_CLIP), _CLIP)
                fits_latest = abs(other) < abs(ratio)
                ratio = other if fits_latest else ratio
            # What comes early moves the statistics by the square of that less, and what comes far too early not at all:
            # neither does a flood soon look usual, nor the traffic after it unusual.
            if ratio < 0.0:
                learn *= np.exp2(2.0 * ratio)
            on_time = ratio >= -(_EARLY + 4.0 * irregular) or irregular >= _REGULAR or seen < _TRUSTED
            state[row, _LEVEL] += min(max(ratio, -learn), learn)
            state[row, _IRREGULAR] += min(max(abs(ratio) - irregular, -learn), learn)

        # One frame too many: a periodic ID's last three frames took less time than two of its intervals. Wherever between two
        # of the sender's frames an injected one lies, these two are one interval apart.
        pair = now - state[row, _BEFORE]
        crowded = state[row, _PERIOD] > 0.0 and pair < 2.0 * _CROWDED * state[row, _PERIOD]
        middle_is_early = state[row, LATEST] > state[row, _LAST]
        moved, differs = 0, 0

        # Payload against the frame that the interval counts from; the bits that ever toggled; each byte's usual change. Of
        # a shorter frame the rest counts as zeros. A word of eight bytes at a time: XOR gives all bits that flipped at once.
        distance, novel, learnt, jump = 0, 0, 0, 1.0
        most = _BYTE * learn if on_time else 0.0
        longest = max(size, int(max(state[row, _DLC], state[row, _OLDER_DLC], state[row, _LATEST_DLC])))
        for w in range((longest + _WORD - 1) // _WORD):
            value, mask = _U(0), _U(0)
            begin, left = offset[i] + _WORD * w, size - _WORD * w
            if left >= _WORD:
                mask = ~mask
                for b in range(_WORD):
                    value |= _U(payload[begin + b]) << _U(8 * b)
            else:
                for b in range(left):
                    value |= _U(payload[begin + b]) << _U(8 * b)
                    mask |= _U(255) << _U(8 * b)
            on_time_word = last[row, w]
            if compared > 0:
                # `mask` leaves out what the frame lacks: a shorter payload is no change of the bytes behind its end.
                previous = (latest[row, w] if fits_latest else on_time_word) & mask
                flipped = value ^ previous
                if crowded:
                    middle, before_it = latest[row, w], on_time_word if middle_is_early else older[row, w]
                    moved += _set_bits(middle ^ before_it)
                    differs += _set_bits(value ^ middle)
                distance += _distance(value, previous, toggled[row, w], min(left, _WORD))
                fresh = flipped & ~toggled[row, w]
                if fresh != _U(0):
                    novel += _set_bits(fresh)
                    if on_time:
                        learnt += _set_bits(fresh)
                if on_time:
                    toggled[row, w] |= flipped
                was = value ^ flipped
                for b in range(min(left, _WORD)):
                    usual = np.float64(usual_change[row, _WORD * w + b])
                    change = _change(value, was, b)
                    jump = max(jump, (1.0 + change) / (1.0 + usual))
                    usual_change[row, _WORD * w + b] = usual + min(max(change - usual, -most), most)
            latest[row, w] = value
            if on_time:
                older[row, w] = on_time_word if compared > 0 else value
                last[row, w] = value

        # An event explains the frame in between if it brings a change that stays, or is this frame's own.
        extra = 0.0
        if crowded:
            early = now - state[row, LATEST] < state[row, LATEST] - state[row, _BEFORE]
            explained = 2 * differs < moved if moved > 0 else differs > 0 and early
            if not explained:
                extra = min(np.log2(2.0 * state[row, _PERIOD] / max(pair, _SHORTEST)), _MOST_CROWDED)

        # Distance against its own running median, in units of the running deviation and one bit.
        deviation = 0.0
        if compared == 1:
            state[row, _DISTANCE] = distance
        elif compared > 1:
            off, spread = distance - state[row, _DISTANCE], state[row, _SPREAD]
            deviation = min(max(off / (spread + 1.0), -_CLIP), _CLIP)
            if on_time:
                state[row, _DISTANCE] += min(max(off, -_BIT * learn), _BIT * learn)
                state[row, _SPREAD] += min(max(abs(off) - spread, -_BIT * learn), _BIT * learn)

        # The largest jump of a byte too counts against the usual one: of many bytes it is larger.
        leap = np.log2(jump) if jump > 1.0 else 0.0
        off = leap - state[row, _JUMP]
        if on_time and compared > 1:
            state[row, _JUMP] += min(max(off, -learn), learn)

        # An ID that is new means little before the slowest one seen could have been seen twice, and a deviation little from
        # what was seen but twice. It means little too where others are new as well: a bus that wakes up.
        age = max(now - bus[4], 0.0)
        settled = min(age / (_SETTLING * max(bus[6], 1.0)), 1.0)
        trust = min(seen / _TRUSTED, 1.0)
        if seen == 0:
            state[row, _FIRST] = now
        elif seen == _PACED:
            bus[6] = max(bus[6], (now - state[row, _FIRST]) / _PACED)
        if seen < _ESTABLISHED:
            appeared = state[row, _FIRST] - bus[4]
            state[row, _ALONE] = max(appeared - bus[5], 0.0)
            if seen == _ESTABLISHED - 1:
                bus[5] = max(appeared, bus[5])
                # Several fast IDs that appear together and stay: the bus woke up, and its pace is learnt once more.
                rate = np.exp2(-state[row, _LEVEL])
                if state[row, _ALONE] < _LITTLE * max(age, _SETTLING) and rate > _FAST * bus[8]:
                    bus[9] = 0.0
                bus[8] = max(rate, bus[8])
        before = state[row, _LATEST_DLC if fits_latest else _DLC]
        out[i, 0] = ratio * trust
        out[i, 1] = extra
        # Bits count against those of the ID that ever moved, so that constant ones, which pad many payloads, do not count.
        moving = 1.0 + state[row, _MOVING]
        out[i, 2] = np.log2(1.0 + distance / moving) if seen >= _ESTABLISHED and distance > 0 else 0.0
        out[i, 3] = deviation * trust
        out[i, 4] = np.log2(1.0 + novel / moving) if seen >= _ESTABLISHED and novel > 0 else 0.0
        out[i, 5] = off * trust if compared > 1 else 0.0
        out[i, 6] = settled if seen == 0 else 0.0
        out[i, 7] = settled / (1.0 + seen)
        # Only an ID as fast as the bus's fastest floods it; its first two frames show in `first_sighting` and `young`.
        newcomer = min(state[row, _ALONE] / max(age, _SETTLING), 1.0) if seen > 1 else 0.0
        if newcomer > _LITTLE and bus[8] > 0.0:
            newcomer *= min(np.exp2(-state[row, _LEVEL]) / bus[8], 1.0)
        out[i, 8] = newcomer
        out[i, 9] = 1.0 if seen > 0 and before != size else 0.0
        out[i, 10] = min(max(pace, -_CLIP), _CLIP)
        out[i, 11] = bus[3]
        state[row, _MOVING] += learnt

        # Only what is on time becomes what the next frames are compared with. Of a periodic ID that was seen often enough
        # the time from which it counts as overdue is known from here on.
        state[row, SEEN] = seen + 1
        state[row, _BEFORE] = state[row, LATEST]
        state[row, LATEST] = max(now, state[row, LATEST]) if seen > 0 else now
        state[row, _LATEST_DLC] = size
        if on_time:
            state[row, _LAST] = state[row, LATEST]
            state[row, _OLDER_DLC] = state[row, _DLC]
            state[row, _DLC] = size
        if seen + 1 >= _ESTABLISHED:
            period = np.exp2(state[row, _LEVEL]) if state[row, _IRREGULAR] < _REGULAR else -np.inf
            state[row, _PERIOD] = period
            state[row, _DUE] = state[row, _LAST] + _OVERDUE_FROM * period
            state[row, _GIVEN_UP] = state[row, _LAST] + _OVERDUE_TO * period
