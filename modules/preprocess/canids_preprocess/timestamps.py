"""Unit of a capture's timestamps: applied where the manifest states one, and judged by the frame rate."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_preprocess.formats.base import PER_SECOND, Batch, Format
from canids_shared.errors import CanidsError

_FEWEST = 100
"""Frames below which nothing is judged; a log that is still being written is judged by so many, and again by `_ENOUGH`."""
_ENOUGH = 1000
"""Frames after which a unit is settled."""
_FASTEST, _SLOWEST = 20_000.0, 1 / 60
"""Frames a second on one bus: 21,000 frames without payload fit into 1 Mbit/s."""
_SLOW, _ID_PERIOD = 8.0, 5.0
"""Frames a second, and seconds from a frame of an ID to its next on average: slower traffic looks like that of a unit too
large by 1,000. Cars at hand have 170 to 3,100 frames a second and 0.01 to 0.1 s, a log of diagnosis 9.8 and 1.6 s; of a bus
that is as slow, the manifest states that its timestamps are in seconds."""
_USUAL = 1000.0
"""Frames a second: of several units, the one with which a bus comes closest to it is meant."""


def _rate(timestamp: np.ndarray) -> float:
    """Frames per unit of time; pauses, among the longest tenth of the gaps above 0, count as that tenth's shortest."""
    gaps = np.maximum(np.diff(timestamp), 0.0)
    positive = gaps[gaps > 0]
    return 1 / float(np.minimum(gaps, np.quantile(positive, 0.9)).mean()) if len(positive) else math.inf


def likely_unit(frames: pl.DataFrame, stated: str | None = None) -> str | None:
    """The unit that timestamps look like, if they cannot be in the one that `stated` names (None: seconds, by default).

    Empty where no unit makes a bus of them; None where nothing contradicts `stated`, and where seconds are stated: that is final.

    Args:
        frames: `timestamp` as the file has it, and `can_id`, of one bus.
        stated: key of `PER_SECOND`, or None.
    """
    if len(frames) < _FEWEST or stated == "s":
        return None
    timestamp = frames["timestamp"].to_numpy()
    raw, span = _rate(timestamp), float(timestamp.max() - timestamp.min())
    rate = raw * PER_SECOND[stated or "s"]
    slow = rate < _SLOWEST or (rate < _SLOW and frames["can_id"].n_unique() / rate > _ID_PERIOD)
    # Adapters hand over frames in batches, each with nearly one time: only the mean rate can be too high.
    fast = (len(frames) - 1) * PER_SECOND[stated or "s"] > _FASTEST * span
    if not slow and not fast:
        return None
    units = {unit: raw * factor for unit, factor in PER_SECOND.items() if _SLOWEST <= raw * factor <= _FASTEST}
    return min(units, key=lambda unit: abs(math.log(units[unit] / _USUAL)), default="")


def in_seconds(path: Path, form: Format, entry: dict[str, Any], stated: str | None) -> Iterator[Batch]:
    """Batches of a capture, read by its format and its entry in the manifest, with timestamps in seconds.

    The first frames are judged, of a finished capture a whole batch. Raises `CanidsError` naming the unit that they look like; or
    if a unit is stated where the format has one.
    """
    if form.unit_known:
        if stated not in (None, "s"):
            raise CanidsError(f"{path}: its format has the unit of its timestamps; remove timestamp_unit")
        stated = "s"
    first: list[pl.DataFrame] = []
    due = _FEWEST
    for batch in form.read(path, entry):
        if due:
            first.append(_of_one_bus(batch.frames).select("timestamp", "can_id"))
            count = sum(map(len, first))
            if count >= due:
                _refuse(path, pl.concat(first), stated)
                due = 0 if count >= _ENOUGH else _ENOUGH
        if stated is None or stated == "s":
            yield batch
        else:
            # By NumPy: polars multiplies by the reciprocal, and whole microseconds would be off by a rounding.
            seconds = pl.Series("timestamp", batch.frames["timestamp"].to_numpy() / PER_SECOND[stated])
            yield batch._replace(frames=batch.frames.with_columns(seconds))
    if due and first:
        _refuse(path, pl.concat(first), stated)


def _of_one_bus(frames: pl.DataFrame) -> pl.DataFrame:
    """The frames of the bus that has most of them: a log of several is faster than any."""
    if frames["channel"].null_count() == len(frames) or (frames["channel"] == frames["channel"][0]).all():
        return frames
    return frames.filter(pl.col("channel").eq_missing(frames["channel"].mode().sort()[0]))


def _refuse(path: Path, frames: pl.DataFrame, stated: str | None) -> None:
    unit = likely_unit(frames, stated)
    if unit is None:
        return
    rate = _rate(frames["timestamp"].to_numpy()) * PER_SECOND[stated or "s"]
    remedy = (
        f"looks like {unit}; state `timestamp_unit: {unit}` in the manifest (in the config of score, --timestamp-unit of follow; of a table, as table.time.unit)"
        if unit
        else "no unit of time (s, ms, us, ns) makes a bus of them; correct the timestamps"
    )
    confirm = ", or `timestamp_unit: s` if seconds are right" if stated is None else ""
    raise CanidsError(f"{path}: {rate:.3g} frames a second, if timestamps are in {stated or 's'}: {remedy}{confirm}")
