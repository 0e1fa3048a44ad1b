"""Operating points, chosen on `calibrate` and nowhere else; an alarm is a score above the threshold."""

from typing import TypedDict

import numpy as np

from canids_evaluate.judging.metrics import ranking_counts


class Thresholds(TypedDict):
    """`budget`: keeps the false-alarm budget (None: the method has alarms of its own); `f1`: F1-optimal."""

    budget: float | None
    f1: float | None


def within_budget(attack_free: np.ndarray, budget: float) -> float:
    """Smallest threshold that at most the share `budget` (0 ≤ budget < 1) of the attack-free scores [N ≥ 1] exceeds.

    Scores equal to it raise no alarm, so ties can only make the false alarms fewer.
    """
    # The sum keeps a product such as .005 · 400 = 1.9999… from losing the window that the budget has.
    allowed = int(np.floor(budget * len(attack_free) + 1e-9))
    return float(np.sort(attack_free)[::-1][allowed])


def f1_optimal(attacked: np.ndarray, score: np.ndarray) -> float | None:
    """Threshold with the best F1, midway between two scores; the highest of equals, None without attacked windows."""
    if not attacked.any():
        return None
    values, tps, fps = ranking_counts(attacked, score)  # [T] each, distinct scores in falling order
    # F1 = 2·TP / (2·TP + FP + FN), and TP + FN are the attacked windows.
    best = int(np.argmax(2 * tps / (tps + fps + attacked.sum())))
    below = values[best + 1] if best + 1 < len(values) else values[best] - 1
    # Midway, unless the two scores are neighbours in floating point and the midpoint is the upper one.
    middle = float((values[best] + below) / 2)
    return middle if middle < values[best] else float(below)


def is_alarm(action: np.ndarray | None, alarm: np.ndarray | None) -> bool:
    """Whether actions i16 [N] are the alarms bool [N] themselves: 0 silence, 1 alarm, and both occur."""
    if action is None or alarm is None or alarm.all() or not alarm.any():
        return False
    return bool((action == alarm).all())


def implied_threshold(alarm: np.ndarray, score: np.ndarray) -> tuple[float, float] | None:
    """The two scores between which the threshold of a method with alarms of its own lies; alarms bool [N], scores [N].

    None if no threshold on the score gives these alarms.
    """
    low = float(score[~alarm].max(initial=-np.inf))
    high = float(score[alarm].min(initial=np.inf))
    return (low, high) if low <= high else None
