"""Metrics of one method on the windows of one scenario, as pure functions.

Every metric is a function of sums over units (attack episodes and attack-free pieces, see `windows`), each unit counted
with a weight. With all weights 1 that is the metric itself; with the counts of a resample it is one bootstrap
replicate: one definition for both. An undefined metric is NaN inside this file and None outside it, never 0.
"""

import zlib

import numpy as np

from canids_evaluate.judging.windows import Windows

_ON_EPISODES = ("recall", "episodes_found", "detection_delay_s")
_ON_FREE = ("fpr", "false_alarms_per_hour")
_ON_BOTH = ("f1", "precision", "mcc", "auroc", "pr_auc")
METRICS = ("f1", "precision", "recall", "mcc", "auroc", "pr_auc", *_ON_FREE, "detection_delay_s", "episodes_found")
"""By window: F1, precision, recall, Matthews correlation (Matthews 1975), area under the ROC curve (ties count half),
average precision (stepwise, not interpolated), false-positive rate. By event: runs of false alarms per attack-free
hour, mean seconds from an episode's first attacked window's start to the end of the first alarmed one (found episodes
only), share of episodes found."""
_CHUNK = 1 << 22
"""Weights (replicates × windows) in memory at a time."""


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    undefined = denominator == 0
    return np.where(undefined, np.nan, numerator / np.where(undefined, 1, denominator))


def sums(windows: Windows, alarm: np.ndarray) -> dict[str, np.ndarray]:
    """Per unit [U]: confusion counts, runs of false alarms that begin in it, attack-free seconds, detection."""

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(windows.unit, weights=values, minlength=windows.n_units)

    attacked = windows.attacked
    false = alarm & ~attacked
    # A false alarm goes on with the next window of the same stretch; a run counts in the unit in which it begins.
    run_goes_on = np.zeros(len(windows), dtype=bool)
    run_goes_on[1:] = false[:-1] & windows.follows[1:]
    # Episodes are the first units. Delay: from the first attacked window's start to the first alarmed one's end.
    found = np.zeros(windows.n_units)
    delay = np.zeros(windows.n_units)
    first = np.unique(windows.episode[attacked], return_index=True)[1]
    begin = windows.t_start[attacked][first]
    hits = np.flatnonzero(attacked & alarm)
    episodes, first = np.unique(windows.episode[hits], return_index=True)
    found[episodes] = 1
    delay[episodes] = np.maximum(windows.t_end[hits[first]] - begin[episodes], 0)
    return {
        "tp": total(attacked & alarm),
        "fn": total(attacked & ~alarm),
        "fp": total(false),
        "tn": total(~attacked & ~alarm),
        "runs": total(false & ~run_goes_on),
        "free_s": total(np.where(attacked, 0.0, windows.duration)),
        "episodes": (np.arange(windows.n_units) < windows.n_episodes).astype(float),
        "found": found,
        "delay": delay,
    }


