"""Inference latency of a trained model, for `latency` in `run.json` (`canids_shared.contracts.training_run`).

That of a detector is from a window's arrays to its score, one window at a time; that of a policy from the detectors' scores to the
decision. Neither contains the features and graphs. The training measures it, beside whatever else the machine runs.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

_WARM_UP, _MOST = 10, 200


def measure(infer: Callable[[int], object], count: int) -> list[float]:
    """Seconds of each of `infer(0)`, `infer(1)`, …: `count` calls, at most 200, after ten calls as a warm-up.

    `infer` must return when its result is complete, not when a GPU has queued the work.
    """
    for i in range(min(_WARM_UP, count)):
        infer(i)
    seconds = []
    for i in range(min(_MOST, count)):
        begin = time.perf_counter()
        infer(i)
        seconds.append(time.perf_counter() - begin)
    return seconds


def summary(seconds: list[float], device: str) -> dict[str, Any]:
    """The `latency` of a `run.json`: median of measurements in seconds a window, and the kind of device (`cpu` or `cuda`)."""
    return {"median_ms": 1e3 * median(seconds), "device": device}
