"""False alarms and delay of every method at the fusion's recall.

Two methods with thresholds of their own trade false alarms for recall at different points, so that neither is better. Here
each method's threshold is moved to where its recall by window is that of the fusion, the least above it. Every resample of the
bootstrap has a threshold of its own, or the one window that decides on the threshold would seem certain. Such a threshold cannot
be known beforehand: this compares how well scores separate attacks, not what would be deployed.

Runs of false alarms are few for an alarm that never ends, so the share of attack-free windows alarmed stands beside them.
Delays are compared over the episodes that both methods find. Scores of hysteresis and CUSUM hold their states under the thresholds they
were chosen with, and CUSUM's end at its ceiling: moved thresholds are an approximation for these two.
"""

from typing import Any

import numpy as np

from canids_evaluate.judging.metrics import of_alarms, or_none, percentiles, sums
from canids_evaluate.judging.windows import Windows

COMPARED = ("false_alarms_per_hour", "fpr", "detection_delay_s")


def threshold_for(recall: float, attacked_scores: np.ndarray, weights: np.ndarray) -> float:
    """The highest threshold that at least the share `recall` > 0 of the scores [N ≥ 1] of attacked windows exceeds.

    Scores that are equal are alarmed together, so more may be. Windows count with `weights` [N].
    """
    # Attacked windows by falling score; the first at which the alarmed weight reaches the share sets the threshold, just below it.
    order = np.argsort(-attacked_scores, kind="stable")
    share = np.cumsum(weights[order])
    place = int(np.searchsorted(share, recall * share[-1] - 1e-9))
    return float(np.nextafter(attacked_scores[order[min(place, len(order) - 1)]], -np.inf))


def _moved(
    windows: Windows, score: np.ndarray, fusion: np.ndarray, fusion_sums: dict[str, np.ndarray], weights: np.ndarray
) -> tuple[dict[str, float], dict[str, float], float]:
    """Metrics of a method with its threshold moved, those of the fusion minus them, and the method's recall; NaN where undefined.

    Args:
        score: of the method, f64 [W].
        fusion: the fusion's alarms, bool [W].
        fusion_sums: their `sums`.
        weights: how often each unit counts, f64 [U].
    """
    counts, attacked = weights[windows.unit], windows.attacked  # [W], how often each window is in the resample
    total = counts[attacked].sum()
    recall = counts[attacked & fusion].sum() / total if total else 0.0
    # A resample without an attack that the fusion finds has no recall to compare at.
    if not recall:
        return dict.fromkeys(COMPARED, np.nan), dict.fromkeys(COMPARED, np.nan), np.nan
    alarm = score > threshold_for(recall, score[attacked], counts[attacked])
    method_sums = sums(windows, alarm)
    theirs, ours = (of_alarms(s, weights[None]) for s in (method_sums, fusion_sums))
    # Delays of episodes that one of them misses are undefined, so their difference is over those that both find.
    both = weights * method_sums["found"] * fusion_sums["found"]
    later = fusion_sums["delay"] - method_sums["delay"]
    mean_later = (both * later).sum() / both.sum() if both.any() else np.nan
    minus = {m: float(ours[m][0] - theirs[m][0]) for m in COMPARED} | {"detection_delay_s": float(mean_later)}
    return {m: float(theirs[m][0]) for m in COMPARED}, minus, float(counts[attacked & alarm].sum() / total)


def at_equal_recall(
    windows: Windows, scores: dict[str, np.ndarray], fusion: np.ndarray, weights: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Method → its recall, its metrics of `COMPARED` at the fusion's recall, and the fusion minus it, with intervals.

    Args:
        scores: method → f64 [W].
        fusion: the fusion's alarms, bool [W].
        weights: f64 [B, U], the resamples.

    Empty where the fusion finds nothing, or there is no attack. Intervals need two episodes and two attack-free pieces.
    """
    attacked = windows.attacked
    if not (attacked & fusion).any() or attacked.all():
        return {}
    fusion_sums = sums(windows, fusion)
    enough = min(windows.n_episodes, windows.n_units - windows.n_episodes) > 1
    results: dict[str, dict[str, Any]] = {}
    for method, score in scores.items():
        if method == "fusion" or not np.isfinite(score).all():
            continue
        # Unit weights of 1 give the metric itself, those of a resample a replicate.
        values, minus, recall = _moved(windows, score, fusion, fusion_sums, np.ones(windows.n_units))
        resampled = [_moved(windows, score, fusion, fusion_sums, w)[1] for w in weights] if enough else []
        results[method] = {
            "recall": recall,
            **{m: or_none(v) for m, v in values.items()},
            "fusion_minus": {
                m: {
                    "difference": or_none(minus[m]),
                    "interval": percentiles(np.array([r[m] for r in resampled])) if enough else None,
                }
                for m in COMPARED
            },
        }
    return results
