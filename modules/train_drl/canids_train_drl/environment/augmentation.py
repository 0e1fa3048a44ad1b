"""Variations of a split, called worlds, from which fusion can be learnt: detector dropout and attack splicing.

**Detector dropout.** A supervised detector hardly errs on the attacks that it was trained on. A policy that sees nothing else
learns to trust it alone, and fails at the first unknown attack. So an episode may be played in a world where one detector
misses the attack: in attacked windows all its outputs are those of a random attack-free window of the same split, and the
policy has to use the others. In some of these worlds only a share of the attacked windows is missed, as with an attack that
resembles a known one now and then; from them the policy learns to remember what it has seen. A single detector is never
dropped: nothing would be left to decide by.

**Attack splicing.** A split has few attacks, and an attack has one beginning and one end: few examples of when to raise the
alarm and when to end it. So there are worlds in which further attacks lie in the attack-free stretches: the beginning and
the end of a recorded one, from any capture of the split, with the windows that followed it. Scores are on a common scale,
which makes those of another vehicle usable.

World 0 is the split as it was recorded.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from canids_train_drl.environment.states import States

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Share of the attacked windows that the dropped detector misses; each detector has a world for each."""
SPLICED = 4
"""Worlds with spliced attacks in which no detector is dropped."""
FREE_WINDOWS, ATTACKED_WINDOWS, AFTERMATH = 30.0, 12.0, 3
"""Mean number of windows between spliced attacks and within them, and windows that follow an attack and are spliced with it."""


@dataclass(frozen=True)
class Augmentation:
    """How W worlds differ from a split of N windows.

    Attributes:
        windows: int64 [W, N], the window whose outputs and label stand in each place (itself where nothing is spliced).
        donors: int64 [W, N], the attack-free window whose outputs the dropped detector has (equal to `windows` where it sees).
        dropped: for each world, the prefix of the columns of the dropped detector; empty where all see.
        probability: float64 [W], how often an episode is played in it.
    """

    windows: np.ndarray
    donors: np.ndarray
    dropped: tuple[str, ...]
    probability: np.ndarray

    @classmethod
    def none(cls, states: States) -> "Augmentation":
        """The split as it was recorded, and nothing else."""
        recorded = np.arange(len(states))[None]
        return cls(recorded, recorded, ("",), np.ones(1))

    @classmethod
    def draw(
        cls, states: States, detector_dropout: float, attack_splicing: float, rng: np.random.Generator
    ) -> "Augmentation":
        """Draw the worlds of a split with attacked and attack-free windows.

        Args:
            detector_dropout: with two detectors, the probability that each is dropped; more share twice this probability.
            attack_splicing: probability of spliced attacks.
        """
        attack_free, count = np.flatnonzero(states.labels == 0), len(states.detectors)
        total = 2 * detector_dropout if count > 1 else 0.0
        # Dropped detector, share of the attacked windows that it misses, and probability.
        nobody = ("", 0.0, 1 - total)
        each = total / count / len(SHARES)
        dropouts = [(d.prefix, share, each) for d in states.detectors for share in SHARES] if total else []
        worlds = [(prefix, share, (1 - attack_splicing) * p) for prefix, share, p in (nobody, *dropouts)]
        windows = [np.arange(len(states))] * len(worlds)
        # The same dropouts once more where attacks are spliced, and some worlds in which all detectors see these attacks.
        if attack_splicing:
            spliced = [nobody] * SPLICED + dropouts
            worlds += [
                (prefix, share, attack_splicing * p / (1 if prefix else SPLICED)) for prefix, share, p in spliced
            ]
            windows += [_splice(states, rng) for _ in spliced]
        # Which attacked windows are missed, and which attack-free window lends its outputs for each of them.
        donors = []
        for placed, (_, share, _) in zip(windows, worlds, strict=True):
            donor = placed.copy()
            attacked = np.flatnonzero(states.labels[placed] == 1)
            missed = attacked[rng.random(len(attacked)) < share]
            donor[missed] = rng.choice(attack_free, len(missed))
            donors.append(donor)
        prefixes, _, probability = zip(*worlds, strict=True)
        return cls(np.stack(windows), np.stack(donors), prefixes, np.array(probability))

    def __len__(self) -> int:
        """Number of worlds."""
        return len(self.dropped)

    def values(self, states: States, world: int) -> np.ndarray:
        """Detector outputs in a world, float32 [N, C]; also of other detectors' outputs for the same windows."""
        out: np.ndarray = states.values[self.windows[world]]
        if self.dropped[world]:
            columns = np.flatnonzero([name.startswith(self.dropped[world]) for name in states.columns])
            missed = np.flatnonzero(self.donors[world] != self.windows[world])
            out[np.ix_(missed, columns)] = states.values[np.ix_(self.donors[world][missed], columns)]
        return out

    def labels(self, states: States) -> np.ndarray:
        """Labels in all worlds, int8 [W, N]."""
        return np.asarray(states.labels[self.windows])


def _runs(flags: np.ndarray, segments: np.ndarray) -> list[tuple[int, int]]:
    """First window and end of each run of flagged windows within a segment."""
    # A run ends where its segment does, or where the flag changes.
    edges = np.zeros(len(flags) + 1, dtype=bool)
    edges[segments] = True
    edges[1:-1] |= flags[1:] != flags[:-1]
    return [(int(a), int(b)) for a, b in pairwise(np.flatnonzero(edges)) if flags[a]]


def _splice(states: States, rng: np.random.Generator) -> np.ndarray:
    """Which window stands in each place, int64 [N], with attacks spliced into the attack-free stretches."""
    placed = np.arange(len(states))
    segment_end = np.repeat(states.segments[1:], np.diff(states.segments))
    episodes = _runs(states.labels == 1, states.segments)
    for begin, end in _runs(states.labels == 0, states.segments):
        # Attack-free windows between attacks are geometrically distributed: no fixed rhythm that could be learnt.
        place = begin + int(rng.geometric(1 / FREE_WINDOWS))
        while place < end - AFTERMATH - 1:
            # A recorded episode, shortened in its middle: its first windows and its last ones are what is to be learnt.
            first, last = episodes[rng.integers(len(episodes))]
            length = min(int(rng.geometric(1 / ATTACKED_WINDOWS)), last - first, end - AFTERMATH - place)
            opening = (length + 1) // 2
            # The first windows after an attack go with it: features remember, so detector outputs may still show it.
            after = np.arange(last, min(last + AFTERMATH, segment_end[first]))
            after = after[states.labels[after] == 0]
            middle = [np.arange(first, first + opening), np.arange(last - length + opening, last)]
            source = np.concatenate([*middle, after])
            placed[place : place + len(source)] = source
            place += len(source) + int(rng.geometric(1 / FREE_WINDOWS))
    return placed
