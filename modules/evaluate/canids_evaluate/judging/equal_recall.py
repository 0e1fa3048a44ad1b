"""False alarms and delay of every method where it finds as much as the fusion does.

Two methods with thresholds of their own trade false alarms for recall at different points, so that neither is better. Here
each method's threshold is moved to where its recall by window is that of the fusion, the least above it; that is done anew in
every resample of the bootstrap, or the one window that decides on the threshold would seem certain. Such a threshold cannot be
known beforehand: what is compared is how well scores tell attacks from the rest, not what would be deployed.

Runs of false alarms are few for an alarm that never ends, so the share of attack-free windows alarmed stands beside them.
Delays are compared over the episodes that both find. Scores of hysteresis and CUSUM hold their states under the thresholds they
were chosen with, and CUSUM's end at its ceiling: moved thresholds are an approximation for these two.
"""

from typing import Any

import numpy as np

from canids_evaluate.judging.metrics import of_alarms, or_none, percentiles, sums
from canids_evaluate.judging.windows import Windows

COMPARED = ("false_alarms_per_hour", "fpr", "detection_delay_s")


def threshold_for(recall: float, attacked_scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The highest threshold that at least the share `recall` > 0 of the scores [N ≥ 1] of attacked windows exceeds.

    Scores that are equal are alarmed together, so more may be. Windows count with `weights` [N], if given.
    """
    order = np.argsort(-attacked_scores, kind="stable")
    share = np.cumsum(np.ones(len(order)) if weights is None else weights[order])
    place = int(np.searchsorted(share, recall * share[-1] - 1e-9))
    return float(np.nextafter(attacked_scores[order[min(place, len(order) - 1)]], -np.inf))


class _Comparison:
    """The fusion and one method on the same windows, with unit weights as in one resample."""

    def __init__(self, windows: Windows, score: np.ndarray, fusion: np.ndarray) -> None:
        self.windows, self.score, self.fusion = windows, score, fusion
        self.own = sums(windows, fusion)
        self.hits = windows.attacked & fusion

    def at(self, weights: np.ndarray) -> tuple[dict[str, float], dict[str, float], float]:
        """Metrics of the method, what the fusion has more, and the method's recall; NaN where undefined."""
        windows, counts = self.windows, weights[self.windows.unit]
        attacked = windows.attacked
        total = counts[attacked].sum()
        recall = counts[self.hits].sum() / total if total else 0.0
        if not recall:
            return dict.fromkeys(COMPARED, np.nan), dict.fromkeys(COMPARED, np.nan), np.nan
        alarm = self.score > threshold_for(recall, self.score[attacked], counts[attacked])
        found = sums(windows, alarm)
        theirs, ours = (of_alarms(s, weights[None]) for s in (found, self.own))
        both = weights * found["found"] * self.own["found"]
        later = (both * (self.own["delay"] - found["delay"])).sum() / both.sum() if both.any() else np.nan
        minus = {m: float(ours[m][0] - theirs[m][0]) for m in COMPARED} | {"detection_delay_s": float(later)}
        return {m: float(theirs[m][0]) for m in COMPARED}, minus, float(counts[attacked & alarm].sum() / total)


def at_equal_recall(
    windows: Windows, scores: dict[str, np.ndarray], fusion: np.ndarray, weights: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Method → its recall, its metrics of `COMPARED` at the fusion's recall, and the fusion minus it, with intervals.

    Args:
        scores: method → f64 [W].
        fusion: the fusion's alarms, bool [W].
        weights: f64 [B, U], the resamples.

    Empty where the fusion finds nothing, or nothing is to be found. Intervals need two episodes and two attack-free pieces.
    """
    attacked = windows.attacked
    if not (attacked & fusion).any() or attacked.all():
        return {}
    enough = min(windows.n_episodes, windows.n_units - windows.n_episodes) > 1
    found: dict[str, dict[str, Any]] = {}
    for method, score in scores.items():
        if method == "fusion" or not np.isfinite(score).all():
            continue
        compared = _Comparison(windows, score, fusion)
        values, minus, recall = compared.at(np.ones(windows.n_units))
        resampled = [compared.at(w)[1] for w in weights] if enough else []
        found[method] = {
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
    return found
