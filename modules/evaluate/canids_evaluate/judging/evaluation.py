"""Judges methods scenario by scenario and writes `metrics.json` (contract metrics/2) and `curves.json` (curves/2)."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_evaluate.judging import metrics, paired
from canids_evaluate.judging.curves import closeups, curves, timelines
from canids_evaluate.judging.equal_recall import at_equal_recall
from canids_evaluate.judging.thresholds import Thresholds, f1_optimal, is_alarm, own_threshold, within_budget
from canids_evaluate.judging.windows import Windows, windows_of
from canids_shared.contracts import stand_in_mark
from canids_shared.errors import CanidsError
from canids_shared.files import write_json, write_text
from canids_shared.jobs.entry_point import Call

METRICS_CONTRACT = "metrics/2"
CURVES_CONTRACT = "curves/2"
log = logging.getLogger(__name__)


@dataclass
class Scores:
    """Scores of all methods on one split, one value a window.

    Attributes:
        path: the file they come from, for messages.
        keys: key columns of the windows.
        score: method → f64 [W].
        alarm: method → bool [W], for the methods that bring their own alarms; the others get a threshold.
        action: i16 [W], what the fusion did, if there is one.
        values: the policy's values of what it did (`q_chosen`) and of the best else (`q_other`), f32 [W], if there is one.
        even_odds: method → the score of windows that it holds for attacked and attack-free alike, where that is known.
    """

    path: Path
    keys: pl.DataFrame
    score: dict[str, np.ndarray]
    alarm: dict[str, np.ndarray]
    action: np.ndarray | None = None
    values: dict[str, np.ndarray] = field(default_factory=dict)
    even_odds: dict[str, float] = field(default_factory=dict)


@dataclass
class Judgement:
    """The methods' operating points, and their results as scenarios are added.

    Attributes:
        calibrate: what the operating points were set on.
        between: method with alarms of its own → between which scores its threshold lies, after all files so far.
    """

    config: dict[str, Any]
    calibrate: Scores
    thresholds: dict[str, Thresholds]
    scenarios: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    between: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for method, alarm in self.calibrate.alarm.items():
            # Alarms that are no threshold on the score (a memory that the score does not show) prove nothing.
            if found := own_threshold(alarm, self.calibrate.score[method]):
                self.between[method] = found

    def add(self, scenario: str, scores: Scores) -> None:
        """Judge every method on a scenario.

        Raises `CanidsError` if its methods are not those of `calibrate`, one alarms by another threshold than there (or in
        the scenarios before), or the fusion's alarms are its actions there and not here.
        """
        if scores.score.keys() != self.thresholds.keys():
            found, wanted = ", ".join(sorted(scores.score)), ", ".join(sorted(self.thresholds))
            raise CanidsError(
                f"{scores.path}: has methods {found}, but calibrate has {wanted}; delete both and run again"
            )
        for method in scores.alarm:
            self._refuse_another_threshold(method, scores)
        if is_alarm(self.calibrate.action, self.calibrate.alarm.get("fusion")) and (
            scores.action is None or (scores.action != scores.alarm["fusion"]).any()
        ):
            raise CanidsError(
                f"{scores.path}: alarms are not the policy's actions, as they are in {self.calibrate.path}; delete it and run again"
            )
        alarms = {m: scores.alarm.get(m, _above(s, self.thresholds[m]["budget"])) for m, s in scores.score.items()}
        whole = self._windows(scores.keys)
        weights = metrics.resamples(whole, self.config["bootstrap"], self.config["seed"], scenario)
        parts = {kind: {k: self._windows(f) for k, f in g.items()} for kind, g in _groups(scores.keys).items()}
        self.paths[scenario], self.scenarios[scenario], stored = scores.path, {}, {}
        for method, score in scores.score.items():
            alarm = alarms[method]
            replicates = metrics.replicates(whole, whole.take(alarm), whole.take(score), weights)
            stored[method] = paired.stored(replicates)
            result: dict[str, Any] = {
                **metrics.evaluate(whole, whole.take(alarm), whole.take(score)),
                "intervals": metrics.intervals(whole, replicates),
                "f1_optimal": _at_f1_optimum(whole, whole.take(score), self.thresholds[method]["f1"]),
            }
            for kind, windows in parts.items():
                result[kind] = {k: metrics.evaluate(w, w.take(alarm), w.take(score)) for k, w in windows.items()}
            self.scenarios[scenario][method] = result
            log.info("%s  %s  F1 %s  AUROC %s", scenario, method, result["f1"], result["auroc"])
        ordered = {m: whole.take(s) for m, s in scores.score.items()}
        if "fusion" in alarms:
            equal = at_equal_recall(whole, ordered, whole.take(alarms["fusion"]), weights)
            for method, at in equal.items():
                self.scenarios[scenario][method]["at_fusion_recall"] = at
        self.curves[scenario] = {
            "methods": {m: curves(whole.attacked, s) for m, s in ordered.items()},
            "timelines": timelines(whole, ordered, {m: whole.take(a) for m, a in alarms.items()}),
            "policy": _policy(whole, scores, alarms),
            "replicates": stored,
            "windows": paired.fingerprints(scores.keys),
        }

    def _refuse_another_threshold(self, method: str, scores: Scores) -> None:
        here = own_threshold(scores.alarm[method], scores.score[method])
        if here is None or method not in self.between:
            return
        low, high = max(self.between[method][0], here[0]), min(self.between[method][1], here[1])
        if low > high:
            before = " or ".join(map(str, (self.calibrate.path, *self.paths.values())))
            raise CanidsError(
                f"{scores.path}: '{method}' alarms by another threshold than in {before}; delete them and run again"
            )
        self.between[method] = (low, high)

    def add_baselines(self, path: Path, found: dict[str, Any], drawn: dict[str, Any]) -> None:
        """Add to the fusion's results by how much it differs from every other method, under `minus`.

        Args:
            path: of the baselines' curves, for messages.
            found, drawn: content of the baselines' `metrics.json` and `curves.json`.

        Raises `CanidsError` if they were judged on other windows or resamples.
        """
        for scenario, own in self.scenarios.items():
            if scenario not in drawn["scenarios"]:
                raise CanidsError(f"{path}: scenario '{scenario}' is missing; delete it and run again")
            if other := other_judgement(found["config"], self.config):
                raise CanidsError(f"{path}: judged with another {other[0]}; delete it and run again")
            theirs, curve = drawn["scenarios"][scenario], self.curves[scenario]
            paired.refuse_other_windows(self.paths[scenario], curve["windows"], path, theirs["windows"])
            methods = {**found["scenarios"][scenario], **own}
            replicates = {**theirs["replicates"], **curve["replicates"]}
            own["fusion"]["minus"] = {
                m: paired.differences(own["fusion"], methods[m], replicates["fusion"], replicates[m])
                for m in methods
                if m != "fusion"
            }

    def _windows(self, keys: pl.DataFrame) -> Windows:
        return windows_of(keys, self.config["episode_gap"], self.config["bootstrap_block"])

    def write(self, call: Call, variant: str | None, **further: Any) -> None:
        """Write both files; the keys say which run they belong to, and by which code and config. `further` goes into `curves.json`."""
        head = {"dataset": call.wildcards["dataset"], "instance": call.instance, "variant": variant}
        # The code's hash and not its commit: equal inputs give equal bytes.
        made = {"code": call.constants["code"], "config": self.config}
        content = {
            **head,
            **made,
            "seed": self.config["seed"],
            "thresholds": self.thresholds,
            "scenarios": self.scenarios,
        }
        write_json(call.output["metrics"], {"contract": METRICS_CONTRACT, **content})
        drawn = {"contract": CURVES_CONTRACT, **head, **further, "scenarios": self.curves}
        write_text(call.output["curves"], json.dumps(drawn, sort_keys=True, allow_nan=False) + "\n")


def judgement(config: dict[str, Any], calibrate: Scores) -> Judgement:
    """Set the operating points of all methods on `calibrate`, each on the windows that it has a score for (not NaN).

    Raises `CanidsError` if it has no attack-free window.
    """
    label = calibrate.keys["label"].fill_null(2).to_numpy()
    free, labelled = label == 0, label < 2
    if not free.any():
        raise CanidsError(
            f"{calibrate.path}: no attack-free window, so no false-alarm budget can be kept; "
            "give the dataset an attack-free training capture, or `calibrate` a larger share"
        )
    thresholds: dict[str, Thresholds] = {}
    for method, score in calibrate.score.items():
        scored = ~np.isnan(score)
        if not (free & scored).any():
            raise CanidsError(
                f"{calibrate.path}: no attack-free window that '{method}' has a score for (of auxiliary_captures it has none); "
                "give the dataset an attack-free training capture of its own, or `calibrate` a larger share"
            )
        budget = None
        if method not in calibrate.alarm:
            granted = within_budget(score[free & scored], config["false_alarm_rate"])
            # A budget is a ceiling: what a classifier itself holds for attack-free is no alarm because there is room left.
            budget = max(granted, calibrate.even_odds.get(method, granted))
        judged = labelled & scored
        thresholds[method] = {"budget": budget, "f1": f1_optimal(label[judged] == 1, score[judged])}
    return Judgement(config, calibrate, thresholds)


def _above(score: np.ndarray, threshold: float | None) -> np.ndarray:
    return score > (np.inf if threshold is None else threshold)


def _policy(windows: Windows, scores: Scores, alarms: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Close-ups of what the policy did, where it is the fusion."""
    if scores.action is None or not scores.values:
        return []
    shown = ("gat", "vgae", "fusion")
    series = {m: scores.score[m] for m in shown} | scores.values
    return closeups(windows, series, scores.action, {m: alarms[m] for m in shown})


def _at_f1_optimum(windows: Windows, score: np.ndarray, threshold: float | None) -> dict[str, float | int | None]:
    names = ("f1", "precision", "recall")
    if threshold is None:
        return dict.fromkeys((*names, "threshold"))
    found = metrics.evaluate(windows, score > threshold, score)
    return {**{name: found[name] for name in names}, "threshold": threshold}


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


def other_judgement(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys of two configs of `metrics.json` that make results incomparable; what the baselines alone have is none."""
    return sorted(k for k in one.keys() & other.keys() if one[k] != other[k])


def read(path: Path, contract: str) -> dict[str, Any]:
    """Read `metrics.json` or `curves.json`.

    Raises `CanidsError` naming the file if it is not whole, of another contract or a stand-in.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file") from None
    except ValueError:
        raise CanidsError(f"{path}: not whole JSON; delete it and run again") from None
    if not isinstance(content, dict) or content.get("contract") != contract:
        raise CanidsError(f"{path}: not of contract {contract}; delete it and run again")
    stand_in_mark.refuse(path, content)
    return content
