"""The bus: one frame at a time, the lowest arbitration ID first."""

from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.traffic import SECOND, Frames


def frame_bits(dlc: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits [n] that a frame with an 11-bit ID keeps the bus busy, by payload length in bytes.

    47 bits of frame and pause beside the payload (ISO 11898-1), and one stuff bit for every ten of the 34 + 8·DLC bits
    that are stuffed: about the mean of real payloads; the worst case is one for every four (Davis et al. 2007,
    "Controller Area Network (CAN) schedulability analysis: Refuted, revisited and revised").
    """
    return 47 + 8 * dlc + (34 + 8 * dlc) // 10


def arbitrate(frames: Frames, bit_rate: int) -> NDArray[np.int64]:
    """When each frame [n] has been received, in nanoseconds, or -1 if it never was sent.

    `frames` are in the order of their release. A free bus takes the waiting frame with the lowest ID, and a frame under
    way is never interrupted. A controller keeps one transmit buffer per ID: what still waits there when the next frame
    of that ID is released is overwritten and lost, so a flooded bus starves low priorities and no queue grows.
    """
    release = frames.release.tolist()
    busy = (frame_bits(frames.dlc) * SECOND // bit_rate).tolist()
    # The vehicle's buffer comes before the attacker's of the same ID; real nodes would destroy both frames.
    buffer = (2 * frames.can_id + frames.injected).tolist()
    content = [-1] * 4096
    waiting: list[int] = []
    received = [-1] * len(release)
    now = upcoming = 0
    while upcoming < len(release) or waiting:
        if not waiting:
            now = max(now, release[upcoming])
        while upcoming < len(release) and release[upcoming] <= now:
            if content[buffer[upcoming]] < 0:
                heappush(waiting, buffer[upcoming])
            content[buffer[upcoming]] = upcoming
            upcoming += 1
        sender = heappop(waiting)
        frame = content[sender]
        content[sender] = -1
        now += busy[frame]
        received[frame] = now
    return np.array(received, dtype=np.int64)
