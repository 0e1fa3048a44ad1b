"""How all figures look, and how they are written: SVG with the same bytes for the same numbers.

Colours are those of Okabe and Ito (2008), told apart also by the colour-blind; marker or line style says the same once
more, for print in grey.
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

from canids_evaluate.pages.rows import plain
from canids_shared.files import written_whole

VARIANTS: dict[str | None, tuple[str, str]] = {
    "large": ("#0072B2", "o"),
    "small_kd": ("#D55E00", "s"),
    "small_nokd": ("#009E73", "^"),
    None: ("#000000", "D"),
}
VARIANT_LINES: dict[str, Any] = {"large": "-", "small_kd": "--", "small_nokd": "-."}
METHODS: dict[str, tuple[str, Any]] = {
    "fusion": ("#0072B2", "-"),
    "gat": ("#D55E00", "--"),
    "vgae": ("#009E73", "-."),
    "id_rate": ("#000000", ":"),
    "extra_trees": ("#CC79A7", (0, (5, 1))),
    "isolation_forest": ("#E69F00", (0, (3, 1, 1, 1, 1, 1))),
}
"""What the curves show; the fixed-weight fusion_baselines would lie on top of the fusion."""
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
    """A figure that says why there is nothing to draw."""
    with figure(path, 1, 1, 5.0, 0.8) as (_, axes):
        axes[0][0].axis("off")
        axes[0][0].text(0.5, 0.5, reason, ha="center", va="center")


def grid(ax: Axes, axis: Any = "both") -> None:
    """A grid that stays behind the data."""
    ax.grid(axis=axis, color="0.88")
    ax.set_axisbelow(True)


def variant_legend(made: Figure, variants: list[str | None]) -> None:
    """Legend of the variants' markers above all panels."""
    handles = [
        Line2D([], [], color=c, marker=m, linestyle="", label=v or "baseline")
        for v, (c, m) in VARIANTS.items()
        if v in variants
    ]
    made.legend(handles=handles, loc="outside upper center", ncols=len(handles))
