"""Alarms as they begin and end, window by window: one definition for finished captures and followed buses.

An alarm is a run of alarmed windows of one capture whose gaps are at most `gap` seconds.
"""

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from canids_evaluate.watch.attribution import AlarmAttribution, IdAttribution, Nodes, name_of
from canids_shared.contracts.detectors import Detector

_RATES = ("frames_per_s", "usual_frames_per_s", "interval", "novel_bits", "deviation")
_IDS = {"can_id": pl.String, "frames": pl.Int64, **dict.fromkeys(_RATES, pl.Float64), "what": pl.String}
"""`IdAttribution` in a table: the ID as candump writes it, an infinite deviation as null."""
Alarm = dict[str, Any]
"""Column of `schema` → value."""


def scores(detectors: Sequence[Detector]) -> list[str]:
    """The score columns of an alarm: the fusion's, then each detector's."""
    return ["fusion_score", *(detector.decided for detector in detectors)]


def decided_columns(detectors: Sequence[Detector]) -> list[str]:
    """The columns of `decisions/4` that `AlarmTracker.update` reads."""
    return ["capture", "t_start", "t_end", "label", "alarm", *scores(detectors)]


def schema(detectors: Sequence[Detector]) -> dict[str, Any]:
    """Columns of `alarms.parquet`.

    Scores are the largest in the alarm. `attacked` is the share of attacked windows among the labelled ones, null without labels;
    `new_ids` counts arbitration IDs that the capture did not have before the alarm.
    """
    return {
        "capture": pl.String,
        **dict.fromkeys(("start", "end", "after_s", "duration_s"), pl.Float64),
        "windows": pl.Int64,
        **dict.fromkeys((*scores(detectors), "attacked"), pl.Float64),
        "new_ids": pl.Int64,
        "new_frames_per_s": pl.Float64,
        "ids": pl.List(pl.Struct(_IDS)),
    }


def csv_schema(detectors: Sequence[Detector]) -> dict[str, Any]:
    """Columns of `alarms.csv`: those of `alarms.parquet`, with the IDs as one text (`flat`)."""
    return {**schema(detectors), "ids": pl.String}


class Event(NamedTuple):
    """The beginning of an alarm, with its first window, or its end, with all of them."""

    alarm: Alarm
    ended: bool


class AlarmTracker:
    """The alarms of the windows of one capture after the other; memory does not grow with their number."""

    def __init__(self, gap: float, most: int, detectors: Sequence[Detector], enrolled: bool | Set[str] = False) -> None:
        """`gap`: longest pause (s) within an alarm; `most`: most IDs that are named for an alarm; `enrolled`: the captures that begin with
        a profile, all or none of them or those of these names.
        """
        self._gap, self._most, self._scores, self._enrolled = gap, most, scores(detectors), enrolled
        self._capture: str | None = None
        self._first = 0.0
        self._alarm: Alarm | None = None
        self._labels = [0, 0]  # labelled windows of the alarm, attacked ones
        self.attribution = AlarmAttribution()

    def update(self, decided: dict[str, Any], nodes: Nodes) -> list[Event]:
        """Add the next window (`decided_columns`); returns the end of the alarm before it and the beginning of one with it."""
        events: list[Event] = []
        if decided["capture"] != self._capture:
            # No window of another capture belongs to this one's past.
            events += self.end()
            self._capture, self._first = decided["capture"], decided["t_start"]
            enrolled = self._enrolled
            self.attribution = AlarmAttribution(enrolled if isinstance(enrolled, bool) else self._capture in enrolled)
        # Too long after the last alarmed window for the alarm to go on.
        if self._alarm and decided["t_start"] - self._alarm["end"] > self._gap:
            events += self.end()
        if not decided["alarm"]:
            # Within the gap the alarm may still go on, and then this window lies inside it.
            self.attribution.add_normal(nodes, during=self._alarm is not None)
            return events
        self.attribution.add_alarm(nodes)
        begins = self._alarm is None
        self._add(decided)
        return [*events, Event(self._record(), ended=False)] if begins else events

    def end(self) -> list[Event]:
        """End the current alarm, if there is one, since no further window prolongs it."""
        if self._alarm is None:
            return []
        event = Event(self._record(), ended=True)
        self.attribution.end_alarm()
        self._alarm = None
        return [event]

    def _add(self, decided: dict[str, Any]) -> None:
        # Of each score the alarm keeps the largest; where it ends is known only once a later window is too far away.
        if self._alarm is None:
            self._labels = [0, 0]
            self._alarm = {"start": decided["t_start"], "windows": 0, **dict.fromkeys(self._scores, -np.inf)}
        self._alarm |= {name: max(float(decided[name]), self._alarm[name]) for name in self._scores}
        self._alarm["windows"] += 1
        self._alarm["end"] = decided["t_end"]
        if decided["label"] is not None:
            self._labels[0] += 1
            self._labels[1] += decided["label"]

    def _record(self) -> Alarm:
        alarm = self._alarm
        assert alarm is not None
        labelled, attacked = self._labels
        new_ids, new_rate = self.attribution.new_ids()
        return {
            "capture": self._capture,
            **alarm,
            "after_s": alarm["start"] - self._first,
            "duration_s": alarm["end"] - alarm["start"],
            "attacked": attacked / labelled if labelled else None,
            "new_ids": new_ids,
            "new_frames_per_s": new_rate,
            "ids": [_id_record(attribution) for attribution in self.attribution.ids(self._most)],
        }


def _id_record(attribution: IdAttribution) -> dict[str, Any]:
    deviation = attribution.deviation if np.isfinite(attribution.deviation) else None
    return {**vars(attribution), "can_id": name_of(attribution.can_id), "deviation": deviation}


def flat(alarm: Alarm) -> dict[str, Any]:
    """An alarm as a row of `alarms.csv`: its IDs as one text."""
    return {**alarm, "ids": "; ".join(f"{i['can_id']} ({i['what']})" for i in alarm["ids"])}


def ids_in_words(alarm: Alarm) -> str:
    """The IDs to which an alarm is attributed, and what is unusual about them."""
    ids = [f"{i['can_id']}: {i['what']}" for i in alarm["ids"]]
    if alarm["new_ids"] > 2:
        ids.insert(0, f"{alarm['new_ids']:,} IDs never seen before, together {alarm['new_frames_per_s']:,.0f} frames/s")
    return "; ".join(ids) if ids else "too few normal windows before it to compare with"


def in_words(alarm: Alarm) -> str:
    """An alarm that has ended, on one line."""
    return (
        f"after {alarm['after_s']:.2f} s, for {alarm['duration_s']:.2f} s (score {alarm['fusion_score']:.2f}). "
        f"{ids_in_words(alarm)}"
    )
