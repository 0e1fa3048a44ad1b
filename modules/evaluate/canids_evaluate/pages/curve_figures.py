"""Figures of `curves.json`: ROC, precision and recall, and scores over time with the attacks shaded."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from canids_evaluate.judging.curves import FPR_FLOOR
from canids_evaluate.pages import style
from canids_evaluate.pages.rows import label
from canids_shared.contracts.detectors import Detector


def _curves(path: Path, contents: list[dict[str, Any]], kind: str) -> None:
    x, y = ("fpr", "tpr") if kind == "roc" else ("recall", "precision")
    scenarios = sorted(contents[0]["scenarios"])
    size = (max(0.6 + 2.4 * len(scenarios), 5.0), 3.3)
    with style.figure(path, 1, len(scenarios), *size, sharey=True) as (figure, axes):
        shown = set()
        for scenario, ax in zip(scenarios, axes[0], strict=True):
            found = {m: c for content in contents for m, c in content["scenarios"][scenario]["methods"].items()}
            for method, (colour, line) in style.METHODS.items():
                if (curve := found.get(method)) is None:
                    continue
                shown.add(method)
                xs = np.array(curve[kind][x])
                ys = curve[kind][y]
                xs = np.maximum(xs, FPR_FLOOR) if kind == "roc" else xs
                where = "post" if kind == "roc" else "pre"
                ax.step(xs, ys, where=where, color=colour, linestyle=line, linewidth=1.4)
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
        lines = {m: line for m, line in style.METHODS.items() if m in shown}
        handles = [Line2D([], [], color=c, linestyle=s, label=label(m)) for m, (c, s) in lines.items()]
        if handles:
            figure.legend(handles=handles, loc="outside upper center", ncols=3)


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
    with style.figure(path, len(panels), 1, 7.2, 0.5 + 1.25 * len(panels)) as (figure, axes):
        for (scenario, line), ax in zip(panels, axes[:, 0], strict=True):
            edges = np.array([*line["t"], line["end"]])
            for low, high in _spans(line["attacked"], edges):
                ax.axvspan(low, high, color=style.ATTACK, alpha=0.45, linewidth=0)
            for low, high in _spans(line["alarms"]["fusion"], edges):
                ax.plot([low, high], [1.1, 1.1], color="black", linewidth=3, solid_capstyle="butt", clip_on=False)
            for method in ("vgae", "gat", "fusion"):
                colour, kind = style.METHODS[method]
                ax.step(line["t"], line["scores"][method], where="post", color=colour, linestyle=kind, linewidth=0.9)
            ax.set_ylim(-0.04, 1.14)
            ax.set_yticks([0, 0.5, 1])
            ax.set_xlim(0, line["end"])
            ax.set_title(f"{style.title(scenario)}: {line['attack']}".replace("\n", " "), loc="left")
        axes[-1, 0].set_xlabel("Time in the capture (s)")
        figure.supylabel("Score", fontsize=style.FONT_SIZE)
        lines = {m: style.METHODS[m] for m in ("fusion", "gat", "vgae")}
        handles: list[Any] = [Line2D([], [], color=c, linestyle=s, label=label(m)) for m, (c, s) in lines.items()]
        handles += [
            Patch(color=style.ATTACK, alpha=0.45, label="attack"),
            Patch(color="black", label="alarm of the fusion"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def policy(path: Path, content: dict[str, Any]) -> None:
    """What the policy does as an attack begins and ends, a row of panels per kind of attack, window by window.

    Above, the detectors' scores and the fused one (and the weight of the GAT, where that is what the policy chooses), with
    the alarms of all three; below, the policy's values of what it did and of the best else.
    """
    shown = [(s, c) for s in sorted(content["scenarios"]) for c in content["scenarios"][s]["policy"]]
    if not shown:
        style.empty(path, "These decisions hold no values of a policy, or no attack.")
        return
    rows = list(dict.fromkeys((s, c["attack"]) for s, c in shown))
    with style.figure(path, 2 * len(rows), 2, 7.2, 0.6 + 2.5 * len(rows), height_ratios=[3, 2] * len(rows)) as (
        figure,
        axes,
    ):
        for scenario, close in shown:
            row = rows.index((scenario, close["attack"]))
            column = ("begin", "end").index(close["part"])
            above, below = axes[2 * row, column], axes[2 * row + 1, column]
            edges = np.array([*close["t"], close["end"]])
            for ax in (above, below):
                for low, high in _spans(close["attacked"], edges):
                    ax.axvspan(low, high, color=style.ATTACK, alpha=0.45, linewidth=0)
                ax.set_xlim(edges[0], edges[-1])
            for place, method in enumerate(("vgae", "gat", "fusion")):
                colour, kind = style.METHODS[method]
                above.step(close["t"], close["series"][method], where="post", color=colour, linestyle=kind)
                for low, high in _spans(close["alarms"][method], edges):
                    y = [1.08 + 0.1 * place] * 2
                    above.plot([low, high], y, color=colour, linewidth=3, solid_capstyle="butt", clip_on=False)
            if "weight" in close["series"]:
                above.step(close["t"], close["series"]["weight"], where="post", color="0.4", linewidth=0.8)
            above.set_ylim(-0.04, 1.36)
            above.set_yticks([0, 0.5, 1])
            above.set_xticklabels([])
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
        lines = {m: style.METHODS[m] for m in ("fusion", "gat", "vgae")}
        handles: list[Any] = [Line2D([], [], color=c, linestyle=s, label=label(m)) for m, (c, s) in lines.items()]
        handles += [
            Patch(color=style.ATTACK, alpha=0.45, label="attack"),
            Line2D([], [], color="black", label="value of the action"),
            Line2D([], [], color="black", linestyle=":", label="of the best other"),
        ]
        if any("weight" in c["series"] for _, c in shown):
            handles.append(Line2D([], [], color="0.4", linewidth=0.8, label="weight of the GAT"))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def scored(path: Path, frame: pl.DataFrame, detectors: tuple[Detector, ...]) -> None:
    """Scores and alarms over time, a panel per capture of a table of decisions; labelled attacks are shaded."""
    captures = frame.partition_by("capture", maintain_order=True)
    with style.figure(path, len(captures), 1, 7.2, 0.7 + 1.7 * len(captures)) as (figure, axes):
        for own, ax in zip(captures, axes[:, 0], strict=True):
            begin = own["t_start"][0]
            edges = np.append(own["t_start"].to_numpy(), own["t_end"][-1]) - begin
            for low, high in _spans((own["label"].fill_null(0) == 1).cast(int).to_list(), edges):
                ax.axvspan(low, high, color=style.ATTACK, alpha=0.45, linewidth=0)
            for low, high in _spans(own["alarm"].cast(int).to_list(), edges):
                ax.plot([low, high], [1.1, 1.1], color="black", linewidth=3, solid_capstyle="butt", clip_on=False)
            # More points than pixels say nothing: the largest of each bin.
            step = -(-len(own) // 1500)
            starts = np.arange(0, len(own), step)
            for method in (*(d.name for d in reversed(detectors)), "fusion"):
                colour, kind = style.METHODS[method]
                highest = np.maximum.reduceat(own[f"{method}_score"].to_numpy(), starts)
                ax.step(edges[starts], highest, where="post", color=colour, linestyle=kind, linewidth=0.9)
            ax.set_ylim(-0.04, 1.14)
            ax.set_yticks([0, 0.5, 1])
            ax.set_xlim(0, edges[-1])
            ax.set_title(own["capture"][0], loc="left")
        axes[-1, 0].set_xlabel("Time in the capture (s)")
        figure.supylabel("Score", fontsize=style.FONT_SIZE)
        lines = {m: style.METHODS[m] for m in ("fusion", *(d.name for d in detectors))}
        handles: list[Any] = [Line2D([], [], color=c, linestyle=s, label=label(m)) for m, (c, s) in lines.items()]
        handles += [Patch(color=style.ATTACK, alpha=0.45, label="labelled attack"), Patch(color="black", label="alarm")]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _spans(flags: list[int], edges: np.ndarray) -> Iterator[tuple[float, float]]:
    """Start and end of each run of ones; `edges` [len(flags) + 1] are the borders of the bins."""
    place = 0
    for flag, run in groupby(flags):
        length = len(list(run))
        if flag:
            yield float(edges[place]), float(edges[place + length])
        place += length
