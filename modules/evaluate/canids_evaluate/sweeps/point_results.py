"""The points of a sweep with the results of their trainings on `select`: mean, spread and interval over seeds."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from canids_shared.contracts.whole import read_json, reading
from canids_shared.errors import CanidsError
from canids_shared.sweeps.metrics import LOWER_IS_BETTER

CONTRACT = "select/2"
_BOUNDS = {"auroc": (0.0, 1.0), "f1": (0.0, 1.0)}
WORDS = {"auroc": "AUROC", "loss": "loss", "reward": "mean reward", "f1": "F1"}


@dataclass(frozen=True)
class PointResult:
    """One point and one training there.

    Attributes:
        instance: such as `sweep-017`.
        values: option → value.
        readings: the metric, one value per seed.
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
        """95 % interval of the mean over the seeds (Student's t), within the metric's bounds; None for one seed."""
        from scipy.special import stdtrit  # noqa: PLC0415 (a third of a second, and a point needs none)

        if self.deviation is None:
            return None
        count = len(self.readings)
        half = float(stdtrit(count - 1, 0.975)) * self.deviation / math.sqrt(count)
        # Student's t interval, cut off at the metric's bounds.
        low, high = _BOUNDS.get(self.metric, (-math.inf, math.inf))
        return max(self.mean - half, low), min(self.mean + half, high)


def best_first(points: list[PointResult]) -> list[PointResult]:
    """The points in the order of their means; equal ones in that of their names."""
    sign = 1 if points[0].metric in LOWER_IS_BETTER else -1
    return sorted(points, key=lambda p: (sign * p.mean, p.instance))


def read_point_results(paths: list[Path], metric: dict[str, str], options: list[str]) -> dict[str, list[PointResult]]:
    """Run (`gat_small_nokd`) → all points.

    Args:
        paths: of `select.json`.
        metric: run → its metric.
        options: in the order in which they were declared; JSON keeps none.

    Raises `CanidsError` naming the file that is damaged, or where the metric is undefined.
    """
    results: dict[str, list[PointResult]] = {run: [] for run in metric}
    for path in paths:
        content = read_json(path, CONTRACT, "results of a point")
        with reading(path, "results of a point"):
            values = {option: content["values"][option] for option in options}
            for run, name in metric.items():
                readings = {seed: reading[name] for seed, reading in content["runs"][run].items()}
                if undefined := [seed for seed, value in readings.items() if value is None]:
                    raise CanidsError(
                        f"{path}: {run} with seed {undefined[0]} has no {name}: select lacks attacked or attack-free "
                        "windows; set sweep.metric to another one"
                    )
                results[run].append(PointResult(content["instance"], values, name, list(readings.values())))
    return results


def varied(points: list[PointResult]) -> list[str]:
    """The options that are not the same everywhere."""
    return [o for o in points[0].values if len({shown(p.values[o]) for p in points}) > 1]


def shown(value: Any) -> str:
    """A value in tables and on axes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
