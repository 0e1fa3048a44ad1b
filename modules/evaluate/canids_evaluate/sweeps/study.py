"""Optuna's view of a finished sweep: a study with a trial per point, and the importance of options.

Importance is that of functional ANOVA (Hutter et al. 2014): the share of the variance that an option explains, in a random forest
fitted to the points. The forest predicts a point's rank, so a training that failed weighs no more than the next worse one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from canids_evaluate.sweeps.point_results import PointResult, shown, varied
from canids_shared.sweeps.metrics import LOWER_IS_BETTER
from canids_shared.sweeps.sampling import load_optuna, study_of

FEWEST = 10
"""Points below which no forest is fitted."""
FEW_PER_OPTION = 10
"""Points per option below which the order of options is only a hint."""


@dataclass(frozen=True)
class Importance:
    """Importance of the options for one training.

    Attributes:
        options: option → share of the explained variance, the highest first; empty where it was not computed.
        caution: what limits its meaning, or nothing.
    """

    options: dict[str, float]
    caution: str


def study(runs: dict[str, list[PointResult]], value: Callable[[list[PointResult]], list[float]]) -> Any:
    """An Optuna study of the options that vary, with an objective per run; its trials are the points in their order.

    Args:
        runs: run → the same points for each.
        value: points → their objective.
    """
    first = next(iter(runs.values()))
    # Only options that vary: a constant one explains nothing, and functional ANOVA has no axis for it.
    columns = {option: _column([p.values[option] for p in first]) for option in varied(first)}
    trials = [{option: values[i] for option, (_, values) in columns.items()} for i in range(len(first))]
    lower = [points[0].metric in LOWER_IS_BETTER for points in runs.values()]
    made = study_of(
        {option: distribution for option, (distribution, _) in columns.items()},
        trials,
        list(zip(*(value(points) for points in runs.values()), strict=True)),
        ["minimize" if low else "maximize" for low in lower],
    )
    made.set_metric_names([f"{run}: {points[0].metric}" for run, points in runs.items()])
    return made


def means(points: list[PointResult]) -> list[float]:
    """The metric of every point."""
    return [p.mean for p in points]


def ranks(points: list[PointResult]) -> list[float]:
    """The rank of every point."""
    from scipy.stats import rankdata  # noqa: PLC0415 (takes a second to import, and serves the importance alone)

    return [float(rank) for rank in rankdata(means(points))]


def evaluator(trees: int, seed: int) -> Any:
    """Evaluator of importance by functional ANOVA, in forests of `trees` trees."""
    return load_optuna().importance.FanovaImportanceEvaluator(n_trees=trees, seed=seed)


def importance(points: list[PointResult], trees: int, seed: int) -> Importance:
    """Importance of every option that varies, for one training."""
    options = varied(points)
    if len(options) < 2 or len(points) < FEWEST:
        short = f"{len(points)} points" if len(options) > 1 else f"{len(options)} option that varies"
        return Importance({}, f"No importance: {short} (it takes {FEWEST} points and 2 options).")
    if len(set(means(points))) == 1:
        return Importance({}, "No importance: all points are equal.")
    # Ranks instead of values: a failed training with a huge loss would otherwise explain all of the variance.
    shares = load_optuna().importance.get_param_importances(
        study({"": points}, ranks), evaluator=evaluator(trees, seed)
    )
    few = len(points) < FEW_PER_OPTION * len(options)
    caution = f"{len(points)} points for {len(options)} options are few: take the order as a hint." if few else ""
    return Importance({option: float(share) for option, share in shares.items()}, caution)


def _column(values: list[Any]) -> tuple[Any, list[Any]]:
    """Optuna's distribution of an option, and its values in it: numbers as they are, all else as categories.

    The scale is logarithmic where the values span a factor of ten and most lie near the low end.
    """
    distributions = load_optuna().distributions
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        texts = [shown(v) for v in values]
        return distributions.CategoricalDistribution(sorted(set(texts))), texts
    low, high = min(values), max(values)
    log = low > 0 and high > 10 * low and median(values) < (low + high) / 4
    return distributions.FloatDistribution(low, high, log=log), [float(v) for v in values]
