"""Figures of a sweep: parallel coordinates, importance of options, best points with their intervals over seeds."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from canids_evaluate.pages import style
from canids_evaluate.sweeps.importance import Importance
from canids_evaluate.sweeps.point_results import LOWER_IS_BETTER, WORDS, Point, Scale, best_first, varied

BEST, OTHER = "#D55E00", "#0072B2"
_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
"""So that numbers can be read where lines pass behind them."""
SHOWN = 30
"""Points in the figure of the best ones, at most."""


def parallel(path: Path, runs: dict[str, list[Point]]) -> None:
    """Parallel coordinates (Inselberg 1985): a line a point, an axis an option, the metric last; best drawn thick.

    Better is up on the last axis; colours follow the rank.
    """
    options = varied(next(iter(runs.values())))
    if not options:
        style.empty(path, "one point: nothing to compare")
        return
    with style.figure(path, len(runs), 1, 1.6 + 1.35 * len(options), 3.1 * len(runs)) as (_, axes):
        for (run, points), ax in zip(runs.items(), axes[:, 0], strict=True):
            _parallel(ax, best_first(points), options)
            ax.set_title(f"{run}: {WORDS[points[0].metric]} on select (the lighter the line, the better)", pad=20)


def _parallel(ax: Axes, ordered: list[Point], options: list[str]) -> None:
    metric = ordered[0].metric
    names = [*options, metric]
    heights = []
    for i, name in enumerate(names):
        column = [p.mean if name == metric and i == len(options) else p.values[name] for p in ordered]
        scale = Scale.of(column)
        numbers = scale.numbers(column)
        low, span = float(numbers.min()), float(np.ptp(numbers)) or 1.0
        down = i == len(options) and metric in LOWER_IS_BETTER
        heights.append((1.0 - (numbers - low) / span) if down else (numbers - low) / span)
        ax.axvline(i, color="0.3", linewidth=0.8, zorder=3)
        for at, text in _ticks(scale, low, span):
            height = 1.0 - at if down else at
            ax.text(i - 0.04, height, text, ha="right", va="center", fontsize=7, zorder=4, bbox=_BEHIND)
        ax.text(i, 1.06, name if i < len(options) else WORDS[metric], ha="center", va="bottom", fontsize=7.5)
    colours = matplotlib.colormaps["viridis"]
    for rank in reversed(range(len(ordered))):
        colour = BEST if rank == 0 else colours(1.0 - rank / max(1, len(ordered) - 1))
        line = [height[rank] for height in heights]
        ax.plot(line, color=colour, linewidth=2.4 if rank == 0 else 1.0, alpha=1.0 if rank == 0 else 0.75)
    ax.text(len(options) + 0.05, heights[-1][0], ordered[0].instance, color=BEST, va="center", fontsize=8)
    ax.set_xlim(-0.5, len(options) + 0.7)
    ax.set_ylim(-0.05, 1.05)
    ax.axis("off")


def _ticks(scale: Scale, low: float, span: float) -> list[tuple[float, str]]:
    """Heights in [0, 1] and what stands there."""
    if scale.levels:
        return [((i - low) / span, level) for i, level in enumerate(scale.levels)]
    ends = [(at, low + at * span) for at in (0.0, 0.5, 1.0)]
    return [(at, f"{10**value if scale.logarithmic else value:.3g}") for at, value in ends]


def importances(path: Path, found: dict[str, Importance]) -> None:
    """Importance of every option, a panel a run; bars a standard deviation over the folds long."""
    drawn = {run: i for run, i in found.items() if i.options}
    if not drawn:
        style.empty(path, " ".join(dict.fromkeys(i.caution for i in found.values())))
        return
    rows = max(len(i.options) for i in drawn.values())
    with style.figure(path, len(drawn), 1, 6.4, (0.9 + 0.26 * rows) * len(drawn)) as (_, axes):
        for (run, one), ax in zip(drawn.items(), axes[:, 0], strict=True):
            names = list(one.options)
            means, deviations = zip(*one.options.values(), strict=True)
            ax.barh(names, means, xerr=deviations, height=0.6, color=OTHER, ecolor="0.4", error_kw={"linewidth": 0.9})
            ax.axvline(0, color="0.3", linewidth=0.8)
            ax.invert_yaxis()
            ax.tick_params(axis="y", length=0)
            style.grid(ax, "x")
            ax.set_title(f"{run} (forest explains {one.explained:.0%} of the ranks held out)", loc="left")
        axes[-1, 0].set_xlabel("Rise of the squared error when the option is shuffled (variance of the ranks = 1)")


def best(path: Path, runs: dict[str, list[Point]]) -> None:
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
