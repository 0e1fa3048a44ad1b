"""A rule without learning: how long an arbitration ID has been silent beside its longest silence so far.

It knows nothing of a vehicle beforehand, and sees what no window that lacks a frame can show: suppression.
"""

import numpy as np

from canids_shared.contracts.graph_store import GraphStore

_ESTABLISHED = 8
"""Windows with an ID before its silence counts."""
_GIVEN_UP = 16.0
"""Multiples of its longest silence after which an ID is no longer expected: a bus that went to sleep is no alarm for ever."""


def scores(store: GraphStore) -> np.ndarray:
    """Score of each window, f64 [W] in [0, 1): r / (1 + r), r the largest silence of an ID over its longest one before.

    Each stretch of consecutive windows starts without a past; within it a score depends on that window and those before it alone.
    """
    pointer, ids = np.asarray(store["node_ptr"]), np.asarray(store["node_id"])
    number, capture = np.asarray(store["window"]), np.asarray(store["capture"])
    begin, end = np.asarray(store["t_start"]), np.asarray(store["t_end"])
    follows = np.append(False, (capture[1:] == capture[:-1]) & (number[1:] == number[:-1] + 1))
    known, place = np.unique(ids, return_inverse=True)
    seen, last, longest = np.zeros(len(known), np.int64), np.zeros(len(known)), np.zeros(len(known))
    ratio = np.zeros(len(store))
    for w in range(len(store)):
        if not follows[w]:
            seen[:] = 0
        here = place[pointer[w] : pointer[w + 1]]
        # A window says that an ID was there, not when: no silence is shorter than its window.
        silence = end[w] - last
        late = silence / np.maximum(longest, end[w] - begin[w])
        waited = (seen >= _ESTABLISHED) & (late < _GIVEN_UP)
        waited[here] = False
        ratio[w] = late[waited].max(initial=0.0)
        before = here[seen[here] > 0]
        longest[here[seen[here] == 0]] = 0.0
        longest[before] = np.maximum(longest[before], begin[w] - last[before])
        seen[here] += 1
        last[here] = end[w]
    return ratio / (1 + ratio)
