"""Recall at given rates of false alarms, by hand and against lowering the threshold one score at a time."""

import numpy as np
import polars as pl
import pytest
from evaluate_data import keys
from hypothesis import given, settings
from hypothesis import strategies as st

from canids_evaluate.judging import metrics
from canids_evaluate.judging.operating import AT_RATES, ATTENTION_S, RATES, at_rates
from canids_evaluate.judging.windows import Windows, windows_of


def measured(windows: Windows, score: list[float]) -> dict[str, float]:
    values = at_rates(windows, windows.take(np.array(score, dtype=float)), np.ones((1, windows.n_units)))
    return {name: float(v[0]) for name, v in values.items()}


def minutes(labels: list[int], length: float) -> Windows:
    """Windows of `length` seconds, one after the other."""
    start = np.arange(len(labels)) * length
    return windows_of(keys(labels, t_start=list(start), t_end=list(start + length)), 1.0, 300.0)


def test_by_hand() -> None:
    # 6 attack-free windows of 10 min are one hour; windows longer than a minute are more than one false alarm may last.
    windows = minutes([0, 0, 0, 0, 0, 0, 1, 1, 1, 1], 600.0)
    score = [0.1, 0.2, 0.1, 0.5, 0.1, 0.1, 0.9, 0.6, 0.4, 0.05]
    result = measured(windows, score)
    # One false alarm an hour may last 60 s, the window at .5 lasts 600: only .9 and .6 lie above it.
    assert result["recall_at_1_per_hour"] == 0.5
    # Ten may last 600 s: the window at .5 is within, that at .2 is not, and .4 lies between.
    assert result["recall_at_10_per_hour"] == 0.75
    assert result["episodes_found_at_1_per_hour"] == 1


def test_neighbouring_alarms_that_become_one_are_not_forgiven() -> None:
    # At .7 there are two runs; at .5 the window between them joins them into one, but the threshold never gets there.
    windows = minutes([0] * 60 + [1], 60.0)
    score = [0.0] * 61
    score[10:13] = [0.7, 0.5, 0.7]
    score[60] = 0.6
    result = measured(windows, score)
    assert (result["recall_at_1_per_hour"], result["recall_at_10_per_hour"]) == (0, 1)


def test_an_alarm_that_never_ends_finds_nothing() -> None:
    result = measured(minutes([0] * 90 + [1] * 5, 60.0), [1.0] * 95)
    assert list(result.values()) == [0, 0, 0, 0]


def test_little_traffic_allows_no_false_alarm() -> None:
    windows = windows_of(keys([0] * 37 + [1] * 2), 1.0, 5.0)
    assert measured(windows, [0.0] * 36 + [0.8, 0.9, 0.7])["recall_at_10_per_hour"] == 0.5


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1]])
def test_undefined_without_attack_or_without_attack_free_time(labels: list[int]) -> None:
    assert all(np.isnan(v) for v in measured(windows_of(keys(labels), 1.0, 5.0), [0.5] * len(labels)).values())


def lowered(windows: Windows, score: np.ndarray, rate: int) -> tuple[float, float]:
    """Recall and share of episodes found just before the threshold allows too much, one distinct score after the other."""
    reached = (0.0, 0.0)
    for threshold in sorted(set(score), reverse=True):
        sums = {k: v.sum() for k, v in metrics.sums(windows, score >= threshold).items()}
        hours = sums["free_s"] / 3600
        if sums["runs"] > rate * hours + 1e-9 or sums["false_s"] > rate * hours * ATTENTION_S + 1e-9:
            break
        reached = (sums["tp"] / (sums["tp"] + sums["fn"]), sums["found"] / sums["episodes"])
    return reached


rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=60)


@given(rows.filter(lambda r: 0 < sum(x[0] for x in r) < len(r)), st.sampled_from([1.0, 40.0, 300.0]))
@settings(max_examples=60, deadline=None)
def test_as_if_lowered_step_by_step(table: list[tuple[int, int]], length: float) -> None:
    windows = minutes([label for label, _ in table], length)
    score = windows.take(np.array([value / 8 for _, value in table]))
    result = {n: float(v[0]) for n, v in at_rates(windows, score, np.ones((1, windows.n_units))).items()}
    for rate in RATES:
        by_window, by_episode = lowered(windows, score, rate)
        assert result[f"recall_at_{rate}_per_hour"] == pytest.approx(by_window)
        assert result[f"episodes_found_at_{rate}_per_hour"] == pytest.approx(by_episode)


def test_replicates_are_those_of_the_repeated_windows() -> None:
    windows = minutes([0] * 20 + [1] * 3 + [0] * 20 + [1] * 2 + [0] * 20, 60.0)
    score = np.round(np.random.default_rng(2).random(len(windows)) + windows.attacked, 1)
    weights = metrics.resamples(windows, 8, 1, "s")
    result = at_rates(windows, score, weights)
    for b, weight in enumerate(weights):
        # A table in which each unit stands as often as it was drawn, each as a capture of its own.
        parts = []
        for unit in range(windows.n_units):
            of_unit = np.flatnonzero(windows.unit == unit)
            part = keys(
                [int(a) for a in windows.attacked[of_unit]],
                t_start=list(windows.t_start[of_unit]),
                t_end=list(windows.t_end[of_unit]),
            )
            parts += [
                part.with_columns(capture=pl.lit(f"{unit}-{i}"), score=pl.Series(score[of_unit]))
                for i in range(int(weight[unit]))
            ]
        table = pl.concat(parts)
        repeated = windows_of(table, 1.0, 300.0)
        alone = at_rates(repeated, repeated.take(table["score"].to_numpy()), np.ones((1, repeated.n_units)))
        # Runs that go on from one piece into the next count once in the first, in the table of single pieces twice: only more.
        for name in AT_RATES:
            assert float(alone[name][0]) <= result[name][b] + 1e-9
