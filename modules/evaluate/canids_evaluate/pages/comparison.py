"""Several runs as lines of a comparison: seeds of one fold together, and the fusion minus every other method.

All runs on one scenario of one fold are judged on the same bootstrap resamples (`metrics.resamples`), so their replicates
can be averaged over seeds and subtracted from one another, resample by resample (`paired`).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from canids_evaluate.judging import paired
from canids_evaluate.judging.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, other_judgement, read
from canids_evaluate.judging.metrics import percentiles
from canids_evaluate.pages.rows import rank
from canids_evaluate.pages.tables import number, with_interval
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import VARIANTS

_SEED = re.compile(r"(@.+?)?[-@]seed-(\d+)")


@dataclass(frozen=True)
class Run:
    """One method in one run: metrics as in `metrics.json`, and replicates as in `curves.json`."""

    values: dict[str, Any]
    replicates: paired.Replicates

    def minus(self, other: "Run") -> "Run":
        """This run less the other, in the metrics that are compared."""
        found = paired.differences(self.values, other.values, self.replicates, other.replicates)
        values = {m: found[m]["difference"] for m in found}
        intervals = {m: found[m]["interval"] for m in found}
        return Run(
            {**values, "intervals": intervals},
            {m: (self.resampled(m) - other.resampled(m)).tolist() for m in paired.COMPARED},
        )

    def resampled(self, metric: str) -> np.ndarray:
        """The replicates of a metric, f64 [B]; NaN where undefined."""
        return np.array(self.replicates[metric], dtype=np.float64)


@dataclass
class Line:
    """One method of one variant (None: a baseline) on one scenario of one fold (or the plain run), over its seeds.

    Attributes:
        runs: seed → run.
        difference: whether the values are those of the fusion less those of `method`.
    """

    dataset: str
    fold: str
    scenario: str
    variant: str | None
    method: str
    runs: dict[str, Run] = field(default_factory=dict)
    difference: bool = False

    @property
    def place(self) -> tuple[str, str, str]:
        """Where it was judged: dataset, fold, scenario."""
        return self.dataset, self.fold, self.scenario

    def _defined(self, metric: str) -> list[Run]:
        return [self.runs[s] for s in sorted(self.runs, key=int) if self.runs[s].values[metric] is not None]

    def average(self, metric: str) -> float | None:
        """Mean over the runs in which the metric is defined."""
        return mean(r.values[metric] for r in defined) if (defined := self._defined(metric)) else None

    def interval(self, metric: str) -> list[float] | None:
        """95 % bootstrap interval of the mean over the runs; None where one of them has none, or no replicates are kept."""
        runs = self._defined(metric)
        if metric not in paired.COMPARED or not runs or not all(r.values["intervals"][metric] for r in runs):
            return None
        if len(runs) == 1:
            return list(runs[0].values["intervals"][metric])
        return percentiles(np.mean([r.resampled(metric) for r in runs], axis=0))

    def cell(self, metric: str) -> str:
        """Mean ± standard deviation over the seeds, then the interval; a difference is bold where that leaves out zero."""
        values, interval = [r.values[metric] for r in self._defined(metric)], self.interval(metric)
        text = number(metric, self.average(metric), sign=self.difference)
        if self.difference and interval and (interval[0] > 0 or interval[1] < 0):
            text = f"**{text}**"
        if len(values) > 1:
            text += f" ± {number(metric, stdev(values))}"
        return with_interval(metric, text, interval, sign=self.difference)


def fold_and_seed(instance: str) -> tuple[str, str]:
    """Split an instance: `@without-dos-seed-1` → `@without-dos`, `1`; without a seed in its name it is seed `0`."""
    found = _SEED.fullmatch(instance)
    return (found[1] or "", found[2]) if found else (instance, "0")


def lines_of(runs: list[Path]) -> list[Line]:
    """All methods of the given runs, folders with `metrics.json` and `curves.json` (or the former's path).

    Raises `CanidsError` naming the file if it is absent or of another contract, is the second of the same run, or was
    judged on other windows or by another config than the other runs on that scenario of that fold.
    """
    lines: dict[tuple[str, ...], Line] = {}
    seen: dict[tuple[str, ...], Path] = {}
    first: dict[tuple[str, ...], tuple[Path, dict[str, Any], dict[str, str]]] = {}
    for run in runs:
        path = run / "metrics.json" if run.is_dir() else run
        content, drawn = read(path, METRICS_CONTRACT), read(path.with_name("curves.json"), CURVES_CONTRACT)
        head = ("dataset", "instance", "variant")
        if [content[k] for k in head] != [drawn[k] for k in head] or content["scenarios"].keys() != drawn[
            "scenarios"
        ].keys():
            raise CanidsError(f"{path}: of another run than curves.json beside it; delete both and run again")
        fold, seed = fold_and_seed(content["instance"])
        same = seen.setdefault((content["dataset"], fold, seed, str(content["variant"])), path)
        if same != path:
            raise CanidsError(f"{path}: the same run as {same}; name it once")
        for scenario, methods in content["scenarios"].items():
            place = (content["dataset"], fold, scenario)
            windows = drawn["scenarios"][scenario]["windows"]
            reference, config, wanted = first.setdefault(place, (path, content["config"], windows))
            if other := other_judgement(content["config"], config):
                raise CanidsError(f"{path}: judged with another {other[0]} than {reference}; run both again")
            paired.refuse_other_windows(path, windows, reference, wanted)
            for method, values in methods.items():
                line = Line(*place, content["variant"], method)
                replicates = drawn["scenarios"][scenario]["replicates"][method]
                lines.setdefault((*place, str(line.variant), method), line).runs[seed] = Run(values, replicates)
    return sorted(lines.values(), key=_order)


def fusion_minus(lines: list[Line]) -> list[Line]:
    """The fusion less every other method of its variant and less every baseline, seed by seed.

    A baseline is trained once a fold: its only run is the counterpart of all seeds.
    """
    found = []
    for fusion in (line for line in lines if line.method == "fusion"):
        for other in lines:
            if other is fusion or other.place != fusion.place or other.variant not in (fusion.variant, None):
                continue
            once = next(iter(other.runs.values())) if other.variant is None and len(other.runs) == 1 else None
            counterparts = {seed: other.runs.get(seed, once) for seed in fusion.runs}
            runs = {s: fusion.runs[s].minus(run) for s, run in counterparts.items() if run is not None}
            if runs:
                found.append(Line(*fusion.place, fusion.variant, other.method, runs, difference=True))
    return found


def _order(line: Line) -> tuple[Any, ...]:
    return *line.place, (*VARIANTS, None).index(line.variant), rank(line.method), line.method
