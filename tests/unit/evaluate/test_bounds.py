"""Exact bounds against tables, and which metrics have an interval at all."""

import numpy as np
import pytest
from evaluate_data import keys

from canids_evaluate.judging import bounds, metrics
from canids_evaluate.judging.windows import Windows, windows_of


def intervals(windows: Windows, alarm: np.ndarray, score: np.ndarray) -> dict[str, list[float] | None]:
    weights = metrics.resamples(windows, 200, 0, "s")
    values = metrics.evaluate(windows, alarm, score)
    return bounds.intervals(windows, values, metrics.replicates(windows, alarm, score, weights))


def test_rates_by_the_tables_of_garwood() -> None:
    assert bounds.poisson(0, 1.0) == pytest.approx([0, 3.6889], abs=1e-4)  # -ln .025
    assert bounds.poisson(5, 2.0) == pytest.approx([1.6235 / 2, 11.6683 / 2], abs=1e-4)
    assert bounds.poisson(3, 0.0) is None


def test_shares_by_clopper_and_pearson() -> None:
    assert bounds.binomial(5, 5) == pytest.approx([0.025 ** (1 / 5), 1])
    assert bounds.binomial(0, 10) == pytest.approx([0, 1 - 0.025 ** (1 / 10)])
    assert bounds.binomial(7, 10) == pytest.approx([0.3475, 0.9333], abs=1e-4)


def episodes(count: int) -> Windows:
    return windows_of(keys(([0] * 6 + [1] * 2) * count), 1.0, 5.0)


def test_a_method_without_an_error_has_bounds_and_no_points() -> None:
    windows = episodes(5)
    result = intervals(windows, windows.attacked, windows.attacked.astype(float))
    recall, fpr = 0.025 ** (1 / 5), 1 - 0.025 ** (1 / 10)  # five episodes, ten attack-free pieces
    assert result["recall"] == result["episodes_found"] == pytest.approx([recall, 1])
    assert result["recall_at_1_per_hour"] == pytest.approx([recall, 1])
    assert result["fpr"] == pytest.approx([0, fpr])
    assert result["alarm_seconds_per_hour"] == pytest.approx([0, 3600 * fpr])
    assert result["false_alarms_per_hour"] == pytest.approx([0, 3.6889 * 3600 / 30], rel=1e-4)
    precision = recall * 10 / (recall * 10 + fpr * 30)
    assert result["precision"] == pytest.approx([precision, 1])
    assert result["f1"] == pytest.approx([2 * precision * recall / (precision + recall), 1])
    assert result["auroc"] == pytest.approx([recall * (1 - fpr), 1])
    assert result["pr_auc"] == pytest.approx([recall * precision, 1])
    assert result["mcc"] is not None
    assert 0 < result["mcc"][0] < result["mcc"][1] == 1


def test_a_method_that_finds_nothing() -> None:
    windows = episodes(5)
    result = intervals(windows, np.zeros(len(windows), bool), np.zeros(len(windows)))
    assert result["recall"] == result["episodes_found"] == pytest.approx([0, 1 - 0.025 ** (1 / 5)])
    assert result["f1"] is not None
    assert result["f1"][0] == 0 < result["f1"][1]
    assert result["auroc"] == [0.5, 0.5]  # all scores are equal: for certain no better than chance
    assert result["precision"] is None


def test_fewer_than_five_episodes_have_counts_alone() -> None:
    windows = episodes(4)
    score = np.random.default_rng(1).random(len(windows))
    result = intervals(windows, score > 0.5, score)
    assert {m for m in metrics.METRICS if result[m]} == {"fpr", "false_alarms_per_hour", "alarm_seconds_per_hour"}


def test_no_attack_at_all() -> None:
    windows = windows_of(keys([0] * 40), 1.0, 5.0)
    result = intervals(windows, np.arange(40) == 7, np.arange(40) / 40)
    assert result["false_alarms_per_hour"] == pytest.approx(
        [0, 5.5716 * 90], rel=1e-3
    )  # a resample may lack the piece with the alarm
    assert result["recall"] is result["episodes_found"] is result["f1"] is None


def test_alarms_in_clusters_have_a_wider_interval_than_a_poisson_process() -> None:
    windows = windows_of(keys([0] * 300), 1.0, 5.0)
    alarm = np.zeros(300, dtype=bool)
    alarm[100:140:2] = True  # twenty runs in forty seconds of five minutes
    low, high = intervals(windows, alarm, alarm.astype(float))["false_alarms_per_hour"] or (0, 0)
    exact = bounds.poisson(20, 300 / 3600) or [0, 0]
    assert low < exact[0] < exact[1] < high


def test_an_interval_from_the_resamples_stays() -> None:
    windows = episodes(8)
    score = np.random.default_rng(4).random(len(windows)) + 0.4 * windows.attacked
    alarm = score > 0.6
    weights = metrics.resamples(windows, 200, 0, "s")
    replicates = metrics.replicates(windows, alarm, score, weights)
    result = bounds.intervals(windows, metrics.evaluate(windows, alarm, score), replicates)
    for name in ("f1", "recall", "precision", "fpr", "auroc"):
        assert result[name] == metrics.percentiles(replicates[name])
