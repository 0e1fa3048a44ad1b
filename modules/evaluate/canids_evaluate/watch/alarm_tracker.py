"""Alarms as they begin and end, window by window: the one definition, of a finished capture and of a bus that is followed.

An alarm is a run of alarmed windows of one capture whose gaps are at most `gap` seconds.
"""

from typing import Any

import numpy as np
import polars as pl

from canids_evaluate.watch.attribution import Behind, Nodes, Suspect, name_of

DECIDED = ("capture", "t_start", "t_end", "label", "vgae_score", "gat_score", "fusion_score", "alarm")
"""What `Watch.see` looks at of a window, of the columns of `decisions/1`."""
_IDS = pl.Struct(
    {
        "can_id": pl.String,
        "frames": pl.Int64,
        "frames_per_s": pl.Float64,
        "usual_frames_per_s": pl.Float64,
        "interval": pl.Float64,
        "novel_bits": pl.Float64,
        "deviation": pl.Float64,
        "what": pl.String,
    }
)
SCHEMA: dict[str, Any] = {
    "capture": pl.String,
    **dict.fromkeys(("start", "end", "after_s", "duration_s"), pl.Float64),
    "windows": pl.Int64,
    **dict.fromkeys(("fusion_score", "gat_score", "vgae_score", "attacked"), pl.Float64),
    "new_ids": pl.Int64,
    "new_frames_per_s": pl.Float64,
    "ids": pl.List(_IDS),
}
"""Columns of `alarms.parquet`; `attacked` is the share of the labelled windows that are, null without labels; `new_ids` are
arbitration IDs that the capture did not have before the alarm."""


class Watch:
    """The alarms of one capture; what it keeps does not grow with the number of windows."""

    def __init__(self, gap: float, most: int) -> None:
        """`gap`: longest pause (s) within an alarm; `most`: IDs named for each, at most."""
        self._gap, self._most = gap, most
        self._behind = Behind()
        self._first: float | None = None
        self._alarm: dict[str, Any] | None = None
        self._labels: list[int] = [0, 0]  # labelled windows of the alarm, attacked ones

    def see(self, decided: dict[str, Any], nodes: Nodes) -> list[tuple[dict[str, Any], bool]]:
        """The next window: alarms (`SCHEMA`) that it ends (True) or begins (False); one that begins is told as far as it goes."""
        self._first = decided["t_start"] if self._first is None else self._first
        told = []
        if self._alarm and decided["t_start"] - self._alarm["end"] > self._gap:
            told += [(alarm, True) for alarm in self.end()]
        if not decided["alarm"]:
            self._behind.quiet(nodes, during=self._alarm is not None)
            return told
        self._behind.alarmed(nodes)
        begins = self._alarm is None
        self._count(decided)
        if begins:
            told.append((self._told(), False))
        return told

    def end(self) -> list[dict[str, Any]]:
        """End the alarm that is on, if there is one, since no window is going to prolong it."""
        if self._alarm is None:
            return []
        told = self._told()
        self._behind.clear()
        self._alarm = None
        return [told]

    def _count(self, decided: dict[str, Any]) -> None:
        scores = {name: float(decided[name]) for name in ("fusion_score", "gat_score", "vgae_score")}
        if self._alarm is None:
            self._labels = [0, 0]
            self._alarm = {"capture": decided["capture"], "start": decided["t_start"], "windows": 0, **scores}
        self._alarm |= {name: max(score, self._alarm[name]) for name, score in scores.items()}
        self._alarm["windows"] += 1
        self._alarm["end"] = decided["t_end"]
        if decided["label"] is not None:
            self._labels[0] += 1
            self._labels[1] += decided["label"]

    def _told(self) -> dict[str, Any]:
        alarm = self._alarm
        assert alarm is not None
        assert self._first is not None
        known, attacked = self._labels
        new_ids, new_rate = self._behind.newcomers()
        return {
            **{name: alarm[name] for name in ("capture", "start", "end")},
            "after_s": alarm["start"] - self._first,
            "duration_s": alarm["end"] - alarm["start"],
            **{name: alarm[name] for name in ("windows", "fusion_score", "gat_score", "vgae_score")},
            "attacked": attacked / known if known else None,
            "new_ids": new_ids,
            "new_frames_per_s": new_rate,
            "ids": [_record(s) for s in self._behind.suspects(self._most)],
        }


def _record(suspect: Suspect) -> dict[str, Any]:
    deviation = suspect.deviation if np.isfinite(suspect.deviation) else None
    return {**vars(suspect), "can_id": name_of(suspect.can_id), "deviation": deviation}


def flat(alarm: dict[str, Any]) -> dict[str, Any]:
    """An alarm as a row of `alarms.csv`: its IDs as one text."""
    return {**alarm, "ids": "; ".join(f"{i['can_id']} ({i['what']})" for i in alarm["ids"])}


def ids_in_words(alarm: dict[str, Any]) -> str:
    """The IDs behind an alarm, and what is unusual about them."""
    ids = [f"{i['can_id']}: {i['what']}" for i in alarm["ids"]]
    if alarm["new_ids"] > 2:
        ids.insert(0, f"{alarm['new_ids']:,} IDs never seen before, together {alarm['new_frames_per_s']:,.0f} frames/s")
    return "; ".join(ids) if ids else "too little quiet traffic before it to compare with"


def in_words(alarm: dict[str, Any]) -> str:
    """An alarm that is over, on one line."""
    return (
        f"after {alarm['after_s']:.2f} s, for {alarm['duration_s']:.2f} s (score {alarm['fusion_score']:.2f}). "
        f"{ids_in_words(alarm)}"
    )
