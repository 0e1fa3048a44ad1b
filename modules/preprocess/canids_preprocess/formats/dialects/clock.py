"""Times that a log does not write as seconds since its start: differences, counters that begin again, or none at all."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_shared.errors import CanidsError


class Clock:
    """Seconds of the rows of one log, from one batch of it to the next.

    Args:
        delta: whether a row's time counts from the row above it.
        period: seconds after which the written time begins again at 0 (a day, or a counter of 32 bits); None: never.
        rate: rows a second of a log without times; None: it has some.
    """

    def __init__(self, delta: bool = False, period: float | None = None, rate: float | None = None) -> None:
        self._delta, self._period, self._rate = delta, period, rate
        self._rows, self._offset = 0, 0.0
        self._last: float | None = None

    def seconds(self, written: pl.Series) -> pl.Series:
        """Seconds by the times of the next rows, as written; null where there is none (in a log with times)."""
        if self._rate is not None:
            numbers = np.arange(self._rows, self._rows + len(written))
            self._rows += len(written)
            return pl.Series(numbers / self._rate)
        if self._delta:
            seconds = written.fill_null(0.0).fill_nan(0.0).cum_sum() + self._offset
            self._offset = seconds[-1] if len(seconds) else self._offset
            return seconds.zip_with(written.is_not_null(), pl.Series([None], dtype=pl.Float64))
        if self._period is None:
            return written
        known = written.forward_fill()
        known = known if self._last is None else known.fill_null(self._last)
        steps = known - known.shift(1, fill_value=self._last)
        # More than half a period back: the counter has begun again. A smaller step back stays one.
        begun = (steps < -self._period / 2).fill_null(False).cast(pl.Int64).cum_sum()
        seconds = written + begun * self._period + self._offset
        if len(written):
            self._offset += begun[-1] * self._period
            self._last = known[-1]
        return seconds


def assumed_rate(path: Path, entry: dict[str, Any], timed: bool) -> float | None:
    """Frames a second that the manifest assumes for a log without times; None for one that has some.

    Raises `CanidsError` if a log without times has no assumed rate, or one with times has one.
    """
    rate: float | None = entry.get("assume_rate")
    if timed and rate is not None:
        raise CanidsError(f"{path}: has times; assume_rate in the manifest is for logs without")
    if not timed and rate is None:
        raise CanidsError(
            f"{path}: has no times, and detection rests on intervals; record it with times, or set assume_rate (frames/s) in the manifest"
        )
    return None if timed else rate
