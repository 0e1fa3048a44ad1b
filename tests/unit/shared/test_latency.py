"""Latency of a model: measured one window at a time, summed up by its median."""

import pytest

from canids_shared.jobs import latency


@pytest.mark.parametrize(("windows", "measured", "judged"), [(3, 3, 6), (50, 50, 60), (1000, 200, 210), (0, 0, 0)])
def test_first_windows_are_judged_one_by_one(windows: int, measured: int, judged: int) -> None:
    seen: list[int] = []
    seconds = latency.measure(seen.append, windows)
    assert (len(seconds), len(seen)) == (measured, judged)
    assert seen[-measured or len(seen) :] == list(range(measured))
    assert all(s > 0 for s in seconds)


def test_the_summary_is_the_median_in_milliseconds() -> None:
    assert latency.summary([0.001] * 90 + [0.003] * 10, "cpu") == {"median_ms": pytest.approx(1.0), "device": "cpu"}
