"""Which options of a sweep matter: permutation importance (Breiman 2001) of a random forest on points held out.

The forest predicts a point's rank, so a training that failed to learn weighs no more than the next worse one. Importance is
the increase of its squared error when one option is shuffled among the held-out points, in units of the ranks' variance: 0
where the option does not matter.
"""

from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.model_selection import RepeatedKFold

from canids_evaluate.sweeps.point_results import Point, Scale, varied

FOLDS, REPEATS, SHUFFLES = 5, 2, 5
FEWEST = 10
"""Points below which no forest is fitted."""
FEW_A_OPTION = 10
"""Points an option below which the order of options is a hint and no more."""


@dataclass(frozen=True)
class Importance:
    """How much the options matter.

    Attributes:
        options: option → importance and its standard deviation over the folds, the highest first; empty where it was not looked at.
        explained: share of the held-out ranks' variance that the forest explains (R²); below 0 it is worse than their mean.
        caution: what a reader has to know before believing it, or nothing.
    """

    options: dict[str, tuple[float, float]]
    explained: float | None
    caution: str


def importance(points: list[Point], trees: int, seed: int) -> Importance:
    """Importance of every option that varies, for one training.

    Args:
        trees: of each forest.
        seed: of forests, folds and shuffles.
    """
    options = varied(points)
    if len(options) < 2 or len(points) < FEWEST:
        short = f"{len(points)} points" if len(options) > 1 else f"{len(options)} option that varies"
        return Importance({}, None, f"No importance: {short} (it takes {FEWEST} points and 2 options).")
    columns = [[p.values[o] for p in points] for o in options]
    x = np.stack([Scale.of(column).numbers(column) for column in columns], axis=1)
    y = rankdata([p.mean for p in points])
    variance = float(y.var())
    if variance == 0:
        return Importance({}, None, "No importance: all points are equal.")
    rises: list[np.ndarray] = []
    errors = []
    for fit, held in RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=seed).split(x):
        forest = RandomForestRegressor(trees, random_state=seed).fit(x[fit], y[fit])
        errors += ((forest.predict(x[held]) - y[held]) ** 2).tolist()
        found = permutation_importance(
            forest, x[held], y[held], scoring="neg_mean_squared_error", n_repeats=SHUFFLES, random_state=seed
        )
        rises.append(found.importances_mean / variance)
    explained = 1.0 - mean(errors) / variance
    by_option = {o: [float(rise[i]) for rise in rises] for i, o in enumerate(options)}
    ordered = sorted(by_option, key=lambda o: -mean(by_option[o]))
    return Importance(
        {o: (mean(by_option[o]), stdev(by_option[o])) for o in ordered},
        explained,
        _caution(len(points), len(options), explained),
    )


def _caution(points: int, options: int, explained: float) -> str:
    if explained <= 0:
        return (
            f"A forest that has seen the other points predicts a point no better than their mean does (R² {explained:.2f}): "
            "these importances say nothing; more points or wider ranges are needed."
        )
    if points < FEW_A_OPTION * options:
        return f"{points} points for {options} options are few: take the order as a hint."
    return ""
