"""Indices of arbitration IDs, so that what is remembered of each ID is a row of an array."""

import secrets

import numpy as np
from numba import njit

_AT_ONCE = 1 << 16  # frames looked up at once
_MULTIPLIER = np.uint64(secrets.randbits(64) | 1)
"""Odd, and different in every process: nobody can choose IDs that collide. Indices do not depend on it."""


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _look_up(
    ids: np.ndarray,
    known: np.ndarray,
    index_of: np.ndarray,
    count: int,
    out: np.ndarray,
    multiplier: np.uint64,
    shift: np.uint64,
) -> int:
    """Look each ID up in a hash table of 2^(64 - `shift`) places, adding those that are new.

    Returns how many IDs the table holds afterwards.
    """
    # Open addressing: the size is a power of two, so `& last` takes the remainder; a free place holds -1.
    one = np.uint64(1)
    last = np.uint64(len(known)) - one
    for i in range(len(ids)):
        can_id = np.int64(ids[i])
        # Multiply-shift hashing (Dietzfelbinger et al. 1997): two IDs share a place with probability 2/size at most.
        place = (np.uint64(ids[i]) * multiplier) >> shift
        while known[place] != can_id:
            if known[place] < 0:
                known[place] = can_id
                index_of[place] = count
                count += 1
                break
            place = (place + one) & last
        out[i] = index_of[place]
    return count


class IdIndex:
    """Index of every arbitration ID seen, from 0 in the order of first sighting.

    Attributes:
        count: IDs seen so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._known = np.full(1 << 12, -1, np.int64)
        self._index_of = np.zeros(len(self._known), np.int32)

    def look_up(self, ids: np.ndarray) -> np.ndarray:
        """Index of each frame's ID, int32 [n], for `ids` [n] u32 (bit 31 set if extended); new IDs are added."""
        out = np.empty(len(ids), np.int32)
        for first in range(0, len(ids), _AT_ONCE):
            part = ids[first : first + _AT_ONCE]
            # At most half of the table is in use, even if every frame of the part has a new ID.
            if 2 * (self.count + len(part)) > len(self._known):
                self._fill(self.ids(), 1 << (2 * (self.count + len(part)) - 1).bit_length())
            self.count = self._look_up(part, self.count, out[first : first + _AT_ONCE])
        return out

    def _look_up(self, ids: np.ndarray, count: int, out: np.ndarray) -> int:
        shift = np.uint64(65 - len(self._known).bit_length())
        return int(_look_up(ids, self._known, self._index_of, count, out, _MULTIPLIER, shift))

    def keep(self, id_index: np.ndarray) -> None:
        """Forget all IDs but those with these indices, int32 [n]; they are renumbered from 0 in this order."""
        ids = self.ids()[id_index]
        self.count = len(ids)
        self._fill(ids, len(self._known))

    def ids(self) -> np.ndarray:
        """All IDs in the order of their indices."""
        used = self._known >= 0
        ids: np.ndarray = self._known[used][np.argsort(self._index_of[used])]
        return ids

    def _fill(self, ids: np.ndarray, size: int) -> None:
        self._known, self._index_of = np.full(size, -1, np.int64), np.zeros(size, np.int32)
        self._look_up(ids, 0, np.empty(len(ids), np.int32))
