"""When a score becomes an alarm: evidence and thresholds by hand, and the guarantees that the docstrings give, in simulation."""

import numpy as np
import polars as pl
import pytest

from canids_shared import alarm_rule
from canids_shared.alarm_rule import AlarmRule, Evidence
from canids_shared.contracts.tables import KEYS


def keys(labels: list[int], vehicle: str = "van", capture: str = "c", seconds: float = 0.25) -> pl.DataFrame:
    """Key columns of one capture without gaps, four windows a block."""
    count = len(labels)
    columns = {
        "capture": [capture] * count,
        "vehicle": [vehicle] * count,
        "window": range(count),
        "t_start": np.arange(count) * seconds,
        "t_end": np.arange(1, count + 1) * seconds,
        "label": labels,
        "attack": ["dos" if label else "" for label in labels],
    }
    return pl.DataFrame(columns, schema=KEYS)


def test_evidence_by_hand() -> None:
    score = np.array([0.9, 0.1, 0.8, 0.2, 0.7, 0.6])
    assert Evidence(2, 3).step(score)[0].tolist() == [0, 0.1, 0.8, 0.2, 0.7, 0.6]
    assert Evidence(2, 2).step(score)[0].tolist() == [0, 0.1, 0.1, 0.2, 0.2, 0.6]
    assert Evidence().step(score)[0].tolist() == score.tolist()
    # A segment that begins at the fourth window knows nothing of those before.
    assert Evidence(2, 3).over(score, np.array([0, 3, 6])).tolist() == [0, 0.1, 0.8, 0, 0.2, 0.6]
    none = Evidence(2, 3).step(np.full(4, np.nan))[0]
    assert np.isnan(none).all()
    with pytest.raises(ValueError, match="evidence"):
        Evidence(3, 2)


@pytest.mark.parametrize("evidence", [Evidence(), Evidence(2, 3), Evidence(3, 5)])
def test_evidence_of_a_stream_is_that_of_a_file(evidence: Evidence) -> None:
    score = np.random.default_rng(0).random(50).astype(np.float32)
    whole, past, parts = evidence.step(score)[0], None, []
    for begin, end in ((0, 1), (1, 2), (2, 30), (30, 50)):
        part, past = evidence.step(score[begin:end], past)
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.float32


def test_a_threshold_of_blocks_by_hand() -> None:
    # 100 blocks of two windows; one block has both of the high scores.
    score = np.concatenate([np.linspace(0, 0.5, 198), [0.8, 0.9]])
    block = np.arange(200) // 2
    # (100 R + 1) / 101 ≤ .02 allows R = .0102: two windows of 200.
    assert alarm_rule.own_threshold(score, block, 0.02) == 0.5
    assert alarm_rule.own_threshold(score, block, 0.015) == 0.8  # R ≤ .00515, one window
    # Not even silence keeps to .005 with 100 blocks: the highest score it is, and the bound is 1 / 101.
    assert alarm_rule.own_threshold(score, block, 0.005) == 0.9
    assert alarm_rule.guarantee(100, 0.005) == 1 / 101
    # A short block counts as much as a long one.
    assert alarm_rule.own_threshold(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 0, 0, 1]), 0.7) == 0.3


def test_ties_raise_no_alarm() -> None:
    assert alarm_rule.own_threshold(np.array([0.1, 0.9, 0.9, 0.9]), np.arange(4), 0.5) == 0.9


def traffic(rng: np.random.Generator, blocks: int) -> np.ndarray:
    """Scores of blocks of ten windows that resemble each other: [blocks, 10]."""
    return rng.normal(size=(blocks, 1)) * 2 + rng.normal(size=(blocks, 10))


@pytest.mark.parametrize(("blocks", "budget"), [(60, 0.05), (250, 0.02), (30, 0.005)])
def test_the_expected_share_of_false_alarms_keeps_to_the_guarantee(blocks: int, budget: float) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(1500):
        seen = traffic(rng, blocks)
        threshold = alarm_rule.own_threshold(seen.ravel(), np.repeat(np.arange(blocks), 10), budget)
        shares.append((traffic(rng, 20) > threshold).mean())
    bound = alarm_rule.guarantee(blocks, budget)
    assert np.mean(shares) <= bound + 3 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) > bound / 5, "and it is used"


def test_vehicles_never_met_keep_the_budget_as_often_as_stated() -> None:
    """Over many fleets: how often a further vehicle needs a higher threshold than the fleet gives it."""
    rng = np.random.default_rng(1)
    for vehicles, bound in ((4, 1 / 5), (9, 0.1), (29, 0.1)):
        above = []
        for _ in range(600):
            needed = [
                alarm_rule.within_budget(scale * rng.exponential(size=400), 0.01)
                for scale in rng.lognormal(sigma=0.7, size=vehicles + 1)
            ]
            above.append(needed[-1] > alarm_rule.over_vehicles(needed[:-1]))
        assert np.mean(above) <= bound + 3 * np.sqrt(bound * (1 - bound) / 600), vehicles


def test_a_quantile_over_vehicles_and_not_over_their_windows() -> None:
    rng = np.random.default_rng(2)
    long, short = rng.random(5000) * 0.2, 0.5 + rng.random(50) * 0.2
    frame = pl.concat([keys([0] * 5000, "long", "a"), keys([0] * 50, "short", "b")])
    rule = alarm_rule.fit(np.concatenate([long, short]), frame, 0.02)
    assert rule.threshold > 0.6, "what the shorter recording needs counts as much"
    assert rule.vehicles.keys() == {"long"}, "of fewer than twenty blocks no threshold of its own is set"
    assert rule.vehicles["long"] < 0.2
    other = pl.Series(["long", "never met", "long"])
    assert rule.thresholds(other).tolist() == [rule.vehicles["long"], rule.threshold, rule.vehicles["long"]]


def test_evidence_is_asked_for_where_single_windows_say_little() -> None:
    rng = np.random.default_rng(3)
    labels = [0] * 400 + [1] * 200 + [0] * 400
    weak = np.where(np.array(labels) == 1, 0.3, 0.0) + rng.random(1000) * 0.5
    table = keys(labels)
    assert alarm_rule.fit(weak, table, 0.01, 1).evidence == Evidence()
    assert alarm_rule.fit(weak, table, 0.01, 3).evidence.needed == 2
    # Single windows that are attacked, as of an injection a second, leave no other evidence than their own.
    sparse = [int(i % 40 == 39) for i in range(1000)]
    clear = np.where(np.array(sparse) == 1, 0.9, 0.1) + rng.random(1000) * 0.01
    assert alarm_rule.fit(clear, keys(sparse), 0.01, 5).evidence == Evidence()


def test_rules_are_json() -> None:
    rule = AlarmRule(0.5, {"van": 0.25}, Evidence(2, 3))
    assert AlarmRule.from_json(rule.to_json()) == rule
    with pytest.raises(ValueError, match="attack-free"):
        alarm_rule.fit(np.array([0.5]), keys([1]), 0.01)
