"""Numbers for arbitration IDs, so that what is kept of each is a row of an array."""

import numpy as np
from numba import njit

_NUMBERED = 1 << 16  # IDs numbered at once


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _number(keys: np.ndarray, known: np.ndarray, number_of: np.ndarray, count: int, out: np.ndarray) -> int:
    """Number each key by a table with open addressing whose size is a power of two; returns how many there are now."""
    last = len(known) - 1
    for i in range(len(keys)):
        key = np.int64(keys[i])
        at = (key * 2654435769 >> 8) & last  # Knuth's multiplicative hashing
        while known[at] != key:
            if known[at] < 0:
                known[at] = key
                number_of[at] = count
                count += 1
                break
            at = (at + 1) & last
        out[i] = number_of[at]
    return count


class Slots:
    """Numbers arbitration IDs from 0 in the order of first sighting.

    Attributes:
        count: how many there are so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._known = np.full(1 << 12, -1, np.int64)
        self._number_of = np.zeros(len(self._known), np.int32)

    def number(self, keys: np.ndarray) -> np.ndarray:
        """The number of each frame's ID, int32 [n].

        Args:
            keys: [n] u32 arbitration IDs, bit 31 set if extended.
        """
        out = np.empty(len(keys), np.int32)
        for first in range(0, len(keys), _NUMBERED):
            part = keys[first : first + _NUMBERED]
            if 2 * (self.count + len(part)) > len(self._known):
                self._grow(2 * (self.count + len(part)))
            self.count = _number(part, self._known, self._number_of, self.count, out[first : first + _NUMBERED])
        return out

    def keep(self, numbers: np.ndarray) -> None:
        """Forget all IDs but those with these numbers, int32 [n]; the first of them is 0 from now on, and so on."""
        keys = self._keys()[numbers]
        self.count = len(keys)
        self._fill(keys, len(self._known))

    def _keys(self) -> np.ndarray:
        """The IDs by their numbers."""
        used = self._known >= 0
        keys: np.ndarray = self._known[used][np.argsort(self._number_of[used])]
        return keys

    def _grow(self, least: int) -> None:
        self._fill(self._keys(), 1 << (least - 1).bit_length())

    def _fill(self, keys: np.ndarray, size: int) -> None:
        self._known, self._number_of = np.full(size, -1, np.int64), np.zeros(size, np.int32)
        _number(keys, self._known, self._number_of, 0, np.empty(len(keys), np.int32))
