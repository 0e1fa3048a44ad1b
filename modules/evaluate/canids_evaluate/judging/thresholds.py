"""Operating points, chosen on `calibrate`, and on the enrolment of enrolled vehicles; an alarm is a score above the threshold."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from canids_evaluate.judging.metrics import ranking_counts
from canids_evaluate.judging.scores import Scores
from canids_shared.alarm_rule import AlarmRule, fit, segments_of, thresholds_by_vehicle

log = logging.getLogger(__name__)


@dataclass
class OperatingPoint:
    """Where a method alarms.

    Attributes:
        rule: evidence and thresholds that keep the false-alarm budget.
        has_own_alarms: whether its alarms come with its scores; the rule is then what they are held to, None where it is not known.
        f1: the F1-optimal threshold on `calibrate`; None without attacked windows.
        enrolled: thresholds of enrolled vehicles.
    """

    rule: AlarmRule | None
    f1: float | None
    has_own_alarms: bool = False
    enrolled: dict[str, float] = field(default_factory=dict)

    def alarms(self, scores: Scores, method: str, enrolled: bool) -> np.ndarray:
        """Alarms, bool [W], of scores after evidence; with the vehicles' own thresholds where they are `enrolled`.

        The log names vehicles that are judged as if never met, for want of a threshold of their own.
        """
        if enrolled and self.rule and (lacking := set(scores.keys["vehicle"].unique()) - self.enrolled.keys()):
            text = "%s: '%s' has no threshold of its own for %s, and alarms there as on a vehicle never met"
            log.warning(text, scores.path, method, ", ".join(sorted(lacking)))
        if self.has_own_alarms or self.rule is None:
            return scores.alarm[method]
        rule = replace(self.rule, vehicles=self.enrolled) if enrolled else self.rule
        alarm: np.ndarray = scores.score[method] > rule.thresholds(scores.keys["vehicle"])
        return alarm & ~scores.unlike[method] if method in scores.unlike else alarm

    def enrol(self, method: str, scores: Scores, budget: float) -> None:
        """Set the thresholds of the vehicles of the split `enrolment`; those of methods with alarms of their own come with their decisions."""
        if self.has_own_alarms:
            rule = scores.rules.get(method)
            own = rule.vehicles if rule else {}
            self.enrolled = {v: own[v] for v in scores.keys["vehicle"].unique().sort() if v in own}
        elif self.rule:
            score = self.rule.evidence.over(scores.score[method], segments_of(scores.keys))
            tail = () if method in scores.refitted else self.rule.tail
            by_vehicle = thresholds_by_vehicle(score, scores.keys, budget, tail)
            self.enrolled = {
                v: max(t, scores.even_odds_of.get(v, {}).get(method, -np.inf)) for v, t in by_vehicle.items()
            }

    def as_json(self) -> dict[str, Any]:
        """For `metrics.json`; `budget` is the threshold of vehicles never met, null of methods with alarms of their own."""
        values: dict[str, Any] = {
            "budget": None,
            "f1": self.f1,
            "evidence": None,
            "vehicles": {},
            "enrolled": self.enrolled,
        }
        if self.rule:
            evidence = [self.rule.evidence.needed, self.rule.evidence.windows]
            values |= {"evidence": evidence, "vehicles": dict(self.rule.vehicles)}
            values |= {"budget": self.rule.threshold} if not self.has_own_alarms else {}
        return values


def operating_point(method: str, calibrate: Scores, config: Mapping[str, Any]) -> OperatingPoint:
    """The operating point of a method, on the windows of `calibrate` that it has a score for (not NaN)."""
    score, has_own_alarms = calibrate.score[method], method in calibrate.alarm
    if has_own_alarms:
        rule = calibrate.rules.get(method)
    else:
        rule = fit(score, calibrate.keys, config["false_alarm_budget"], config["evidence"])
        # A budget is a ceiling: below even odds a classifier holds a window for attack-free, and does not alarm to use it up.
        floor = calibrate.even_odds.get(method, -np.inf)
        own = {vehicle: max(threshold, floor) for vehicle, threshold in rule.vehicles.items()}
        rule = replace(rule, threshold=max(rule.threshold, floor), vehicles=own)
        score = rule.evidence.over(score, segments_of(calibrate.keys))
    label = calibrate.keys["label"].fill_null(2).to_numpy()
    counted = (label < 2) & ~np.isnan(score)
    return OperatingPoint(rule, f1_optimal(label[counted] == 1, score[counted]), has_own_alarms)


def f1_optimal(attacked: np.ndarray, score: np.ndarray) -> float | None:
    """Threshold with the best F1, midway between two scores; the highest of equals, None without attacked windows."""
    if not attacked.any():
        return None
    values, tps, fps = ranking_counts(attacked, score)  # [T] each, distinct scores in falling order
    # F1 = 2·TP / (2·TP + FP + FN), and TP + FN are the attacked windows.
    best = int(np.argmax(2 * tps / (tps + fps + attacked.sum())))
    below = values[best + 1] if best + 1 < len(values) else values[best] - 1
    # Midway, unless the two scores are neighbours in floating point and the midpoint is the upper one.
    middle = float((values[best] + below) / 2)
    return middle if middle < values[best] else float(below)


def is_alarm(action: np.ndarray | None, alarm: np.ndarray | None) -> bool:
    """Whether actions i16 [N] are silence (0) and alarm (1), without which there is no alarm, bool [N]; both occur.

    An alarm that is held to the false-alarm budget may be off where the action would have it on.
    """
    if action is None or alarm is None or alarm.all() or not alarm.any():
        return False
    return acted_first(action, alarm)


def acted_first(action: np.ndarray, alarm: np.ndarray) -> bool:
    """Whether each action is 0 or 1, and 1 wherever there is an alarm."""
    return bool((action <= 1).all() and (action >= alarm).all())


def implied_threshold(alarm: np.ndarray, score: np.ndarray) -> tuple[float, float] | None:
    """The two scores between which the threshold of a method with alarms of its own lies; alarms bool [N], scores [N].

    None if no threshold on the score gives these alarms.
    """
    low = float(score[~alarm].max(initial=-np.inf))
    high = float(score[alarm].min(initial=np.inf))
    return (low, high) if low <= high else None
