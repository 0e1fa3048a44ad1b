"""Thresholds of a vehicle's own, on captures that are long enough for them."""

import numpy as np
import polars as pl
import pytest

from canids_shared import alarm_rule

BUDGET, WINDOWS = 0.01, 2000


@pytest.mark.parametrize("seed", range(3))
def test_vehicles_with_long_captures_have_thresholds_that_keep_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scales = {"low": 0.1, "middle": 0.2, "high": 0.3}
    scores = {vehicle: scale * rng.random(WINDOWS) for vehicle, scale in scales.items()}
    frame = pl.concat(
        pl.DataFrame(
            {"vehicle": vehicle, "capture": vehicle, "window": range(WINDOWS), "label": 0, "t_start": np.arange(WINDOWS) * 0.05}
        )
        for vehicle in scales
    )  # fmt: skip
    rule = alarm_rule.fit(np.concatenate(list(scores.values())), frame, BUDGET)
    assert rule.vehicles.keys() == scales.keys(), "a hundred seconds each are enough"
    shares = {vehicle: (scores[vehicle] > rule.vehicles[vehicle]).mean() for vehicle in scales}
    # The vehicle's own traffic counts for half of the budget at least, so it can alarm in twice as much at most.
    assert max(shares.values()) <= 2 * BUDGET
    assert rule.vehicles["high"] > rule.vehicles["low"]
