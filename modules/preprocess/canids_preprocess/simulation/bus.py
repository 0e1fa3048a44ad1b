"""The bus: one frame at a time, the lowest arbitration ID first."""

from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.traffic import SECOND, Frames, joined


def frame_bits(dlc: NDArray[np.int64], extended: NDArray[np.bool_] | bool = False) -> NDArray[np.int64]:
    """Bits [n] for which a classical frame keeps the bus busy, by payload length in bytes (of a remote frame 0).

    With an 11-bit ID 47 bits of frame and pause beside the payload, with a 29-bit ID 20 more (ISO 11898-1), and one stuff bit
    for every ten of the 34 (54) + 8·DLC bits that are stuffed: about the mean of real payloads; the worst case is one for every
    four (Davis et al. 2007, "Controller Area Network (CAN) schedulability analysis: Refuted, revisited and revised").
    """
    longer = 20 * np.asarray(extended, dtype=np.int64)
    return np.asarray(47 + longer + 8 * dlc + (34 + longer + 8 * dlc) // 10)


class Bus:
    """A bus and the transmit buffers of its nodes.

    A free bus takes the waiting frame with the lowest ID, and a frame under way is never interrupted. A controller keeps
    one transmit buffer per ID: what still waits there when the next frame of that ID is released is overwritten and lost,
    so a flooded bus starves low priorities and no queue grows.
    """

    def __init__(self, bit_rate: int) -> None:
        """An idle bus of `bit_rate` bit/s."""
        self._bit_rate = bit_rate
        self._now = 0
        self._waiting: Frames | None = None

    def carry(self, released: Frames, until: int) -> tuple[Frames, NDArray[np.int64]]:
        """The frames [m] whose transmission begins before `until` (ns), in that order, and when each has been received.

        Args:
            released: the next frames in the order of their release, all that are released before `until`.
            until: nanoseconds from the start; the next call goes on from here.
        """
        # Frames that waited at the end of the last call come first; plain lists, since the loop goes frame by frame.
        held = 0 if self._waiting is None else len(self._waiting)
        frames = released if self._waiting is None else joined([self._waiting, released])
        release = frames.release.tolist()
        busy = (frame_bits(frames.dlc) * SECOND // self._bit_rate).tolist()
        # The vehicle's buffer comes before the attacker's of the same ID; real nodes would destroy both frames.
        buffer = (2 * frames.can_id + frames.injected).tolist()
        # `content`: the frame in each transmit buffer that is not empty; `waiting`: those buffers as a heap. The lower the
        # number of a buffer the higher its priority, as in arbitration: the lowest ID stays dominant to its last bit.
        content = dict(zip(buffer[:held], range(held), strict=True))
        waiting = list(content)
        heapify(waiting)
        sent, received = [], []
        now, upcoming, n = self._now, held, len(release)
        while waiting or upcoming < n:
            # An idle bus stays idle until the next frame is released.
            if not waiting:
                now = max(now, release[upcoming])
            if now >= until:
                break
            # What was released while the last frame was on the bus: a frame still in its buffer is overwritten.
            while upcoming < n and release[upcoming] <= now:
                if buffer[upcoming] not in content:
                    heappush(waiting, buffer[upcoming])
                content[buffer[upcoming]] = upcoming
                upcoming += 1
            # The waiting frame with the lowest ID has the bus to itself until it is complete.
            frame = content.pop(heappop(waiting))
            now += busy[frame]
            sent.append(frame)
            received.append(now)
        # A transmission may outlast `until`: frames released meanwhile wait too, the latest one of each buffer.
        content.update(zip(buffer[upcoming:], range(upcoming, n), strict=True))
        self._now = now
        self._waiting = frames[np.array(sorted(content.values()), dtype=np.int64)]
        return frames[np.array(sent, dtype=np.int64)], np.array(received, dtype=np.int64)
