"""Evaluation of methods, scenario by scenario: `metrics.json` (contract metrics/6) and `curves.json` (curves/5)."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_evaluate.judging import metrics, paired
from canids_evaluate.judging.bounds import intervals
from canids_evaluate.judging.curves import WEIGHT_STEP, closeups, curves, timelines
from canids_evaluate.judging.scores import Scores
from canids_evaluate.judging.thresholds import OperatingPoint, acted_first, implied_threshold, is_alarm, operating_point
from canids_evaluate.judging.windows import Windows, windows_of
from canids_shared import alarm_rule
from canids_shared.contracts.detectors import KEY, as_json
from canids_shared.contracts.evaluation import write_evaluation
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import ENROLLED
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

log = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """The methods' operating points, and their results as scenarios are added; made by `calibrated`.

    Attributes:
        calibrate: what the operating points were set on.
        points: method → its operating point.
        enrolment: vehicle → blocks of its enrolment, and what they bound the expected share of its false alarms by.
        between: method with alarms of its own → the scores between which its threshold lies, after all files so far.
    """

    config: dict[str, Any]
    calibrate: Scores
    points: dict[str, OperatingPoint]
    enrolment: dict[str, dict[str, float]] = field(default_factory=dict)
    scenarios: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    between: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for method, alarm in self.calibrate.alarm.items():
            # Alarms that depend on more than the score (on earlier windows) bound no threshold, and are not checked.
            if bounds := implied_threshold(alarm, self.calibrate.score[method]):
                self.between[method] = bounds

    def enrol(self, scores: Scores) -> None:
        """Set every method's threshold for the vehicles of `enrolment`, by their own attack-free windows there.

        Vehicles with too few (`alarm_rule.enrolled_vehicles`) are left out, and named in the log.
        Raises `CanidsError` if its methods are not those of `calibrate`, or a window is attacked.
        """
        self._refuse_other_methods(scores, own_thresholds=True)
        if (scores.keys["label"] == 1).any():  # nulls are unlabelled traffic, which counts for nothing here
            raise CanidsError(f"{scores.path}: an attacked window, and vehicles are enrolled by attack-free ones alone")
        budget, (enough, few) = self.config["false_alarm_budget"], alarm_rule.enrolled_vehicles(scores.keys)
        for reason in few:
            log.warning("%s: %s", scores.path, reason)
        scores = scores.only(scores.keys["vehicle"].is_in(enough).to_numpy())
        self.enrolment = {
            vehicle: {"blocks": blocks, "guarantee": alarm_rule.guarantee(blocks, budget)}
            for vehicle, blocks in alarm_rule.blocks_by_vehicle(scores.keys).items()
        }
        for method, point in self.points.items():
            point.enrol(method, scores, budget)

    @property
    def evidence(self) -> dict[str, alarm_rule.Evidence]:
        """Method → the evidence that its alarms take; methods with alarms of their own have seen to it."""
        return {m: point.rule.evidence for m, point in self.points.items() if point.rule and not point.has_own_alarms}

    def add(self, scenario: str, scores: Scores) -> None:
        """Evaluate every method on a scenario; if it ends with `ENROLLED`, on its enrolled vehicles, with thresholds of their own.

        Raises `CanidsError` if its methods are not those of `calibrate`, the alarms of one follow from another threshold than
        there (or in an earlier scenario), or the fusion's alarms are its actions there and not here.
        """
        enrolled = scenario.endswith(ENROLLED)
        self._refuse_other_methods(scores, own_thresholds=enrolled)
        scores = (scores.of_vehicles(self.enrolment) if enrolled else scores).strengthened(self.evidence)
        alarms = {m: self.points[m].alarms(scores, m, enrolled) for m in scores.score}
        # Windows of the scenario, and of its parts: rows outside a part have no label there. One set of resamples for all methods.
        whole = self._windows(scores.keys)
        weights = metrics.resamples(whole, self.config["bootstrap"], self.config["seed"], scenario)
        parts = {kind: {k: self._windows(f) for k, f in g.items()} for kind, g in _groups(scores.keys).items()}
        # Every metric at the operating point, with its interval; then the same metrics for each attack and each capture.
        results: dict[str, dict[str, Any]] = {}
        stored = {}
        for method, score in scores.score.items():
            # An enrolled vehicle's scales, or models, are its own: a threshold chosen on those of `calibrate` says nothing there.
            alarm, optimal = alarms[method], None if enrolled else self.points[method].f1
            replicates = metrics.replicates(whole, whole.take(alarm), whole.take(score), weights)
            stored[method] = paired.stored(replicates)
            values = metrics.evaluate(whole, whole.take(alarm), whole.take(score))
            results[method] = {
                **values,
                "intervals": intervals(whole, values, replicates),
                "f1_optimal": _at_f1_optimum(whole, whole.take(score), optimal),
                **{
                    kind: {k: metrics.evaluate(w, w.take(alarm), w.take(score)) for k, w in windows.items()}
                    for kind, windows in parts.items()
                },
            }
            log.info("%s  %s  F1 %s  AUROC %s", scenario, method, results[method]["f1"], results[method]["auroc"])
        # Scores in the order of the windows, for figures.
        ordered = {m: whole.take(s) for m, s in scores.score.items()}
        self.paths[scenario], self.scenarios[scenario] = scores.path, results
        self.curves[scenario] = {
            "methods": {m: curves(whole.attacked, s) for m, s in ordered.items()},
            "timelines": timelines(whole, ordered, {m: whole.take(a) for m, a in alarms.items()}),
            "policy": _policy(whole, scores, alarms),
            "replicates": stored,
            "windows": paired.fingerprints(scores.keys),
        }

    def _refuse_other_methods(self, scores: Scores, own_thresholds: bool) -> None:
        """Raise `CanidsError` unless `scores` are of the methods of `calibrate`, with the same actions.

        And with the same thresholds, unless vehicles have thresholds of their own there.
        """
        first = self.calibrate
        if scores.score.keys() != first.score.keys():
            here, there = (", ".join(sorted(s.score)) for s in (scores, first))
            raise CanidsError(
                f"{scores.path}: has methods {here}, but calibrate has {there}; delete both and run again"
            )
        if scores.detectors != first.detectors:
            raise CanidsError(f"{scores.path}: declares other detectors than {first.path}; delete both and run again")
        for method in scores.alarm:
            if method in scores.rules or own_thresholds:
                _refuse_alarms_below(method, scores)
            else:
                self._refuse_another_threshold(method, scores)
        if is_alarm(first.action, first.alarm.get("fusion")) and (
            scores.action is None or not acted_first(scores.action, scores.alarm["fusion"])
        ):
            raise CanidsError(
                f"{scores.path}: alarms are not the policy's actions, as they are in {first.path}; delete it and run again"
            )

    def _refuse_another_threshold(self, method: str, scores: Scores) -> None:
        here = implied_threshold(scores.alarm[method], scores.score[method])
        if here is None or method not in self.between:
            return
        # Each file bounds the threshold from both sides; bounds that do not overlap belong to two thresholds.
        low, high = max(self.between[method][0], here[0]), min(self.between[method][1], here[1])
        if low > high:
            before = " or ".join(map(str, (self.calibrate.path, *self.paths.values())))
            raise CanidsError(
                f"{scores.path}: '{method}' alarms by another threshold than in {before}; delete them and run again"
            )
        self.between[method] = (low, high)

    def add_baselines(self, path: Path, baselines: dict[str, Any], drawn: dict[str, Any]) -> None:
        """Add to the fusion's results its differences from every other method, under `minus`.

        Args:
            path: of the window baselines' curves, for messages.
            baselines, drawn: content of the window baselines' `metrics.json` and `curves.json`.

        Raises `CanidsError` if they were evaluated on other windows or resamples, or have the name of another method.
        """
        if other := incompatible_settings(baselines["config"], self.config):
            raise CanidsError(f"{path}: evaluated with another {other[0]}; delete it and run again")
        for scenario, results in self.scenarios.items():
            if scenario not in drawn["scenarios"]:
                raise CanidsError(f"{path}: scenario '{scenario}' is missing; delete it and run again")
            theirs, curve = drawn["scenarios"][scenario], self.curves[scenario]
            paired.refuse_other_windows(self.paths[scenario], curve["windows"], path, theirs["windows"])
            if twice := sorted(results.keys() & baselines["scenarios"][scenario].keys()):
                raise CanidsError(
                    f"{self.paths[scenario]}: '{twice[0]}' is the name of a window baseline too; rename the method"
                )
            # Both files hold replicates of the same resamples, so they can be subtracted one by one.
            methods = {**baselines["scenarios"][scenario], **results}
            replicates = {**theirs["replicates"], **curve["replicates"]}
            results["fusion"]["minus"] = {
                m: paired.differences(results["fusion"], methods[m], replicates["fusion"], replicates[m])
                for m in methods
                if m != "fusion"
            }

    def _windows(self, keys: pl.DataFrame) -> Windows:
        return windows_of(keys, self.config["episode_gap"], self.config["bootstrap_block"])

    def write(self, call: Call, variant: str | None, **further: Any) -> None:
        """Write both files; their keys name the run, its code and its config. `further` goes into `curves.json`."""
        identity = {
            "dataset": call.wildcards["dataset"],
            "instance": call.instance,
            "variant": variant,
            KEY: as_json(self.calibrate.detectors),
        }
        content = {
            **identity,
            "code": call.constants["code"],  # the code's hash and not its commit: equal inputs give equal bytes
            "config": self.config,
            "seed": self.config["seed"],
            "thresholds": {method: point.as_json() for method, point in self.points.items()},
            "enrolment": self.enrolment,
            "scenarios": self.scenarios,
        }
        drawn = {**identity, **further, "scenarios": self.curves}
        write_evaluation(call.output["metrics"], call.output["curves"], content, drawn)


def calibrated(config: dict[str, Any], calibrate: Scores) -> Evaluation:
    """Set the operating points of all methods on `calibrate`, each on the windows that it has a score for (not NaN).

    Raises `CanidsError` if it has no attack-free window.
    """
    free = calibrate.keys["label"].fill_null(2).to_numpy() == 0
    if not free.any():
        raise CanidsError(
            f"{calibrate.path}: no attack-free window, so no false-alarm budget can be kept; "
            "give the dataset an attack-free training capture, or `calibrate` a larger share"
        )
    # Some methods have no score (NaN) for auxiliary captures; thresholds rest on the windows that have one.
    points: dict[str, OperatingPoint] = {}
    for method, score in calibrate.score.items():
        if np.isnan(score[free]).all():
            raise CanidsError(
                f"{calibrate.path}: no attack-free window that '{method}' has a score for (auxiliary captures have none); "
                "give the dataset an attack-free training capture of its own, or `calibrate` a larger share"
            )
        points[method] = operating_point(method, calibrate, config)
    return Evaluation(config, calibrate, points)


def _refuse_alarms_below(method: str, scores: Scores) -> None:
    """Raise `CanidsError` if a method alarms where its score does not exceed the threshold that its alarms are held to."""
    if (rule := scores.rules.get(method)) is None:
        return
    if (scores.alarm[method] & (scores.score[method] <= rule.thresholds(scores.keys["vehicle"]))).any():
        raise CanidsError(
            f"{scores.path}: '{method}' alarms below the threshold that its alarms are held to; delete it and run again"
        )


def _policy(windows: Windows, scores: Scores, alarms: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Close-ups of the policy at attacks, where it is the fusion."""
    if scores.action is None or not scores.values:
        return []
    shown = [*(detector.name for detector in scores.detectors), "fusion"]
    series = {m: scores.score[m] for m in shown} | scores.values
    if len(scores.detectors) == 2 and scores.action.max(initial=0) > 1:  # not alarms: the mixture is the action
        series["weight"] = scores.action * WEIGHT_STEP
    return closeups(windows, series, {m: alarms[m] for m in shown})


