"""Figures of a sweep: Optuna's parallel coordinates and importances, and the best points with their intervals over seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from canids_evaluate.pages import style
from canids_evaluate.sweeps.point_results import WORDS, PointResult, best_first, varied
from canids_evaluate.sweeps.study import Importance, evaluator, means, ranks, study
from canids_shared.files import written_whole
from canids_shared.sweeps.sampling import load_optuna

BEST, OTHER = "#D55E00", "#0072B2"
SHOWN = 30
"""Most points in the figure of the best ones."""


def _by_optuna(path: Path, width: float, height: float, draw: Callable[[Any], Any]) -> None:
    """Write a figure of Optuna's matplotlib backend (inches); `draw` gets its module of plots."""
    load_optuna()
    from optuna.visualization import matplotlib as plots  # noqa: PLC0415 - as in load_optuna

    with matplotlib.rc_context({"svg.hashsalt": "canids", "figure.constrained_layout.use": True}):
        figure = draw(plots).figure
        figure.set_size_inches(width, height)
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)


def parallel(path: Path, runs: dict[str, list[PointResult]]) -> None:
    """Parallel coordinates (Inselberg 1985): a line per point, an axis per run's metric and per option."""
    options = varied(next(iter(runs.values())))
    if not options:
        style.empty(path, "one point: nothing to compare")
        return
    run, points = next(iter(runs.items()))

    def draw(plots: Any) -> Any:
        name = f"{run}: {points[0].metric}"  # of several runs, Optuna takes the names from the study
        return plots.plot_parallel_coordinate(study(runs, means), params=options, target_name=name)

    _by_optuna(path, 2.5 + 1.35 * (len(runs) + len(options)), 4.5, draw)


def importances(
    path: Path, runs: dict[str, list[PointResult]], by_run: dict[str, Importance], trees: int, seed: int
) -> None:
    """Importance of every option, a bar per run."""
    known = {run: points for run, points in runs.items() if by_run[run].options}
    if not known:
        style.empty(path, " ".join(dict.fromkeys(one.caution for one in by_run.values())))
        return
    height = 1.5 + 0.4 * len(known) * max(len(by_run[run].options) for run in known)

    def draw(plots: Any) -> Any:
        return plots.plot_param_importances(study(known, ranks), evaluator=evaluator(trees, seed))

    _by_optuna(path, 7.2, height, draw)


def best(path: Path, runs: dict[str, list[PointResult]]) -> None:
    """The best points of each run: every seed a dot, mean and 95 % interval over the seeds; the best one coloured."""
    count = min(SHOWN, max(len(points) for points in runs.values()))
    with style.figure(path, 1, len(runs), 1.2 + 3.4 * len(runs), 0.9 + 0.2 * count) as (_, axes):
        for (run, points), ax in zip(runs.items(), axes[0], strict=True):
            ordered = best_first(points)[:count]
            for y, point in enumerate(ordered):
                colour = BEST if y == 0 else OTHER
                if point.interval:
                    ax.plot(point.interval, [y, y], color=colour, linewidth=1.2)
                if len(point.readings) > 1:
                    ax.plot(point.readings, [y] * len(point.readings), "o", color="0.55", markersize=2.5)
                ax.plot(point.mean, y, "D" if y == 0 else "o", color=colour, markersize=5)
            ax.set_yticks(range(len(ordered)), [p.instance for p in ordered], fontsize=7)
            ax.invert_yaxis()
            ax.set_xlabel(f"{WORDS[points[0].metric]} on select")
            ax.locator_params(axis="x", nbins=5)
            left = f", the best {count} of {len(points)}" if count < len(points) else ""
            ax.set_title(f"{run}{left}")
            style.grid(ax)
