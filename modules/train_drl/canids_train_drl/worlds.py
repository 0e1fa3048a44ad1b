"""Copies of a split in which one detector is blind: what makes fusion worth learning.

On the attacks it was trained on, the GAT hardly errs; a policy that sees nothing else learns to trust it blindly, and is
lost with the first attack that it does not know. So an episode may be played in a world where one detector does not see
the attack: in attacked windows all its outputs are those of a random attack-free window of the same split. The policy
then has to use the other one. In some of these worlds the detector is blind in part of the attacked windows only, as it
is with an attack that resembles a known one now and then; from them the policy learns to remember what it has seen.
Windows without attack are the same in every world; world 0 is the split as it is.
"""

from dataclasses import dataclass

import numpy as np

from canids_train_drl.states import States

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Share of the attacked windows in which the detector is blind; each detector has a world for each."""
_PREFIXES = ("gat_", "vgae_")


@dataclass(frozen=True)
class Worlds:
    """How W worlds differ from a split of N windows.

    Attributes:
        donors: int64 [W, N], the attack-free window that lends its outputs (a window itself: nothing changes).
        blind: for each world, the prefix of the columns concerned; empty in world 0.
        probability: float64 [W], how often an episode is played in it.
    """

    donors: np.ndarray
    blind: tuple[str, ...]
    probability: np.ndarray

    def __len__(self) -> int:
        """Number of worlds."""
        return len(self.blind)

    def values(self, states: States, world: int) -> np.ndarray:
        """Detector outputs in a world, float32 [N, C]; also of other detectors' outputs for the same windows."""
        out = states.values.copy()
        if self.blind[world]:
            columns = np.flatnonzero([name.startswith(self.blind[world]) for name in states.columns])
            out[:, columns] = states.values[np.ix_(self.donors[world], columns)]
        return out


def draw(states: States, blind: float, rng: np.random.Generator) -> Worlds:
    """Draw the worlds of a split with attack-free windows; `blind` is the probability of each detector's blindness."""
    quiet, attacked = np.flatnonzero(states.labels == 0), np.flatnonzero(states.labels == 1)
    kinds = [(prefix, share) for prefix in _PREFIXES for share in SHARES] if blind else []
    donors = np.tile(np.arange(len(states)), (1 + len(kinds), 1))
    for lenders, (_, share) in zip(donors[1:], kinds, strict=True):
        unseen = attacked[rng.random(len(attacked)) < share]
        lenders[unseen] = rng.choice(quiet, len(unseen))
    probability = np.array([1 - 2 * blind, *[blind / len(SHARES)] * len(kinds)])
    return Worlds(donors, ("", *(prefix for prefix, _ in kinds)), probability)
