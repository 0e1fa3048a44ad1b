"""Points of the figures, a few hundred numbers: ROC and precision-recall curves, and scores over time."""

from typing import Any

import numpy as np

from canids_evaluate.judging.metrics import ranking_counts
from canids_evaluate.judging.windows import Windows

POINTS = 200
"""Of a curve, at most."""
BINS = 300
"""Of a timeline, at most."""
AROUND = 20
"""Windows shown before and after the beginning, or the end, of an episode."""
WEIGHT_STEP = 0.05
"""Of two detectors, action n of the action set `alpha` weighs the first one with n times this (README of train_drl)."""
FPR_FLOOR = 1e-4
"""Where the logarithmic axis of the ROC curve begins."""


def _thin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of at most `POINTS` points, evenly spread along the curve (both axes scaled to 0…1), ends included."""
    # Length of the curve up to each point, so that steep parts keep as many points as flat ones.
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    return np.unique(np.r_[0, np.searchsorted(length, np.linspace(0, length[-1], POINTS - 1))])


def _rounded(values: np.ndarray) -> list[float]:
    return [float(v) for v in np.round(values, 5)]


def curves(attacked: np.ndarray, score: np.ndarray) -> dict[str, dict[str, list[float]]] | None:
    """`{"roc": {"fpr", "tpr"}, "pr": {"recall", "precision"}}`; None unless both classes are there."""
    if not 0 < attacked.sum() < len(attacked):
        return None
    _, tps, fps = ranking_counts(attacked, score)
    recall, precision = tps / tps[-1], tps / (tps + fps)
    pr = _thin(recall, precision)
    # The ROC curve begins where nothing is alarmed; its points are spread along the logarithmic axis that it is drawn on.
    tpr, fpr = np.r_[0, recall], np.r_[0, fps / fps[-1]]
    roc = _thin(np.log10(np.maximum(fpr, FPR_FLOOR)) / -np.log10(FPR_FLOOR), tpr)
    return {
        "roc": {"fpr": _rounded(fpr[roc]), "tpr": _rounded(tpr[roc])},
        "pr": {"recall": _rounded(recall[pr]), "precision": _rounded(precision[pr])},
    }


def timelines(windows: Windows, scores: dict[str, np.ndarray], alarms: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Scores over time in the first capture of each kind of attack.

    At most `BINS` points each: the mean score, and whether any window was attacked or alarmed, of the windows that fall
    into one bin of time.
    """
    chosen: dict[str, str] = {}
    for attack, capture in zip(windows.attack[windows.attacked], windows.capture[windows.attacked], strict=True):
        chosen.setdefault(str(attack), str(capture))
    out = []
    for attack, capture in sorted(chosen.items()):
        # Seconds from the capture's first window, and the capture's length.
        rows = np.flatnonzero(windows.capture == capture)
        time = windows.t_start[rows] - windows.t_start[rows[0]]
        span = max(float(windows.t_end[rows].max() - windows.t_start[rows[0]]), 1e-9)
        # The first window of each bin that holds any; `reduceat` then joins the windows up to the next start.
        starts = np.unique(np.floor(time / span * BINS), return_index=True)[1]
        sizes = np.diff(np.append(starts, len(rows)))
        attacked = np.maximum.reduceat(windows.attacked[rows], starts)
        out.append(
            {
                "capture": capture,
                "attack": attack,
                "t": _rounded(time[starts]),
                "end": round(span, 5),
                "attacked": [int(v) for v in attacked],
                "scores": {
                    k: _rounded(np.add.reduceat(v[rows].astype(float), starts) / sizes) for k, v in scores.items()
                },
                "alarms": {k: [int(a) for a in np.maximum.reduceat(v[rows], starts)] for k, v in alarms.items()},
            }
        )
    return out


def closeups(windows: Windows, series: dict[str, np.ndarray], alarms: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Close-ups of the policy around the beginning and the end of the first episode of each kind of attack, window by window.

    Args:
        series: scores and the policy's values, f32 or f64 [W] each.
        alarms: method → bool [W].
    """
    out: list[dict[str, Any]] = []
    first: dict[str, int] = {}
    for row in np.flatnonzero(windows.attacked):
        first.setdefault(str(windows.attack[row]), int(windows.episode[row]))
    for attack, episode in sorted(first.items()):
        rows = np.flatnonzero(windows.episode == episode)
        same = np.flatnonzero(windows.capture == windows.capture[rows[0]])
        for part, place in (("begin", rows[0]), ("end", rows[-1])):
            # Windows of the capture around the episode's first or last one.
            near = same[(same >= place - AROUND) & (same <= place + AROUND)]
            out.append(
                {
                    "attack": attack,
                    "part": part,
                    "capture": str(windows.capture[place]),
                    "t": _rounded(windows.t_start[near] - windows.t_start[place]),
                    "end": round(float(windows.t_end[near[-1]] - windows.t_start[place]), 5),
                    "attacked": [int(v) for v in windows.attacked[near]],
                    "series": {k: _rounded(windows.take(v)[near]) for k, v in series.items()},
                    "alarms": {m: [int(a) for a in windows.take(v)[near]] for m, v in alarms.items()},
                }
            )
    return out
