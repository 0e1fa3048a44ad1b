"""How often each arbitration ID is sent over time, and its picture with intervals of attacks on it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_preprocess.formats.base import Batch
from canids_shared.errors import CanidsError
from canids_shared.files import written_whole

_MOST_BINS = 512
_FIRST_BIN = 0.02
_WIDEST = 40
"""Bins on either side over which a slow ID's rate is a mean, at most."""
_MOST_IDS = 48
"""Rows of a picture; of more IDs those whose rate changes most."""


@dataclass(frozen=True)
class IdRates:
    """Frames of each arbitration ID over time.

    Attributes:
        first, last: times of the first and the last frame, seconds.
        width: of a bin of time, seconds.
        ids: int64 [I], ascending; extended ones above 2^32.
        counts: int64 [I, T], frames.
    """

    first: float
    last: float
    width: float
    ids: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> "IdRates":
        """Rates of the frames of a capture, in constant memory: bins double in width as the capture goes on.

        Raises `CanidsError` as reading does.
        """
        width, first, last = _FIRST_BIN, None, -np.inf
        keys = ["bin", "id"]
        table = pl.DataFrame(schema={"bin": pl.Int64, "id": pl.Int64, "frames": pl.Int64})
        for batch in batches:
            frames = batch.frames
            if not len(frames):
                continue
            first = float(frames["timestamp"][0]) if first is None else first
            last = max(last, float(frames["timestamp"].to_numpy().max()))
            bins = ((pl.col("timestamp") - first) / width).floor().clip(0).cast(pl.Int64)
            ids = pl.col("can_id").cast(pl.Int64) + pl.col("extended").cast(pl.Int64) * (1 << 32)
            part = frames.select(bin=bins, id=ids).group_by(keys).agg(frames=pl.len().cast(pl.Int64))
            table = pl.concat([table, part])
            while last - first >= _MOST_BINS * width:
                width *= 2
                table = table.with_columns(pl.col("bin") // 2)
            table = table.group_by(keys).agg(pl.col("frames").sum())
        if first is None:
            return cls(0.0, 0.0, width, np.zeros(0, np.int64), np.zeros((0, 1), np.int64))
        known, row = np.unique(table["id"].to_numpy(), return_inverse=True)
        counts = np.zeros((len(known), int((last - first) // width) + 1), np.int64)
        counts[row, np.minimum(table["bin"].to_numpy(), counts.shape[1] - 1)] = table["frames"].to_numpy()
        return cls(first, last, width, known, counts)

    def changes(self) -> np.ndarray:
        """Rates against each ID's usual ones, float64 [I, T]: log2, ±1 being half or twice as many frames.

        Those of a slow ID are means of as many bins as usually hold four frames: single frames say nothing. An ID that is usually
        not sent at all shows where it is.
        """
        out = np.zeros(self.counts.shape)
        for row, counts in enumerate(self.counts):
            half = 0 if counts.mean() >= 4 else 1 + min(int(2 / counts.mean()), _WIDEST)
            smooth = self._means(counts, half)
            if not np.median(smooth):
                smooth, half = self._means(counts, 0), 0
            # A frame in as many bins, so that an ID which is hardly ever sent does not look like a change.
            least = 1 / (2 * half + 1)
            out[row] = np.log2((smooth + least) / (np.median(smooth) + least))
        return out

    def _means(self, counts: np.ndarray, half: int) -> np.ndarray:
        """Frames a bin, as means over `half` bins on either side; the last bin counts for as long as it is."""
        bins = np.arange(len(counts))
        borders = np.minimum(np.arange(len(counts) + 1) * self.width, max(self.last - self.first, 1e-9))
        begin, end = np.maximum(bins - half, 0), np.minimum(bins + half + 1, len(counts))
        total = np.concatenate([[0], np.cumsum(counts)])
        # No bin counts for less than a tenth: the last one may hold a single frame.
        share = np.maximum(borders[end] - borders[begin], self.width / 10) / self.width
        return np.asarray((total[end] - total[begin]) / share)

    def per_second(self) -> np.ndarray:
        """Frames a second of all IDs, float64 [T]."""
        return self._means(self.counts.sum(axis=0), 0) / self.width


def picture(path: Path, title: str, rates: IdRates, attacked: list[list[Any]], attack: str | None) -> None:
    """Draw frames a second and the change of each ID's rate over time, with intervals on them, as PNG or SVG by the suffix.

    Raises `CanidsError` if the file cannot be written, or its suffix names no kind of picture.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (half a second, for what few drafts need)

    changes = rates.changes()
    shown = np.sort(np.argsort(-np.square(changes).mean(axis=1), kind="stable")[:_MOST_IDS])
    edges = np.arange(rates.counts.shape[1] + 1) * rates.width
    figure = Figure(figsize=(12, 2.5 + 0.16 * max(len(shown), 8)), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=[1, 0.4 + 0.1 * max(len(shown), 8)])
    above.stairs(rates.per_second(), edges, color="0.2", linewidth=0.8)
    above.set_ylabel("frames/s")
    left_out = f", {len(shown)} of {len(rates.ids)} IDs, those that change most" if len(shown) < len(rates.ids) else ""
    above.set_title(
        f"{title}: {len(attacked)} intervals of attacks{left_out}", loc="left", fontsize=10, parse_math=False
    )
    mesh = below.pcolormesh(
        edges, np.arange(len(shown) + 1), changes[shown], cmap="RdBu_r", vmin=-3, vmax=3, rasterized=True
    )
    names = [f"{i - (1 << 32):08X}" if i >= 1 << 32 else f"{i:03X}" for i in rates.ids[shown].tolist()]
    below.set_yticks(np.arange(len(shown)) + 0.5, names, fontsize=6, family="monospace")
    below.invert_yaxis()
    below.set_ylabel("arbitration ID")
    below.set_xlabel("seconds since the first frame")
    figure.colorbar(mesh, ax=below, label="rate against the ID's usual one (log2)", shrink=0.8, pad=0.01)
    kinds = list(dict.fromkeys(str(interval[2]) if interval[2:] else attack or "attack" for interval in attacked))
    for start, end, *kind in attacked:
        colour = f"C{1 + kinds.index(str(kind[0]) if kind else attack or 'attack')}"
        above.axvspan(start, end, color=colour, alpha=0.3, linewidth=0)
        for axes in (above, below):
            for edge in (start, end):
                axes.axvline(edge, color=colour, linewidth=0.9)
    for number, named in enumerate(kinds, start=1):
        above.axvspan(0, 0, color=f"C{number}", alpha=0.5, label=named)
    if kinds:
        above.legend(loc="upper right", fontsize=8, ncols=min(len(kinds), 6))
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in ("png", "svg"):
        raise CanidsError(f"{path}: a picture is .png or .svg")
    with written_whole(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=110)
