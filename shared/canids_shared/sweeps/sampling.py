"""Points of a declared space, taken by Optuna's samplers; a grid is every combination.

Optuna (Akiba et al. 2019) is imported only where points are taken or compared: the extra `sweep` has it.
"""

import math
import warnings
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json

DIGITS = 3
"""Significant digits of a value from a range: it names a folder."""
MOST = 10_000
"""Trainings of a sweep; more would take longer to plan than anyone waits for."""
_ATTEMPTS = 10
"""Samples that are drawn at most for each point, where samples repeat earlier points."""
Axis = dict[str, Any]
"""The values of an option: `{values}`, or `{low, high}` with `log` and, for a grid, `steps`."""
Point = dict[str, Any]
"""Option → value."""


def load_optuna() -> Any:
    """The package `optuna`; raises `CanidsError` naming the extra that installs it."""
    try:
        import optuna  # noqa: PLC0415 - half a second, for those who sweep
    except ImportError:
        raise CanidsError(
            "sweep: Optuna is not installed here; .venv/bin/pip install -c constraints.txt -e '.[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of QMCSampler and constant_liar
    return optuna


def study_of(
    distributions: dict[str, Any],
    points: Sequence[Point],
    values: Sequence[Sequence[float]],
    directions: list[str],
    sampler: Any = None,
) -> Any:
    """An Optuna study of finished points.

    Args:
        distributions: option → Optuna's distribution.
        points: a trial each; values: its objectives.
        directions: `minimize` or `maximize`, for each objective.
    """
    optuna = load_optuna()
    study = optuna.create_study(directions=directions, sampler=sampler)
    for point, objectives in zip(points, values, strict=True):
        study.add_trial(optuna.trial.create_trial(params=point, distributions=distributions, values=list(objectives)))
    return study


def refuse_too_many(count: int, what: str) -> None:
    """Raise `CanidsError` if a sweep has more points, or trainings, than `MOST`."""
    if count > MOST:
        raise CanidsError(f"sweep: {count:,} {what}, more than {MOST:,}; declare fewer values, steps, points or seeds")


def sample(
    space: dict[str, Axis],
    whole: set[str],
    method: str,
    count: int,
    seed: int,
    past: Sequence[tuple[Point, float]] = (),
) -> list[Point]:
    """Points of a space, each once; fewer than `count` where options have few values.

    Args:
        space: option → axis.
        whole: the options that are whole numbers.
        method: `grid`, `random` (Bergstra & Bengio 2012), `qmc` (a scrambled Sobol sequence, which covers the space more evenly) or
            `tpe` (Bergstra et al. 2011). More points of `random` and `qmc` leave the first ones as they are.
        count, seed: of all methods but `grid`.
        past: for `tpe`: points so far, with the value to minimise. New points differ from them.

    Raises `CanidsError` naming the option whose range is empty, not positive on a logarithmic scale, or without `steps`; also for a
    grid of more points than `MOST`.
    """
    for option, axis in space.items():
        _check(axis, option in whole, method, f"sweep.space.{option}")
    if method == "grid":
        # Rounded steps of whole numbers may hold a value twice.
        steps = {option: _steps(axis, option in whole) for option, axis in space.items()}
        refuse_too_many(math.prod(map(len, steps.values())), "points")
        return [dict(zip(steps, values, strict=True)) for values in product(*steps.values())]
    optuna = load_optuna()
    samplers = {
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda: optuna.samplers.QMCSampler(scramble=True, seed=seed),
        # Points of a round are asked for together: each counts as a bad one until it is trained, so they keep apart.
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed + len(past), constant_liar=True),
    }
    distributions = {option: _distribution(axis, option in whole) for option, axis in space.items()}
    inside = [(point, value) for point, value in past if _inside(point, space)]
    trials = [{o: canonical_json(v) if "values" in space[o] else v for o, v in p.items()} for p, _ in inside]
    study = study_of(distributions, trials, [[v] for _, v in inside], ["minimize"], samplers[method]())
    # Rounding makes samples equal now and then, and values are few: only new points count.
    known = {canonical_json(point) for point, _ in past}
    points: list[Point] = []
    for _ in range(count * _ATTEMPTS):
        if len(points) == count:
            break
        params = study.ask(distributions).params
        point = {option: _value(params[option], axis, option in whole) for option, axis in space.items()}
        if canonical_json(point) not in known:
            known.add(canonical_json(point))
            points.append(point)
    return points


def _check(axis: Axis, whole: bool, method: str, where: str) -> None:
    if "values" in axis:
        return
    low, high = axis["low"], axis["high"]
    if low >= high:
        raise CanidsError(f"{where}: low {low:g} is not below high {high:g}")
    if whole and math.ceil(low) > math.floor(high):
        raise CanidsError(f"{where}: no whole number from {low:g} to {high:g}")
    if axis.get("log") and low <= 0:
        raise CanidsError(f"{where}: a logarithmic scale needs low above 0, not {low:g}")
    if method == "grid" and "steps" not in axis:
        raise CanidsError(f"{where}: a grid needs values, or steps beside low and high")


def _steps(axis: Axis, whole: bool) -> list[Any]:
    """The values of a grid: those declared, or `steps` between low and high, evenly spaced on their scale."""
    if "values" in axis:
        return list(axis["values"])
    space = np.geomspace if axis.get("log") else np.linspace
    return list(dict.fromkeys(_value(v, axis, whole) for v in space(axis["low"], axis["high"], axis["steps"]).tolist()))


def _distribution(axis: Axis, whole: bool) -> Any:
    """Optuna's distribution of an axis; values, which may be lists, are its categories as JSON."""
    distributions, log = load_optuna().distributions, bool(axis.get("log"))
    if "values" in axis:
        return distributions.CategoricalDistribution([canonical_json(value) for value in axis["values"]])
    if whole:
        return distributions.IntDistribution(math.ceil(axis["low"]), math.floor(axis["high"]), log=log)
    return distributions.FloatDistribution(axis["low"], axis["high"], log=log)


def _value(sampled: Any, axis: Axis, whole: bool) -> Any:
    """An option's value from a sample, rounded within the range."""
    if "values" in axis:
        return next(value for value in axis["values"] if canonical_json(value) == sampled)
    if whole:
        return int(min(max(round(sampled), axis["low"]), axis["high"]))
    return min(max(float(f"{sampled:.{DIGITS}g}"), float(axis["low"])), float(axis["high"]))


def _inside(point: Point, space: dict[str, Axis]) -> bool:
    """Whether a point, which may come from an edited table, lies in the space."""
    return point.keys() == space.keys() and all(
        point[o] in axis["values"] if "values" in axis else axis["low"] <= point[o] <= axis["high"]
        for o, axis in space.items()
    )
