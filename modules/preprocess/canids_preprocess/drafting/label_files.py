"""Files of labels: CSV of start, end and kind, or JSON, ROAD's `capture_metadata.json` among it."""

import csv
import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from canids_preprocess.drafting.names import hint_of
from canids_preprocess.formats.base import printable
from canids_shared.errors import CanidsError

_LARGEST = 1 << 23
_COLUMNS = {
    "start": "start|from|begin|von|beginn|start_?time|t_?start|injection_?start|attack_?start",
    "end": "end|to|stop|bis|ende|end_?time|stop_?time|t_?end|injection_?end|attack_?end",
    "kind": "kind|attack|label|type|class|category|angriff|art|attack_?type|attack_?kind|name",
    "capture": "capture|file|file_?name|log|trace",
}
"""Names of columns and keys, whatever their case, white space for `_`, and a unit of seconds behind."""


class Interval(NamedTuple):
    """An attack: seconds, in the file's time, its kind if the file has one, and where it stands."""

    start: float
    end: float
    kind: str | None
    place: str
    absolute: bool
    """Whether the times are dates, and so no seconds since the first frame."""


def _column(name: str) -> str | None:
    plain = re.sub(r"[\s(\[]*(s|sec|seconds)?[)\]]*$", "", str(name).strip().lower()) or str(name).lower()
    plain = re.sub("_(s|sec|seconds)$", "", re.sub(r"[\s-]+", "_", plain))
    return next((key for key, words in _COLUMNS.items() if re.fullmatch(words, plain)), None)


def _time(value: Any, place: str) -> tuple[float, bool]:
    """A time in seconds, and whether it is a date with its zone (seconds since 1970 then)."""
    text = str(value).strip()
    if not isinstance(value, bool) and re.fullmatch(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?", text):
        seconds = float(text.replace(",", "."))
        if math.isfinite(seconds):
            return seconds, False
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise CanidsError(f"{place}: {printable(text, 40)!r} is no time; seconds, or a date with its zone") from None
    if date.tzinfo is None:
        raise CanidsError(f"{place}: {printable(text, 40)!r} has no time zone; write {text}+00:00, or seconds")
    return date.timestamp(), True


def _interval(start: Any, end: Any, kind: Any, place: str) -> Interval | None:
    """An interval; None if its kind says that it is free of attacks."""
    (first, dated), (last, _) = _time(start, place), _time(end, place)
    if first >= last:
        raise CanidsError(f"{place}: [{first:g}, {last:g}] does not end after it begins")
    name = "" if kind is None else str(kind).strip()
    hint = hint_of(Path(name.replace("/", "-"))) if name else None
    if name == "0" or (hint and not hint.kind):
        return None
    plain = re.sub("[^A-Za-z0-9_.-]+", "-", name).strip("-")
    return Interval(first, last, None if plain in ("", "1", "attack") else plain, place, dated)


def _of_csv(path: Path, text: str, capture: str) -> list[Interval]:
    lines = [
        (n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip() and not line.startswith("#")
    ]
    if not lines:
        return []
    delimiter = max(";\t,", key=lines[0][1].count)
    rows = [(n, next(csv.reader([line], delimiter=delimiter))) for n, line in lines]
    columns: dict[str, int] = {"start": 0, "end": 1, "kind": 2}
    if not re.match(r"[+-]?[\d.]", rows[0][1][0].strip()):
        named = [(_column(name), index) for index, name in reversed(list(enumerate(rows[0][1])))]
        columns = {key: index for key, index in named if key}
        if missing := [key for key in ("start", "end") if key not in columns]:
            raise CanidsError(
                f"{path}, line {rows[0][0]}: no column '{missing[0]}'; needed are start, end and perhaps kind"
            )
        del rows[0]
    intervals = []
    for number, row in rows:
        place = f"{path}, line {number}"
        if len(row) <= max(columns["start"], columns["end"]):
            raise CanidsError(
                f"{place}: {len(row)} fields, not start, end and perhaps kind, with commas, semicolons or tabs between"
            )
        values = {key: row[index] for key, index in columns.items() if index < len(row)}
        if "capture" in values and Path(values["capture"].strip()).stem not in (capture, Path(capture).stem):
            continue
        intervals.append(_interval(values["start"], values["end"], values.get("kind"), place))
    return [interval for interval in intervals if interval]


def _of_json(content: Any, place: str, capture: str) -> list[Interval]:
    """Intervals of a list, of an object with start and end, of one of ROAD's, or of an object that has such by captures' names."""
    if isinstance(content, list) and content and not isinstance(content[0], list | dict):
        items = [*content, None, None]
        interval = _interval(items[0], items[1], items[2], place) if 2 <= len(content) <= 3 else None
        if len(content) not in (2, 3):
            raise CanidsError(
                f"{place}: {printable(json.dumps(content), 60)} is not [start, end] or [start, end, kind]"
            )
        return [interval] if interval else []
    if isinstance(content, list):
        return [i for n, item in enumerate(content) for i in _of_json(item, f"{place}[{n}]", capture)]
    if not isinstance(content, dict):
        raise CanidsError(f"{place}: {printable(json.dumps(content), 60)} is no interval")
    if "injection_interval" in content:
        if content["injection_interval"] is None:
            raise CanidsError(f"{place}: injection_interval is null: all of the capture is attacked; give [start, end]")
        return _of_json(content["injection_interval"], f"{place}.injection_interval", capture)
    values = {key: value for name, value in content.items() if (key := _column(name))}
    if {"start", "end"} <= values.keys():
        interval = _interval(values["start"], values["end"], values.get("kind"), place)
        return [interval] if interval else []
    names = [name for name in content if name in (capture, Path(capture).stem) or Path(name).stem == capture]
    if not names:
        raise CanidsError(f"{place}: neither start and end nor an entry of the capture '{capture}'")
    return _of_json(content[names[0]], f"{place}: {names[0]}", capture)


def read_labels(path: Path, capture: str) -> list[Interval]:
    """The intervals of a file of labels that belong to a capture; those of a kind such as `normal` are left out.

    Args:
        path: the file; JSON by its suffix, else CSV with commas, semicolons or tabs, with a header or without.
        capture: name of the capture's file without its suffix, for files that hold labels of several.

    Raises `CanidsError` naming file and place of what cannot be read, or if there is no interval.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise CanidsError(f"{path}: larger than {_LARGEST >> 20} MiB; is this a file of labels?")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CanidsError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise CanidsError(f"{path}: not text in UTF-8; is this a file of labels?") from None
    if path.suffix.lower() == ".json":
        try:
            intervals = _of_json(json.loads(text), str(path), capture)
        except (ValueError, RecursionError):
            raise CanidsError(f"{path}: not JSON") from None
    else:
        try:
            intervals = _of_csv(path, text, capture)
        except csv.Error as error:
            raise CanidsError(f"{path}: not CSV ({error})") from None
    if not intervals:
        raise CanidsError(f"{path}: no interval of an attack on '{capture}' in it")
    return intervals
