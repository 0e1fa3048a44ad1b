"""False alarms and delay of every method where it finds as much as the fusion does.

Two methods with thresholds of their own trade false alarms for recall at different points, so that neither is better. Here
each method's threshold is moved to where its recall by window is that of the fusion, the least above it; what is compared then
is false alarms an hour and the delay over the episodes found, resample by resample (see `paired`).
"""

from typing import Any

import numpy as np

from canids_evaluate.metrics import of_alarms, percentiles
from canids_evaluate.windows import Windows

COMPARED = ("false_alarms_per_hour", "detection_delay_s", "episodes_found")


def threshold_for(recall: float, attacked_scores: np.ndarray) -> float:
    """The highest threshold that at least the share `recall` > 0 of the scores [N ≥ 1] of attacked windows exceeds.

    Scores that are equal are alarmed together, so more may be.
    """
    needed = int(np.ceil(recall * len(attacked_scores) - 1e-9))
    return float(np.nextafter(np.sort(attacked_scores)[len(attacked_scores) - needed], -np.inf))


def at_equal_recall(
    windows: Windows, scores: dict[str, np.ndarray], fusion: np.ndarray, weights: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Method → its metrics of `COMPARED` at the fusion's recall, and the fusion minus it, with intervals.

    Args:
        scores: method → f64 [W].
        fusion: the fusion's alarms, bool [W].
        weights: f64 [B, U], the resamples.

    Empty where the fusion finds nothing, or nothing is to be found.
    """
    attacked = windows.attacked
    if not (attacked & fusion).any() or attacked.all():
        return {}
    recall = float((attacked & fusion).sum() / attacked.sum())
    once = np.ones((1, windows.n_units))

    def judged(alarm: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        one, many = (of_alarms(windows, alarm, w) for w in (once, weights))
        return {m: float(one[m][0]) for m in COMPARED}, {m: many[m] for m in COMPARED}

    own, own_replicates = judged(fusion)
    found: dict[str, dict[str, Any]] = {}
    for method, score in scores.items():
        if method == "fusion" or not np.isfinite(score).all():
            continue
        alarm = score > threshold_for(recall, score[attacked])
        theirs, their_replicates = judged(alarm)
        found[method] = {
            "recall": float((attacked & alarm).sum() / attacked.sum()),
            **{m: _or_none(v) for m, v in theirs.items()},
            "fusion_minus": {
                m: {
                    "difference": _or_none(own[m] - theirs[m]),
                    "interval": percentiles(own_replicates[m] - their_replicates[m]),
                }
                for m in COMPARED
            },
        }
    return found


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
