"""Points taken from a declared space: every combination, at random, or as a Latin hypercube."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import qmc

from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json

DIGITS = 3
"""Significant digits of a value drawn from a range: it names a folder."""
Point = dict[str, Any]


def points_of(
    space: dict[str, dict[str, Any]], whole: set[str], method: str, count: int, seed: int, where: str
) -> list[Point]:
    """Points (option → value) of a space, each once: where options have few values, fewer may come than were asked for.

    Args:
        space: option → `{values}`, or `{low, high}` with `log` and, for a grid, `steps`.
        whole: the options that are whole numbers.
        method: `grid`, `random` (Bergstra & Bengio 2012: more points leave the first ones as they are) or
            `latin_hypercube` (McKay et al. 1979: every option's range is covered evenly).
        count, seed: of the latter two.
        where: names the space in errors.

    Raises `CanidsError` naming the option whose range is empty, not positive on a logarithmic scale, or without `steps`.
    """
    for option, axis in space.items():
        if "values" in axis:
            continue
        if axis["low"] >= axis["high"]:
            raise CanidsError(f"{where}.{option}: low {axis['low']:g} is not below high {axis['high']:g}")
        if axis.get("log") and axis["low"] <= 0:
            raise CanidsError(f"{where}.{option}: a logarithmic scale needs low above 0, not {axis['low']:g}")
        if method == "grid" and "steps" not in axis:
            raise CanidsError(f"{where}.{option}: a grid needs values, or steps beside low and high")
    axes = {option: _axis(axis, option in whole) for option, axis in space.items()}
    if method == "grid":
        # Rounded ranges of whole numbers may hold a value twice.
        steps = {o: _grid(axis, axes[o]) for o, axis in space.items()}
        return _once([dict(zip(steps, values, strict=True)) for values in product(*steps.values())])
    rng = np.random.default_rng(seed)
    drawn = rng.random((count, len(axes)))
    if method == "latin_hypercube":
        drawn = qmc.LatinHypercube(len(axes), rng=rng).random(count)
    return _once([{o: axis(float(u)) for (o, axis), u in zip(axes.items(), row, strict=True)} for row in drawn])


def _once(points: list[Point]) -> list[Point]:
    return list({canonical_json(point): point for point in points}.values())


def _axis(axis: dict[str, Any], whole: bool) -> Callable[[float], Any]:
    """A function from [0, 1] to the values of an option."""
    if "values" in axis:
        values = axis["values"]
        return lambda u: values[min(int(u * len(values)), len(values) - 1)]
    low, high, log = axis["low"], axis["high"], axis.get("log")
    if whole:  # every number has the same share, the first and the last too
        low, high = low - 0.5, high + 0.5

    def value(u: float) -> Any:
        found = low * (high / low) ** u if log else low + u * (high - low)
        if whole:
            return int(min(max(round(found), axis["low"]), axis["high"]))
        return min(max(float(f"{found:.{DIGITS}g}"), float(axis["low"])), float(axis["high"]))

    return value


def _grid(axis: dict[str, Any], of: Callable[[float], Any]) -> list[Any]:
    if "values" in axis:
        return list(axis["values"])
    return list(dict.fromkeys(of(u) for u in np.linspace(0.0, 1.0, axis["steps"]).tolist()))