def _from_sums(s: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tp, fn, fp, tn = s["tp"], s["fn"], s["fp"], s["tn"]
    f1 = _ratio(2 * tp, 2 * tp + fp + fn)
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return {
        "f1": np.where(tp + fn == 0, np.nan, f1),  # false alarms alone would make it 0, as if attacks had been missed
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "mcc": _ratio(tp * tn - fp * fn, np.sqrt(margins)),
        "fpr": _ratio(fp, fp + tn),
        "false_alarms_per_hour": _ratio(s["runs"] * 3600, s["free_s"]),
        "detection_delay_s": _ratio(s["delay"], s["found"]),
        "episodes_found": _ratio(s["found"], s["episodes"]),
    }


def ranking_counts(attacked: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores in falling order [T], and how many attacked and attack-free windows score at least that."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True)) if len(score) else np.zeros(0, np.int64)
    hits = attacked[order]
    return score[order][ends], np.cumsum(hits)[ends], np.cumsum(~hits)[ends]


def _ranking(windows: Windows, score: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC and average precision, f64 [B] each, for each row of unit weights [B, U]; equal scores share one threshold."""
    replicates = len(weights)
    if not 0 < windows.attacked.sum() < len(windows):
        return {"auroc": np.full(replicates, np.nan), "pr_auc": np.full(replicates, np.nan)}
    # Windows by falling score; `starts` [T] are the first windows of each distinct score, at which `reduceat` sums.
    order = np.argsort(-score, kind="stable")
    unit, hits = windows.unit[order], windows.attacked[order]
    starts = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))
    auroc, pr_auc = np.empty(replicates), np.empty(replicates)
    step = max(1, _CHUNK // len(order))  # replicates at a time, or weights [B, W] would not fit
    for low in range(0, replicates, step):
        w = weights[low : low + step, unit]  # [b, W]
        pos = np.add.reduceat(w * hits, starts, axis=1)  # [b, T], per distinct score
        neg = np.add.reduceat(w * ~hits, starts, axis=1)
        tps, fps = np.cumsum(pos, axis=1), np.cumsum(neg, axis=1)
        p, n = tps[:, -1], fps[:, -1]  # [b], all attacked and all attack-free windows
        # Mann-Whitney: the share of pairs in which the attacked window scores higher, ties as half.
        auroc[low : low + step] = _ratio((neg * (tps - pos / 2)).sum(axis=1), p * n)
        # Average precision: precision at each distinct score, weighted by the attacked windows with that score.
        alarms = tps + fps
        precision = tps / np.where(alarms == 0, 1, alarms)
        pr_auc[low : low + step] = np.where(n == 0, np.nan, _ratio((pos * precision).sum(axis=1), p))
    return {"auroc": auroc, "pr_auc": pr_auc}


def replicates(windows: Windows, alarm: np.ndarray, score: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric for each row of unit weights.

    Args:
        windows: W windows in U units.
        alarm: bool [W].
        score: f64 [W], larger means more of an attack.
        weights: f64 [B, U], how often each unit counts.

    Returns:
        metric → f64 [B]; NaN where undefined.
    """
    values = {**of_alarms(sums(windows, alarm), weights), **_ranking(windows, score, weights)}
    return {name: values[name] for name in METRICS}


def of_alarms(by_unit: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics that rest on alarms alone (all but AUROC and average precision), f64 [B], from `sums` and weights [B, U]."""
    return _from_sums({k: np.einsum("bu,u->b", weights, v) for k, v in by_unit.items()})


def evaluate(windows: Windows, alarm: np.ndarray, score: np.ndarray) -> dict[str, float | int | None]:
    """The metrics (None where undefined) with `n_windows`, `n_attacked` and `n_episodes`."""
    values = replicates(windows, alarm, score, np.ones((1, windows.n_units)))
    counts = {"n_windows": len(windows), "n_attacked": int(windows.attacked.sum()), "n_episodes": windows.n_episodes}
    return {**{k: or_none(float(v[0])) for k, v in values.items()}, **counts}


def or_none(value: float) -> float | None:
    """The number; None for what is undefined, NaN or infinite."""
    return value if np.isfinite(value) else None


def resamples(windows: Windows, count: int, seed: int, name: str) -> np.ndarray:
    """Unit weights [count, U] of bootstrap resamples (Efron 1979), others for each scenario `name`.

    Episodes and attack-free pieces are resampled each among themselves, so that no resample lacks either. They depend on
    the labels alone: all methods share the same resamples.
    """
    # A seed of the scenario's name, so that a scenario more or less leaves the resamples of the others as they are.
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    kinds = (windows.n_episodes, windows.n_units - windows.n_episodes)
    parts = [rng.multinomial(n, np.full(n, 1 / n), size=count) if n else np.zeros((count, 0)) for n in kinds]
    return np.concatenate(parts, axis=1).astype(np.float64)


def intervals(windows: Windows, values: dict[str, np.ndarray]) -> dict[str, list[float] | None]:
    """Percentile intervals, 95 %, of every metric over its values in the resamples (of `replicates`).

    None where a metric rests on fewer than two episodes (or attack-free pieces), too few for a spread
    between them, or is undefined in more than half of the resamples.
    """
    episodes, free = windows.n_episodes > 1, windows.n_units - windows.n_episodes > 1
    enough = {
        **dict.fromkeys(_ON_EPISODES, episodes),
        **dict.fromkeys(_ON_FREE, free),
        **dict.fromkeys(_ON_BOTH, episodes and free),
    }
    return {name: percentiles(v) if enough[name] else None for name, v in values.items()}


def percentiles(values: np.ndarray) -> list[float] | None:
    """The 2.5 % and 97.5 % quantiles of replicates [B]; None if more than half of them are undefined."""
    defined = values[np.isfinite(values)]
    if 2 * len(defined) <= len(values):
        return None
    return [float(q) for q in np.quantile(defined, [0.025, 0.975])]
