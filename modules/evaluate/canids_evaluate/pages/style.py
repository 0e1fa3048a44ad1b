"""Style of all figures, which are SVG files with the same bytes for the same numbers.

Colours are those of Okabe and Ito (2008), and two of Tol (2021), which the colour-blind distinguish too; marker or line style
repeats them, for print in grey.
"""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from canids_evaluate.pages.rows import FUSION, Methods, plain
from canids_shared.files import written_whole

VARIANTS: dict[str | None, tuple[str, str]] = {
    "large": ("#0072B2", "o"),
    "small_kd": ("#D55E00", "s"),
    "small_nokd": ("#009E73", "^"),
    None: ("#000000", "D"),
}
VARIANT_LINES: dict[str, Any] = {"large": "-", "small_kd": "--", "small_nokd": "-."}
BLUE = "#0072B2"
_DETECTORS: tuple[tuple[str, Any], ...] = (
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#56B4E9", (0, (7, 2))),
    ("#882255", (0, (1, 1))),
    ("#999933", (0, (7, 1, 1, 1))),
)
"""Colour and line style of detectors, by their position in the declaration."""
_BASELINES: dict[str, tuple[str, Any]] = {
    "id_rate": ("#000000", ":"),
    "extra_trees": ("#CC79A7", (0, (5, 1))),
    "gradient_boosting": ("#AA4499", "-."),
    "isolation_forest": ("#E69F00", (0, (3, 1, 1, 1, 1, 1))),
    "node_pca": ("#661100", "--"),
    "staleness": ("#888888", (0, (4, 1, 1, 1))),
}
ATTACK = "#F0E442"
FONT_SIZE = 8.5
_STYLE: Any = {
    "svg.hashsalt": "canids",
    "font.size": FONT_SIZE,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def networks(methods: Methods) -> dict[str, tuple[str, Any]]:
    """The fusion and its detectors: method → colour and line style."""
    detectors = {d.name: _DETECTORS[i % len(_DETECTORS)] for i, d in enumerate(methods.detectors)}
    return {FUSION: (BLUE, "-"), **detectors}


def curves(methods: Methods) -> dict[str, tuple[str, Any]]:
    """Methods that have a curve: method → colour and line style; the fusion baselines would lie on top of the fusion."""
    return {**networks(methods), **_BASELINES}


def handles(methods: Methods, lines: dict[str, tuple[str, Any]]) -> list[Any]:
    """Entries of a legend: one line for each method."""
    return [Line2D([], [], color=c, linestyle=s, label=methods.label(m)) for m, (c, s) in lines.items()]


def title(scenario: str) -> str:
    """A scenario's name above a panel."""
    return textwrap.fill(plain(scenario), 20)


@contextmanager
def figure(
    path: Path, rows: int, columns: int, width: float, height: float, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure (inches) with panels [rows, columns], written to `path` at the end."""
    with matplotlib.rc_context(_STYLE):
        made, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)
        yield made, axes
        with written_whole(path) as temporary:
            made.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(made)


def empty(path: Path, reason: str) -> None:
    """A figure with the reason why there is nothing to draw."""
    with figure(path, 1, 1, 5.0, 0.8) as (_, axes):
        axes[0][0].axis("off")
        axes[0][0].text(0.5, 0.5, reason, ha="center", va="center")


def grid(ax: Axes, axis: Any = "both") -> None:
    """A grid that stays behind the data."""
    ax.grid(axis=axis, color="0.88")
    ax.set_axisbelow(True)


def variant_legend(made: Figure, variants: list[str | None]) -> None:
    """Legend of the variants' markers above all panels."""
    markers = [
        Line2D([], [], color=c, marker=m, linestyle="", label=v or "baseline")
        for v, (c, m) in VARIANTS.items()
        if v in variants
    ]
    made.legend(handles=markers, loc="outside upper center", ncols=len(markers))
