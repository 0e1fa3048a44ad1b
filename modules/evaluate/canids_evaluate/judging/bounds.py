"""Intervals of metrics, 95 %: those of the bootstrap, and exact ones for counts of events; of false alarms the wider of both.

Fewer than five episodes (or attack-free pieces) say too little about the spread between them: there is no interval then, and
readers are shown counts. Where a method makes no error at all, every resample is the same; zero errors in n units still allow
a rate of errors up to 1 - .025^(1/n) (Clopper and Pearson 1934), which stands in place of an interval without width.
"""

import numpy as np

from canids_evaluate.judging.metrics import METRICS, percentiles
from canids_evaluate.judging.windows import Windows

ENOUGH = 5
"""Episodes, or attack-free pieces, from which on there is an interval."""
_TAIL = 0.025
_ON_FREE = ("fpr", "false_alarms_per_hour", "alarm_seconds_per_hour")
_ON_EPISODES = ("recall", "detection_delay_s")
Interval = list[float] | None


def poisson(events: int, hours: float) -> Interval:
    """Of a rate an hour, from `events` in `hours` (Garwood 1936); None without time."""
    if not hours:
        return None
    from scipy import special  # noqa: PLC0415 - a tenth of a second, which tables and reports do not need

    low = special.gammaincinv(events, _TAIL) if events else 0.0
    return [float(low / hours), float(special.gammaincinv(events + 1, 1 - _TAIL) / hours)]


def binomial(successes: int, trials: int) -> list[float]:
    """Of a share, from `successes` in `trials` ≥ 1 (Clopper and Pearson 1934)."""
    from scipy import special  # noqa: PLC0415 - as above

    low = special.betaincinv(successes, trials - successes + 1, _TAIL) if successes else 0.0
    high = special.betaincinv(successes + 1, trials - successes, 1 - _TAIL) if successes < trials else 1.0
    return [float(low), float(high)]


def intervals(
    windows: Windows, values: dict[str, float | int | None], replicates: dict[str, np.ndarray]
) -> dict[str, Interval]:
    """Of every metric; None where it rests on too few units, or is undefined in more than half of the resamples.

    Args:
        windows: of the scenario.
        values: the metrics and counts themselves, of `metrics.evaluate`.
        replicates: their values in the resamples, of `metrics.replicates`.
    """
    episodes, pieces = windows.n_episodes, windows.n_units - windows.n_episodes
    result: dict[str, Interval] = {}
    for name in METRICS:
        on_both = name not in (*_ON_FREE, *_ON_EPISODES)
        needed = [pieces] * (on_both or name in _ON_FREE) + [episodes] * (on_both or name in _ON_EPISODES)
        result[name] = percentiles(replicates[name]) if min(needed) >= ENOUGH else None
    exact = poisson(int(values["n_false_alarms"] or 0), float(values["attack_free_hours"] or 0))
    # Exact if alarms come independently of each other; they come in clusters too, which the resampled pieces show.
    spread = result["false_alarms_per_hour"]
    result["false_alarms_per_hour"] = (
        [min(exact[0], spread[0]), max(exact[1], spread[1])] if exact and spread else exact
    )
    found = values["episodes_found"]
    result["episodes_found"] = (
        binomial(round(found * episodes), episodes) if found is not None and episodes >= ENOUGH else None
    )
    return {name: _with_width(name, interval, values, episodes, pieces) for name, interval in result.items()}


def _with_width(
    name: str, interval: Interval, values: dict[str, float | int | None], episodes: int, pieces: int
) -> Interval:
    """The interval; where it has no width because there is no error (or nothing but errors), the exact bound."""
    # A delay can be the same everywhere, and scores that are all equal have an AUROC of one half for certain.
    if interval is None or interval[0] < interval[1] or name == "detection_delay_s" or 0 < (values[name] or 0) < 1:
        return interval
    ranking = float(values[name] or 0) if name in ("auroc", "pr_auc") else None
    recall = _share(values["recall"] if ranking is None else ranking, episodes)
    fpr = _share(values["fpr"] if ranking is None else 1 - ranking, pieces)
    if name == "fpr":
        return fpr
    if name == "alarm_seconds_per_hour":
        return [3600 * bound for bound in fpr]
    if name == "recall" or name.endswith("_per_hour"):
        return _share(values[name], episodes)
    attacked, free = (values["n_attacked"] or 0), (values["n_windows"] or 0) - (values["n_attacked"] or 0)
    return [_of_shares(r, f, attacked, free)[name] for r, f in ((recall[0], fpr[1]), (recall[1], fpr[0]))]


def _share(value: float | None, n: int) -> list[float]:
    """The exact interval of a share that is 0 or 1 in n units; any other value itself."""
    return binomial(round(value * n), n) if n and value in (0, 1) else [value or 0.0, value or 0.0]


def _of_shares(recall: float, fpr: float, attacked: float, free: float) -> dict[str, float]:
    """The metrics of a method that alarms these shares of its attacked and attack-free windows."""
    tp, fp = recall * attacked, fpr * free
    fn, tn = attacked - tp, free - fp
    precision = tp / (tp + fp) if tp else 0.0
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return {
        "precision": precision,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "mcc": (tp * tn - fp * fn) / margins**0.5 if margins else 0.0,
        # What one step of the curve leaves below it.
        "auroc": recall * (1 - fpr),
        "pr_auc": recall * precision,
    }
