"""Several runs compared: seeds of one fold together, and the fusion minus every other method.

All runs on one scenario of one fold are evaluated on the same bootstrap resamples (`metrics.resamples`), so their replicates
can be averaged over seeds and subtracted from one another, resample by resample (`paired`).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from canids_evaluate.judging import paired
from canids_evaluate.judging.evaluation import incompatible_settings
from canids_evaluate.judging.metrics import percentiles
from canids_evaluate.pages.rows import FUSION, Methods, methods_of
from canids_evaluate.pages.tables import leaves_out_zero, number, with_interval
from canids_shared.contracts.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, read_evaluation
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import VARIANTS

_SEED = re.compile(r"(@.+?)?[-@]seed-(\d+)")
_IDENTITY = ("dataset", "instance", "variant")
Content = tuple[Path, dict[str, Any], dict[str, Any]]
"""Path of a `metrics.json`, its content, and that of the `curves.json` beside it."""


@dataclass(frozen=True)
class Run:
    """One method in one run: metrics as in `metrics.json`, and replicates as in `curves.json`."""

    values: dict[str, Any]
    replicates: paired.Replicates

    def minus(self, other: "Run") -> "Run":
        """This run less the other, in the metrics that both have replicates of; the number of episodes stays."""
        both = [metric for metric in self.replicates if metric in other.replicates]
        differences = paired.differences(self.values, other.values, self.replicates, other.replicates, both)
        values: dict[str, Any] = {m: d["difference"] for m, d in differences.items()}
        values["intervals"] = {m: d["interval"] for m, d in differences.items()}
        values["n_episodes"] = self.values["n_episodes"]
        return Run(values, {m: self.resampled(m) - other.resampled(m) for m in both})

    def resampled(self, metric: str) -> np.ndarray:
        """The replicates of a metric, f64 [B]; NaN where undefined."""
        return np.array(self.replicates[metric], dtype=np.float64)


@dataclass
class MethodResults:
    """One method of one variant (None: a window baseline) on one scenario of one fold (or the plain run), over its seeds.

    Attributes:
        methods: labels and order of the methods that it was evaluated with.
        runs: seed → run.
        difference: whether the values are those of the fusion less those of `method`.
    """

    dataset: str
    fold: str
    scenario: str
    variant: str | None
    method: str
    methods: Methods
    runs: dict[str, Run] = field(default_factory=dict)
    difference: bool = False

    @property
    def place(self) -> tuple[str, str, str]:
        """Dataset, fold and scenario."""
        return self.dataset, self.fold, self.scenario

    @property
    def label(self) -> str:
        """The method's name in tables and figures."""
        return self.methods.label(self.method)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key of the method and, within it, the variant."""
        return self.methods.rank(self.method), (*VARIANTS, None).index(self.variant)

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
        if len(runs) == 1:  # all of its digits; the replicates are rounded
            return list(runs[0].values["intervals"][metric])
        # Each resample of the episodes is of as many runs, drawn with replacement: the seeds are a sample too (Efron and Tibshirani 1993, section 8).
        values = np.array([r.resampled(metric) for r in runs])  # [runs, B]
        drawn = np.random.default_rng(0).integers(len(runs), size=values.shape)
        interval = percentiles(np.take_along_axis(values, drawn, axis=0).mean(axis=0))
        if interval and interval[0] == interval[1]:
            interval = [mean(r.values["intervals"][metric][end] for r in runs) for end in (0, 1)]
        return interval

    def cell(self, metric: str) -> str:
        """Mean ± standard deviation over the seeds, then the interval; a difference is bold where that leaves out zero."""
        values, interval = [r.values[metric] for r in self._defined(metric)], self.interval(metric)
        text = number(metric, self.average(metric), sign=self.difference)
        if self.difference and leaves_out_zero(interval):
            text = f"**{text}**"
        if len(values) > 1:
            text += f" ± {number(metric, stdev(values))}"
        return with_interval(metric, text, interval, sign=self.difference)


def places(results: Sequence[MethodResults]) -> list[tuple[str, str, str]]:
    """All places of the results, in their order."""
    return list(dict.fromkeys(result.place for result in results))


def fold_and_seed(instance: str) -> tuple[str, str]:
    """Split an instance: `@without-dos-seed-1` → `@without-dos`, `1`; without a seed in its name it is seed `0`."""
    match = _SEED.fullmatch(instance)
    return (match[1] or "", match[2]) if match else (instance, "0")


def read_results(runs: Sequence[Path]) -> list[MethodResults]:
    """All methods of the given runs (see `contents` and `results_of`)."""
    return results_of(contents(runs))


def contents(runs: Sequence[Path]) -> Iterator[Content]:
    """The files of runs, folders with `metrics.json` and `curves.json` (or the former's path).

    Raises `CanidsError` naming the file if it is absent or of another contract, or the two files are not of one run.
    """
    for run in runs:
        path = run / "metrics.json" if run.is_dir() else run
        content, drawn = (
            read_evaluation(path, METRICS_CONTRACT),
            read_evaluation(path.with_name("curves.json"), CURVES_CONTRACT),
        )
        ours, theirs = ([*(c[k] for k in _IDENTITY), sorted(c["scenarios"])] for c in (content, drawn))
        if ours != theirs:
            raise CanidsError(f"{path}: of another run than curves.json beside it; delete both and run again")
        yield path, content, drawn


def results_of(runs: Iterable[Content]) -> list[MethodResults]:
    """All methods of runs, the seeds of a fold together.

    Raises `CanidsError` naming the file if it is the second of the same run, or was evaluated on other windows or with another
    config than the other runs on that scenario of that fold.
    """
    results: dict[tuple[str, ...], MethodResults] = {}
    paths: dict[tuple[str, ...], Path] = {}
    references: dict[tuple[str, ...], tuple[Path, dict[str, Any], dict[str, str]]] = {}
    for path, content, drawn in runs:
        # Each run must be given once; those without a variant differ in their methods.
        fold, seed = fold_and_seed(content["instance"])
        methods = () if content["variant"] else sorted(content["thresholds"])
        same = paths.setdefault((content["dataset"], fold, seed, str(content["variant"]), *methods), path)
        if same != path:
            raise CanidsError(f"{path}: the same run as {same}; name it once")
        for scenario, values in content["scenarios"].items():
            # The first run of a place sets its config and windows; later ones must have the same.
            place, curves = (content["dataset"], fold, scenario), drawn["scenarios"][scenario]
            reference, config, windows = references.setdefault(place, (path, content["config"], curves["windows"]))
            if other := incompatible_settings(content["config"], config):
                raise CanidsError(f"{path}: evaluated with another {other[0]} than {reference}; run both again")
            paired.refuse_other_windows(path, curves["windows"], reference, windows)
            for method in values:
                result = MethodResults(*place, content["variant"], method, methods_of(content))
                result = results.setdefault((*place, str(result.variant), method), result)
                # Arrays, which take a quarter of the memory of lists.
                drawn_of = curves["replicates"][method]
                result.runs[seed] = Run(values[method], {m: np.array(v, dtype=np.float64) for m, v in drawn_of.items()})
    return sorted(results.values(), key=lambda r: (r.place, (*VARIANTS, None).index(r.variant), r.order))


def paired_differences(results: Sequence[MethodResults]) -> list[MethodResults]:
    """The fusion less every other method of its variant and less every window baseline, seed by seed.

    A window baseline is fitted once per fold: its only run is the counterpart of all seeds.
    """
    differences = []
    for fusion in (r for r in results if r.method == FUSION):
        for other in results:
            if other is fusion or other.place != fusion.place or other.variant not in (fusion.variant, None):
                continue
            # Seeds are subtracted from equal seeds, and all of them from the only run of a window baseline.
            once = next(iter(other.runs.values())) if other.variant is None and len(other.runs) == 1 else None
            counterparts = {seed: other.runs.get(seed, once) for seed in fusion.runs}
            if runs := {s: fusion.runs[s].minus(run) for s, run in counterparts.items() if run is not None}:
                names = (*fusion.place, fusion.variant, other.method, other.methods)
                differences.append(MethodResults(*names, runs, difference=True))
    return differences
