"""Memory that each rule took over the size of its input, a panel a rule."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from canids_evaluate.pages import style
from canids_evaluate.runs.fitting import Ask, Line

_COLUMNS = 5
_MARKERS = "osD^vPX"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Fitted(Protocol):
    """What a panel draws of a suggestion."""

    @property
    def line(self) -> Line | None: ...  # noqa: D102

    @property
    def memory(self) -> Ask | None: ...  # noqa: D102


def draw(path: Path, jobs: pl.DataFrame, found: Mapping[str, Fitted]) -> None:
    """A point a job; the line that no job exceeds; what the profile asks for.

    Args:
        jobs: rows of `measured`.
        found: rule → suggestion.
    """
    datasets = jobs["dataset"].unique().sort().to_list()
    rows = max(1, math.ceil(len(found) / _COLUMNS))
    with style.figure(path, rows, _COLUMNS, 11.0, 0.6 + 1.75 * rows) as (figure, axes):
        for ax in axes.flat[len(found) :]:
            ax.axis("off")
        for (rule, own), ax in zip(found.items(), axes.flat, strict=False):
            _panel(ax, jobs.filter(pl.col("rule") == rule), own, datasets)
            ax.set_title(rule)
        handles = [
            Line2D([], [], color=_colour(i), marker=_marker(i), linestyle="", label=d) for i, d in enumerate(datasets)
        ]
        handles.append(Line2D([], [], color="0.35", linestyle="--", label="most that was needed"))
        handles.append(Line2D([], [], color="black", label="asked"))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6))
        figure.supxlabel("Input (MiB)")
        figure.supylabel("Memory (MB)")


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _marker(index: int) -> str:
    return _MARKERS[index % len(_MARKERS)]


def _panel(ax: Axes, jobs: pl.DataFrame, own: Fitted, datasets: list[str]) -> None:
    known = jobs.filter(pl.col("memory_mb").is_not_null())
    if own.line is None or own.memory is None or not len(known):
        ax.text(0.5, 0.5, "too short\nto be measured", ha="center", va="center", transform=ax.transAxes)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    unknown = known["input_mb"].null_count()
    largest = float(known["input_mb"].fill_null(0.0).to_numpy().max()) or 1.0
    sizes = np.array([0.0, 1.1 * largest])
    ax.plot(sizes, own.line.a + own.line.b * sizes, color="0.35", linestyle="--", linewidth=0.9)
    ax.plot(sizes, own.memory.base + own.memory.slope * sizes, color="black", linewidth=1.1)
    for i, dataset in enumerate(datasets):
        of = known.filter(pl.col("dataset") == dataset)
        ax.plot(
            of["input_mb"].fill_null(0.0).to_numpy(),
            of["memory_mb"].to_numpy(),
            color=_colour(i),
            marker=_marker(i),
            markersize=3.2,
            linestyle="",
            alpha=0.8,
        )
    if unknown:
        ax.text(0.03, 0.03, f"{unknown} of unknown size, at 0", fontsize=6.5, transform=ax.transAxes)
    ax.set_xlim(0, 1.1 * largest)
    ax.set_ylim(bottom=0)
    style.grid(ax)
