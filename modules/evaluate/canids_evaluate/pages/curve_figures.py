"""Figures of `curves.json`: ROC, precision and recall, and scores over time with the attacks shaded."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from canids_evaluate.judging.curves import FPR_FLOOR
from canids_evaluate.pages import style
from canids_evaluate.pages.rows import FUSION, Methods, methods_of
from canids_shared.contracts.detectors import Detector

_PIXELS = 1500
"""Points of a curve over time, at most: more than the figure has pixels would be hidden."""


def _curves(path: Path, contents: list[dict[str, Any]], kind: str) -> None:
    x, y = ("fpr", "tpr") if kind == "roc" else ("recall", "precision")
    methods, scenarios = methods_of(contents[0]), sorted(contents[0]["scenarios"])
    size = (max(0.6 + 2.4 * len(scenarios), 5.0), 3.3)
    with style.figure(path, 1, len(scenarios), *size, sharey=True) as (figure, axes):
        shown = set()
        for scenario, ax in zip(scenarios, axes[0], strict=True):
            drawn = {m: c for content in contents for m, c in content["scenarios"][scenario]["methods"].items()}
            for method, (colour, line) in style.curves(methods).items():
                if (curve := drawn.get(method)) is None:
                    continue
                shown.add(method)
                xs = np.array(curve[kind][x])
                xs = np.maximum(xs, FPR_FLOOR) if kind == "roc" else xs
                # Steps, as the metrics count: no threshold reaches a point between two scores.
                where = "post" if kind == "roc" else "pre"
                ax.step(xs, curve[kind][y], where=where, color=colour, linestyle=line, linewidth=1.4)
            ax.set_title(style.title(scenario))
            ax.set_ylim(-0.02, 1.02)
            style.grid(ax)
            if kind == "roc":
                ax.set_xscale("log")
                ax.set_xlim(FPR_FLOOR, 1)
                ax.set_xlabel("False-positive rate")
            else:
                ax.set_xlim(-0.02, 1.02)
                ax.set_xlabel("Recall")
        axes[0][0].set_ylabel("Recall (true-positive rate)" if kind == "roc" else "Precision")
        if shown:
            lines = {m: line for m, line in style.curves(methods).items() if m in shown}
            figure.legend(handles=style.handles(methods, lines), loc="outside upper center", ncols=3)


def roc(path: Path, contents: list[dict[str, Any]]) -> None:
    """ROC curves of the methods in the given `curves.json`, false-positive rate on a logarithmic axis."""
    _curves(path, contents, "roc")


def precision_recall(path: Path, contents: list[dict[str, Any]]) -> None:
    """Precision-recall curves of the methods in the given `curves.json`."""
    _curves(path, contents, "pr")


def timelines(path: Path, content: dict[str, Any]) -> None:
    """Scores over time, one panel per kind of attack and scenario; attacks shaded, the fusion's alarms as a bar."""
    panels = [(s, t) for s in sorted(content["scenarios"]) for t in content["scenarios"][s]["timelines"]]
    if not panels:
        style.empty(path, "No capture of the scenarios holds an attack.")
        return
    methods = methods_of(content)
    with style.figure(path, len(panels), 1, 7.2, 0.5 + 1.25 * len(panels)) as (figure, axes):
        for (scenario, line), ax in zip(panels, axes[:, 0], strict=True):
            edges = np.array([*line["t"], line["end"]])
            _panel(ax, methods, edges, line["t"], line["scores"], line["attacked"], line["alarms"][FUSION])
            ax.set_title(f"{style.title(scenario)}: {line['attack']}".replace("\n", " "), loc="left")
        _scores_legend(figure, axes, methods, "attack", "alarm of the fusion")


