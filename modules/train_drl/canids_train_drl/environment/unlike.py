"""A detector whose scores say that the traffic is unlike that of its training: it loses its vote, and the window says so.

On a bus unlike all that a detector was trained on its scores are high in every window, attack or not. Attacks come and go; where
nine in ten of all windows since a segment began score higher than nine in ten attack-free windows of every training vehicle do,
it is the bus. Until that passes, the detector's outputs are replaced by the medians of attack-free `calibrate` windows: every fusion
goes on with the other detectors, as it learnt to in the worlds in which a detector misses the attack (`detector_dropout`).
What this cannot tell from such a bus is an attack that begins with the recording and goes on for nearly all of it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from canids_train_drl.environment.observation import Observer

SHARE = 0.9
"""Of the windows since the segment began."""
FEWEST = 20
"""Windows after which a detector can be known to be unlike; until then it has its vote."""


@dataclass(frozen=True)
class Likeness:
    """What is remembered of a segment: windows seen, and of each detector how many scored above what is usual, int64 [D]."""

    seen: int
    above: np.ndarray


def step(observer: Observer, values: np.ndarray, state: Likeness | None) -> tuple[np.ndarray, np.ndarray, Likeness]:
    """The next windows of a segment.

    Args:
        values: detector outputs [n, C].
        state: what the windows before left; None at the beginning of a segment.

    Returns:
        Which detectors are unlike training, bool [n, D]; the outputs with those of these detectors replaced; the state.
    """
    score = values[:, [observer.columns.index(detector.score) for detector in observer.detectors]]
    seen = (state.seen if state else 0) + np.arange(1, len(values) + 1)
    above = np.cumsum(score > np.array(observer.usual), axis=0) + (state.above if state else 0)  # [n, D]
    unlike = (seen[:, None] >= FEWEST) & (above >= SHARE * seen[:, None])
    voting = values.copy()
    centre = np.array(observer.centre, dtype=values.dtype)
    for number, detector in enumerate(observer.detectors):
        columns = [c for c, name in enumerate(observer.columns) if name.startswith(detector.prefix)]
        voting[np.flatnonzero(unlike[:, number])[:, None], columns] = centre[columns]
    return (
        unlike,
        voting,
        Likeness(int(seen[-1]), above[-1]) if len(values) else (state or Likeness(0, above.sum(axis=0))),
    )


def over(observer: Observer, values: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`step` mapped over whole segments [S + 1]: bool [N, D], and outputs [N, C]."""
    parts = [step(observer, values[begin:end], None)[:2] for begin, end in pairwise(segments)]
    none = np.zeros((0, len(observer.detectors)), dtype=bool), values[:0]
    unlike, voting = (np.concatenate(part) for part in zip(none, *parts, strict=True))
    return unlike, voting
