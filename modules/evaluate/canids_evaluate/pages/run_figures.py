"""Figures of runs: learning curves, quality against size, latency and training time, time and memory, where the time went."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from canids_evaluate.pages import style
from canids_evaluate.pages.rows import FUSION, Row, by_scenario
from canids_evaluate.runs.trainings import Cost, rows_of_history
from canids_shared.contracts.training_run import TrainingRun

_OF_DETECTOR = ("Epoch", {"fit_loss": "Loss on fit", "select_loss": "Loss on select"})
_OF_POLICY = ("Step", {"reward": "Mean reward on fuse", "select_reward": "Mean reward on select"})
"""Axis label and curves of a history, in the panels from above; the column `step` or `epoch` counts, else the row."""
_DODGE = {"large": 1.0, "small_kd": 0.93, "small_nokd": 1.07}
"""Students of one size would lie on top of each other."""


def learning(path: Path, trainings: list[TrainingRun]) -> None:
    """Learning curves: a column per kind of training, training above, `select` below; empty where the history has none."""
    names = {training.kind: training.label for training in trainings}
    with style.figure(path, 2, len(names), 2.5 * len(names), 4.2) as (figure, axes):
        for (kind, name), column in zip(names.items(), axes.T, strict=True):
            for training in (t for t in trainings if t.kind == kind):
                _learning_curves(column, training)
            column[0].set_title(name)
        handles = [
            Line2D([], [], color=style.VARIANTS[v][0], marker=style.VARIANTS[v][1], linestyle=line, label=v)
            for v, line in style.VARIANT_LINES.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _learning_curves(column: np.ndarray, training: TrainingRun) -> None:
    """One training's curves in the two panels of its kind."""
    axis, curves = _OF_DETECTOR if training.detectors else _OF_POLICY
    rows = range(1, rows_of_history(training) + 1)
    x = training.history.get(axis.lower(), list(map(float, rows)))
    colour, marker = style.VARIANTS[training.variant]
    line = style.VARIANT_LINES[training.variant]
    for (curve, text), ax in zip(curves.items(), column, strict=True):
        if curve in training.history:
            y = np.array(training.history[curve], dtype=float)
            ax.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=2.6, linewidth=1.2)
        ax.set_ylabel(text)
        style.grid(ax)
    column[-1].set_xlabel(axis)


def cost(path: Path, rows: list[Row], trainings: list[TrainingRun], costs: Mapping[str, Cost]) -> None:
    """F1 against parameters, latency and training time, a column of panels per scenario.

    A detector counts the training that has it, the fusion all trainings of its variant.
    """
    scenarios = by_scenario(rows)
    devices = " and ".join(sorted({t.latency["device"].upper() for t in trainings}))
    sides: dict[str, Mapping[str, float | None]] = {
        "Parameters": {t.name: t.parameters for t in trainings},
        f"Inference latency (ms, {devices})": {t.name: t.latency["median_ms"] for t in trainings},
        "Training time (s)": {t.name: costs[t.name].seconds for t in trainings},
    }
    size = (max(1.2 + 2.4 * len(scenarios), 5.0), 7.4)
    with style.figure(path, len(sides), len(scenarios), *size, sharex="row", sharey=True) as (figure, axes):
        for (text, amounts), line in zip(sides.items(), axes, strict=True):
            for (scenario, scenario_rows), ax in zip(scenarios.items(), line, strict=True):
                for row in scenario_rows:
                    _against_cost(ax, row, amounts, trainings, _DODGE if text == "Parameters" else {})
                _logarithmic(ax)
                style.grid(ax)
                ax.set_xlabel(text)
                if text == "Parameters":
                    ax.set_title(style.title(scenario))
            line[0].set_ylabel("F1")
        methods = next(row.methods for row in rows if row.variant is not None)
        colours = {m: colour for m, (colour, _) in style.networks(methods).items()}
        # Detectors first, the fusion last.
        handles = [Line2D([], [], color=c, linewidth=3, label=methods.label(m)) for m, c in reversed(colours.items())]
        handles += [
            Line2D([], [], color="0.3", marker=style.VARIANTS[v][1], linestyle="", label=v) for v in style.VARIANT_LINES
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)


def _against_cost(
    ax: Axes, row: Row, amounts: Mapping[str, float | None], trainings: list[TrainingRun], dodge: Mapping[str, float]
) -> None:
    """A method's F1 and interval over the sum of the `amounts` of the trainings that it needs; nothing where one is unknown."""
    if row.variant is None or row.values["f1"] is None:
        return
    needed = [
        amounts[t.name]
        for t in trainings
        if t.variant == row.variant and (row.method == FUSION or row.method in t.detectors)
    ]
    if not needed:
        return
    # An unknown amount makes the sum NaN, which matplotlib leaves out.
    x = sum(v if v is not None else np.nan for v in needed) * dodge.get(row.variant, 1.0)
    colour, marker = style.networks(row.methods)[row.method][0], style.VARIANTS[row.variant][1]
    if interval := row.values["intervals"]["f1"]:
        ax.plot([x, x], interval, color=colour, linewidth=0.9, alpha=0.7)
    ax.plot(x, row.values["f1"], color=colour, marker=marker, markersize=5, linestyle="")


def _logarithmic(ax: Axes) -> None:
    """A logarithmic x-axis whose ticks (1, 2, 5, 10, …) are plain numbers."""
    ax.set_xscale("log")
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def resources(path: Path, costs: Mapping[str, Cost]) -> None:
    """Time and peak memory of every run; a run too short to be measured has no bar."""
    names = list(costs)
    sides = {"Time (s)": [c.seconds for c in costs.values()], "Peak memory (MB)": [c.peak_mb for c in costs.values()]}
    with style.figure(path, 1, 2, 7.2, 0.8 + 0.23 * len(names), sharey=True) as (_, axes):
        for (text, values), ax in zip(sides.items(), axes[0], strict=True):
            bars = ax.barh(names, [v or 0 for v in values], height=0.55, color=style.BLUE)
            ax.bar_label(bars, [_amount(v) for v in values], padding=3, fontsize=7)
            ax.set_xlabel(text)
            ax.margins(x=0.14)
            ax.tick_params(axis="y", length=0)
            style.grid(ax, "x")
        axes[0][0].invert_yaxis()


def time(path: Path, jobs: pl.DataFrame) -> None:
    """Time of all jobs of each rule (`measured.time_by_rule`), work and start-up; stages lie behind one another."""
    names = [f"{stage} · {rule} ({count})" for stage, rule, count in jobs.select("stage", "rule", "jobs").rows()]
    with style.figure(path, 1, 1, 7.2, 1.1 + 0.23 * len(names)) as (figure, axes):
        ax, left = axes[0, 0], np.zeros(len(names))
        for column, text, colour in (("work", "Work", style.BLUE), ("start", "Start-up", "#E69F00")):
            values = jobs[column].to_numpy()
            bars = ax.barh(names, values, left=left, height=0.55, color=colour, label=text)
            left = left + values
        ax.bar_label(bars, [_amount(v) for v in left], padding=3, fontsize=7)
        ax.set_xlabel("Time of all jobs (s)")
        ax.margins(x=0.1)
        ax.tick_params(axis="y", length=0)
        style.grid(ax, "x")
        ax.invert_yaxis()
        figure.legend(loc="outside upper center", ncols=2)


def _amount(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