def _at_f1_optimum(windows: Windows, score: np.ndarray, threshold: float | None) -> dict[str, float | int | None]:
    names = ("f1", "precision", "recall")
    if threshold is None:
        return dict.fromkeys((*names, "threshold"))
    result = metrics.evaluate(windows, score > threshold, score)
    return {**{name: result[name] for name in names}, "threshold": threshold}


def _groups(keys: pl.DataFrame) -> dict[str, dict[str, pl.DataFrame]]:
    """Key tables per attack (its windows and the attack-free ones of the same captures) and per capture.

    Rows outside a group lose their label instead of being dropped, so that row numbers stay those of the scores.
    """

    def only(rows: pl.Expr) -> pl.DataFrame:
        return keys.with_columns(pl.when(rows).then("label").otherwise(None).alias("label"))

    attacked = keys.filter(pl.col("label") == 1)
    per_attack = {}
    for attack in attacked["attack"].unique().sort().to_list():
        captures = attacked.filter(pl.col("attack") == attack)["capture"].unique().implode()
        same_attack = (pl.col("label") == 0) | (pl.col("attack") == attack)
        per_attack[attack] = only(pl.col("capture").is_in(captures) & same_attack)
    names = keys["capture"].unique().sort().to_list()
    return {"per_attack": per_attack, "per_capture": {c: only(pl.col("capture") == c) for c in names}}


def sources_of(stores: list[GraphStore]) -> dict[str, Any]:
    """Capture → hash of its raw file, vehicle, attack and rows, for cards and report."""
    return {capture: s.header["sources"][capture] for s in stores for capture in s.header["captures"]}


def incompatible_settings(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys of two configs of `metrics.json` that make results incomparable: those of both whose values differ."""
    return sorted(k for k in one.keys() & other.keys() if one[k] != other[k])
