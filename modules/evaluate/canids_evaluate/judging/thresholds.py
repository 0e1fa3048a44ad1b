"""Operating points, chosen on `calibrate`, and on the enrolment of enrolled vehicles; an alarm is a score above the threshold."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from canids_evaluate.judging.metrics import ranking_counts
from canids_evaluate.judging.scores import Scores
from canids_shared.contracts.alarm_rule import AlarmRule, fit, segments_of


@dataclass
class OperatingPoint:
    """Where a method alarms.

    Attributes:
        rule: evidence and thresholds that keep the false-alarm budget; None: the method has alarms of its own.
        f1: the F1-optimal threshold on `calibrate`; None without attacked windows.
        enrolled: thresholds of enrolled vehicles.
        floor: no threshold lies below it.
    """

    rule: AlarmRule | None
    f1: float | None
    enrolled: dict[str, float] = field(default_factory=dict)
    floor: float = 0.0

    def alarms(self, scores: Scores, method: str, enrolled: bool) -> np.ndarray:
        """Alarms, bool [W], of scores after evidence; with the vehicles' own thresholds where they are `enrolled`."""
        if self.rule is None:
            return scores.alarm[method]
        rule = replace(self.rule, vehicles=self.enrolled) if enrolled else self.rule
        # A budget is a ceiling: below even odds a classifier holds a window for attack-free, and does not alarm to use it up.
        threshold = np.maximum(rule.thresholds(scores.keys["vehicle"]), self.floor)
        alarm: np.ndarray = scores.score[method] > threshold
        return alarm & ~scores.unlike[method] if method in scores.unlike else alarm

    def as_json(self) -> dict[str, Any]:
        """For `metrics.json`; `budget` is the threshold of vehicles never met."""
        if self.rule is None:
            return {"budget": None, "f1": self.f1, "evidence": None, "vehicles": {}, "enrolled": {}}
        own, enrolled = ({v: max(t, self.floor) for v, t in at.items()} for at in (self.rule.vehicles, self.enrolled))
        evidence = [self.rule.evidence.needed, self.rule.evidence.windows]
        budget = max(self.rule.threshold, self.floor)
        return {"budget": budget, "f1": self.f1, "evidence": evidence, "vehicles": own, "enrolled": enrolled}


def operating_point(method: str, calibrate: Scores, config: Mapping[str, Any]) -> OperatingPoint:
    """The operating point of a method, on the windows of `calibrate` that it has a score for (not NaN)."""
    score, rule = calibrate.score[method], None
    if method not in calibrate.alarm:
        rule = fit(score, calibrate.keys, config["false_alarm_budget"], config["evidence"])
        score = rule.evidence.over(score, segments_of(calibrate.keys))
    label = calibrate.keys["label"].fill_null(2).to_numpy()
    counted = (label < 2) & ~np.isnan(score)
    best = f1_optimal(label[counted] == 1, score[counted])
    return OperatingPoint(rule, best, floor=calibrate.even_odds.get(method, 0.0))


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
    """Whether actions i16 [N] are the alarms bool [N] themselves: 0 silence, 1 alarm, and both occur."""
    if action is None or alarm is None or alarm.all() or not alarm.any():
        return False
    return bool((action == alarm).all())


def implied_threshold(alarm: np.ndarray, score: np.ndarray) -> tuple[float, float] | None:
    """The two scores between which the threshold of a method with alarms of its own lies; alarms bool [N], scores [N].

    None if no threshold on the score gives these alarms.
    """
    low = float(score[~alarm].max(initial=-np.inf))
    high = float(score[alarm].min(initial=np.inf))
    return (low, high) if low <= high else None
