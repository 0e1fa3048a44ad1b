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
    assert alarm_rule.own_threshold(score, block, 0.01) == 0.5  # two windows of 200
    assert alarm_rule.own_threshold(score, block, 0.005) == 0.8  # one
    assert alarm_rule.own_threshold(score, block, 0.004) == 0.9
    # A short block counts as much as a long one.
    assert alarm_rule.own_threshold(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 0, 0, 1]), 0.5) == 0.3
    assert alarm_rule.guarantee(100, 0.005) == pytest.approx(0.01 + 1 / 101)


def test_a_vehicle_of_its_own_counts_half_and_the_others_the_other_half() -> None:
    # The others: none above .9, 1 % above .7, 2 % above .4; what lies further down is not kept, and counts as all.
    tail = ((0.9, 0.0), (0.7, 0.01), (0.4, 0.02))
    quiet, block = np.linspace(0, 0.1, 100), np.arange(100)
    assert alarm_rule.own_threshold(quiet, block, 0.01, tail) == 0.4  # half of 2 % is the budget
    assert alarm_rule.own_threshold(quiet, block, 0.009, tail) == 0.7
    # The vehicle's own 1 % at .8 and more leaves the others 1 %.
    louder = np.concatenate([quiet[:99], [0.85]])
    assert alarm_rule.own_threshold(louder, block, 0.01, tail) == 0.7
    assert alarm_rule.own_threshold(louder, block, 0.005, tail) == 0.85, (
        "above it lie 0 of its own, and less than 1 % of the others"
    )
    # Louder than all others: the budget is used up by its own traffic.
    loud = np.concatenate([np.full(96, 0.95), [0.96, 0.97, 0.98, 0.99]])
    assert alarm_rule.own_threshold(loud, block, 0.01, tail) == 0.97


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
    bound = budget + 1 / (blocks + 1)  # without other vehicles
    assert np.mean(shares) <= bound + 3 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) > bound / 5, "and it is used"


@pytest.mark.parametrize("blocks", [20, 60])
def test_with_other_vehicles_too_the_expected_share_keeps_to_the_guarantee(blocks: int) -> None:
    rng, budget = np.random.default_rng(4), 0.01
    # The worst case: the others are all silent, and leave the vehicle twice the budget.
    shares = []
    for _ in range(1500):
        seen = traffic(rng, blocks)
        threshold = alarm_rule.own_threshold(seen.ravel(), np.repeat(np.arange(blocks), 10), budget, ((-9.0, 0.0),))
        shares.append((traffic(rng, 20) > threshold).mean())
    assert np.mean(shares) <= alarm_rule.guarantee(blocks, budget) + 3 * np.std(shares) / np.sqrt(len(shares))


def test_the_mean_over_further_vehicles_keeps_the_budget() -> None:
    """Over many fleets: the share of false alarms on a vehicle that is none of them."""
    rng, shares = np.random.default_rng(1), []
    for _ in range(60):
        scales = rng.lognormal(sigma=0.3, size=13)
        frame = pl.concat([keys([0] * 400, f"v{v}", f"c{v}") for v in range(12)])
        rule = alarm_rule.fit(np.concatenate([rng.random(400) ** (1 / s) for s in scales[:12]]), frame, 0.02)
        shares.append((rng.random(4000) ** (1 / scales[12]) > rule.threshold).mean())
    assert 0.014 < np.mean(shares) < 0.028


def test_vehicles_count_the_same_and_not_their_windows() -> None:
    rng = np.random.default_rng(2)
    long, short = rng.random(5000) * 0.2, 0.5 + rng.random(50) * 0.2
    frame = pl.concat([keys([0] * 5000, "long", "a"), keys([0] * 50, "short", "b")])
    rule = alarm_rule.fit(np.concatenate([long, short]), frame, 0.02)
    assert np.mean([(long > rule.threshold).mean(), (short > rule.threshold).mean()]) == pytest.approx(0.02)
    assert rule.threshold > 0.6, "of the shorter recording, with a hundredth of the windows, two may alarm"
    assert rule.vehicles.keys() == {"long", "short"}
    # Each counts half for itself, and the only other one is the other half: of two vehicles all is the same.
    assert set(rule.vehicles.values()) == {rule.threshold}
    other = pl.Series(["long", "never met", "long"])
    assert rule.thresholds(other).tolist() == [rule.vehicles["long"], rule.threshold, rule.vehicles["long"]]
    few = alarm_rule.fit(np.concatenate([long, short[:16]]), pl.concat([frame[:5000], frame[5000:5016]]), 0.02)
    assert few.vehicles.keys() == {"long"}, "of fewer than five blocks no threshold of its own is set"


def test_a_long_tail_is_kept_in_few_steps_that_never_understate_it() -> None:
    rng = np.random.default_rng(5)
    score = rng.random(20_000)
    rule = alarm_rule.fit(score, keys([0] * 20_000), 0.01)
    assert len(rule.tail) == 64
    assert rule.tail[0][1] == 0 and rule.tail[-1][1] == pytest.approx(0.02, abs=0.0005)  # noqa: PT018
    for threshold in rng.uniform(0.981, 1, 50):
        step = next(share for at, share in rule.tail if at <= threshold)
        assert (score > threshold).mean() - 1e-9 <= step <= (score > threshold).mean() + 0.001


def test_evidence_is_asked_for_where_single_windows_say_little() -> None:
    rng = np.random.default_rng(3)
    labels = [0] * 400 + [1] * 200 + [0] * 400
    weak = np.where(np.array(labels) == 1, 0.3, 0.0) + rng.random(1000) * 0.5
    table = keys(labels)
    assert alarm_rule.fit(weak, table, 0.01, 1).evidence == Evidence()
    assert alarm_rule.fit(weak, table, 0.01, 3).evidence.needed == 2
    assert alarm_rule.fit(weak[:400], table[:400], 0.01, 3).evidence == Evidence(), "nothing shows that more is needed"
    # Single windows that are attacked, as of an injection a second, leave no other evidence than their own.
    sparse = [int(i % 40 == 39) for i in range(1000)]
    clear = np.where(np.array(sparse) == 1, 0.9, 0.1) + rng.random(1000) * 0.01
    assert alarm_rule.fit(clear, keys(sparse), 0.01, 5).evidence == Evidence()


def test_rules_are_json() -> None:
    rule = AlarmRule(0.5, {"van": 0.25}, Evidence(2, 3), ((0.9, 0.0), (0.4, 0.02)))
    assert AlarmRule.from_json(rule.to_json()) == rule
    with pytest.raises(ValueError, match="attack-free"):
        alarm_rule.fit(np.array([0.5]), keys([1]), 0.01)
