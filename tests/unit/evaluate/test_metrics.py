"""Every metric by hand, against scikit-learn, and what must hold whatever the numbers are."""

import numpy as np
import polars as pl
import pytest
from evaluate_data import keys
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

from canids_evaluate.judging import bounds, metrics
from canids_evaluate.judging.thresholds import f1_optimal
from canids_evaluate.judging.windows import Windows, windows_of
from canids_shared.alarm_rule import own_threshold


def evaluated(
    labels: list[int | None], alarms: list[int], scores: list[float] | None = None
) -> dict[str, float | int | None]:
    windows = windows_of(keys(labels), 1.0, 5.0)
    alarm = np.array(alarms, dtype=bool)
    return metrics.evaluate(windows, windows.take(alarm), windows.take(np.array(scores or alarms, dtype=float)))


def intervals(
    windows: Windows, alarm: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> dict[str, list[float] | None]:
    values = metrics.evaluate(windows, alarm, score)
    return bounds.intervals(windows, values, metrics.replicates(windows, alarm, score, weights))


def test_window_metrics_by_hand() -> None:
    result = evaluated([0, 0, 1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0, 1, 1])  # tp 2, fn 1, fp 3, tn 2
    assert result["precision"] == pytest.approx(2 / 5)
    assert result["recall"] == pytest.approx(2 / 3)
    assert result["f1"] == pytest.approx(4 / 8)
    assert result["fpr"] == pytest.approx(3 / 5)
    assert result["mcc"] == pytest.approx((2 * 2 - 3 * 1) / np.sqrt(5 * 3 * 5 * 3))
    assert (result["n_windows"], result["n_attacked"], result["n_episodes"]) == (8, 3, 1)


def test_event_metrics_by_hand() -> None:
    result = evaluated([0, 0, 1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0, 1, 1])
    assert result["detection_delay_s"] == 2  # attacked from 2 s on, first alarmed window ends at 4 s
    assert result["episodes_found"] == 1
    assert result["false_alarms_per_hour"] == pytest.approx(2 * 3600 / 5)  # two runs in five attack-free seconds


def test_an_alarm_that_never_ends_is_in_alarm_all_the_time() -> None:
    labels = [0] * 5 + [1] * 2 + [0] * 5
    stuck = evaluated(labels, [1] * 12)
    assert (stuck["false_alarms_per_hour"], stuck["n_false_alarms"]) == (pytest.approx(2 * 3600 / 10), 2)
    assert stuck["alarm_seconds_per_hour"] == 3600
    assert stuck["attack_free_hours"] == pytest.approx(10 / 3600)


def test_one_window_of_alarm() -> None:
    once = evaluated([0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0])
    assert (once["n_false_alarms"], once["false_alarms_per_hour"], once["alarm_seconds_per_hour"]) == (1, 900, 900)
    assert (once["recall"], once["episodes_found"], once["detection_delay_s"]) == (0, 0, None)


def test_the_floor_of_the_delay_is_the_first_attacked_window() -> None:
    table = keys([0, 1, 1, 0, 1], t_start=[0.0, 1.0, 3.0, 4.0, 9.0], t_end=[1.0, 3.0, 4.0, 5.0, 9.5])
    windows = windows_of(table, 1.0, 5.0)
    result = metrics.evaluate(windows, windows.attacked, windows.attacked.astype(float))
    assert result["delay_floor_s"] == result["detection_delay_s"] == pytest.approx((2.0 + 0.5) / 2)


def test_missed_episodes_do_not_enter_the_delay() -> None:
    result = evaluated([1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1])
    assert (result["n_episodes"], result["episodes_found"], result["detection_delay_s"]) == (2, 0.5, 2)


@pytest.mark.parametrize(("gap", "episodes"), [(0.5, 3), (1.0, 2), (2.0, 1)])
def test_episode_gap(gap: float, episodes: int) -> None:
    assert windows_of(keys([1, 0, 1, 1, 0, 0, 1]), gap, 5.0).n_episodes == episodes


def test_episodes_end_with_capture_and_kind_of_attack() -> None:
    two = pl.concat([keys([1, 1], "a"), keys([1, 1], "b")])
    kinds = keys([1, 1, 1]).with_columns(attack=pl.Series(["dos", "dos", "fuzzing"]))
    assert windows_of(two, 9.0, 5.0).n_episodes == 2
    assert windows_of(kinds, 9.0, 5.0).n_episodes == 2


def test_overlapping_windows_count_their_time_once() -> None:
    table = keys([0, 0, 0], t_end=[2.0, 3.0, 4.0])
    assert windows_of(table, 1.0, 5.0).duration.tolist() == [1, 1, 2]


def test_a_new_block_breaks_stretches_and_runs() -> None:
    table = keys([0, 0, 0, 0], window=[0, 1, 0, 1], t_start=[0.0, 1.0, 50.0, 51.0], t_end=[1.0, 2.0, 51.0, 52.0])
    windows = windows_of(table, 1.0, 500.0)
    assert (windows.n_units, windows.duration.sum()) == (2, 4)
    result = metrics.evaluate(windows, np.ones(4, bool), np.ones(4))
    assert result["false_alarms_per_hour"] == pytest.approx(2 * 3600 / 4)


def test_attack_free_stretches_are_cut_into_pieces() -> None:
    windows = windows_of(keys([0] * 12 + [1, 1] + [0] * 3), 1.0, 5.0)
    assert windows.unit.tolist() == [1] * 5 + [2] * 5 + [3] * 2 + [0, 0] + [4] * 3


def test_undefined_is_none() -> None:
    free = evaluated([0, 0, 0], [0, 1, 0])
    for name in ("f1", "recall", "mcc", "auroc", "pr_auc", "detection_delay_s", "episodes_found"):
        assert free[name] is None
    assert (free["precision"], free["fpr"]) == (0, pytest.approx(1 / 3))
    attacked = evaluated([1, 1], [0, 0])
    assert (attacked["f1"], attacked["recall"], attacked["episodes_found"]) == (0, 0, 0)
    for name in ("precision", "mcc", "auroc", "pr_auc", "fpr", "false_alarms_per_hour", "detection_delay_s"):
        assert attacked[name] is None


def test_unlabelled_windows_are_left_out() -> None:
    assert evaluated([None, 0, 1, None], [1, 0, 1, 1])["n_windows"] == 2
    nothing = evaluated([None, None], [1, 0])
    assert all(nothing[name] is None for name in metrics.METRICS)
    assert nothing["n_windows"] == 0


def test_an_alarm_on_every_window() -> None:
    result = evaluated([0, 1, 1, 0], [1, 1, 1, 1])
    assert (result["auroc"], result["pr_auc"], result["mcc"], result["recall"]) == (0.5, 0.5, None, 1)


scored = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(r[0] for r in rows) < len(rows)
)


