"""What the policy must beat: fusions that need no learning beyond a grid search, as an engineer would deploy them.

- fixed weight: score = α · GAT + (1 − α) · VGAE, alarm above a threshold;
- hysteresis: the same score, alarm on above `high`, off below `low`.

They are chosen on what the policy learns from: `fuse` in all worlds (`worlds`), weighted by their probability. Of the
settings whose share of false alarms on attack-free `calibrate` windows keeps to the budget, that with the highest F1
wins; many are about equally good, and among those the middle one is taken, which leaves an unknown attack or vehicle the
most room.
"""

from dataclasses import dataclass

import numpy as np

from canids_train_drl.environment import WEIGHTS
from canids_train_drl.states import States

TOLERANCE = 0.002
"""Settings whose F1 differs by less count as equal."""
_LEVELS = 128
_PAIRED_LEVELS = 21


@dataclass(frozen=True)
class Rivals:
    """The chosen settings, all on the common scale in [0, 1]."""

    weight: float
    threshold: float
    low: float
    high: float

    def fused(self, scores: np.ndarray) -> np.ndarray:
        """Fixed-weight score, float32 [...], of scores [..., 2] (GAT, VGAE)."""
        return _mix(self.weight, scores)


def _mix(weight: float, scores: np.ndarray) -> np.ndarray:
    return np.asarray(np.float32(weight) * scores[..., 0] + np.float32(1 - weight) * scores[..., 1])


def f1(alarm: np.ndarray, attacked: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
    """F1 of alarms bool [..., W, N] against `attacked` bool [N], worlds weighted by `weight` [W]; 0 without any hit."""
    hits = ((alarm & attacked).sum(-1) * weight).sum(-1)
    total = (alarm.sum(-1) * weight).sum(-1) + attacked.sum() * np.sum(weight)
    return np.asarray(2 * hits / np.maximum(total, 1e-9))


def hysteresis(score: np.ndarray, segments: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Alarms bool [P, W, N] of P pairs of thresholds [P] on scores [W, N]; off at the start of each segment."""
    alarm = np.zeros((len(low), *score.shape), dtype=bool)
    on = np.zeros((len(low), len(score)), dtype=bool)
    starts = set(segments[:-1].tolist())
    low, high = low[:, None], high[:, None]
    for row in range(score.shape[1]):
        if row in starts:
            on = np.zeros_like(on)
        on = score[:, row] > np.where(on, low, high)
        alarm[:, :, row] = on
    return alarm


def _middle(settings: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Of `settings` [S, D], the one nearest to the mean of those whose quality [S] is within `TOLERANCE` of the best."""
    good = settings[quality >= quality.max() - TOLERANCE]
    return np.asarray(good[np.argmin(((good - good.mean(axis=0)) ** 2).sum(axis=1))])


def choose(
    fuse: States, scores: np.ndarray, probability: np.ndarray, calibrate: States, quiet: np.ndarray, *, budget: float
) -> Rivals:
    """Choose weight and thresholds.

    Args:
        fuse: the split to choose on, with `scores` [W, N, 2] in worlds of `probability` [W].
        calibrate: the split that sets the budget, with scores `quiet` [M, 2].
        budget: highest share of its attack-free windows that may be alarmed.
    """
    attacked, attack_free = fuse.labels == 1, calibrate.labels == 0
    settings: list[tuple[float, float]] = []
    quality: list[np.ndarray] = []
    for weight in WEIGHTS:
        score = _mix(weight, scores)
        # `higher`: a quantile between two windows would let one more through than the budget has.
        floor = np.quantile(_mix(weight, quiet)[attack_free], 1 - budget, method="higher")
        levels = np.linspace(floor, max(score.max(), floor), _LEVELS)
        settings += [(weight, level) for level in levels]
        quality += [f1(score > level, attacked, probability) for level in levels]
    weight, threshold = map(float, _middle(np.array(settings), np.array(quality)))

    score = _mix(weight, scores)
    levels = np.linspace(score.min(), score.max(), _PAIRED_LEVELS)
    high, low = (x.ravel() for x in np.meshgrid(levels, levels))
    pairs = low <= high
    low, high = np.append(low[pairs], threshold), np.append(high[pairs], threshold)
    alarms = hysteresis(_mix(weight, quiet)[None], calibrate.segments, low, high)[:, 0, attack_free]
    # The pair of equal thresholds keeps to the budget as it is, so there is always one.
    allowed = (alarms.mean(axis=1) <= budget) | (np.arange(len(low)) == len(low) - 1)
    paired = np.where(allowed, f1(hysteresis(score, fuse.segments, low, high), attacked, probability), -1.0)
    chosen = _middle(np.stack([low, high], axis=1), paired)
    return Rivals(weight, threshold, float(chosen[0]), float(chosen[1]))


def applied(rivals: Rivals, scores: np.ndarray, segments: np.ndarray) -> dict[str, np.ndarray]:
    """Decision columns of both rivals, float32 [N], of scores [N, 2].

    The hysteresis score is how far the fused score lies above the threshold then in force, mapped to [0, 1]; the alarm is
    on where it exceeds 0.5.
    """
    fused = rivals.fused(scores)
    alarm = hysteresis(fused[None], segments, np.array([rivals.low]), np.array([rivals.high]))[0, 0]
    before = np.concatenate([[False], alarm[:-1]])
    before[segments[:-1]] = False
    in_force = np.where(before, rivals.low, rivals.high)
    return {
        "rival_fixed_weight_score": fused.astype(np.float32),
        "rival_fixed_weight_alarm": (fused > rivals.threshold).astype(np.float32),
        "rival_hysteresis_score": ((1 + fused - in_force) / 2).astype(np.float32),
        "rival_hysteresis_alarm": alarm.astype(np.float32),
    }
