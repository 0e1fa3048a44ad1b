"""A common scale for detector scores: how surprising a score is on attack-free traffic.

The tail surprise of a raw score x is −log10 P(X ≥ x), X a window without attack: 1 for the highest tenth, 2 for the
highest hundredth. It needs no attacks, so it has the same meaning for unknown attacks, and it stays informative where a
calibration of probabilities (Platt 1999) fails because known attacks are separated without an error.
"""

from dataclasses import dataclass

import numpy as np

from canids_shared.errors import CanidsError

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
HALF = 3.0
"""The surprise (one window in a thousand) whose score is 0.5."""


@dataclass(frozen=True)
class QuantileScale:
    """Map from raw score to tail surprise, linear between knots and extrapolated beyond them, so that ranking is kept.

    Attributes:
        knots: raw scores, strictly increasing.
        levels: tail surprise at the knots, positive, strictly increasing.
        slope: surprise per raw unit beyond the last knot.
    """

    knots: tuple[float, ...]
    levels: tuple[float, ...]
    slope: float

    @classmethod
    def fit(cls, raw: np.ndarray) -> "QuantileScale":
        """Fit to the raw scores [n] of attack-free windows.

        Knots are those quantiles of `QUANTILES` that n windows can distinguish from the maximum, and the maximum at
        log10(n + 1). The slope beyond is that between the median and the last quantile: it leaves out the maximum,
        which depends on a single window.

        Raises `CanidsError` if there is no score, or one is not finite.
        """
        raw = np.asarray(raw, dtype=np.float64)
        if not len(raw) or not np.isfinite(raw).all():
            raise CanidsError("a detector's scale needs attack-free calibrate windows with finite scores")
        # The maximum of n scores is exceeded with probability 1 / (n + 1); no quantile beyond it can be estimated.
        top = np.log10(len(raw) + 1)
        shares = [q for q in QUANTILES if -np.log10(1 - q) < top]
        places = np.append(np.quantile(raw, shares), raw.max())
        heights = np.append(-np.log10(1 - np.array(shares)), top)
        # Of several quantiles with one value the lowest level counts: P(X ≥ x) includes all equal scores.
        knots, first = np.unique(places, return_index=True)
        # A constant detector has no spread; a thousandth of its value takes its place.
        spread = max(places[-2] - places[0] if len(shares) > 1 else 0.0, 1e-3 * max(1.0, abs(places[0])))
        rise = heights[-2] - heights[0] if len(shares) > 1 else 1.0
        return cls(tuple(map(float, knots)), tuple(map(float, heights[first])), float(rise / spread))

    @property
    def is_rising(self) -> bool:
        """Whether knots and levels are equally many and strictly increasing, as `surprise` needs them."""
        rising = all((np.diff(values) > 0).all() for values in (self.knots, self.levels))
        return len(self.knots) == len(self.levels) and self.levels[0] > 0 and rising

    def surprise(self, raw: np.ndarray) -> np.ndarray:
        """Tail surprise, float64, of raw scores of any shape: positive, strictly increasing, unbounded."""
        x = np.asarray(raw, dtype=np.float64)
        knots, levels = np.array(self.knots), np.array(self.levels)
        # Linear between the knots, and above the last one with the slope of the body of the distribution.
        level = np.interp(x, knots, levels)
        level += np.maximum(x - knots[-1], 0) * self.slope
        # Below the median the surprise decays exponentially and never reaches zero: attack-free windows keep their order too.
        first = (levels[1] - levels[0]) / (knots[1] - knots[0]) if len(knots) > 1 else self.slope
        return np.asarray(level * np.exp(np.minimum(x - knots[0], 0) * min(first / levels[0], 1e30)))

    def score(self, raw: np.ndarray) -> np.ndarray:
        """Scores in [0, 1], float32: u / (u + `HALF`) of the surprise u, which saturates only in the limit."""
        level = self.surprise(raw)
        return (level / (level + HALF)).astype(np.float32)