@given(scored)
@settings(max_examples=60, deadline=None)
def test_ranking_and_mcc_agree_with_scikit_learn(rows: list[tuple[int, int, bool]]) -> None:
    labels, scores, alarms = ([r[i] for r in rows] for i in range(3))
    result = evaluated(list(labels), [int(a) for a in alarms], [s / 6 for s in scores])
    assert result["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert result["pr_auc"] == pytest.approx(average_precision_score(labels, scores))
    if result["mcc"] is not None:
        assert result["mcc"] == pytest.approx(matthews_corrcoef(labels, alarms))


@given(st.lists(st.integers(0, 1), min_size=2, max_size=40).filter(lambda v: 0 < sum(v) < len(v)))
@settings(max_examples=40, deadline=None)
def test_perfect_scores_are_perfect(labels: list[int]) -> None:
    result = evaluated(list(labels), labels)
    assert [result[m] for m in metrics.METRICS if "recall_at" in m or "found_at" in m] == [1, 1, 1, 1]
    assert [result[m] for m in ("f1", "precision", "recall", "mcc", "auroc", "pr_auc", "fpr")] == [1, 1, 1, 1, 1, 1, 0]
    assert (result["false_alarms_per_hour"], result["episodes_found"]) == (0, 1)


def evaluated_in_order(order: list[str]) -> tuple[dict[str, float | int | None], dict[str, list[float] | None]]:
    tables = {c: keys([0] * 8 + [1] * 4 + [0] * 8 + [1] * 3, c) for c in "abc"}
    table = pl.concat([tables[c] for c in order])
    rng = {c: np.random.default_rng(i).random(23) for i, c in enumerate("abc")}
    score = np.concatenate([rng[c] for c in order])
    windows = windows_of(table, 1.0, 2.0)
    weights = metrics.resamples(windows, 100, 7, "scenario")
    score = windows.take(score)
    return metrics.evaluate(windows, score > 0.5, score), intervals(windows, score > 0.5, score, weights)


def test_the_order_of_captures_changes_nothing() -> None:
    assert evaluated_in_order(["a", "b", "c"]) == evaluated_in_order(["c", "a", "b"])


def test_resamples_keep_the_number_of_episodes_and_pieces() -> None:
    windows = windows_of(keys([0, 0, 1, 0, 0, 0, 1, 0, 0, 1]), 1.0, 1.0)
    weights = metrics.resamples(windows, 30, 0, "s")
    assert (weights[:, : windows.n_episodes].sum(axis=1) == windows.n_episodes).all()
    assert (weights.sum(axis=1) == windows.n_units).all()
    assert not np.array_equal(weights, metrics.resamples(windows, 30, 0, "t"))


def test_a_replicate_is_the_metric_of_the_resampled_windows() -> None:
    table = keys([0] * 6 + [1] * 3 + [0] * 4 + [1] * 2)
    windows = windows_of(table, 1.0, 2.0)
    score = np.round(np.random.default_rng(3).random(len(table)), 1)
    weights = metrics.resamples(windows, 20, 1, "s")
    result = metrics.replicates(windows, score > 0.4, score, weights)
    for b, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(table)), weight[windows.unit].astype(int))
        assert result["auroc"][b] == pytest.approx(roc_auc_score(windows.attacked[rows], score[rows]))
        assert result["pr_auc"][b] == pytest.approx(average_precision_score(windows.attacked[rows], score[rows]))
        hit = windows.attacked[rows]
        assert result["recall"][b] == pytest.approx((score[rows][hit] > 0.4).mean())
        assert result["fpr"][b] == pytest.approx((score[rows][~hit] > 0.4).mean())
        single = {
            name: float(values[0])
            for name, values in metrics.replicates(windows, score > 0.4, score, weight[None]).items()
        }
        assert single == pytest.approx({name: float(values[b]) for name, values in result.items()}, nan_ok=True)


