"""A recorded bus with further frames on it: its bit rate, and when each frame gets through."""

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.bus import frame_bits
from canids_preprocess.simulation.traffic import SECOND

BIT_RATES = (33_333, 50_000, 83_333, 100_000, 125_000, 250_000, 500_000, 1_000_000)
"""Usual bit rates of vehicles' buses, bit/s."""
USUAL_RATE = 500_000
_SHORTER = 0.03
"""Share of the intervals that may be shorter than a frame takes: loggers' timestamps scatter."""
_TOLERANCE = 0.9
_EXTENDED = 0x800
"""A 29-bit ID is this much more than its value among the numbers of IDs, so that one number names an ID of either length."""


def number_of(can_id: NDArray[np.int64], extended: NDArray[np.bool_]) -> NDArray[np.int64]:
    """One number [n] for each ID of either length: 11-bit ones are their own, 29-bit ones come behind all of them."""
    return can_id + _EXTENDED * extended


def id_of(number: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """IDs [n] and whether they have 29 bits, of `number_of`."""
    extended = number >= _EXTENDED
    return number - _EXTENDED * extended, extended


def bit_rate_of(received: NDArray[np.int64], bits: NDArray[np.int64]) -> int | None:
    """The lowest usual bit rate at which a recording is possible, or None where its timestamps fit none.

    Frames that wait for each other follow without a pause, so intervals are hardly ever shorter than a frame takes, and no second
    holds more bits than the bus carries.

    Args:
        received: times of receipt [n], int64 nanoseconds, not decreasing.
        bits: length of each frame on the bus [n].
    """
    interval = np.diff(received) / SECOND
    # By the seconds that have frames: a clock that was set leaves millions without.
    busiest = np.bincount(np.unique((received - received[0]) // SECOND, return_inverse=True)[1], weights=bits).max()
    for rate in BIT_RATES:
        shorter = interval < _TOLERANCE * bits[1:] / rate
        if busiest <= rate and shorter.mean() <= _SHORTER:
            return rate
    return None


@dataclass(frozen=True)
class Queue:
    """Frames [n] in the order in which their senders want to send them.

    Attributes:
        release: from when on each waits for the bus, nanoseconds, not decreasing.
        priority: the lower the number the earlier it is sent.
        busy: how long it keeps the bus, nanoseconds.
    """

    release: list[int]
    priority: list[int]
    busy: list[int]

    @classmethod
    def of(
        cls,
        release: NDArray[np.int64],
        number: NDArray[np.int64],
        remote: NDArray[np.bool_],
        injected: NDArray[np.bool_],
        busy: NDArray[np.int64],
    ) -> "Queue":
        """Frames [n] with the priorities of their arbitration fields; of equal ones the injected frame comes second."""
        can_id, extended = id_of(number)
        # Eleven bits, RTR or SRR, IDE, eighteen bits, RTR: dominant bits are zeros, so the lowest number wins (ISO 11898-1).
        base, low = np.where(extended, can_id >> 18, can_id), np.where(extended, can_id & 0x3FFFF, 0)
        field = base << 21 | (extended | remote) << 20 | extended << 19 | low << 1 | (extended & remote)
        return cls(release.tolist(), (2 * field + injected).tolist(), busy.tolist())

    def carry(self, first: int, now: int, last: int) -> tuple[list[int], list[int], int]:
        """Send the frames from number `first` on, until `last` and all that wait beside it are through.

        Args:
            first: the first frame that may wait.
            now: when the bus is free, nanoseconds.
            last: the frame at which the bus may be left to itself again, as soon as it is idle.

        Returns:
            The frames in the order in which they get through, when each of them is received, and the first frame that is not
            affected: it begins on an idle bus.
        """
        release, priority, busy = self.release, self.priority, self.busy
        sent, received = [], []
        waiting: list[tuple[int, int]] = []
        upcoming, n = first, len(release)
        while waiting or upcoming < n:
            if not waiting:
                if upcoming > last and release[upcoming] >= now:
                    break
                now = max(now, release[upcoming])
            # Frames of one ID keep their order: none overtakes or overwrites another.
            while upcoming < n and release[upcoming] <= now:
                heappush(waiting, (priority[upcoming], upcoming))
                upcoming += 1
            frame = heappop(waiting)[1]
            now += busy[frame]
            sent.append(frame)
            received.append(now)
        return sent, received, upcoming


def busy_ns(
    dlc: NDArray[np.int64], extended: NDArray[np.bool_], remote: NDArray[np.bool_], bit_rate: int
) -> NDArray[np.int64]:
    """How long frames [n] keep the bus, int64 nanoseconds."""
    return frame_bits(np.where(remote, 0, dlc), extended) * SECOND // bit_rate
