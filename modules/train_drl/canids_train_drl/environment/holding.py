"""Fusions held to the false-alarm budget: the policy and its baselines alarm by the rule that all methods keep (`alarm_rule`).

A fusion's own alarm stands where its score, after the evidence that the rule asks for, is also above the rule's threshold.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from canids_shared import alarm_rule
from canids_shared.alarm_rule import AlarmRule
from canids_train_drl.environment.fusion_data import as_recorded
from canids_train_drl.environment.observation import Observer
from canids_train_drl.environment.rollout import Fusion, FusionOutput
from canids_train_drl.environment.states import States

UNHELD = AlarmRule(-1.0)
"""Holds nothing back: scores are not negative."""


def rule_of(fusion: Fusion, observer: Observer, calibrate: States, config: dict[str, Any]) -> AlarmRule:
    """The rule of a fusion, from its scores on `calibrate`; `config` has `false_alarm_budget` and `evidence`."""
    score = fusion.step(as_recorded(calibrate, observer), None)[0].score
    return alarm_rule.fit(score, calibrate.keys, config["false_alarm_budget"], config["evidence"])


def enrolled_rule(
    fusion: Fusion, observer: Observer, rule: AlarmRule, enrolment: States, vehicle: str, budget: float
) -> AlarmRule:
    """The rule with a threshold of the vehicle's own, from the fusion's scores on its enrolment, seen through `observer`, and its tail."""
    score = fusion.step(as_recorded(enrolment, observer), None)[0].score
    score = rule.evidence.over(score, enrolment.segments)
    own = alarm_rule.own_threshold(score, alarm_rule.blocks_of(enrolment.keys), budget, rule.tail)
    return replace(rule, vehicles={**rule.vehicles, vehicle: own})


def held(output: FusionOutput, rule: AlarmRule, vehicle: pl.Series, segments: np.ndarray) -> FusionOutput:
    """What a fusion decided on whole segments [S + 1] of `vehicle` [N], with its alarms held to the rule, and the scores that it compares."""
    score = rule.evidence.over(output.score, segments)
    return replace(output, score=score, alarm=output.alarm & (score > rule.thresholds(vehicle)))