def test_one_episode_has_no_interval() -> None:
    windows = windows_of(keys([0, 0, 1, 1, 0, 0, 0]), 1.0, 1.0)
    score = np.linspace(0, 1, 7)
    result = intervals(windows, score > 0.5, score, metrics.resamples(windows, 50, 0, "s"))
    assert [m for m in metrics.METRICS if result[m]] == ["fpr", "false_alarms_per_hour", "alarm_seconds_per_hour"]


def test_nothing_at_all() -> None:
    windows: Windows = windows_of(keys([]), 1.0, 5.0)
    weights = metrics.resamples(windows, 10, 0, "s")
    none = np.zeros(0)
    assert all(v is None for v in intervals(windows, none > 0, none, weights).values())


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.sampled_from([0.0, 0.005, 0.1, 0.5, 0.9]))
@settings(max_examples=80, deadline=None)
def test_budget_is_kept_and_used(values: list[int], rate: float) -> None:
    scores = np.array(values) / 9
    threshold = own_threshold(scores, np.arange(len(scores)), rate)
    assert (scores > threshold).mean() <= rate + 1e-12
    lower = scores[scores < threshold]
    if len(lower):
        assert (scores > lower.max()).mean() > rate


def test_ties_at_the_threshold_raise_no_alarm() -> None:
    assert own_threshold(np.array([0.1, 0.9, 0.9, 0.9]), np.arange(4), 0.5) == 0.9
    assert own_threshold(np.array([0.1, 0.2, 0.3, 0.9]), np.arange(4), 0.25) == 0.3


def test_f1_optimal_threshold_by_hand() -> None:
    attacked = np.array([False, False, True, True, False])
    assert f1_optimal(attacked, np.array([0.1, 0.3, 0.7, 0.9, 0.2])) == pytest.approx(0.5)
    assert f1_optimal(attacked, np.full(5, 0.4)) == pytest.approx(-0.1)  # alarm on everything is all there is
    assert f1_optimal(np.zeros(2, bool), np.zeros(2)) is None
