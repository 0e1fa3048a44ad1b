"""A method over all folds and seeds of a place: means, the worst fold, intervals, and false alarms by vehicle.

Folds count alike: a value is the mean over folds of the mean over seeds. Its interval draws attack episodes and attack-free pieces
within each fold (the replicates of `curves.json`) and seeds with replacement (Efron and Tibshirani 1993, section 8); the folds, which
are the vehicles at hand, are not drawn: beside the mean stands the worst.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

import numpy as np

from canids_evaluate.judging.bounds import ENOUGH, Interval, binomial, poisson
from canids_evaluate.judging.metrics import METRICS, percentiles
from canids_evaluate.judging.paired import STORED
from canids_evaluate.pages.comparison import MethodResults, Run
from canids_evaluate.pages.rows import Methods
from canids_evaluate.standings.places import MAKES, Place, place_of

LESS_IS_BETTER = ("fpr", "false_alarms_per_hour", "alarm_seconds_per_hour", "detection_delay_s")
ALL_FOLDS = "all folds"
Vehicles = Mapping[str, str]
"""Capture → vehicle."""


@dataclass(frozen=True)
class Traffic:
    """Attack-free traffic of a vehicle, and what a method made of it: means over the runs that judged it.

    Attributes:
        false_alarms: runs of false alarms; hours: that they rest on, each capture counted once.
        seconds: in false alarm.
        windows, alarmed: attack-free windows, and those alarmed.
        fewest, most: false alarms in the runs that raised the fewest and the most.
    """

    false_alarms: float
    hours: float
    seconds: float
    windows: float
    alarmed: float
    fewest: float
    most: float

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def bounds(self) -> Interval:
        """Bounds of the false alarms an hour: the lower exact one of the best runs to the upper of the worst."""
        low, high = poisson(int(self.fewest), self.hours), poisson(int(self.most), self.hours)
        return [low[0], high[1]] if low and high else None

    def as_json(self) -> dict[str, Any]:
        """Its counts and rates; null where there is no attack-free traffic."""
        return {
            "n_false_alarms": self.false_alarms,
            "attack_free_hours": self.hours,
            "false_alarms_per_hour": self.false_alarms / self.hours if self.hours else None,
            "interval": self.bounds,
            "alarm_seconds_per_hour": self.seconds / self.hours if self.hours else None,
            "fpr": self.alarmed / self.windows if self.windows else None,
        }


@dataclass
class Standing:
    """One method of one variant in one place: its results fold by fold."""

    place: Place
    variant: str | None
    method: str
    methods: Methods
    folds: dict[str, MethodResults] = field(default_factory=dict)

    def by_fold(self, metric: str) -> dict[str, float]:
        """Fold → mean over its seeds, where the metric is defined."""
        return {fold: v for fold, r in self.folds.items() if (v := r.average(metric)) is not None}

    def average(self, metric: str) -> float | None:
        """Mean over the folds in which the metric is defined."""
        return mean(values.values()) if (values := self.by_fold(metric)) else None

    def worst(self, metric: str) -> tuple[float, str] | None:
        """The worst fold's value, and the fold."""
        values = self.by_fold(metric)
        if not values:
            return None
        chosen = (max if metric in LESS_IS_BETTER else min)(values, key=lambda fold: values[fold])
        return values[chosen], chosen

    @property
    def counts(self) -> dict[str, int]:
        """Episodes, attacked windows and windows that the values rest on, each capture once however many folds judged it."""
        captures = {name: values for r in self.folds.values() for name, values in _first(r)["per_capture"].items()}
        return {k: sum(v[k] for v in captures.values()) for k in ("n_episodes", "n_attacked", "n_windows")}

    @property
    def episodes(self) -> dict[str, int]:
        """Fold → its attack episodes."""
        return {fold: _first(result)["n_episodes"] for fold, result in self.folds.items()}

    @property
    def delay_floor(self) -> float | None:
        """Mean over the folds of the shortest delay that their windows allow (s)."""
        floors = [_first(r).get("delay_floor_s") for r in self.folds.values()]
        return mean(known) if (known := [f for f in floors if f is not None]) else None

    @property
    def seeds(self) -> list[int]:
        """Seeds of all folds."""
        return sorted({int(seed) for result in self.folds.values() for seed in result.runs})

    def interval(self, metric: str) -> Interval:
        """95 % interval of `average`; None where a fold in it has fewer than five episodes, or no replicates are kept."""
        folds = [self.folds[fold] for fold in self.by_fold(metric)]
        if not folds or min(_first(result)["n_episodes"] for result in folds) < ENOUGH:
            return None
        rng, drawn, beyond = np.random.default_rng(0), [], []
        for result in folds:
            runs = [run for run in result.runs.values() if run.values[metric] is not None]
            if not all(metric in run.replicates and run.values["intervals"][metric] for run in runs):
                return None
            values = np.array([run.resampled(metric) for run in runs])  # [seeds, B]
            seeds = rng.integers(len(runs), size=values.shape)
            drawn.append(np.take_along_axis(values, seeds, axis=0).mean(axis=0))
            beyond.append(np.mean([_beyond(run, metric, result.difference) for run in runs], axis=0))
        if len({len(values) for values in drawn}) > 1:
            return None
        interval = percentiles(np.mean(drawn, axis=0))
        if interval is None:
            return None
        # Added end to end, as if all folds and seeds erred to the same side: rather too wide.
        low, high = (float(end) for end in np.array(interval) + np.mean(beyond, axis=0))
        return [max(low, -1.0 if any(result.difference for result in folds) else 0.0), min(high, 1.0)]

    def traffic(self, vehicles: Vehicles) -> dict[str, Traffic]:
        """Vehicle → its attack-free traffic; a capture that several folds or seeds judged counts once, by its mean."""
        judged: dict[str, list[Traffic]] = {}
        for result in self.folds.values():
            for run in result.runs.values():
                for capture, values in run.values["per_capture"].items():
                    judged.setdefault(capture, []).append(_traffic(values))
        found: dict[str, Traffic] = {}
        for capture, runs in sorted(judged.items()):
            average = Traffic(*(mean(column) for column in zip(*(vars(t).values() for t in runs), strict=True)))
            average = replace(average, fewest=min(t.fewest for t in runs), most=max(t.most for t in runs))
            vehicle = vehicles.get(capture, capture)
            found[vehicle] = found[vehicle] + average if vehicle in found else average
        return found

    def attacks(self) -> dict[str, dict[str, dict[str, float | int | None]]]:
        """Fold → kind of attack → recall, share of episodes found (means over seeds), and what they rest on.

        Of traffic that every fold judges the means over all of them, by the name `ALL_FOLDS`.
        """
        together = {ALL_FOLDS: list(self.folds.values())} if self.place.setting == MAKES else None
        return {
            fold: {
                attack: {
                    **{m: _mean_of(results, attack, m) for m in ("recall", "episodes_found")},
                    **{k: _first(results[0])["per_attack"][attack][k] for k in ("n_attacked", "n_episodes")},
                }
                for attack in sorted(_first(results[0])["per_attack"])
            }
            for fold, results in (together or {fold: [result] for fold, result in self.folds.items()}).items()
        }

    def as_json(self) -> dict[str, Any]:
        """Its metrics with intervals and worst folds, and their values by fold."""
        metrics = {}
        for metric in METRICS:
            value, worst = self.average(metric), self.worst(metric)
            metrics[metric] = {
                "mean": value,
                "interval": self.interval(metric) if metric in STORED else None,
                "worst": worst and worst[0],
                "worst_fold": worst and worst[1],
                "folds": self.by_fold(metric),
            }
        head = {
            "seeds": self.seeds,
            "folds": len(self.folds),
            "delay_floor_s": self.delay_floor,
            "episodes": self.episodes,
        }
        return {"metrics": metrics, **head, **self.counts}


