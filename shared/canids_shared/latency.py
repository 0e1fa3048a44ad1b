"""How long a trained model takes to judge one window, alone, on the device it was trained on: `latency.json` of a run."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from canids_shared.errors import CanidsError
from canids_shared.files import write_json

CONTRACT = "latency/1"
_WARM_UP, _MOST = 10, 200


def measure(judge: Callable[[int], object], windows: int) -> list[float]:
    """Seconds of `judge(w)` for the first windows, at most 200, after some that do not count.

    `judge` must return when the result is there, not when a GPU was told to make it.
    """
    for w in range(min(_WARM_UP, windows)):
        judge(w)
    seconds = []
    for w in range(min(_MOST, windows)):
        begin = time.perf_counter()
        judge(w)
        seconds.append(time.perf_counter() - begin)
    return seconds


def write(path: str | Path, seconds: list[float], device: str) -> None:
    """Write median and 95th percentile in milliseconds a window, the number of measurements and the kind of device."""
    median, slow = (float(v) for v in np.quantile(np.array(seconds) * 1e3, [0.5, 0.95]))
    content = {"median_ms": median, "p95_ms": slow, "measured": len(seconds), "device": device}
    write_json(path, {"contract": CONTRACT, **content})


def read(path: Path) -> float:
    """The median, milliseconds; raises `CanidsError` naming the file if it is absent or not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["contract"] != CONTRACT:
            raise CanidsError(f"{path}: contract {content['contract']}, not {CONTRACT}; delete it and train again")
        return float(content["median_ms"])
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file; train again") from None
    except (ValueError, KeyError, TypeError):
        raise CanidsError(f"{path}: damaged; delete it and train again") from None
