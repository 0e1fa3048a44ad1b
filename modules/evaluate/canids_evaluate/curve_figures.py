"""Figures of `curves.json`: ROC, precision and recall, and scores over time with the attacks shaded."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from canids_evaluate import style
from canids_evaluate.curves import FPR_FLOOR
from canids_evaluate.rows import label


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


def _spans(flags: list[int], edges: np.ndarray) -> Iterator[tuple[float, float]]:
    """Start and end of each run of ones; `edges` [len(flags) + 1] are the borders of the bins."""
    place = 0
    for flag, run in groupby(flags):
        length = len(list(run))
        if flag:
            yield float(edges[place]), float(edges[place + length])
        place += length
