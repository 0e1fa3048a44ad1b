"""Figures of `metrics.json`: metrics as dots with intervals, alarms by kind of attack, effect of distillation."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from canids_evaluate.pages import style
from canids_evaluate.pages.rows import Methods, Row, by_scenario, labels

_ATTACK_FREE = "attack-free"


def dots(path: Path, rows: list[Row], metrics: dict[str, str]) -> None:
    """Dot plot: a column of panels per scenario, a row per metric (name → axis label), bars are 95 % intervals."""
    scenarios = by_scenario(rows)
    methods = dict(reversed(labels(rows).items()))
    variants = [v for v in style.VARIANTS if any(r.variant == v for r in rows)]
    size = (max(1.9 + 2.3 * len(scenarios), 5.0), 0.9 + (0.6 + 0.38 * len(methods)) * len(metrics))
    with style.figure(path, len(metrics), len(scenarios), *size, sharey=True) as (figure, axes):
        for (metric, text), line in zip(metrics.items(), axes, strict=True):
            for scenario_rows, ax in zip(scenarios.values(), line, strict=True):
                for row in scenario_rows:
                    _dot(ax, row, metric, list(methods), variants)
                ax.set_yticks(range(len(methods)), list(methods.values()))
                ax.tick_params(axis="y", length=0)
                ax.set_ylim(-0.6, len(methods) - 0.4)
                # All metrics but the delay are shares.
                if metric != "detection_delay_s":
                    ax.set_xlim(-0.03, 1.03)
                else:
                    ax.set_xlim(left=0)
                    ax.margins(x=0.08)
                style.grid(ax, "x")
                ax.set_xlabel(text if len(text) < 24 else text.replace(", ", ",\n"))
        for scenario, ax in zip(scenarios, axes[0], strict=True):
            ax.set_title(style.title(scenario))
        style.variant_legend(figure, variants)


def _dot(ax: Axes, row: Row, metric: str, methods: list[str], variants: list[str | None]) -> None:
    value = row.values[metric]
    if value is None:
        return
    colour, marker = style.VARIANTS[row.variant]
    # The variants of a method lie one below the other, around its line; a window baseline lies on it.
    trained = [v for v in variants if v is not None]
    offset = 0.0 if row.variant is None else 0.22 * ((len(trained) - 1) / 2 - trained.index(row.variant))
    y = methods.index(row.method) + offset
    if interval := row.values["intervals"][metric]:
        ax.plot(interval, [y, y], color=colour, linewidth=1.1)
    ax.plot(value, y, color=colour, marker=marker, markersize=4.2, linestyle="", clip_on=False)


def confusion(path: Path, rows: list[Row]) -> None:
    """Share of alarmed windows (percent) by kind of attack and among the attack-free ones, a panel per scenario.

    A perfect method has 100 in every row of an attack and 0 in the row of attack-free windows.
    """
    scenarios = by_scenario(rows)
    methods = labels(rows)
    kinds = {s: [*sorted({a for r in rs for a in r.values["per_attack"]}), _ATTACK_FREE] for s, rs in scenarios.items()}
    heights = [len(k) for k in kinds.values()]
    size = (1.4 + 0.72 * len(methods), 0.9 + 0.42 * sum(heights) + 0.55 * len(heights))
    with style.figure(path, len(scenarios), 1, *size, height_ratios=heights, sharex=True) as (_, axes):
        for (scenario, scenario_rows), ax in zip(scenarios.items(), axes[:, 0], strict=True):
            values = {r.method: r.values for r in scenario_rows}
            shares = np.array([[_share(values.get(m), kind) for m in methods] for kind in kinds[scenario]])
            # The colour scale ends beyond 100, so that the darkest cells stay readable under white text.
            ax.pcolormesh(shares, cmap="Blues", vmin=0, vmax=140, edgecolors="white", linewidth=1)
            for (y, x), share in np.ndenumerate(shares):
                text = "–" if np.isnan(share) else f"{share:.1f}" if 0 < share < 100 else f"{share:.0f}"
                ax.text(x + 0.5, y + 0.5, text, ha="center", va="center", color="white" if share > 90 else "black")
            ax.set_yticks(np.arange(len(shares)) + 0.5, kinds[scenario])
            ax.invert_yaxis()
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            ax.set_title(style.title(scenario).replace("\n", " "), loc="left")
        names = [textwrap.fill(label, 10) for label in methods.values()]
        axes[-1, 0].set_xticks(np.arange(len(methods)) + 0.5, names, fontsize=7.5)


def _share(values: dict[str, Any] | None, kind: str) -> float:
    if values is None:
        return np.nan
    share = values["fpr"] if kind == _ATTACK_FREE else values["per_attack"].get(kind, {}).get("recall")
    return np.nan if share is None else 100 * share


def distillation(path: Path, changes: dict[str, dict[str, Any]], methods: Methods) -> None:
    """Effect of distillation: student with it minus student without, paired 95 % intervals.

    Args:
        changes: scenario → method → difference of `paired.differences`; empty where a student is missing.
    """
    if not changes:
        style.empty(path, "Needs a student with distillation and one without.")
        return
    metrics = {"f1": "F1: with minus without", "auroc": "AUROC: with minus without"}
    shown = list(reversed(next(iter(changes.values()))))
    size = (max(1.6 + 2.3 * len(changes), 5.0), 0.7 + 1.35 * len(metrics))
    with style.figure(path, len(metrics), len(changes), *size, sharey=True, sharex="row") as (_, axes):
        for (metric, text), line in zip(metrics.items(), axes, strict=True):
            for (scenario, differences), ax in zip(changes.items(), line, strict=True):
                ax.axvline(0, color="0.35", linewidth=0.9)
                for y, method in enumerate(shown):
                    colour = style.networks(methods)[method][0]
                    paired = differences[method][metric]
                    if paired["interval"]:
                        ax.plot(paired["interval"], [y, y], color=colour, linewidth=1.4)
                    if paired["difference"] is not None:
                        ax.plot(paired["difference"], y, color=colour, marker="s", markersize=4.5, linestyle="")
                ax.set_yticks(range(len(shown)), [methods.label(m) for m in shown])
                ax.set_ylim(-0.6, len(shown) - 0.4)
                ax.locator_params(axis="x", nbins=5)
                style.grid(ax, "x")
                ax.set_xlabel(text)
                if metric == "f1":
                    ax.set_title(style.title(scenario))
