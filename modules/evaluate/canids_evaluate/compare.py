"""Several evaluations side by side, folds and seeds included.

    python -m canids_evaluate.compare experimentruns/hcrl_sa/eval_large@* results/hcrl_sa/window_baselines@*
    python -m canids_evaluate.compare --markdown RUN RUN …

    python -m canids_evaluate.compare before/leaderboard.json after/leaderboard.json

Leaderboards are compared with each other if they are of one protocol and of the same data, and refused otherwise.
RUN is a folder with `metrics.json` and `curves.json`, or the former's path. Instances that differ by seed alone share a
row: `@seed-1` belongs to the plain run (seed 0), `@without-dos-seed-1` to the fold `@without-dos`. A cell is the mean ±
the standard deviation over the seeds (spread of training), and the 95 % bootstrap interval of that mean (spread of the
captures). Differences between the fusion and the others are paired over both.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from canids_evaluate.judging.paired import COMPARED
from canids_evaluate.pages.comparison import MethodResults, paired_differences, places, read_results
from canids_evaluate.pages.rows import Row
from canids_evaluate.pages.tables import COLUMNS, UNDEFINED, Table, number
from canids_shared.contracts.manifest import ENROLLED, UNSEEN, base_of
from canids_shared.errors import CanidsError
from canids_shared.files import write_text

_LEGEND = (
    "Mean ± standard deviation over seeds [95 % bootstrap interval of the mean]. Differences are paired over the same seeds "
    "and resamples, bold where the interval leaves out zero."
)


def detailed(results: list[MethodResults]) -> Table:
    """Every metric of every method in one place (fold and scenario); the best mean F1 is bold."""
    best = max((v for r in results if (v := r.average("f1")) is not None), default=None)
    rows = []
    for result in results:
        cells = [result.cell(m) for m in COLUMNS]
        if best is not None and result.average("f1") == best:
            value, gap, rest = cells[0].partition(" ")
            cells[0] = f"**{value}**{gap}{rest}"
        rows.append([result.label, result.variant or UNDEFINED, str(len(result.runs)), *cells])
    return Table(["Method", "Variant", "Runs", *COLUMNS.values()], rows, names=2)


def overview(results: list[MethodResults], metric: str) -> Table:
    """One metric (or the differences in it), a column per place, and the mean over the places where there are several.

    Enrolled vehicles are a regime of their own, and traffic that every fold judges is the same in all: neither enters the mean.
    """
    columns = places(results)
    averaged = [p for p in columns if not p[2].endswith(ENROLLED) and base_of(p[2]) != UNSEEN]
    several = len(averaged) > 1
    by_place = {(r.variant, r.method, *r.place): r for r in results}
    signed = any(r.difference for r in results)
    rows = []
    for variant, method, label in dict.fromkeys(
        (r.variant, r.method, r.label) for r in sorted(results, key=lambda r: r.order)
    ):
        cells = [by_place.get((variant, method, *place)) for place in columns]
        means = [
            cell.average(metric) if cell and place in averaged else None
            for place, cell in zip(columns, cells, strict=True)
        ]
        defined = [m for m in means if m is not None]
        over_places = number(metric, mean(defined), signed) if len(defined) == len(averaged) > 0 else UNDEFINED
        texts = [cell.cell(metric) if cell else UNDEFINED for cell in cells]
        rows.append([label, variant or UNDEFINED, *texts, *([over_places] if several else [])])
    title = f"Fusion minus …, {COLUMNS[metric]}" if signed else COLUMNS[metric]
    title_of_mean = "Mean" if averaged == columns else f"Mean (neither enrolled nor {UNSEEN})"
    header = [title, "Variant", *(_heading(p, columns) for p in columns), *([title_of_mean] if several else [])]
    return Table(header, rows, names=2)


def _heading(place: tuple[str, str, str], columns: list[tuple[str, str, str]]) -> str:
    """The parts of a place in which it differs from the others."""
    differing = [i for i in range(3) if len({p[i] for p in columns}) > 1]
    return " ".join(place[i].removeprefix("@") or "plain" for i in differing or [2])


def _sections(results: list[MethodResults]) -> Iterator[tuple[str | None, Table]]:
    """Tables of the comparison, those of one place with its name."""
    for rows in (results, paired_differences(results)):
        yield from ((None, overview(rows, m)) for m in COMPARED if rows)
    for place in places(results):
        yield f"{place[0]}{place[1]}, {place[2]}", detailed([r for r in results if r.place == place])


def markdown(results: list[MethodResults]) -> str:
    """The whole comparison as Markdown."""
    sections = [(f"### {name}\n\n" if name else "") + table.markdown() for name, table in _sections(results)]
    return "\n\n".join([_LEGEND, *sections]) + "\n"


def terminal(results: list[MethodResults]) -> str:
    """The whole comparison for a terminal."""
    return "\n\n".join((f"{name}\n" if name else "") + t.terminal() for name, t in _sections(results)) + "\n"


def figure(path: Path, results: list[MethodResults]) -> None:
    """F1 and AUROC of every method, a column of panels a place; bars are the intervals of the means over the seeds."""
    from canids_evaluate.pages import figures  # noqa: PLC0415 (matplotlib takes half a second to import; tables need none)

    columns = places(results)
    rows = [
        Row(
            _heading(r.place, columns),
            r.variant,
            r.method,
            {**{m: r.average(m) for m in COMPARED}, "intervals": {m: r.interval(m) for m in COMPARED}},
            r.methods,
        )
        for r in results
    ]
    figures.dots(path, rows, {m: COLUMNS[m] for m in COMPARED})


def _leaderboards(paths: list[Path]) -> Iterator[tuple[str, Table]]:
    from canids_evaluate.standings import board_compare  # noqa: PLC0415 - as above

    documents = board_compare.read_comparable(paths)
    files = [
        [str(number), path, f"seeds {', '.join(map(str, d['seeds']))}"]
        for number, (path, d) in enumerate(documents.items(), start=1)
    ]
    yield "Leaderboards", Table(["Number", "File", "Of"], files, names=3)
    yield from board_compare.side_by_side(list(documents.values()))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="canids_evaluate.compare", description="Evaluations side by side.")
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folder with metrics.json and curves.json, or a leaderboard.json",
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of aligned columns")
    parser.add_argument("--output", type=Path, help="write Markdown to this file")
    parser.add_argument("--figure", type=Path, help="draw the comparison into this file, as SVG")
    given = parser.parse_args()
    try:
        if any(path.name.endswith("leaderboard.json") for path in given.runs):
            if given.figure:
                raise CanidsError(f"{given.figure}: leaderboards have figures of their own, and none of a comparison")
            sections = _leaderboards(given.runs)
            text = "\n\n".join(
                f"{name}\n\n{t.markdown() if given.markdown or given.output else t.terminal()}" for name, t in sections
            )
            write_text(given.output, text + "\n") if given.output else print(text)
            return
        results = read_results(given.runs)
        if given.output:
            write_text(given.output, markdown(results))
        if given.figure:
            figure(given.figure, results)
    except CanidsError as error:
        sys.exit(f"error: {error}")
    if not given.output:
        print(markdown(results) if given.markdown else terminal(results), end="")


if __name__ == "__main__":
    main()