def _beyond(run: Run, metric: str, difference: bool) -> tuple[float, float]:
    """How far a run's own interval lies below and above its value, where no resample differs; else 0, 0.

    That is the exact bound of a run without an error, which the resamples do not show.
    """
    drawn = run.resampled(metric)
    if np.ptp(drawn[np.isfinite(drawn)]) != 0:
        return 0.0, 0.0
    (low, high), value, n = run.values["intervals"][metric], run.values[metric], run.values["n_episodes"]
    if low == high and metric != "auroc":  # scores that are all equal have an AUROC of one half for certain
        most = binomial(0, n)[1]  # of which one of two methods may be worse
        low, high = (value - most, value + most) if difference else binomial(round(value * n), n)
    return min(low - value, 0.0), max(high - value, 0.0)


def _traffic(values: Mapping[str, Any]) -> Traffic:
    hours, windows = values["attack_free_hours"], values["n_windows"] - values["n_attacked"]
    seconds = (values["alarm_seconds_per_hour"] or 0) * hours
    alarms = values["n_false_alarms"]
    return Traffic(alarms, hours, seconds, windows, (values["fpr"] or 0) * windows, alarms, alarms)


def _first(result: MethodResults) -> Mapping[str, Any]:
    return next(iter(result.runs.values())).values


def _mean_of(folds: Iterable[MethodResults], attack: str, metric: str) -> float | None:
    """Mean over folds of the means over seeds, where they are defined."""
    by_fold = [[r.values["per_attack"].get(attack, {}).get(metric) for r in fold.runs.values()] for fold in folds]
    defined = [[v for v in values if v is not None] for values in by_fold]
    return mean(mean(values) for values in defined if values) if any(defined) else None


def standings(results: Sequence[MethodResults], left_out: Mapping[str, Mapping[str, Any]]) -> list[Standing]:
    """Results gathered by place, variant and method, the folds of each together.

    Args:
        results: of the folds alone.
        left_out: fold → what it leaves out.
    """
    found: dict[tuple[Any, ...], Standing] = {}
    for r in results:
        place = place_of(r.scenario, left_out.get(r.fold, {}))
        made = found.setdefault((place, r.variant, r.method), Standing(place, r.variant, r.method, r.methods))
        # Seeds in their order, whatever that of the files was: equal inputs give equal bytes.
        made.folds[r.fold] = replace(r, runs=dict(sorted(r.runs.items(), key=lambda item: int(item[0]))))
    return list(found.values())


def total(traffic: Iterable[Traffic]) -> Traffic:
    """The traffic of several vehicles together."""
    return sum(traffic, Traffic(0, 0, 0, 0, 0, 0, 0))
