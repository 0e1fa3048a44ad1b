"""Fusions without learning beyond a grid search, as an engineer would deploy them.

- `fixed_weight`: score = α · GAT + (1 − α) · VGAE, alarm above a threshold;
- `hysteresis`: the same score, alarm on above `high`, off below `low`;
- `cusum`: S ← min(max(0, S) + score − drift, ceiling), alarm where S exceeds a threshold (Page 1954; the ceiling lets an
  alarm end soon after the attack).

Settings are chosen on `fuse` in all worlds, weighted by their probability. Of those whose share of false alarms on attack-free
`calibrate` windows keeps to the budget, that with the highest F1 wins; many are about equally good, and among those the
middle one is taken, which leaves an unknown attack or vehicle the most room.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from canids_train_drl.environment import WEIGHTS, Traffic
from canids_train_drl.playing import f1
from canids_train_drl.prepared import Prepared

TOLERANCE = 0.002
"""Settings whose F1 differs by less count as equal."""
_AT_ONCE = 16
"""Settings tried at once: each takes room for every window in every world."""
_LEVELS = 128
_PAIRED_LEVELS = 21
_DRIFTS = 16
_SUMS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_CEILINGS = (0.1, 0.25, 0.5, 1.0)
"""CUSUM: thresholds on the sum, and how far it may rise above them."""


def squashed(distance: np.ndarray) -> np.ndarray:
    """A score in (0, 1), float32, of how far something lies above its threshold: one half at the threshold."""
    return np.asarray(0.5 * (1 + distance / (1 + np.abs(distance))), dtype=np.float32)


def mix(weight: float, scores: np.ndarray) -> np.ndarray:
    """Fixed-weight score, float32 [...], of scores [..., 2] (GAT, VGAE)."""
    return np.asarray(np.float32(weight) * scores[..., 0] + np.float32(1 - weight) * scores[..., 1])


def _scan(
    step: Callable[[np.ndarray, np.ndarray], np.ndarray],
    states: int,
    score: np.ndarray,
    segments: np.ndarray,
    past: np.ndarray | None = None,
) -> np.ndarray:
    """States float32 [P, W, N] of P recursions `step(state [P, W], score [1, W])`, zero at the start of each segment.

    With `past` [P, W] the first segment goes on from there.
    """
    out = np.zeros((states, *score.shape), dtype=np.float32)
    starts = set(segments[:-1].tolist()) - ({0} if past is not None else set())
    state = np.zeros((states, len(score)), dtype=np.float32) if past is None else past
    for row in range(score.shape[1]):
        state = step(np.zeros_like(state) if row in starts else state, score[None, :, row])
        out[:, :, row] = state
    return out


def hysteresis(
    score: np.ndarray, segments: np.ndarray, low: np.ndarray, high: np.ndarray, past: np.ndarray | None = None
) -> np.ndarray:
    """Alarms bool [P, W, N] of P pairs of thresholds [P] on scores [W, N]; off at the start of each segment, or as `past` [P, W]."""
    low, high = low[:, None], high[:, None]
    return _scan(lambda on, s: s > np.where(on > 0, low, high), len(low), score, segments, past) > 0


def _sums(
    score: np.ndarray,
    segments: np.ndarray,
    drift: np.ndarray,
    threshold: np.ndarray,
    ceiling: np.ndarray,
    past: np.ndarray | None = None,
) -> np.ndarray:
    """Cumulative sums, float32 [P, W, N], of P settings [P] on scores [W, N]; the first goes on from `past` [P, W]."""
    k, h, room = (x.astype(np.float32)[:, None] for x in (drift, threshold, ceiling))
    return _scan(lambda s, x: np.minimum(np.maximum(s, 0) + x - k, h + room), len(k), score, segments, past)


def cusum(
    score: np.ndarray, segments: np.ndarray, drift: np.ndarray, threshold: np.ndarray, ceiling: np.ndarray
) -> np.ndarray:
    """Cumulative sums above their thresholds, float32 [P, W, N], of P settings [P] on scores [W, N]; alarm where positive."""
    return _sums(score, segments, drift, threshold, ceiling) - threshold.astype(np.float32)[:, None, None]


def _middle(settings: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Of `settings` [S, D], the one nearest to the mean of those whose quality [S] is within `TOLERANCE` of the best."""
    good = settings[quality >= quality.max() - TOLERANCE]
    return np.asarray(good[np.argmin(((good - good.mean(axis=0)) ** 2).sum(axis=1))])


