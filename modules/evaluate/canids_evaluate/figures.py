"""Figures of a dataset as SVG, with the same bytes for the same numbers.

Colours are those of Okabe and Ito (2008), told apart also by the colour-blind; marker or line style says the same once
more, for print in grey.
"""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from canids_evaluate.curves import FPR_FLOOR
from canids_shared.files import written_whole

LABELS = {
    "fusion": "Fusion",
    "gat": "GAT",
    "vgae": "VGAE",
    "fixed_weight": "Fixed weight",
    "hysteresis": "Fixed weight, hysteresis",
    "id_rate": "ID and rate",
    "extra_trees": "Extra Trees",
    "isolation_forest": "Isolation Forest",
    "always_attack": "Always attack",
}
_VARIANTS = {
    "large": ("#0072B2", "o"),
    "small_kd": ("#D55E00", "s"),
    "small_nokd": ("#009E73", "^"),
    None: ("#000000", "D"),
}
_LINES: dict[str, tuple[str, Any]] = {
    "fusion": ("#0072B2", "-"),
    "gat": ("#D55E00", "--"),
    "vgae": ("#009E73", "-."),
    "id_rate": ("#000000", ":"),
    "extra_trees": ("#CC79A7", (0, (5, 1))),
    "isolation_forest": ("#E69F00", (0, (3, 1, 1, 1, 1, 1))),
}
"""What the curves show; the fixed-weight rivals would lie on top of the fusion."""
_STYLE: Any = {
    "svg.hashsalt": "canids",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Points:
    """The values of one method of one variant (None: a baseline) on one scenario, with `intervals`."""

    scenario: str
    variant: str | None
    method: str
    values: dict[str, Any]


def label(method: str) -> str:
    """How tables and figures name a method."""
    return LABELS.get(method, method)


def rank(method: str) -> int:
    """Place of a method in tables and figures; unknown ones come last."""
    return list(LABELS).index(method) if method in LABELS else len(LABELS)


def _title(scenario: str) -> str:
    return textwrap.fill(scenario.removeprefix("test_").replace("_", " "), 20)


@contextmanager
def _figure(
    path: Path, rows: int, columns: int, width: float, height: float, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    with matplotlib.rc_context(_STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)
        yield figure, axes
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)


def dots(path: Path, points: list[Points], metrics: dict[str, str]) -> None:
    """Dot plot: a column of panels per scenario, a row per metric (name → axis label), bars are 95 % intervals."""
    scenarios = list(dict.fromkeys(p.scenario for p in points))
    methods = sorted({p.method for p in points}, key=lambda m: (-rank(m), m))
    variants = [v for v in _VARIANTS if any(p.variant == v for p in points)]
    size = (1.9 + 2.3 * len(scenarios), 0.9 + (0.6 + 0.38 * len(methods)) * len(metrics))
    with _figure(path, len(metrics), len(scenarios), *size, sharey=True) as (figure, axes):
        for (metric, text), row in zip(metrics.items(), axes, strict=True):
            for scenario, ax in zip(scenarios, row, strict=True):
                own = [p for p in points if p.scenario == scenario]
                for p in own:
                    _dot(ax, p, metric, methods, variants)
                ax.set_yticks(range(len(methods)), [label(m) for m in methods])
                ax.tick_params(axis="y", length=0)
                ax.set_ylim(-0.6, len(methods) - 0.4)
                if metric != "detection_delay_s":
                    ax.set_xlim(-0.03, 1.03)
                else:
                    ax.set_xlim(left=0)
                    ax.margins(x=0.08)
                ax.grid(axis="x", color="0.88")
                ax.set_axisbelow(True)
                ax.set_xlabel(text if len(text) < 24 else text.replace(", ", ",\n"))
        for scenario, ax in zip(scenarios, axes[0], strict=True):
            ax.set_title(_title(scenario))
        handles = [
            Line2D([], [], color=c, marker=m, linestyle="", label=v or "baseline")
            for v, (c, m) in _VARIANTS.items()
            if v in variants
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _dot(ax: Axes, point: Points, metric: str, methods: list[str], variants: list[str | None]) -> None:
    value = point.values[metric]
    if value is None:
        return
    colour, marker = _VARIANTS[point.variant]
    trained = [v for v in variants if v is not None]
    offset = 0.0 if point.variant is None else 0.22 * ((len(trained) - 1) / 2 - trained.index(point.variant))
    y = methods.index(point.method) + offset
    if interval := point.values["intervals"][metric]:
        ax.plot(interval, [y, y], color=colour, linewidth=1.1)
    ax.plot(value, y, color=colour, marker=marker, markersize=4.2, linestyle="", clip_on=False)


def _curves(path: Path, contents: list[dict[str, Any]], kind: str) -> None:
    x, y = ("fpr", "tpr") if kind == "roc" else ("recall", "precision")
    scenarios = sorted(contents[0]["scenarios"])
    size = (0.6 + 2.4 * len(scenarios), 3.3)
    with _figure(path, 1, len(scenarios), *size, sharey=True) as (figure, axes):
        shown = set()
        for scenario, ax in zip(scenarios, axes[0], strict=True):
            found = {m: c for content in contents for m, c in content["scenarios"][scenario]["methods"].items()}
            for method, (colour, style) in _LINES.items():
                if (curve := found.get(method)) is None:
                    continue
                shown.add(method)
                xs = np.array(curve[kind][x])
                ys = curve[kind][y]
                xs = np.maximum(xs, FPR_FLOOR) if kind == "roc" else xs
                where = "post" if kind == "roc" else "pre"
                ax.step(xs, ys, where=where, color=colour, linestyle=style, linewidth=1.4)
            ax.set_title(_title(scenario))
            ax.set_ylim(-0.02, 1.02)
            ax.grid(color="0.9")
            if kind == "roc":
                ax.set_xscale("log")
                ax.set_xlim(FPR_FLOOR, 1)
                ax.set_xlabel("False-positive rate")
            else:
                ax.set_xlim(-0.02, 1.02)
                ax.set_xlabel("Recall")
        axes[0][0].set_ylabel("Recall (true-positive rate)" if kind == "roc" else "Precision")
        handles = [Line2D([], [], color=c, linestyle=s, label=label(m)) for m, (c, s) in _LINES.items() if m in shown]
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
    with _figure(path, max(len(panels), 1), 1, 7.2, 0.5 + 1.25 * max(len(panels), 1)) as (figure, axes):
        for (scenario, line), ax in zip(panels, axes[:, 0], strict=False):
            edges = np.array([*line["t"], line["end"]])
            for low, high in _spans(line["attacked"], edges):
                ax.axvspan(low, high, color="#F0E442", alpha=0.45, linewidth=0)
            for low, high in _spans(line["alarms"]["fusion"], edges):
                ax.plot([low, high], [1.1, 1.1], color="black", linewidth=3, solid_capstyle="butt", clip_on=False)
            for method in ("vgae", "gat", "fusion"):
                colour, style = _LINES[method]
                ax.step(line["t"], line["scores"][method], where="post", color=colour, linestyle=style, linewidth=0.9)
            ax.set_ylim(-0.04, 1.14)
            ax.set_yticks([0, 0.5, 1])
            ax.set_xlim(0, line["end"])
            ax.set_title(f"{_title(scenario)}: {line['attack']}".replace("\n", " "), loc="left")
        axes[-1, 0].set_xlabel("Time in the capture (s)")
        figure.supylabel("Score", fontsize=8.5)
        handles: list[Any] = [
            Line2D([], [], color=_LINES[m][0], linestyle=_LINES[m][1], label=label(m))
            for m in ("fusion", "gat", "vgae")
        ]
        handles += [
            Patch(color="#F0E442", alpha=0.45, label="attack"),
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
