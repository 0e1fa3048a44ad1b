"""Figures of the leaderboard's document: recall by kind of attack and vehicle, false alarms by vehicle, what ablations cost."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from canids_evaluate.pages import style
from canids_evaluate.standings.board_tables import COMPARED, Document, Entry, best, fold_name, places
from canids_evaluate.standings.places import ATTACK, MAKES, VEHICLE

_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#E69F00", "#000000", "#882255", "#999933")
_MARKERS = "osD^vPX*<"
_NAMES = {
    "f1": "F1",
    "recall_at_10_per_hour": "Recall at 10/h",
    "episodes_found_at_10_per_hour": "Episodes found at 10/h",
}
_TITLES = {VEHICLE: "vehicle left out", MAKES: "other vehicles", ATTACK: "kind of attack left out"}
CAPTIONS = {
    "recall": "Recall by kind of attack and what was left out, in percent; below it the number of attacked windows. Of each family of methods the best by mean "
    "F1 on these same folds.",
    "false_alarms": "False alarms an hour by vehicle, with bounds from the best run to the worst, on traffic without attacks; dotted lines at 1 and 10 an hour.",
    "ablations": "Ablated methods less the whole ones on vehicles never met, zero-shot; 95 % intervals paired over episodes and seeds.",
}
"""Figure → caption."""


def recall(path: Path, document: Document) -> None:
    """Heat maps of recall: a row of panels for each best method of a family, a column for each place with attacks."""
    shown = [place for place in places(document) if place[0] == VEHICLE] or [
        p for p in places(document) if p[0] != MAKES
    ]
    chosen = {place: best(document, *place) for place in shown}
    folds = list(dict.fromkeys(f for found in chosen.values() for e in found for f in e["attacks"]))
    # Data sets spell kinds of attack differently: DoS, dos.
    named = {a.casefold(): a for found in chosen.values() for e in found for of in e["attacks"].values() for a in of}
    kinds = [named[kind] for kind in sorted(named)]
    if not kinds:
        style.empty(path, "No attack was judged on any fold.")
        return
    labels = list(dict.fromkeys(e["label"] for found in chosen.values() for e in found))
    size = (1.5 + (0.5 + 0.66 * len(kinds)) * len(shown), 0.9 + (0.5 + 0.36 * len(folds)) * len(labels))
    with style.figure(path, len(labels), len(shown), *size, sharex=True, sharey=True) as (_, axes):
        for column, place in enumerate(shown):
            by_label = {e["label"]: e for e in chosen[place]}
            for label, ax in zip(labels, axes[:, column], strict=True):
                _heat(ax, by_label.get(label), folds, kinds)
                regime = f", {place[1]}" + ("" if place[0] == VEHICLE else f" ({place[0]})")
                ax.set_title(f"{label}{regime}", loc="left")
                ax.set_yticks(np.arange(len(folds)) + 0.5, [fold_name(document, f) for f in folds])
                ax.set_xticks(np.arange(len(kinds)) + 0.5, [textwrap.fill(k, 11) for k in kinds], fontsize=7)
                ax.tick_params(length=0)
                ax.spines[:].set_visible(False)
        axes[0, 0].invert_yaxis()


def _heat(ax: Axes, entry: Entry | None, folds: Sequence[str], kinds: Sequence[str]) -> None:
    found = {(f, k.casefold()): cell for f, of in (entry["attacks"] if entry else {}).items() for k, cell in of.items()}
    cells = [[found.get((f, k.casefold())) for k in kinds] for f in folds]
    shares = np.array(
        [[np.nan if c is None or c["recall"] is None else 100 * c["recall"] for c in row] for row in cells]
    )
    # As in the other figures, the scale ends beyond 100, so that text on the darkest cells stays readable.
    ax.pcolormesh(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=140, edgecolors="white", linewidth=1)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            if cell is None:
                ax.text(x + 0.5, y + 0.5, "–", ha="center", va="center", color="0.5")
                continue
            share, colour = shares[y, x], "white" if shares[y, x] > 90 else "black"
            ax.text(
                x + 0.5, y + 0.36, "–" if np.isnan(share) else f"{share:.0f}", ha="center", va="center", color=colour
            )
            ax.text(x + 0.5, y + 0.76, f"{cell['n_attacked']:,}", ha="center", va="center", color=colour, fontsize=5.5)


def false_alarms(path: Path, document: Document) -> None:
    """Dots with bounds, a panel for each place with attack-free traffic, a line for each vehicle."""
    shown = [p for p in places(document) if p[0] in (VEHICLE, MAKES)] or places(document)
    found = {p: best(document, *p) for p in shown}
    shown = [p for p in shown if any(e["traffic"]["attack_free_hours"] for e in found[p])]
    if not shown:
        style.empty(path, "No attack-free traffic was judged on any fold.")
        return
    vehicles = {p: [v for v, t in found[p][0]["traffic"]["vehicles"].items() if t["interval"]] for p in shown}
    labels = list(dict.fromkeys(e["label"] for p in shown for e in found[p]))
    rows = max(map(len, vehicles.values()))
    size = (max(1.6 + 2.6 * len(shown), 6.4), 1.1 + (0.25 + 0.13 * len(labels)) * rows)
    with style.figure(path, 1, len(shown), *size, sharex=True) as (figure, axes):
        for place, ax in zip(shown, axes[0], strict=True):
            for e in found[place]:
                number = labels.index(e["label"])
                offset = 0.8 * ((number + 0.5) / len(labels) - 0.5)
                _bounded(ax, e, vehicles[place], offset, number)
            ax.set_yticks(range(len(vehicles[place])), vehicles[place])
            ax.set_ylim(len(vehicles[place]) - 0.5, -0.5)
            ax.tick_params(axis="y", length=0)
            ax.set_xscale("symlog", linthresh=1)
            ax.set_xlim(left=0)
            for rate in (1, 10):
                ax.axvline(rate, color="0.35", linewidth=0.8, linestyle=":")
            style.grid(ax, "x")
            ax.set_xlabel("False alarms an hour")
            ax.set_title(style.title(f"{_TITLES.get(place[0], place[0])}, {place[1]}"))
        handles = [
            Line2D(
                [], [], color=_COLOURS[i % len(_COLOURS)], marker=_MARKERS[i % len(_MARKERS)], linestyle="", label=label
            )
            for i, label in enumerate(labels)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(labels)))


def _bounded(ax: Axes, e: Entry, vehicles: Sequence[str], offset: float, number: int) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    for y, vehicle in enumerate(vehicles):
        t: Mapping[str, Any] = e["traffic"]["vehicles"].get(vehicle) or {"interval": None}
        if t["interval"]:
            ax.plot(t["interval"], [y + offset] * 2, color=colour, linewidth=1.1)
            ax.plot(t["false_alarms_per_hour"], y + offset, color=colour, marker=marker, markersize=4, clip_on=False)


def ablations(path: Path, document: Document) -> None:
    """Differences in the compared metrics, a panel each, a line for each ablation."""
    labels = document["ablations"]["labels"]
    changes = document["ablations"]["changes"]
    place = next(iter(dict.fromkeys((e["setting"], e["regime"]) for e in changes)), None)
    found = [e for e in changes if (e["setting"], e["regime"]) == place]
    if not found:
        style.empty(path, "No ablation was run.")
        return
    names = [name for name in labels if any(e["ablation"] == name for e in found)]
    methods = list(dict.fromkeys((e["variant"], e["label"]) for e in found))
    size = (2.2 + 2.2 * len(COMPARED), 1.1 + (0.2 + 0.14 * len(methods)) * len(names))
    with style.figure(path, 1, len(COMPARED), *size, sharey=True) as (figure, axes):
        for metric, ax in zip(COMPARED, axes[0], strict=True):
            ax.axvline(0, color="0.35", linewidth=0.9)
            for e in found:
                number = methods.index((e["variant"], e["label"]))
                y = names.index(e["ablation"]) + 0.8 * ((number + 0.5) / len(methods) - 0.5)
                _change(ax, e["metrics"].get(metric), y, number)
            ax.set_yticks(range(len(names)), [textwrap.fill(labels[n], 34) for n in names])
            ax.set_ylim(len(names) - 0.5, -0.5)
            ax.tick_params(axis="y", length=0)
            ax.locator_params(axis="x", nbins=4)
            style.grid(ax, "x")
            ax.set_xlabel(f"{_NAMES[metric]}: ablated\nless whole")
        handles = [
            Line2D(
                [],
                [],
                color=_COLOURS[i % 9],
                marker=_MARKERS[i % 9],
                linestyle="",
                label=f"{label}, {variant or 'baseline'}",
            )
            for i, (variant, label) in enumerate(methods)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(methods)))


def _change(ax: Axes, values: Mapping[str, Any] | None, y: float, number: int) -> None:
    if values is None or values["mean"] is None:
        return
    if values["interval"]:
        ax.plot(values["interval"], [y, y], color=_COLOURS[number % 9], linewidth=1.1)
    ax.plot(values["mean"], y, color=_COLOURS[number % 9], marker=_MARKERS[number % 9], markersize=4, linestyle="")
