"""Several evaluations side by side, folds and seeds included.

    python -m canids_evaluate.compare experimentruns/hcrl_sa/eval_large@* results/hcrl_sa/window_baselines@*
    python -m canids_evaluate.compare --markdown RUN RUN …

RUN is a folder with `metrics.json` and `curves.json`, or the former's path. Instances that differ by seed alone are one
line: `@seed-1` belongs to the plain run (seed 0), `@without-dos-seed-1` to the fold `@without-dos`. A cell is the mean ±
the standard deviation over the seeds, and the 95 % bootstrap interval of that mean: the one says how much training
varies, the other how much the captures do. Differences between the fusion and the others are paired over both.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from canids_evaluate.judging.paired import COMPARED
from canids_evaluate.pages import figures
from canids_evaluate.pages.comparison import Line, fusion_minus, lines_of
from canids_evaluate.pages.rows import Row, label, rank
from canids_evaluate.pages.tables import COLUMNS, UNDEFINED, Table, number
from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.planning.pipeline import VARIANTS

_LEGEND = (
    "Mean ± standard deviation over seeds [95 % bootstrap interval of the mean]. Differences are paired over the same seeds "
    "and resamples, bold where the interval leaves out zero."
)


def _places(lines: list[Line]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys(line.place for line in lines))


def detailed(lines: list[Line]) -> Table:
    """Every metric of every method in one place (fold and scenario); the best mean F1 is bold."""
    best = max((v for line in lines if (v := line.average("f1")) is not None), default=None)
    rows = []
    for line in lines:
        cells = [line.cell(m) for m in COLUMNS]
        if best is not None and line.average("f1") == best:
            value, gap, rest = cells[0].partition(" ")
            cells[0] = f"**{value}**{gap}{rest}"
        rows.append([label(line.method), line.variant or UNDEFINED, str(len(line.runs)), *cells])
    return Table(["Method", "Variant", "Runs", *COLUMNS.values()], rows, names=2)


def overview(lines: list[Line], metric: str) -> Table:
    """One metric (or the differences in it), a column per place, and the mean over the places where there are several."""
    places = _places(lines)
    several = len(places) > 1
    by_place = {(line.variant, line.method, *line.place): line for line in lines}
    signed = any(line.difference for line in lines)
    rows = []
    for variant, method in dict.fromkeys((line.variant, line.method) for line in sorted(lines, key=_by_method)):
        found = [by_place.get((variant, method, *place)) for place in places]
        means = [line.average(metric) if line else None for line in found]
        complete = [m for m in means if m is not None]
        over = number(metric, mean(complete), signed) if len(complete) == len(places) else UNDEFINED
        cells = [line.cell(metric) if line else UNDEFINED for line in found]
        rows.append([label(method), variant or UNDEFINED, *cells, *([over] if several else [])])
    title = f"Fusion minus …, {COLUMNS[metric]}" if signed else COLUMNS[metric]
    header = [title, "Variant", *(_heading(p, places) for p in places), *(["Mean"] if several else [])]
    return Table(header, rows, names=2)


def _by_method(line: Line) -> tuple[Any, ...]:
    return rank(line.method), line.method, (*VARIANTS, None).index(line.variant)


def _heading(place: tuple[str, str, str], places: list[tuple[str, str, str]]) -> str:
    """The parts of a place that tell it from the others."""
    differing = [i for i in range(3) if len({p[i] for p in places}) > 1]
    return " ".join(place[i].removeprefix("@") or "plain" for i in differing or [2])


def _overviews(lines: list[Line]) -> list[Table]:
    differences = fusion_minus(lines)
    return [overview(found, m) for found in (lines, differences) if found for m in COMPARED]


def markdown(lines: list[Line]) -> str:
    """The whole comparison as Markdown."""
    parts = [table.markdown() for table in _overviews(lines)]
    for place in _places(lines):
        own = [line for line in lines if line.place == place]
        parts += [f"### {place[0]}{place[1]}, {place[2]}", detailed(own).markdown()]
    return "\n\n".join([_LEGEND, *parts]) + "\n"


def terminal(lines: list[Line]) -> str:
    """The whole comparison for a terminal."""
    parts = [table.terminal() for table in _overviews(lines)]
    for place in _places(lines):
        own = [line for line in lines if line.place == place]
        parts.append(f"{place[0]}{place[1]}, {place[2]}\n{detailed(own).terminal()}")
    return "\n\n".join(parts) + "\n"


def figure(path: Path, lines: list[Line]) -> None:
    """F1 and AUROC of every method, a column of panels a place; bars are the intervals of the means over the seeds."""
    places = _places(lines)
    rows = [
        Row(
            _heading(line.place, places),
            line.variant,
            line.method,
            {m: line.average(m) for m in COMPARED} | {"intervals": {m: line.interval(m) for m in COMPARED}},
        )
        for line in lines
    ]
    figures.dots(path, rows, {m: COLUMNS[m] for m in COMPARED})


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="canids_evaluate.compare", description="Evaluations side by side.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder with metrics.json and curves.json")
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of aligned columns")
    parser.add_argument("--output", type=Path, help="write Markdown to this file")
    parser.add_argument("--figure", type=Path, help="draw the comparison into this file, as SVG")
    given = parser.parse_args()
    try:
        lines = lines_of(given.runs)
        if given.output:
            write_text(given.output, markdown(lines))
        if given.figure:
            figure(given.figure, lines)
    except CanidsError as error:
        sys.exit(f"error: {error}")
    if not given.output:
        print(markdown(lines) if given.markdown else terminal(lines), end="")


if __name__ == "__main__":
    main()
