"""Search for thresholds on fused scores, within a budget of false alarms.

Settings are chosen on `fuse` in all worlds, weighted by their probability. Of those whose share of false alarms on attack-free
`calibrate` windows keeps to the budget, that with the highest F1 is best. Many are about equally good, and among those the one
in their middle is taken, which leaves an unknown attack or vehicle the most room.
"""

from collections.abc import Callable

import numpy as np

from canids_train_drl.environment.fusion_data import FusionData
from canids_train_drl.environment.fusion_environment import fusion_weights
from canids_train_drl.environment.rollout import f1

TOLERANCE = 0.002
"""Settings whose F1 differs by less count as equal."""
_AT_ONCE = 16
"""Settings tried at once: each takes memory for every window in every world."""
_LEVELS = 128
Weights = tuple[float, ...]
"""A weight for each detector; their sum is 1."""


def squashed(distance: np.ndarray) -> np.ndarray:
    """A score in (0, 1), float32, of a distance above a threshold: one half at the threshold."""
    return np.asarray(0.5 * (1 + distance / (1 + np.abs(distance))), dtype=np.float32)


def mixture(weights: Weights, scores: np.ndarray) -> np.ndarray:
    """Fixed-weight score, float32 [...], of scores [..., D]."""
    return np.asarray(sum(np.float32(weight) * scores[..., d] for d, weight in enumerate(weights)))


def _middle(settings: np.ndarray, quality: np.ndarray) -> int:
    """Of `settings` [P, K], the number of the one nearest to the mean of those whose quality [P] is within `TOLERANCE` of the best."""
    good = np.flatnonzero(quality >= quality.max() - TOLERANCE)
    distance = ((settings[good] - settings[good].mean(axis=0)) ** 2).sum(axis=1)
    return int(good[np.argmin(distance)])


class ThresholdSearch:
    """Tries settings on `fuse` in its W worlds, within a budget of false alarms on the attack-free windows of `calibrate`.

    Attributes:
        scores, calibrate_scores: float32 [W, N, D] and [1, M, D].
        attacked: bool [W, N], of `fuse`.
        attack_free: bool [M], of `calibrate`.
        budget: highest share of the attack-free windows that may be alarmed.
    """

    def __init__(self, data: FusionData, budget: float) -> None:
        fuse, calibrate = data.fuse, data.calibrate
        self.scores, self.calibrate_scores = (traffic.scores.cpu().numpy() for traffic in (fuse, calibrate))
        self.attacked, self._probability = (fuse.labels == 1).cpu().numpy(), fuse.probability.cpu().numpy()
        self.attack_free = (calibrate.labels[0] == 0).cpu().numpy()
        self._segments, self._calibrate_segments = fuse.segments, calibrate.segments
        self.budget = budget

    def levels(self, score: np.ndarray, calibrate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Thresholds [T] that keep the budget on scores `calibrate` [M], and the F1 [T] of scores [W, N] above them."""
        # `higher`: a quantile between two windows would let one more through than the budget has.
        floor = np.quantile(calibrate[self.attack_free], 1 - self.budget, method="higher")
        if not self.attacked.any():  # no setting finds more than another: the budget decides alone
            return np.array([floor]), np.zeros(1)
        levels = np.linspace(floor, max(score.max(), floor), _LEVELS)
        return levels, np.array([f1(score > level, self.attacked, self._probability) for level in levels])

    def threshold(self, score: np.ndarray, calibrate: np.ndarray) -> float:
        """The best threshold on scores [W, N] of `fuse` and [M] of `calibrate`."""
        levels, quality = self.levels(score, calibrate)
        return float(levels[_middle(levels[:, None], quality)])

    def fixed_weight(self) -> tuple[Weights, float]:
        """The best fixed weights of the detectors, and the threshold of their mixture."""
        settings, quality = [], []
        for weights in fusion_weights(self.scores.shape[-1]):
            levels, good = self.levels(mixture(weights, self.scores), mixture(weights, self.calibrate_scores[0]))
            # The last weight follows from the others and counts for no distance. All in float32, as the scores are.
            others = np.tile(np.array(weights[:-1], dtype=np.float32), (len(levels), 1))
            settings.append(np.concatenate([others, levels[:, None]], axis=1))
            quality.append(good)
        every = np.concatenate(settings)
        *first, threshold = map(float, every[_middle(every, np.concatenate(quality))])
        return (*first, 1.0 - sum(first)), threshold

    def best(
        self, settings: np.ndarray, score: np.ndarray, calibrate: np.ndarray, alarms: Callable[..., np.ndarray]
    ) -> list[float]:
        """Of `settings` [P, K], the one in the middle of the best within the budget.

        Args:
            score, calibrate: fixed-weight scores of `fuse` [W, N] and of `calibrate` [1, M].
            alarms: alarms of some settings on scores and segments, bool [p, W, N].

        The last setting is always allowed: it keeps to the budget by construction.
        """
        # F1 on `fuse` and share of false alarms on `calibrate`, of some settings at once.
        quality, share = [], []
        for some in np.array_split(settings, -(-len(settings) // _AT_ONCE)):
            quality.append(f1(alarms(score, self._segments, *some.T), self.attacked, self._probability))
            share.append(alarms(calibrate, self._calibrate_segments, *some.T)[:, 0, self.attack_free].mean(axis=1))
        allowed = np.concatenate(share) <= self.budget
        allowed[-1] = True
        best = _middle(settings, np.where(allowed, np.concatenate(quality), -1.0))
        return [float(value) for value in settings[best]]
