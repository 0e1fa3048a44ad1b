"""How much a rule needs, as a line over the size of its input, and what to ask for: that line plus headroom.

The line is the lowest one that no run exceeds: of all lines `a + b·size` with a ≥ 0 and b ≥ 0 that lie on or above every run,
that with the least mean distance to the runs (quantile regression at τ = 1; Koenker and Bassett 1978).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SPAN = 2.0
"""Sizes must differ by this factor before a slope is read from them; from less it would be noise, and extrapolate wildly."""


@dataclass(frozen=True)
class Line:
    """`a + b·size`; `b` per MiB of input."""

    a: float
    b: float

    def at(self, size: float) -> float:
        """Value at an input of `size` MiB."""
        return self.a + self.b * size


def upper_line(sizes: list[float | None], needs: list[float]) -> Line:
    """The lowest line that covers every run.

    Where sizes span less than a factor of `SPAN`, it is the largest need. A run of unknown size lifts the whole line to
    its need, since its input may have been empty.

    Args:
        sizes: MiB read by each run; None where unknown.
        needs: what each took, at least one.
    """
    known = [(x, y) for x, y in zip(sizes, needs, strict=True) if x is not None]
    line = _covering(np.array(known)) if known else Line(0.0, 0.0)
    blind = max((y for x, y in zip(sizes, needs, strict=True) if x is None), default=0.0)
    return Line(max(line.a, blind), line.b)


def _covering(points: np.ndarray) -> Line:
    """The line over points [runs, (size, need)]."""
    x, y = points.T
    flat = Line(float(y.max()), 0.0)
    if x.max() < SPAN * x.min() or x.max() == x.min():
        return flat
    # The best line lies on an edge of the upper hull, or goes through the origin.
    hull = _upper_hull(points)
    edges = [(d - b) / (c - a) for (a, b), (c, d) in pairwise(hull)]
    slopes = [*edges, *(b / a for a, b in hull if a > 0)]
    best, least = flat, float(np.mean(flat.a - y))
    for slope in (s for s in slopes if s > 0):
        # The lowest intercept with which nobody is above; below zero is no memory.
        intercept = max(float((y - slope * x).max()), 0.0)
        distance = float(np.mean(intercept + slope * x - y))
        if distance < least:
            best, least = Line(intercept, slope), distance
    return best


def _upper_hull(points: np.ndarray) -> list[tuple[float, float]]:
    """Corners of the upper convex hull, by size (Andrew 1979)."""
    highest: dict[float, float] = {}
    for x, y in points.tolist():
        highest[x] = max(y, highest.get(x, y))
    hull: list[tuple[float, float]] = []
    for x, y in sorted(highest.items()):
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) <= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    return hull


@dataclass(frozen=True)
class Ask:
    """What to ask of the scheduler: `(base + slope·input.size_mb) · attempt`, in whole units, at most `most`."""

    base: int
    slope: float
    most: int | None = None

    def at(self, size: float, attempt: int = 1) -> int:
        """What is asked for an input of `size` MiB."""
        asked = round((self.base + self.slope * size) * attempt)
        return asked if self.most is None else min(asked, self.most)

    @property
    def expression(self) -> str:
        """The same, as a profile says it: a Python expression over `input` and `attempt`."""
        size = f" + {self.slope:g} * input.size_mb" if self.slope else ""
        text = f"round(({self.base}{size}) * attempt)" if size else f"{self.base} * attempt"
        return text if self.most is None else f"min({text}, {self.most})"


def ask(line: Line, headroom: float, step: int = 1, extra: float = 0.0, most: int | None = None) -> Ask:
    """`line` with headroom, rounded up: the base to a multiple of `step`, the slope to three digits.

    Args:
        headroom: 0.2 asks for a fifth more than any run took.
        extra: is added to the base, without headroom.
    """
    base = line.a * (1 + headroom) + extra
    return Ask(max(step, math.ceil(base / step) * step), _up(line.b * (1 + headroom)), most)


def _up(value: float, digits: int = 3) -> float:
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return float(f"{math.ceil(value / unit) * unit:.{digits}g}")
