"""Recall at given rates of false alarms, whatever the threshold that was deployed.

The threshold is lowered from above until the false alarms of the scenario's own attack-free traffic are more than the rate
allows; recall just before that counts. Two things are bounded, for a lowered threshold joins neighbouring alarms, and one
alarm that never ends would be few: runs of false alarms to `rate` an hour, and seconds in false alarm to `rate` minutes an hour
(a minute of attention an alarm). Such a threshold cannot be known beforehand: like PR-AUC this says how well scores separate.
In less attack-free time than an hour divided by the rate, no false alarm at all is allowed.
"""

from typing import TYPE_CHECKING

import numpy as np

from canids_evaluate.judging.windows import Windows

if TYPE_CHECKING:
    from scipy import sparse

RATES = (1, 10)
"""False alarms an hour."""
ATTENTION_S = 60
"""Seconds that one false alarm may last on average."""
AT_RATES = tuple(f"{what}_at_{rate}_per_hour" for what in ("recall", "episodes_found") for rate in RATES)
CHUNK = 1 << 22
"""Replicates × distinct scores in memory at a time."""
_FIRST = 256
"""Distinct scores that are looked at first: a low rate of false alarms is exceeded soon."""


def by_unit(
    windows: Windows, rows: np.ndarray, places: np.ndarray, values: np.ndarray, width: int
) -> "sparse.csr_array":
    """Sums of values [R] of the windows `rows` [R] by their unit and by `places` [R]: f64 [U, width]."""
    from scipy import sparse  # noqa: PLC0415 - a tenth of a second, which tables and reports do not need

    return sparse.csr_array((values, (windows.unit[rows], places)), shape=(windows.n_units, width))


def at_rates(windows: Windows, score: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each of `AT_RATES`, f64 [B], for each row of unit weights [B, U]; scores f64 [W]. NaN without attacked or attack-free time."""
    results = {name: np.full(len(weights), np.nan) for name in AT_RATES}
    attacked = windows.attacked
    if not 0 < attacked.sum() < len(windows):
        return results
    free, hits = np.flatnonzero(~attacked), np.flatnonzero(attacked)
    # Distinct scores of attack-free windows in falling order, T: `place` is that of such a window, for an attacked one how many reach it.
    distinct, place_free = np.unique(-score[free], return_inverse=True)
    n, place = len(distinct), np.searchsorted(distinct, -score, side="right")
    place[free] = place_free
    # A run begins at a window from its own score on, until the window before it is alarmed too.
    joined = np.flatnonzero(windows.follows[1:] & ~attacked[1:] & ~attacked[:-1]) + 1
    begun = by_unit(windows, free, place_free, np.ones(len(free)), n)
    ended = by_unit(windows, joined, np.maximum(place[joined], place[joined - 1]), np.ones(len(joined)), n)
    runs, seconds = (begun - ended).tocsc(), by_unit(windows, free, place_free, windows.duration[free], n).tocsc()
    attacks = by_unit(windows, hits, place[hits], np.ones(len(hits)), n + 1).tocsc()
    found_from = np.full(windows.n_episodes, n)
    np.minimum.at(found_from, windows.episode[hits], place[hits])
    for low in range(0, len(weights), max(1, CHUNK // n)):
        part = slice(low, low + max(1, CHUNK // n))
        w = weights[part].T  # [U, b]
        hours = np.asarray(seconds.sum(axis=1)).ravel() @ w / 3600
        episodes, n_attacked = w[: windows.n_episodes], np.asarray(attacks.sum(axis=1)).ravel() @ w
        for rate in RATES:
            width = min(_FIRST, n)
            while True:
                n_runs, in_alarm = (np.cumsum(m[:, :width].T @ w, axis=0) for m in (runs, seconds))  # [width, b]
                # The sums keep a rate that is met exactly from being missed by rounding.
                over = (n_runs > rate * hours + 1e-9) | (in_alarm > rate * hours * ATTENTION_S + 1e-9)
                if width == n or over.any(axis=0).all():
                    break
                width = min(4 * width, n)
            # The first score that is too much: attacked windows above it are found.
            first = np.where(over.any(axis=0), over.argmax(axis=0), n)
            found = np.cumsum(attacks[:, : first.max() + 1].T @ w, axis=0)[first, np.arange(len(first))]
            seen = (episodes * (found_from[:, None] <= first)).sum(axis=0)
            for name, share, whole in (
                ("recall", found, n_attacked),
                ("episodes_found", seen, episodes.sum(axis=0)),
            ):
                defined = (whole > 0) & (hours > 0)
                values = np.where(defined, share / np.where(defined, whole, 1), np.nan)
                results[f"{name}_at_{rate}_per_hour"][part] = values
    return results
