"""The points of a sweep with what their trainings came to on `select`: mean, spread and interval over seeds."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy import stats

from canids_evaluate.judging.evaluation import read
from canids_evaluate.sweep_point import CONTRACT
from canids_shared.errors import CanidsError

LOWER_IS_BETTER = ("loss",)
_BOUNDS = {"auroc": (0.0, 1.0), "f1": (0.0, 1.0)}
WORDS = {"auroc": "AUROC", "loss": "loss", "reward": "mean reward", "f1": "F1"}


@dataclass(frozen=True)
class Point:
    """One point and one training there.

    Attributes:
        instance: such as `sweep-017`.
        values: option → value.
        readings: the metric, a value a seed.
    """

    instance: str
    values: dict[str, Any]
    metric: str
    readings: list[float]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return mean(self.readings)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None for one."""
        return stdev(self.readings) if len(self.readings) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean over the seeds (Student's t), within what the metric can be; None for one seed."""
        if self.deviation is None:
            return None
        count = len(self.readings)
        half = float(stats.t.ppf(0.975, count - 1)) * self.deviation / math.sqrt(count)
        low, high = _BOUNDS.get(self.metric, (-math.inf, math.inf))
        return max(self.mean - half, low), min(self.mean + half, high)


def best_first(points: list[Point]) -> list[Point]:
    """The points in the order of their means; equal ones in that of their names."""
    sign = 1 if points[0].metric in LOWER_IS_BETTER else -1
    return sorted(points, key=lambda p: (sign * p.mean, p.instance))


def points_of(paths: list[Path], metric: dict[str, str], options: list[str]) -> dict[str, list[Point]]:
    """Run (`gat_small_nokd`) → all points.

    Args:
        paths: of `select.json`.
        metric: run → which metric.
        options: in the order in which they were declared; JSON keeps none.

    Raises `CanidsError` naming the file that is damaged, or where the metric is undefined.
    """
    found: dict[str, list[Point]] = {run: [] for run in metric}
    for path in paths:
        content = read(path, CONTRACT)
        point = {option: content["values"][option] for option in options}
        for run, name in metric.items():
            values = [reading[name] for reading in content["runs"][run].values()]
            if undefined := [seed for seed, r in content["runs"][run].items() if r[name] is None]:
                raise CanidsError(
                    f"{path}: {run} with seed {undefined[0]} has no {name}: select lacks attacked or attack-free windows; "
                    "set sweep.metric to another one"
                )
            found[run].append(Point(content["instance"], point, name, values))
    return found


def varied(points: list[Point]) -> list[str]:
    """The options that are not the same everywhere."""
    return [o for o in points[0].values if len({shown(p.values[o]) for p in points}) > 1]


def shown(value: Any) -> str:
    """A value as tables and axes show it."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Scale:
    """An option as numbers: its values; their logarithms, where these are spread more evenly; or levels.

    Attributes:
        levels: what the whole numbers from 0 stand for, where values are no numbers.
        logarithmic: whether numbers are logarithms (base 10).
    """

    levels: list[str]
    logarithmic: bool

    @classmethod
    def of(cls, values: list[Any]) -> "Scale":
        """The scale for an option's values."""
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            return cls(sorted({shown(v) for v in values}), False)
        if min(values) <= 0 or max(values) / min(values) <= 10:
            return cls([], False)
        return cls([], _skew(np.log10(values)) < _skew(np.array(values, dtype=np.float64)))

    def numbers(self, values: list[Any]) -> np.ndarray:
        """The values as numbers, f64 [n]."""
        if self.levels:
            return np.array([self.levels.index(shown(v)) for v in values], dtype=np.float64)
        found = np.array(values, dtype=np.float64)
        return np.log10(found) if self.logarithmic else found


def _skew(values: np.ndarray) -> float:
    """How far the median lies from the middle of the range, which has length 1."""
    low, high = values.min(), values.max()
    return float(abs((np.median(values) - low) / (high - low) - 0.5))