@dataclass(frozen=True)
class Ground:
    """What settings are chosen on: labels and worlds of `fuse`, the attack-free windows of `calibrate`, the budget.

    Attributes:
        attacked: bool [W, N]; probability: [W]; segments: of `fuse`.
        quiet: bool [M], which windows of `calibrate` are attack-free; quiet_segments: of `calibrate`.
        budget: highest share of them that may be alarmed.
    """

    attacked: np.ndarray
    probability: np.ndarray
    segments: np.ndarray
    quiet: np.ndarray
    quiet_segments: np.ndarray
    budget: float

    @classmethod
    def of(cls, prepared: Prepared, budget: float) -> "Ground":
        """The ground that prepared splits give."""
        fuse, calibrate = prepared.fuse, prepared.calibrate
        return cls(
            (fuse.labels == 1).cpu().numpy(),
            fuse.probability.cpu().numpy(),
            fuse.segments,
            prepared.quiet,
            calibrate.segments,
            budget,
        )

    def thresholds(self, score: np.ndarray, quiet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Thresholds [T] that keep the budget on scores `quiet` [M], and the F1 [T] of scores [W, N] above them."""
        # `higher`: a quantile between two windows would let one more through than the budget has.
        floor = np.quantile(quiet[self.quiet], 1 - self.budget, method="higher")
        levels = np.linspace(floor, max(score.max(), floor), _LEVELS)
        return levels, np.array([f1(score > level, self.attacked, self.probability) for level in levels])

    def best(
        self, settings: np.ndarray, score: np.ndarray, quiet: np.ndarray, alarms: Callable[..., np.ndarray]
    ) -> np.ndarray:
        """Of `settings` [P, D], the middle one of the best within the budget.

        Args:
            score, quiet: fixed-weight scores of `fuse` [W, N] and of `calibrate` [1, M].
            alarms: alarms of some settings on scores and segments, bool [p, W, N].

        The last setting is taken for granted: it keeps to the budget by construction.
        """
        quality, share = [], []
        for some in np.array_split(settings, -(-len(settings) // _AT_ONCE)):
            quality.append(f1(alarms(score, self.segments, *some.T), self.attacked, self.probability))
            share.append(alarms(quiet, self.quiet_segments, *some.T)[:, 0, self.quiet].mean(axis=1))
        allowed = np.concatenate(share) <= self.budget
        allowed[-1] = True
        return _middle(settings, np.where(allowed, np.concatenate(quality), -1.0))


def _scores(traffic: Traffic) -> np.ndarray:
    return np.asarray(traffic.scores.cpu().numpy())


def best_weight(prepared: Prepared, budget: float) -> tuple[float, float]:
    """The best fixed weight α and its threshold."""
    ground, scores, quiet = Ground.of(prepared, budget), _scores(prepared.fuse), _scores(prepared.calibrate)[0]
    settings, quality = [], []
    for weight in WEIGHTS:
        levels, good = ground.thresholds(mix(weight, scores), mix(weight, quiet))
        settings.append(np.stack([np.full_like(levels, weight), levels], axis=1))
        quality.append(good)
    weight, threshold = map(float, _middle(np.concatenate(settings), np.concatenate(quality)))
    return weight, threshold


def thresholded(scores: np.ndarray, quiet: np.ndarray, ground: Ground) -> float:
    """The best threshold on scores [W, N] of `fuse` and [M] of `calibrate`."""
    levels, quality = ground.thresholds(scores, quiet)
    return float(_middle(levels[:, None], quality)[0])


@dataclass(frozen=True)
class FixedWeight:
    """Alarm where α · GAT + (1 − α) · VGAE exceeds the threshold; its score is the mixture itself."""

    weight: float
    threshold: float

    def decide(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [N] in [0, 1] and alarms bool [N] on traffic as recorded."""
        score = mix(self.weight, _scores(traffic)[0])
        return score, score > self.threshold

    def resumed(self, traffic: Traffic, past: None) -> tuple[np.ndarray, np.ndarray, None]:
        """The same on the next windows of a segment; there is nothing to remember (`stored.FusionBaseline`)."""
        return *self.decide(traffic), None


@dataclass(frozen=True)
class Hysteresis:
    """The same score, alarm on above `high`, off below `low`; its score is how far that lies above the one in force."""

    weight: float
    low: float
    high: float

    def decide(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [N] in [0, 1], above one half where the alarm is on, and alarms bool [N]."""
        return self.resumed(traffic, False)[:2]

    def resumed(self, traffic: Traffic, past: bool | None) -> tuple[np.ndarray, np.ndarray, bool]:
        """The same on the next windows of a segment, where `past` tells whether the alarm is on (`stored.FusionBaseline`)."""
        score, on = mix(self.weight, _scores(traffic)[0]), np.array([[bool(past)]], dtype=np.float32)
        alarm = hysteresis(score[None], traffic.segments, np.array([self.low]), np.array([self.high]), on)[0, 0]
        before = np.concatenate([[False], alarm[:-1]])[: len(alarm)]
        before[traffic.segments[:-1]] = False
        before[:1] = bool(past)
        in_force = np.where(before, np.float32(self.low), np.float32(self.high))
        return ((1 + score - in_force) / 2).astype(np.float32), alarm, bool(alarm[-1:].any())


@dataclass(frozen=True)
class Cusum:
    """Alarm while the cumulative sum of the fixed-weight score above `drift` exceeds the threshold."""

    weight: float
    drift: float
    threshold: float
    ceiling: float

    def decide(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [N] in [0, 1], above one half where the alarm is on, and alarms bool [N]."""
        return self.resumed(traffic, None)[:2]

    def resumed(self, traffic: Traffic, past: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same on the next windows of a segment, from the sum `past` [1, 1] on (`stored.FusionBaseline`)."""
        drift, threshold, ceiling = (np.array([x]) for x in (self.drift, self.threshold, self.ceiling))
        score = mix(self.weight, _scores(traffic)[0])[None]
        sums = _sums(score, traffic.segments, drift, threshold, ceiling, past)
        above = sums[0, 0] - np.float32(self.threshold)
        return squashed(above), above > 0, sums[:, :, -1:].sum(axis=2)  # of no windows: zero


def with_hysteresis(prepared: Prepared, weight: float, threshold: float, budget: float) -> Hysteresis:
    """Choose two thresholds on the score of the best fixed weight, whose own threshold is one of the settings."""
    score, quiet = mix(weight, _scores(prepared.fuse)), mix(weight, _scores(prepared.calibrate))
    levels = np.linspace(score.min(), score.max(), _PAIRED_LEVELS)
    high, low = (x.ravel() for x in np.meshgrid(levels, levels))
    pairs = low <= high
    settings = np.append(np.stack([low, high], axis=1)[pairs], [[threshold, threshold]], axis=0)
    chosen = Ground.of(prepared, budget).best(settings, score, quiet, hysteresis)
    return Hysteresis(weight, float(chosen[0]), float(chosen[1]))


def with_cusum(prepared: Prepared, weight: float, threshold: float, budget: float) -> Cusum:
    """Choose drift, threshold and ceiling of a cumulative sum of that score; its own threshold alone is one of the settings."""
    score, quiet = mix(weight, _scores(prepared.fuse)), mix(weight, _scores(prepared.calibrate))
    drifts = np.linspace(float(np.median(quiet)), float(score.max()), _DRIFTS)
    grid = np.array([(k, h, c) for k in drifts for h in _SUMS for c in _CEILINGS] + [(threshold, 0.0, 1e-6)])
    chosen = Ground.of(prepared, budget).best(grid, score, quiet, lambda *call: cusum(*call) > 0)
    return Cusum(weight, *map(float, chosen))
