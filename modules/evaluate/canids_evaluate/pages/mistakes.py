"""What a method got wrong, as stretches of time to look at: runs of missed windows and of false alarms."""

import numpy as np
import polars as pl

from canids_evaluate.judging.windows import windows_of


def mistakes(keys: pl.DataFrame, alarm: np.ndarray, episode_gap: float = 1.0) -> pl.DataFrame:
    """Runs of consecutive windows with the same mistake, the longest first.

    Args:
        keys: key columns of W windows (`canids_shared.contracts.tables.KEYS`).
        alarm: bool [W].

    Returns:
        A row a run: `capture`, `kind` (missed, false alarm), `attack`, `t_start` and `t_end` (seconds from the start of
        the capture), `windows`.
    """
    windows = windows_of(keys, episode_gap, np.inf)
    alarmed = windows.take(alarm)
    rows = np.flatnonzero(alarmed != windows.attacked)
    begins = np.ones(len(rows), dtype=bool)
    begins[1:] = (
        (np.diff(rows) > 1)
        | ~windows.follows[rows[1:]]
        | (windows.attacked[rows[1:]] != windows.attacked[rows[:-1]])
        | (windows.attack[rows[1:]] != windows.attack[rows[:-1]])
    )
    first = rows[begins]
    length = np.diff(np.append(np.flatnonzero(begins), len(rows)))
    captures, places = np.unique(windows.capture, return_index=True)
    starts = dict(zip(captures.tolist(), windows.t_start[places].tolist(), strict=True))
    origin = np.array([starts[c] for c in windows.capture[first].tolist()])
    frame = pl.DataFrame(
        {
            "capture": windows.capture[first].tolist(),
            "kind": ["missed" if a else "false alarm" for a in windows.attacked[first]],
            "attack": windows.attack[first].tolist(),
            "t_start": windows.t_start[first] - origin,
            "t_end": windows.t_end[first + length - 1] - origin,
            "windows": length,
        },
        schema={
            "capture": pl.String,
            "kind": pl.String,
            "attack": pl.String,
            "t_start": pl.Float64,
            "t_end": pl.Float64,
            "windows": pl.Int64,
        },
    )
    return frame.sort("windows", "capture", "t_start", descending=[True, False, False])
