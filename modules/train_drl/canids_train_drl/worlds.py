"""Variations of a split that make fusion worth learning: detectors that are blind, attacks at other times.

**Blind.** On the attacks it was trained on, the GAT hardly errs; a policy that sees nothing else learns to trust it blindly,
and is lost with the first attack that it does not know. So an episode may be played in a world where one detector does not
see the attack: in attacked windows all its outputs are those of a random attack-free window of the same split. The policy
then has to use the other one. In some of these worlds the detector is blind in part of the attacked windows only, as it
is with an attack that resembles a known one now and then; from them the policy learns to remember what it has seen.

**Spliced.** A split has few attacks, and an attack has one beginning and one end: hardly anything to learn from when to raise
the alarm and when to take it back. So there are worlds in which further attacks lie in the attack-free stretches: the
beginning and the end of a recorded one, from any capture of the split, with the windows that followed it. Scores are on a
common scale, so those of another vehicle will do.

World 0 is the split as it is.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from canids_train_drl.states import States

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Share of the attacked windows in which the detector is blind; each detector has a world for each."""
SPLICED = 4
"""Worlds with spliced attacks in which both detectors see."""
QUIET_WINDOWS, ATTACKED_WINDOWS, AFTERMATH = 30.0, 12.0, 3
"""Mean length of what is left between spliced attacks and of the attacks, and how many windows after one go with it."""
_PREFIXES = ("gat_", "vgae_")


@dataclass(frozen=True)
class Worlds:
    """How W worlds differ from a split of N windows.

    Attributes:
        windows: int64 [W, N], the window whose outputs and label stand there (itself: nothing is spliced).
        donors: int64 [W, N], the attack-free window that lends its outputs to the blind detector (itself: it sees).
        blind: for each world, the prefix of the columns concerned; empty where both see.
        probability: float64 [W], how often an episode is played in it.
    """

    windows: np.ndarray
    donors: np.ndarray
    blind: tuple[str, ...]
    probability: np.ndarray

    def __len__(self) -> int:
        """Number of worlds."""
        return len(self.blind)

    def values(self, states: States, world: int) -> np.ndarray:
        """Detector outputs in a world, float32 [N, C]; also of other detectors' outputs for the same windows."""
        out: np.ndarray = states.values[self.windows[world]]
        if self.blind[world]:
            columns = np.flatnonzero([name.startswith(self.blind[world]) for name in states.columns])
            unseen = np.flatnonzero(self.donors[world] != self.windows[world])
            out[np.ix_(unseen, columns)] = states.values[np.ix_(self.donors[world][unseen], columns)]
        return out

    def labels(self, states: States) -> np.ndarray:
        """Labels in all worlds, int8 [W, N]."""
        return np.asarray(states.labels[self.windows])


def none(states: States) -> Worlds:
    """The split as it is, and nothing else."""
    own = np.arange(len(states))[None]
    return Worlds(own, own, ("",), np.ones(1))


def draw(states: States, blind: float, spliced: float, rng: np.random.Generator) -> Worlds:
    """Draw the worlds of a split with attacked and attack-free windows.

    Args:
        blind: probability of each detector's blindness.
        spliced: probability of spliced attacks.
    """
    quiet = np.flatnonzero(states.labels == 0)
    # Who is blind, in which share of the attacked windows, and how often.
    seeing = ("", 0.0, 1 - 2 * blind)
    kinds = [(prefix, share, blind / len(SHARES)) for prefix in _PREFIXES for share in SHARES] if blind else []
    sights = [(prefix, share, (1 - spliced) * p) for prefix, share, p in (seeing, *kinds)]
    windows = [np.arange(len(states))] * len(sights)
    if spliced:
        there = [seeing] * SPLICED + kinds
        sights += [(prefix, share, spliced * p / (1 if prefix else SPLICED)) for prefix, share, p in there]
        windows += [_spliced(states, rng) for _ in there]
    donors = []
    for own, (_, share, _) in zip(windows, sights, strict=True):
        lenders = own.copy()
        hit = np.flatnonzero(states.labels[own] == 1)
        unseen = hit[rng.random(len(hit)) < share]
        lenders[unseen] = rng.choice(quiet, len(unseen))
        donors.append(lenders)
    prefixes, _, probability = zip(*sights, strict=True)
    return Worlds(np.stack(windows), np.stack(donors), prefixes, np.array(probability))


def _runs(flags: np.ndarray, segments: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of each run of flagged windows within a segment."""
    edges = np.zeros(len(flags) + 1, dtype=bool)
    edges[segments] = True
    edges[1:-1] |= flags[1:] != flags[:-1]
    return [(int(a), int(b)) for a, b in pairwise(np.flatnonzero(edges)) if flags[a]]


def _spliced(states: States, rng: np.random.Generator) -> np.ndarray:
    """Which window stands where, int64 [N], with attacks spliced into the attack-free stretches."""
    there = np.arange(len(states))
    segment_end = np.repeat(states.segments[1:], np.diff(states.segments))
    episodes = _runs(states.labels == 1, states.segments)
    for begin, end in _runs(states.labels == 0, states.segments):
        place = begin + int(rng.geometric(1 / QUIET_WINDOWS))
        while place < end - AFTERMATH - 1:
            first, last = episodes[rng.integers(len(episodes))]
            length = min(int(rng.geometric(1 / ATTACKED_WINDOWS)), last - first, end - AFTERMATH - place)
            head = (length + 1) // 2
            after = np.arange(last, min(last + AFTERMATH, segment_end[first]))
            after = after[states.labels[after] == 0]
            source = np.concatenate([np.arange(first, first + head), np.arange(last - length + head, last), after])
            there[place : place + len(source)] = source
            place += len(source) + int(rng.geometric(1 / QUIET_WINDOWS))
    return there
