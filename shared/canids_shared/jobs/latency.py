"""Inference latency of a trained model: `latency.json` of a run (contract latency/1).

| key | content |
|---|---|
| `median_ms` | milliseconds a window, median over the measurements |
| `device` | where it was measured: `cpu` or `cuda` |

A detector's is from a window's arrays to its score, one window at a time; a policy's from what the detectors say to the
decision. Building features and graphs is not in it. It is measured by the training, with whatever runs beside it.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from canids_shared.contracts import stand_in_mark
from canids_shared.errors import CanidsError
from canids_shared.files import write_json

CONTRACT = "latency/1"
_WARM_UP, _MOST = 10, 200


def measure(infer: Callable[[int], object], count: int) -> list[float]:
    """Seconds that `infer(0)`, `infer(1)`, … take, `count` of them but at most 200, after some that do not count.

    `infer` must return when the result is there, not when a GPU was told to make it.
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
    """The `latency` of a `run.json`: median of measurements, each in seconds a window, and the kind of device."""
    return {"median_ms": 1e3 * median(seconds), "device": device}


def write(path: str | Path, seconds: list[float], device: str) -> None:
    """Write the median of measurements, each in seconds a window, and the kind of device."""
    write_json(path, {"contract": CONTRACT, "median_ms": 1e3 * median(seconds), "device": device})


def read(path: Path) -> tuple[float, str]:
    """Milliseconds a window, and device; raises `CanidsError` naming the file if it is absent, not whole or a stand-in."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["contract"] != CONTRACT:
            raise CanidsError(
                f"{path}: contract {content['contract']}, not {CONTRACT}; delete the folder {path.parent} and train again"
            )
        stand_in_mark.refuse(path, content)
        return float(content["median_ms"]), str(content["device"])
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file; delete the folder {path.parent} and train again") from None
    except (ValueError, KeyError, TypeError):
        raise CanidsError(f"{path}: damaged; delete the folder {path.parent} and train again") from None
