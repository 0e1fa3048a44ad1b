"""Fusions without learning beyond a grid search, as an engineer would deploy them.

- `fixed_weight`: score = Σ w_d · score of detector d, alarm above a threshold;
- `max`, `mean`, `noisy_or`: nothing is weighted; the highest score, their mean, 1 − Π (1 − score);
- `hysteresis`: the same score, alarm on above `high`, off below `low`;
- `cusum`: S ← min(max(0, S) + score − drift, ceiling), alarm where S exceeds a threshold (Page 1954; the ceiling lets an
  alarm end soon after the attack).

Each recursion is one function of a state and the score of a window; the search tries many settings of it at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from canids_train_drl.environment.fusion_data import FusionData
from canids_train_drl.environment.fusion_environment import Traffic
from canids_train_drl.environment.fusion_setup import FusionSetup
from canids_train_drl.environment.rollout import FusionOutput
from canids_train_drl.environment.threshold_search import ThresholdSearch, Weights, mixture, squashed

_PAIRED_LEVELS = 21
_DRIFTS = 16
_SUMS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_CEILINGS = (0.1, 0.25, 0.5, 1.0)
"""CUSUM: thresholds on the sum, and how far it may rise above them."""


def _scan(
    recursion: Callable[[np.ndarray, np.ndarray], np.ndarray],
    settings: int,
    score: np.ndarray,
    segments: np.ndarray,
    state: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run P recursions over scores [W, N], segment by segment.

    Args:
        recursion: `state [P, W], score [1, W] → state [P, W]`, of one window.
        settings: P.
        state: before the first window of each segment, float32 [P, W, S]; None where all segments begin here, with zeros.

    Returns:
        The states after every window, float32 [P, W, N], and after the last window of each segment, [P, W, S].
    """
    # Windows come one after the other, settings and worlds side by side: a recursion has no other parallelism.
    worlds, windows = score.shape
    out = np.zeros((settings, worlds, windows), dtype=np.float32)
    end = np.zeros((settings, worlds, len(segments) - 1), dtype=np.float32) if state is None else state.copy()
    for segment, (first, last) in enumerate(pairwise(segments)):
        current = end[:, :, segment]
        for row in range(first, last):
            current = recursion(current, score[None, :, row])
            out[:, :, row] = current
        end[:, :, segment] = current
    return out, end


def hysteresis(
    score: np.ndarray, segments: np.ndarray, low: np.ndarray, high: np.ndarray, state: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Alarms, bool [P, W, N], of P pairs of thresholds [P] on scores [W, N], and their states behind each segment (`_scan`)."""
    # An alarm ends at the lower threshold and begins at the higher one, so which one counts depends on the window before.
    off, on = low[:, None], high[:, None]
    alarms, end = _scan(lambda alarm, x: x > np.where(alarm > 0, off, on), len(low), score, segments, state)
    return alarms > 0, end


def cusum(
    score: np.ndarray,
    segments: np.ndarray,
    drift: np.ndarray,
    threshold: np.ndarray,
    ceiling: np.ndarray,
    state: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative sums above their thresholds, float32 [P, W, N], of P settings [P] on scores [W, N], alarm where positive.

    The second value are the sums behind each segment (`_scan`).
    """
    # S ← min(max(0, S) + x − k, h + above): scores below the drift k let the sum fall, and the ceiling lets an alarm end soon.
    k, h, above = (x.astype(np.float32)[:, None] for x in (drift, threshold, ceiling))
    sums, end = _scan(lambda s, x: np.minimum(np.maximum(s, 0) + x - k, h + above), len(k), score, segments, state)
    return sums - h[:, :, None], end


def _recorded(windows: Traffic) -> np.ndarray:
    """Scores of the detectors in the first world, float32 [N, D]."""
    return np.asarray(windows.scores[0].cpu().numpy())


@dataclass(frozen=True)
class FixedWeight:
    """Alarm where the mixture of all detectors exceeds the threshold; its score is the mixture itself."""

    weights: Weights
    threshold: float

    def step(self, windows: Traffic, state: None) -> tuple[FusionOutput, None]:
        """Decide on the next windows (`rollout.Fusion`); nothing is remembered."""
        score = mixture(self.weights, _recorded(windows))
        return FusionOutput(score, score > self.threshold), None


_COMBINED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "max": lambda scores: scores.max(axis=-1),
    "mean": lambda scores: scores.mean(axis=-1),
    "noisy_or": lambda scores: 1 - (1 - scores).prod(axis=-1),
}
"""Scores [..., D] to one [...], which is at most 1 as they are."""


