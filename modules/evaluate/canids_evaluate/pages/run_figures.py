"""Figures of runs: learning curves, quality against size, latency and training time, time and memory."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from canids_evaluate.pages import style
from canids_evaluate.pages.rows import Row, by_scenario, label
from canids_evaluate.runs.trainings import KINDS, Cost, Training
from canids_shared.errors import CanidsError

_LEARNING = {
    "epoch": ("Epoch", {"fit_loss": "Loss on fit", "select_loss": "Loss on select"}),
    "step": ("Step", {"reward": "Mean reward on fuse", "select_reward": "Mean reward on select"}),
}
"""Column that counts → its axis label and the curves to draw."""
_DODGE = {"large": 1.0, "small_kd": 0.93, "small_nokd": 1.07}
"""Students of one size would lie on top of each other."""
_PARTS = {"vgae": ("vgae",), "gat": ("gat",), "fusion": ("vgae", "gat", "dqn")}
"""Method → the trainings that it needs."""


def learning(path: Path, trainings: list[Training]) -> None:
    """Learning curves: a column per kind of model, training above, `select` below."""
    with style.figure(path, 2, len(KINDS), 2.5 * len(KINDS), 4.2) as (figure, axes):
        for (kind, name), column in zip(KINDS.items(), axes.T, strict=True):
            for training in (t for t in trainings if t.kind == kind):
                counter = next((c for c in _LEARNING if c in training.history.columns), None)
                if counter is None:
                    raise CanidsError(f"history of {training.run}: no column {' or '.join(_LEARNING)}")
                axis, curves = _LEARNING[counter]
                for (curve, text), ax in zip(curves.items(), column, strict=True):
                    colour, marker = style.VARIANTS[training.variant]
                    x, y = (training.history[c].to_numpy() for c in (counter, curve))
                    line = style.VARIANT_LINES[training.variant]
                    ax.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=2.6, linewidth=1.2)
                    ax.set_ylabel(text)
                    style.grid(ax)
                column[-1].set_xlabel(axis)
            column[0].set_title(name)
        handles = [
            Line2D([], [], color=style.VARIANTS[v][0], marker=style.VARIANTS[v][1], linestyle=line, label=v)
            for v, line in style.VARIANT_LINES.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def cost(path: Path, rows: list[Row], trainings: list[Training]) -> None:
    """F1 against parameters, latency and training time, a column of panels per scenario.

    The fusion counts its two detectors and its policy.
    """
    scenarios = by_scenario(rows)
    size = {(t.kind, t.variant): t.parameters for t in trainings}
    seconds = {(t.kind, t.variant): t.cost.seconds for t in trainings}
    devices = " and ".join(sorted({t.device.upper() for t in trainings}))
    latency = {(t.kind, t.variant): t.latency_ms for t in trainings}
    sides: dict[str, Mapping[tuple[str, str], float | None]] = {
        "Parameters": size,
        f"Inference latency (ms, {devices})": latency,
        "Training time (s)": seconds,
    }
    with style.figure(
        path, len(sides), len(scenarios), max(1.2 + 2.4 * len(scenarios), 5.0), 7.4, sharex="row", sharey=True
    ) as (figure, axes):
        for (text, amounts), line in zip(sides.items(), axes, strict=True):
            for (scenario, own), ax in zip(scenarios.items(), line, strict=True):
                for row in own:
                    if row.variant is None or row.method not in _PARTS or row.values["f1"] is None:
                        continue
                    found = [amounts[k, row.variant] for k in _PARTS[row.method]]
                    x = np.sum([v for v in found if v is not None]) if None not in found else np.nan
                    x *= _DODGE[row.variant] if text == "Parameters" else 1.0
                    colour, marker = style.METHODS[row.method][0], style.VARIANTS[row.variant][1]
                    interval = row.values["intervals"]["f1"]
                    if interval:
                        ax.plot([x, x], interval, color=colour, linewidth=0.9, alpha=0.7)
                    ax.plot(x, row.values["f1"], color=colour, marker=marker, markersize=5, linestyle="")
                _logarithmic(ax)
                style.grid(ax)
                ax.set_xlabel(text)
                if text == "Parameters":
                    ax.set_title(style.title(scenario))
            line[0].set_ylabel("F1")
        handles = [Line2D([], [], color=style.METHODS[m][0], linewidth=3, label=label(m)) for m in _PARTS]
        handles += [
            Line2D([], [], color="0.3", marker=style.VARIANTS[v][1], linestyle="", label=v) for v in style.VARIANT_LINES
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)


def _logarithmic(ax: Axes) -> None:
    """A logarithmic x-axis whose ticks (1, 2, 5, 10, …) are plain numbers."""
    ax.set_xscale("log")
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def resources(path: Path, costs: dict[str, Cost]) -> None:
    """Time and peak memory of every run; a run too short to be measured has no bar."""
    names = list(costs)
    sides = {"Time (s)": [c.seconds for c in costs.values()], "Peak memory (MB)": [c.peak_mb for c in costs.values()]}
    with style.figure(path, 1, 2, 7.2, 0.8 + 0.23 * len(names), sharey=True) as (_, axes):
        for (text, values), ax in zip(sides.items(), axes[0], strict=True):
            bars = ax.barh(names, [v or 0 for v in values], height=0.55, color="#0072B2")
            ax.bar_label(bars, [_amount(v) for v in values], padding=3, fontsize=7)
            ax.set_xlabel(text)
            ax.margins(x=0.14)
            ax.tick_params(axis="y", length=0)
            style.grid(ax, "x")
        axes[0][0].invert_yaxis()


def _amount(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
