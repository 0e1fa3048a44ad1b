"""Differences between methods that were evaluated on the same windows and the same bootstrap resamples.

Each resample gives one value of every method, so the replicates of two methods can be subtracted one by one: what makes
a scenario hard for both cancels out, and the interval of the difference is narrower than two intervals side by side
(paired bootstrap, Efron and Tibshirani 1993, chapter 8).
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_evaluate.judging.metrics import percentiles
from canids_evaluate.judging.operating import AT_RATES
from canids_shared.contracts.tables import KEYS
from canids_shared.errors import CanidsError

COMPARED = ("f1", "auroc")
"""Metrics that are compared."""
STORED = (*COMPARED, *AT_RATES)
"""Metrics whose replicates are kept."""
_DIGITS = 6

Replicates = Mapping[str, Any]
"""Metric → one value for each resample [B], null or NaN where undefined."""
Difference = dict[str, Any]


def stored(values: dict[str, np.ndarray]) -> dict[str, list[float | None]]:
    """The replicates that differences need, as JSON: metric → one value per resample, None where undefined."""
    return {m: [round(float(v), _DIGITS) if np.isfinite(v) else None for v in values[m]] for m in STORED}


def differences(
    one: dict[str, Any],
    other: dict[str, Any],
    one_replicates: Replicates,
    other_replicates: Replicates,
    compared: Iterable[str] = COMPARED,
) -> dict[str, Difference]:
    """`{metric: {"difference", "interval"}}` of `one` minus `other`.

    Args:
        one, other: the metrics of two methods on one scenario, with `intervals`.
        one_replicates, other_replicates: their values on the same resamples.
        compared: the metrics.
    """
    result: dict[str, Difference] = {}
    for metric in compared:
        values, interval = (one[metric], other[metric]), None
        # Where either has no interval, there are too few episodes for one of the difference.
        mine, theirs = one["intervals"][metric], other["intervals"][metric]
        if mine and theirs:
            a, b = (np.array(r[metric], dtype=np.float64) for r in (one_replicates, other_replicates))
            interval = percentiles(a - b)
            # Without an error in either, all resamples are the same, and the bounds of each bound the difference.
            if np.ptp(a) == 0 and np.ptp(b) == 0:
                interval = [mine[0] - theirs[1], mine[1] - theirs[0]]
        result[metric] = {"difference": None if None in values else values[0] - values[1], "interval": interval}
    return result


def fingerprints(keys: pl.DataFrame) -> dict[str, str]:
    """Capture → hash over the keys of its windows (number, times, label, attack), in their order."""
    hashes = {}
    for (capture,), rows in keys.select(list(KEYS)).group_by("capture", maintain_order=True):
        digest = hashlib.sha256()
        # Nulls (unlabelled windows) must differ from all labels.
        for column in rows.iter_columns():
            numeric = column.dtype.is_numeric()
            digest.update(column.fill_null(255).to_numpy().tobytes() if numeric else "\0".join(column).encode())
        hashes[str(capture)] = digest.hexdigest()[:16]
    return hashes


def refuse_other_windows(path: Path, here: dict[str, str], reference: Path, wanted: dict[str, str]) -> None:
    """Raise `CanidsError` naming file and captures if the windows behind two files differ (see `fingerprints`)."""
    if differing := sorted(c for c in here.keys() | wanted.keys() if here.get(c) != wanted.get(c)):
        raise CanidsError(
            f"{path}: other windows (number, times or labels) of capture {', '.join(differing)} than in {reference}; "
            "delete it and run again"
        )