@dataclass(frozen=True)
class Combined:
    """Alarm where the detectors' scores, combined as `how` says (`_COMBINED`), exceed the threshold."""

    how: str
    threshold: float

    def __post_init__(self) -> None:
        if self.how not in _COMBINED:
            raise ValueError("how")

    def step(self, windows: Traffic, state: None) -> tuple[FusionOutput, None]:
        """Decide on the next windows (`rollout.Fusion`); nothing is remembered."""
        score = _COMBINED[self.how](_recorded(windows))
        return FusionOutput(score, score > np.float32(self.threshold)), None


@dataclass(frozen=True)
class Hysteresis:
    """The same score, alarm on above `high`, off below `low`; its score is how far that lies above the one in force."""

    weights: Weights
    low: float
    high: float

    def step(self, windows: Traffic, state: np.ndarray | None) -> tuple[FusionOutput, np.ndarray]:
        """Decide on the next windows (`rollout.Fusion`); remembered is whether each segment's alarm is on, [1, 1, S].

        A score is above one half where the alarm is on.
        """
        score, segments = mixture(self.weights, _recorded(windows)), windows.segments
        alarms, end = hysteresis(score[None], segments, np.array([self.low]), np.array([self.high]), state)
        alarm = alarms[0, 0]
        # Which threshold is in force follows from the alarm in the window before; it is off, or as remembered, at the start.
        before = np.concatenate([[False], alarm[:-1]])[: len(alarm)]
        before[segments[:-1]] = False if state is None else state[0, 0] > 0
        in_force = np.where(before, np.float32(self.low), np.float32(self.high))
        return FusionOutput(((1 + score - in_force) / 2).astype(np.float32), alarm), end


@dataclass(frozen=True)
class Cusum:
    """Alarm while the cumulative sum of the fixed-weight score above `drift` exceeds the threshold."""

    weights: Weights
    drift: float
    threshold: float
    ceiling: float

    def step(self, windows: Traffic, state: np.ndarray | None) -> tuple[FusionOutput, np.ndarray]:
        """Decide on the next windows (`rollout.Fusion`); remembered are the sums, [1, 1, S].

        A score is above one half where the alarm is on.
        """
        drift, threshold, ceiling = (np.array([x]) for x in (self.drift, self.threshold, self.ceiling))
        score = mixture(self.weights, _recorded(windows))[None]
        sums, end = cusum(score, windows.segments, drift, threshold, ceiling, state)
        return FusionOutput(squashed(sums[0, 0]), sums[0, 0] > 0), end


def fixed_weight(data: FusionData, setup: FusionSetup) -> FixedWeight:
    """The best fixed weights, which the setup has."""
    return FixedWeight(setup.weights, setup.threshold)


def combined(how: str) -> Callable[[FusionData, FusionSetup], Combined]:
    """What fits a combination of scores without weights: it has a threshold to choose."""

    def fit(data: FusionData, setup: FusionSetup) -> Combined:
        search = ThresholdSearch(data, setup.config["false_alarm_budget"])
        score, calibrate = (_COMBINED[how](scores) for scores in (search.scores, search.calibrate_scores[0]))
        return Combined(how, search.threshold(score, calibrate))

    return fit


def _search(data: FusionData, setup: FusionSetup) -> tuple[ThresholdSearch, np.ndarray, np.ndarray]:
    """The search, and the scores of the best fixed weights on `fuse` [W, N] and `calibrate` [1, M]."""
    search = ThresholdSearch(data, setup.config["false_alarm_budget"])
    return search, mixture(setup.weights, search.scores), mixture(setup.weights, search.calibrate_scores)


def with_hysteresis(data: FusionData, setup: FusionSetup) -> Hysteresis:
    """Choose two thresholds on the score of the best fixed weights; their single threshold is one of the settings."""
    search, score, calibrate = _search(data, setup)
    # Every pair with low ≤ high of evenly spaced levels; equal thresholds are a plain one, which is within the budget.
    levels = np.linspace(score.min(), score.max(), _PAIRED_LEVELS)
    high, low = (x.ravel() for x in np.meshgrid(levels, levels))
    pairs = low <= high
    settings = np.append(np.stack([low, high], axis=1)[pairs], [[setup.threshold] * 2], axis=0)
    return Hysteresis(setup.weights, *search.best(settings, score, calibrate, lambda *call: hysteresis(*call)[0]))


def with_cusum(data: FusionData, setup: FusionSetup) -> Cusum:
    """Choose drift, threshold and ceiling of a cumulative sum of that score; its single threshold is one of the settings."""
    search, score, calibrate = _search(data, setup)
    # From the median score of `calibrate`, at which sums stay near zero, up to the highest score of `fuse`.
    drifts = np.linspace(float(np.median(calibrate)), float(score.max()), _DRIFTS)
    grid = [(k, h, c) for k in drifts for h in _SUMS for c in _CEILINGS]
    settings = np.array([*grid, (setup.threshold, 0.0, 1e-6)])
    return Cusum(setup.weights, *search.best(settings, score, calibrate, lambda *call: cusum(*call)[0] > 0))