def scored(path: Path, frame: pl.DataFrame, detectors: tuple[Detector, ...]) -> None:
    """Scores and alarms over time, a panel per capture of a table of decisions; labelled attacks are shaded."""
    captures, methods = frame.partition_by("capture", maintain_order=True), Methods(detectors)
    with style.figure(path, len(captures), 1, 7.2, 0.7 + 1.7 * len(captures)) as (figure, axes):
        for capture, ax in zip(captures, axes[:, 0], strict=True):
            edges = np.append(capture["t_start"].to_numpy(), capture["t_end"][-1]) - capture["t_start"][0]
            # Bins of equally many windows, so that a long capture does not write more points than can be seen.
            starts = np.arange(0, len(capture), -(-len(capture) // _PIXELS))
            # The largest score of each bin, so that no peak is lost.
            highest = {m: np.maximum.reduceat(capture[f"{m}_score"].to_numpy(), starts) for m in methods.networks}
            attacked = (capture["label"].fill_null(0) == 1).cast(int).to_list()
            _panel(ax, methods, edges, edges[starts], highest, attacked, capture["alarm"].cast(int).to_list())
            ax.set_title(capture["capture"][0], loc="left")
        _scores_legend(figure, axes, methods, "labelled attack", "alarm")


def _panel(
    ax: Axes, methods: Methods, edges: np.ndarray, t: Any, scores: dict[str, Any], attacked: list[int], alarm: list[int]
) -> None:
    """Scores at times `t`, the fusion on top; spans of `attacked` and `alarm` between the `edges` [len + 1] of the bins."""
    _shade(ax, attacked, edges)
    for low, high in _spans(alarm, edges):
        ax.plot([low, high], [1.1, 1.1], color="black", linewidth=3, solid_capstyle="butt", clip_on=False)
    for method, (colour, line) in reversed(style.networks(methods).items()):
        ax.step(t, scores[method], where="post", color=colour, linestyle=line, linewidth=0.9)
    ax.set_ylim(-0.04, 1.14)
    ax.set_yticks([0, 0.5, 1])
    ax.set_xlim(0, edges[-1])


def _scores_legend(figure: Figure, axes: np.ndarray, methods: Methods, attack: str, alarm: str) -> None:
    axes[-1, 0].set_xlabel("Time in the capture (s)")
    figure.supylabel("Score", fontsize=style.FONT_SIZE)
    handles = style.handles(methods, style.networks(methods))
    handles += [Patch(color=style.ATTACK, alpha=0.45, label=attack), Patch(color="black", label=alarm)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))


def policy(path: Path, content: dict[str, Any]) -> None:
    """Close-ups of the policy as an attack begins and ends, a row of panels per kind of attack, window by window.

    Above, the detectors' scores and the fused one (and the weight of the first detector, where that is the policy's action), with
    the alarms of all; below, the policy's values of its action and of the best other one.
    """
    closeups = [(s, c) for s in sorted(content["scenarios"]) for c in content["scenarios"][s]["policy"]]
    if not closeups:
        style.empty(path, "These decisions hold no values of a policy, or no attack.")
        return
    methods = methods_of(content)
    rows = list(dict.fromkeys((s, c["attack"]) for s, c in closeups))
    size = (7.2, 0.6 + 2.5 * len(rows))
    with style.figure(path, 2 * len(rows), 2, *size, height_ratios=[3, 2] * len(rows)) as (figure, axes):
        for scenario, close in closeups:
            row, column = rows.index((scenario, close["attack"])), ("begin", "end").index(close["part"])
            above, below = axes[2 * row, column], axes[2 * row + 1, column]
            edges = np.array([*close["t"], close["end"]])
            # Both panels show the same windows: scores and alarms above, the policy's values below.
            for ax in (above, below):
                _shade(ax, close["attacked"], edges)
                ax.set_xlim(edges[0], edges[-1])
            _scores_and_alarms(above, methods, close, edges)
            for name, line in (("q_chosen", "-"), ("q_other", ":")):
                below.step(close["t"], close["series"][name], where="post", color="black", linestyle=line, linewidth=1)
            below.margins(y=0.15)
            style.grid(below, "y")
            heading = f"{style.title(scenario)}: {close['attack']} {close['part']}s".replace("\n", " ")
            above.set_title(heading, loc="left", fontsize=8)
        for ax in axes[-1]:
            ax.set_xlabel("Time from there (s)")
        for row in range(len(rows)):
            axes[2 * row, 0].set_ylabel("Score")
            axes[2 * row + 1, 0].set_ylabel("Value")
        handles = style.handles(methods, style.networks(methods))
        handles += [
            Patch(color=style.ATTACK, alpha=0.45, label="attack"),
            Line2D([], [], color="black", label="value of the action"),
            Line2D([], [], color="black", linestyle=":", label="of the best other"),
        ]
        if any("weight" in c["series"] for _, c in closeups):
            weighed = f"weight of the {methods.detectors[0].label}"
            handles.append(Line2D([], [], color="0.4", linewidth=0.8, label=weighed))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles) if len(handles) < 8 else 5)


def _scores_and_alarms(ax: Axes, methods: Methods, close: dict[str, Any], edges: np.ndarray) -> None:
    """Scores of a close-up; above them a bar of alarms for each method, the fusion's on top."""
    lines = style.networks(methods)
    for place, (method, (colour, line)) in enumerate(reversed(lines.items())):
        ax.step(close["t"], close["series"][method], where="post", color=colour, linestyle=line)
        for low, high in _spans(close["alarms"][method], edges):
            y = [1.08 + 0.1 * place] * 2
            ax.plot([low, high], y, color=colour, linewidth=3, solid_capstyle="butt", clip_on=False)
    if "weight" in close["series"]:
        ax.step(close["t"], close["series"]["weight"], where="post", color="0.4", linewidth=0.8)
    ax.set_ylim(-0.04, 1.06 + 0.1 * len(lines))
    ax.set_yticks([0, 0.5, 1])
    ax.set_xticklabels([])


def _shade(ax: Axes, attacked: list[int], edges: np.ndarray) -> None:
    for low, high in _spans(attacked, edges):
        ax.axvspan(low, high, color=style.ATTACK, alpha=0.45, linewidth=0)


def _spans(flags: list[int], edges: np.ndarray) -> Iterator[tuple[float, float]]:
    """Start and end of each run of ones; `edges` [len(flags) + 1] are the borders of the bins."""
    place = 0
    for flag, run in groupby(flags):
        length = len(list(run))
        if flag:
            yield float(edges[place]), float(edges[place + length])
        place += length
