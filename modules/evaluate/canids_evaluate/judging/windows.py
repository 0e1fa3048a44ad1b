"""Windows of one scenario for the metrics: labels, attack episodes, and the units of the bootstrap; and runs of mistakes."""

import re
from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Windows:
    """W labelled windows, sorted by capture and time; the order of the captures in the table does not matter.

    An attack episode is a maximal run of attacked windows of one capture and one kind of attack whose gaps (end of one
    attacked window to the start of the next) are at most `episode_gap` seconds.

    A unit of the bootstrap is a whole episode, or a piece of at most `block_s` seconds of an attack-free stretch:
    neighbouring windows resemble each other, so single windows would make the intervals too narrow.

    Attributes:
        row: i64 [W], row in the table that the windows came from (unlabelled rows are left out).
        capture, attack: str [W].
        attacked: bool [W].
        t_start, t_end: f64 [W], seconds.
        duration: f64 [W], seconds up to the start of the window that follows, so that overlapping windows count their
            time once; the window's own length where none follows.
        follows: bool [W], whether the window comes right after the one in the row above.
        episode: i64 [W], number of its episode, -1 for attack-free windows.
        unit: i64 [W]; episodes first, then the attack-free pieces.
        n_episodes, n_units: how many there are.
    """

    row: np.ndarray
    capture: np.ndarray
    attack: np.ndarray
    attacked: np.ndarray
    t_start: np.ndarray
    t_end: np.ndarray
    duration: np.ndarray
    follows: np.ndarray
    episode: np.ndarray
    unit: np.ndarray
    n_episodes: int
    n_units: int

    def __len__(self) -> int:
        return len(self.row)

    def take(self, values: np.ndarray) -> np.ndarray:
        """The values of all rows of the table (scores, alarms) in the order of these windows."""
        return np.asarray(values[self.row])


def windows_of(keys: pl.DataFrame, episode_gap: float, block_s: float) -> Windows:
    """Windows from the key columns of a table (`canids_shared.contracts.tables.KEYS`)."""
    labelled = keys.with_row_index("row").filter(pl.col("label").is_not_null())
    frame = labelled.sort("capture", "t_start", maintain_order=True)
    capture, attack = (np.array(frame[c].to_list(), dtype=str) for c in ("capture", "attack"))
    attacked = frame["label"].to_numpy() == 1
    number, t_start, t_end = (frame[c].to_numpy() for c in ("window", "t_start", "t_end"))
    row = frame["row"].to_numpy().astype(np.int64)

    follows = np.zeros(len(row), dtype=bool)
    # Window numbers begin at 0 in each block of a training capture, so a block's first window follows nothing.
    follows[1:] = (capture[1:] == capture[:-1]) & (number[1:] == number[:-1] + 1)
    duration = t_end - t_start
    duration[:-1] = np.where(follows[1:], t_start[1:] - t_start[:-1], duration[:-1])

    # Episodes: an attacked window begins one unless it is close behind the last one of the same capture and attack.
    episode = np.full(len(row), -1)
    hit = np.flatnonzero(attacked)
    begins = np.ones(len(hit), dtype=bool)
    last, this = hit[:-1], hit[1:]
    begins[1:] = (
        (capture[this] != capture[last]) | (attack[this] != attack[last]) | (t_start[this] - t_end[last] > episode_gap)
    )
    episode[hit] = np.cumsum(begins) - 1
    n_episodes = int(begins.sum())

    # Attack-free stretches end at an attacked window or a gap; each is cut into pieces of `block_s` seconds.
    free = np.flatnonzero(~attacked)
    breaks = np.ones(len(free), dtype=bool)
    breaks[1:] = ~follows[free[1:]] | (np.diff(free) > 1)
    stretch_start = t_start[free][breaks][np.cumsum(breaks) - 1] if len(free) else np.zeros(0)
    block = np.floor((t_start[free] - stretch_start) / block_s)
    cuts = breaks.copy()
    cuts[1:] |= block[1:] != block[:-1]
    unit = episode.copy()
    unit[free] = n_episodes + np.cumsum(cuts) - 1
    return Windows(
        row=row,
        capture=capture,
        attack=attack,
        attacked=attacked,
        t_start=t_start,
        t_end=t_end,
        duration=duration,
        follows=follows,
        episode=episode,
        unit=unit,
        n_episodes=n_episodes,
        n_units=n_episodes + int(cuts.sum()),
    )


def of_own_blocks(keys: pl.DataFrame, captures: list[str]) -> np.ndarray:
    """Which windows of a split of the training captures are judged in place of a test scenario, bool [W].

    Those of the named captures, so none of auxiliary ones; and none of a restart, which repeats windows of its block.
    """
    # Restarts come behind the blocks of their capture, and begin before the last of these ends.
    back = (pl.col("t_start") < pl.col("t_start").shift()).fill_null(value=False)
    # The buses of a log are captures called after it: `drive.can0`.
    names = "|".join(map(re.escape, captures)) or "(?!)"
    own = keys["capture"].to_list()
    named = pl.Series([re.fullmatch(rf"({names})(\..+)?", name) is not None for name in own], dtype=pl.Boolean)
    return keys.select(pl.lit(named) & ~back.cum_max().over("capture")).to_series().to_numpy()


def mistakes(keys: pl.DataFrame, alarm: np.ndarray) -> pl.DataFrame:
    """Runs of consecutive windows with the same mistake, the longest first.

    Args:
        keys: key columns of W windows (`canids_shared.contracts.tables.KEYS`).
        alarm: bool [W].

    Returns:
        A row per run: `capture`, `kind` (missed, false alarm), `attack`, `t_start` and `t_end` (seconds from the start of
        the capture), `windows`.
    """
    windows = windows_of(keys, 0.0, np.inf)
    names = ("capture", "attack", "attacked", "t_start", "t_end", "follows")
    frame = pl.DataFrame({name: getattr(windows, name) for name in names}).with_columns(alarm=windows.take(alarm))
    # A run ends where the windows do, and where alarm, label or attack change.
    outcome = pl.struct("alarm", "attacked", "attack")
    run = (~pl.col("follows") | (outcome != outcome.shift())).cum_sum()
    origin = pl.col("t_start").first().over("capture")
    return (
        frame.with_columns(run=run, t_start=pl.col("t_start") - origin, t_end=pl.col("t_end") - origin)
        .filter(pl.col("alarm") != pl.col("attacked"))
        .group_by("run", maintain_order=True)
        .agg(
            pl.first("capture"),
            pl.when(pl.first("attacked")).then(pl.lit("missed")).otherwise(pl.lit("false alarm")).alias("kind"),
            pl.first("attack", "t_start"),
            pl.last("t_end"),
            pl.len().cast(pl.Int64).alias("windows"),
        )
        .drop("run")
        .sort("windows", "capture", "t_start", descending=[True, False, False])
    )
