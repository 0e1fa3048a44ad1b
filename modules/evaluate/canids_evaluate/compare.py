"""Several evaluations side by side, folds and seeds included.

    python -m canids_evaluate.compare experimentruns/hcrl_sa/eval_large@* results/hcrl_sa/baselines@*
    python -m canids_evaluate.compare --markdown RUN RUN …

RUN is a folder with a `metrics.json`, or such a file. Instances that differ by seed alone are one line, mean ± standard
deviation over the seeds: `@seed-1` belongs to the plain run (seed 0), `@without-dos-seed-1` to the fold `@without-dos`.
A line of one run shows its 95 % bootstrap interval instead.
"""

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from canids_evaluate.judgement import METRICS_CONTRACT, read
from canids_evaluate.rows import label, rank
from canids_evaluate.tables import COLUMNS, UNDEFINED, Table, number, with_interval
from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.workflow import VARIANTS

_SEED = re.compile(r"(@.+?)?[-@]seed-(\d+)")
_OVERVIEW = ("f1", "auroc")


@dataclass
class Line:
    """One method of one variant (None: a baseline) on one scenario of one fold (or the plain run), over its seeds.

    Attributes:
        runs: the metrics of each run, as in `metrics.json`.
    """

    dataset: str
    fold: str
    scenario: str
    variant: str | None
    method: str
    runs: list[dict[str, Any]] = field(default_factory=list)

    def of(self, metric: str) -> list[float]:
        """The metric's defined values."""
        return [r[metric] for r in self.runs if r[metric] is not None]

    def average(self, metric: str) -> float | None:
        """Mean over the runs in which the metric is defined."""
        return mean(values) if (values := self.of(metric)) else None

    def cell(self, metric: str) -> str:
        """Mean ± standard deviation; of a single run the value, for F1 and AUROC with its interval."""
        text, values = number(metric, self.average(metric)), self.of(metric)
        if len(self.runs) == 1:
            return with_interval(text, self.runs[0]["intervals"][metric]) if metric in _OVERVIEW else text
        return f"{text} ± {number(metric, stdev(values))}" if len(values) > 1 else text


def fold_and_seed(instance: str) -> tuple[str, str]:
    """Split an instance: `@without-dos-seed-1` → `@without-dos`, `1`; without a seed in its name it is seed `0`."""
    found = _SEED.fullmatch(instance)
    return (found[1] or "", found[2]) if found else (instance, "0")


def lines_of(runs: list[Path]) -> list[Line]:
    """All methods of the given runs.

    Raises `CanidsError` naming the file if it holds no metrics, or is the second of the same run.
    """
    lines: dict[tuple[str, ...], Line] = {}
    seen: dict[tuple[str, ...], Path] = {}
    for run in runs:
        path = run / "metrics.json" if run.is_dir() else run
        content = read(path, METRICS_CONTRACT)
        fold, seed = fold_and_seed(content["instance"])
        same = seen.setdefault((content["dataset"], fold, seed, str(content["variant"])), path)
        if same != path:
            raise CanidsError(f"{path}: the same run as {same}; name it once")
        for scenario, methods in content["scenarios"].items():
            for method, values in methods.items():
                key = (content["dataset"], fold, scenario, str(content["variant"]), method)
                line = Line(content["dataset"], fold, scenario, content["variant"], method)
                lines.setdefault(key, line).runs.append(values)
    return sorted(lines.values(), key=_order)


def _order(line: Line) -> tuple[Any, ...]:
    place = (*VARIANTS, None).index(line.variant)
    return line.dataset, line.fold, line.scenario, place, rank(line.method), line.method


def _places(lines: list[Line]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((line.dataset, line.fold, line.scenario) for line in lines))


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
    """One metric, a column per place, and the mean over the places where there are several."""
    places = _places(lines)
    several = len(places) > 1
    by_place = {(line.variant, line.method, line.dataset, line.fold, line.scenario): line for line in lines}
    rows = []
    for variant, method in dict.fromkeys((line.variant, line.method) for line in sorted(lines, key=_by_method)):
        found = [by_place.get((variant, method, *place)) for place in places]
        means = [line.average(metric) if line else None for line in found]
        complete = [m for m in means if m is not None]
        over = number(metric, mean(complete)) if len(complete) == len(places) else UNDEFINED
        cells = [line.cell(metric) if line else UNDEFINED for line in found]
        rows.append([label(method), variant or UNDEFINED, *cells, *([over] if several else [])])
    header = [f"{COLUMNS[metric]}", "Variant", *(_heading(p, places) for p in places), *(["Mean"] if several else [])]
    return Table(header, rows, names=2)


def _by_method(line: Line) -> tuple[Any, ...]:
    return rank(line.method), line.method, (*VARIANTS, None).index(line.variant)


def _heading(place: tuple[str, str, str], places: list[tuple[str, str, str]]) -> str:
    """The parts of a place that tell it from the others."""
    differing = [i for i in range(3) if len({p[i] for p in places}) > 1]
    return " ".join(place[i].removeprefix("@") or "plain" for i in differing or [2])


def markdown(lines: list[Line]) -> str:
    """The whole comparison as Markdown."""
    parts = [overview(lines, m).markdown() for m in _OVERVIEW]
    for place in _places(lines):
        own = [line for line in lines if (line.dataset, line.fold, line.scenario) == place]
        parts += [f"### {place[0]}{place[1]}, {place[2]}", detailed(own).markdown()]
    return "\n\n".join(["Mean ± standard deviation over seeds; of single runs the 95 % interval.", *parts]) + "\n"


def terminal(lines: list[Line]) -> str:
    """The whole comparison for a terminal."""
    parts = [overview(lines, m).terminal() for m in _OVERVIEW]
    for place in _places(lines):
        own = [line for line in lines if (line.dataset, line.fold, line.scenario) == place]
        parts.append(f"{place[0]}{place[1]}, {place[2]}\n{detailed(own).terminal()}")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="canids_evaluate.compare", description="Evaluations side by side.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder with a metrics.json, or such a file")
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of aligned columns")
    parser.add_argument("--output", type=Path, help="write Markdown to this file")
    given = parser.parse_args()
    try:
        lines = lines_of(given.runs)
        if given.output:
            write_text(given.output, markdown(lines))
    except CanidsError as error:
        sys.exit(f"error: {error}")
    if not given.output:
        print(markdown(lines) if given.markdown else terminal(lines), end="")


if __name__ == "__main__":
    main()
