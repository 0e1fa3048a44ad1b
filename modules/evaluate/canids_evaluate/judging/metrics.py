"""Metrics of one method on the windows of one scenario, as pure functions.

Every metric is a function of sums over units (attack episodes and attack-free pieces, see `windows`), each unit counted
with a weight. With all weights 1 that is the metric itself; with the counts of a resample it is one bootstrap
replicate: one definition for both. An undefined metric is NaN inside this file and None outside it, never 0.
"""

import zlib

import numpy as np

from canids_evaluate.judging.operating import AT_RATES, CHUNK, at_rates, by_unit
from canids_evaluate.judging.windows import Windows

METRICS = (
    *("f1", "precision", "recall", "mcc", "auroc", "pr_auc", "fpr"),
    *("false_alarms_per_hour", "alarm_seconds_per_hour", "detection_delay_s", "episodes_found", *AT_RATES),
)
"""By window: F1, precision, recall, Matthews correlation (Matthews 1975), area under the ROC curve (ties count half),
average precision (stepwise, not interpolated), false-positive rate. By event: runs of false alarms and seconds in false
alarm per attack-free hour, mean seconds from an episode's first attacked window's start to the end of the first alarmed
one (found episodes only), share of episodes found; then recall by window and by episode at given rates of false alarms (`operating`)."""
COUNTS = ("n_windows", "n_attacked", "n_episodes", "n_false_alarms", "attack_free_hours", "delay_floor_s")
"""What the metrics rest on; `delay_floor_s` is the mean length of the episodes' first attacked windows: no delay can be shorter."""


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    undefined = denominator == 0
    return np.where(undefined, np.nan, numerator / np.where(undefined, 1, denominator))


def sums(windows: Windows, alarm: np.ndarray) -> dict[str, np.ndarray]:
    """Per unit [U]: confusion counts, runs of false alarms that begin in it, attack-free seconds and those in alarm, detection."""

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(windows.unit, weights=values, minlength=windows.n_units)

    attacked = windows.attacked
    false = alarm & ~attacked
    # A false alarm goes on with the next window of the same stretch; a run counts in the unit in which it begins.
    run_goes_on = np.zeros(len(windows), dtype=bool)
    run_goes_on[1:] = false[:-1] & windows.follows[1:]
    # Episodes are the first units. Delay: from the first attacked window's start to the first alarmed one's end.
    found = np.zeros(windows.n_units)
    delay, floor = np.zeros(windows.n_units), np.zeros(windows.n_units)
    first = np.flatnonzero(attacked)[np.unique(windows.episode[attacked], return_index=True)[1]]
    begin = windows.t_start[first]
    floor[: windows.n_episodes] = windows.t_end[first] - begin
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
        "false_s": total(np.where(false, windows.duration, 0.0)),
        "episodes": (np.arange(windows.n_units) < windows.n_episodes).astype(float),
        "found": found,
        "delay": delay,
        "floor": floor,
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
        "alarm_seconds_per_hour": _ratio(s["false_s"] * 3600, s["free_s"]),
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
    auroc, pr_auc = np.full(replicates, np.nan), np.full(replicates, np.nan)
    hits, free = np.flatnonzero(windows.attacked), np.flatnonzero(~windows.attacked)
    if not len(hits) or not len(free):
        return {"auroc": auroc, "pr_auc": pr_auc}
    # Only the T distinct scores of attacked windows matter; an attack-free window counts from the highest that it reaches on.
    distinct, place = np.unique(-score[hits], return_inverse=True)
    reached = np.searchsorted(distinct, -score[free])
    equal = free[np.isin(-score[free], distinct)]
    pos, neg, tie = (
        by_unit(windows, rows, places, np.ones(len(rows)), len(distinct))
        for rows, places in (
            (hits, place),
            (free[reached < len(distinct)], reached[reached < len(distinct)]),
            (equal, np.searchsorted(distinct, -score[equal])),
        )
    )
    n_free = np.bincount(windows.unit[free], minlength=windows.n_units)
    step = max(1, CHUNK // len(distinct))  # replicates at a time, or all their curves would not fit
    for low in range(0, replicates, step):
        part = slice(low, low + step)
        w = weights[part].T  # [U, b]
        attacked = pos.T @ w  # [T, b], as all below
        tps, fps, ties = np.cumsum(attacked, axis=0), np.cumsum(neg.T @ w, axis=0), tie.T @ w
        p, n = tps[-1], n_free @ w
        # Mann-Whitney: the share of pairs in which the attacked window scores higher, ties as half.
        auroc[part] = _ratio((attacked * (n - fps + ties / 2)).sum(axis=0), p * n)
        # Average precision: precision at each distinct score, weighted by the attacked windows with that score.
        precision = tps / np.maximum(tps + fps, 1)
        pr_auc[part] = np.where(n == 0, np.nan, _ratio((attacked * precision).sum(axis=0), p))
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
    rates = at_rates(windows, score, weights)
    values = {**_of_alarms(sums(windows, alarm), weights), **_ranking(windows, score, weights), **rates}
    return {name: values[name] for name in METRICS}


def _of_alarms(by_unit: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    return _from_sums({k: np.einsum("bu,u->b", weights, v) for k, v in by_unit.items()})


def evaluate(windows: Windows, alarm: np.ndarray, score: np.ndarray) -> dict[str, float | int | None]:
    """The metrics (None where undefined) with `COUNTS`."""
    values = replicates(windows, alarm, score, np.ones((1, windows.n_units)))
    return {**{k: _or_none(float(v[0])) for k, v in values.items()}, **_counts(windows, alarm)}


def _counts(windows: Windows, alarm: np.ndarray) -> dict[str, float | int | None]:
    by_unit = sums(windows, alarm)
    return {
        "n_windows": len(windows),
        "n_attacked": int(windows.attacked.sum()),
        "n_episodes": windows.n_episodes,
        "n_false_alarms": int(by_unit["runs"].sum()),
        "attack_free_hours": float(by_unit["free_s"].sum() / 3600),
        "delay_floor_s": float(by_unit["floor"].sum() / windows.n_episodes) if windows.n_episodes else None,
    }


def _or_none(value: float) -> float | None:
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


def percentiles(values: np.ndarray) -> list[float] | None:
    """The 2.5 % and 97.5 % quantiles of replicates [B]; None if more than half of them are undefined."""
    defined = values[np.isfinite(values)]
    if 2 * len(defined) <= len(values):
        return None
    return [float(q) for q in np.quantile(defined, [0.025, 0.975])]
