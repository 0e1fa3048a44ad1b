"""Methods compared at the fusion's recall, and close-ups of the policy around an attack."""

from pathlib import Path

import numpy as np
import pytest
from evaluate_data import episodes, keys, write_decisions
from hypothesis import given, settings
from hypothesis import strategies as st

from canids_evaluate.evaluate import scores_of
from canids_evaluate.judging import metrics
from canids_evaluate.judging.curves import AROUND
from canids_evaluate.judging.equal_recall import at_equal_recall, threshold_for
from canids_evaluate.judging.evaluation import _policy
from canids_evaluate.judging.windows import Windows, windows_of
from canids_evaluate.pages import curve_figures
from canids_evaluate.pages.rows import Methods, Row
from canids_evaluate.pages.tables import at_fusion_recall
from canids_shared.contracts.detectors import DETECTORS, KEY, as_json

LABELS: list[int | None] = [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0]


def windows(labels: list[int | None]) -> Windows:
    return windows_of(keys(labels), episode_gap=1.0, block_s=2.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_threshold_is_the_highest_that_finds_as_much(scores: list[int], recall: float) -> None:
    values = np.array(scores, dtype=np.float64)
    threshold = threshold_for(recall, values, np.ones(len(values)))
    assert (values > threshold).mean() >= recall - 1e-9
    higher = [(values > t).mean() for t in np.unique(values) if t > threshold]
    assert all(share < recall for share in higher)


def test_false_alarms_and_delay_worked_by_hand() -> None:
    split = windows(LABELS)
    fusion = np.zeros(14, dtype=bool)
    fusion[[4, 5, 10, 11]] = True
    # To find four of the five attacked windows it has to go down to 0.4, where two runs of false alarms (three windows) begin.
    score = np.array([0, 0.5, 0, 0.9, 0.9, 0.4, 0.6, 0.6, 0, 0, 0.3, 0.8, 0, 0])
    weights = metrics.resamples(split, 50, 0, "s")
    result = at_equal_recall(split, {"fusion": np.zeros(14), "gat": score}, fusion, weights)
    assert set(result) == {"gat"}
    assert result["gat"]["recall"] == pytest.approx(0.8)
    assert result["gat"]["false_alarms_per_hour"] == pytest.approx(2 * 3600 / 9)
    # Found at the end of its first window (1 s), and in the second window of the other episode (2 s).
    assert result["gat"]["detection_delay_s"] == pytest.approx(1.5)
    minus = result["gat"]["fusion_minus"]
    assert minus["false_alarms_per_hour"]["difference"] == pytest.approx(-2 * 3600 / 9)
    assert minus["false_alarms_per_hour"]["interval"][1] <= 0
    assert minus["fpr"]["difference"] == pytest.approx(-3 / 9)
    # The fusion finds the first episode a window later, and the second a window earlier.
    assert minus["detection_delay_s"]["difference"] == pytest.approx(0.0)
    table = at_fusion_recall([Row("s", "large", "gat", {"at_fusion_recall": result["gat"]}, Methods(DETECTORS))])
    assert table.rows[0][:4] == ["GAT", "large", "0.800", "800.0"]


def test_every_resample_has_its_own_threshold() -> None:
    """One attacked window of the other method is as low as all others: only resamples with it pay for that."""
    labels: list[int | None] = ([0] * 5 + [1]) * 12 + [0] * 5
    split = windows(labels)
    fusion = np.array(labels) == 1
    score = np.where(fusion, 0.9, 0.1)
    score[np.flatnonzero(fusion)[3]] = 0.1
    weights = metrics.resamples(split, 200, 0, "s")
    minus = at_equal_recall(split, {"gat": score}, fusion, weights)["gat"]["fusion_minus"]["fpr"]
    assert minus["difference"] == pytest.approx(-1)
    assert minus["interval"] == pytest.approx([-1, 0])


def test_an_alarm_that_never_ends_is_seen_through() -> None:
    split = windows(LABELS)
    fusion = np.array(LABELS) == 1
    fusion[0] = True
    result = at_equal_recall(split, {"vgae": np.zeros(14)}, fusion, metrics.resamples(split, 20, 0, "s"))["vgae"]
    assert result["fpr"] == 1
    assert result["fusion_minus"]["fpr"]["interval"][1] < 0


def test_one_episode_has_no_interval() -> None:
    labels: list[int | None] = [0, 0, 1, 1, 0, 0, 0, 0]
    split = windows(labels)
    result = at_equal_recall(
        split, {"gat": np.arange(8.0)}, np.array(labels) == 1, metrics.resamples(split, 20, 0, "s")
    )
    assert all(m["interval"] is None for m in result["gat"]["fusion_minus"].values())


@pytest.mark.parametrize(("labels", "alarm"), [(LABELS, False), ([0] * 14, True), ([1] * 14, True)])
def test_nothing_to_compare(labels: list[int | None], alarm: bool) -> None:
    split = windows(labels)
    weights = metrics.resamples(split, 5, 0, "s")
    assert at_equal_recall(split, {"gat": np.zeros(14)}, np.full(14, alarm), weights) == {}
    assert at_fusion_recall([Row("s", "large", "gat", {}, Methods(DETECTORS))]).rows == []


def test_closeups_show_beginning_and_end_of_the_first_episode(tmp_path: Path) -> None:
    table = keys(episodes(200, 0.3, np.random.default_rng(2)))
    write_decisions(tmp_path / "test.parquet", table, 0.2, np.random.default_rng(0))
    scores = scores_of(tmp_path / "test.parquet")
    split = windows_of(scores.keys, 1.0, 5.0)
    alarms = {m: scores.score[m] > 0.5 for m in ("gat", "vgae", "fusion")}
    begin, end = _policy(split, scores, alarms)
    first = np.flatnonzero(split.episode == 0)
    assert (begin["part"], end["part"]) == ("begin", "end")
    for close, place in ((begin, first[0]), (end, first[-1])):
        near = np.arange(max(place - AROUND, 0), min(place + AROUND + 1, 200))
        assert close["t"] == pytest.approx((split.t_start[near] - split.t_start[place]).tolist())
        assert close["attacked"] == split.attacked[near].astype(int).tolist()
        assert set(close["series"]) == {"gat", "vgae", "fusion", "q_chosen", "q_other"}
        assert close["alarms"]["gat"] == alarms["gat"][near].astype(int).tolist()
    content = {KEY: as_json(DETECTORS), "scenarios": {"test_x": {"policy": [begin, end]}}}
    curve_figures.policy(tmp_path / "policy.svg", content)
    assert "value of the action" in (tmp_path / "policy.svg").read_text()


def test_weights_of_the_action_set_alpha_are_shown(tmp_path: Path) -> None:
    table = keys(episodes(60, 0.3, np.random.default_rng(2)))
    write_decisions(tmp_path / "test.parquet", table, 0.2, np.random.default_rng(0))
    scores = scores_of(tmp_path / "test.parquet")
    scores.action = np.full(60, 15, dtype=np.int16)
    split = windows_of(scores.keys, 1.0, 5.0)
    close = _policy(split, scores, {m: scores.score[m] > 0.5 for m in ("gat", "vgae", "fusion")})[0]
    assert set(close["series"]["weight"]) == {0.75}


def test_no_policy_no_figure(tmp_path: Path) -> None:
    curve_figures.policy(tmp_path / "policy.svg", {"scenarios": {"test_x": {"policy": []}}})
    assert (tmp_path / "policy.svg").exists()
