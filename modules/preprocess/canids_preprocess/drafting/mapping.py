"""Propose what the columns of a table mean, by the names in its header and by the values of its first rows.

What is proposed is read, and refused if rows of it are none; what could be otherwise is said as a guess.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_preprocess.drafting.columns import HEAD, NAMES, Column, Table
from canids_preprocess.formats import fitting, recognise
from canids_preprocess.formats.base import MAX_EXTENDED_ID, MAX_STANDARD_ID, PER_SECOND, printable
from canids_preprocess.formats.table import kernel
from canids_preprocess.formats.table.reader import TABLE
from canids_preprocess.formats.text import first_bytes, head_lines
from canids_shared.errors import CanidsError

_SHOWN = 3
_BYTE = r"(?:d|b|db|byte|data|databyte|payload)(\d{1,2})"
_NORMAL = {"0", "r", "false", "normal", "benign", "attack-free", "attack_free", "attackfree", "none", "no", "regular"}
_ATTACKED = {
    "1",
    "t",
    "true",
    "attack",
    "attacked",
    "anomaly",
    "anomalous",
    "malicious",
    "injected",
    "intrusion",
    "yes",
}
_DIRECTIONS = {"rx", "tx", "txrq", "received", "sent", "in", "out"}
_DATES = {"date": kernel.YMD, "date_dmy": kernel.DMY, "date_mdy": kernel.MDY, "time_of_day": kernel.TIME_OF_DAY}

LikelyUnit = Callable[[pl.DataFrame, str | None], str | None]
"""The unit of time that frames look like, if it is not the one stated."""


@dataclass
class Proposal:
    """What the columns of a table may mean.

    Attributes:
        table: as in the manifest.
        guesses: what could be otherwise, a sentence each.
        rows: some rows as they stand in the file, and as they are read, a line each.
    """

    table: dict[str, Any]
    guesses: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    def comments(self) -> list[str]:
        """What has to be checked, a line each."""
        return [
            "a table in no known format; is it read right?",
            *self.rows,
            *(f"table.{guess}" for guess in self.guesses),
        ]


def _time(table: Table) -> dict[str, Any]:
    comma = table.delimiter != ","
    forms: dict[int, str] = {}

    def rises(column: Column) -> bool:
        for name, form in {"number": kernel.NUMBER, **_DATES}.items():
            times = column.times(form, comma)
            if not np.isfinite(times).all() or (
                name in ("date_dmy", "date_mdy") and re.match(r"\d{4}", column.values[0])
            ):
                continue
            steps = np.diff(times)
            if (steps < 0).mean() > 0.05 and not (name == "time_of_day" and (steps < 0).sum() <= 1):
                # A column that is called a time may count from the row above, or backwards.
                if name == "number" and column.called("time") and (times >= 0).all() and (steps < 0).mean() < 0.9:
                    forms[column.place] = "delta"
                    return True
                if column.called("time") and (steps < 0).mean() >= 0.9:
                    raise CanidsError(
                        f"{table.path}: times count backwards, the newest frame comes first; turn the rows round below the header (tac)"
                    )
                continue
            counts = name == "number" and (steps == steps[0]).all() and not column.called("time")
            if times[-1] > times[0] and len(np.unique(times)) > 0.2 * len(times) and not counts:
                forms[column.place] = name
                return True
        return False

    column = table.one("time", rises, needed=True)
    if column is None:
        raise CanidsError(
            f"{table.path}: no column holds times that rise from row to row; if it has none, `assume_rate` and a mapping without "
            "time read it (README of preprocess, Tables)"
        )
    form = forms[column.place]
    made: dict[str, Any] = {"column": table.take(column)}
    if form != "number":
        made["form"] = form
    if form == "delta":
        table.guesses.append(
            "time.form: delta, seconds since the row above, is a guess, since times fall as often as they rise"
        )
    if form in ("date_dmy", "date_mdy") and np.isfinite(column.times(_DATES["date_mdy"], comma)).all():
        table.guesses.append(f"time.form: {form} is a guess; is it the day or the month that comes first?")
    unit = re.search(r"(us|µs|ms|ns|micro|milli|nano)", table.written[column.place].lower()) if column.name else None
    if unit and form in ("number", "delta"):
        made["unit"] = {"micro": "us", "milli": "ms", "nano": "ns", "µs": "us"}.get(unit[1], unit[1])
    return made


def _base(table: Table, what: str, values: list[str], name: str, largest: int, decimal: bool) -> int:
    """Base of numbers: by their digits, or else a guess. `decimal`: what other columns let expect."""
    digits = {v.removesuffix(".0") for v in values if v}
    if any(re.search("[xX]|[A-Fa-f]", v) for v in digits):
        return 16
    too_large = any(int(v, 16) > largest for v in digits)
    if too_large or ("hex" not in name and ("dec" in name or any("." in v for v in values))):
        return 10
    if "hex" in name or any((len(v) > 1 and v[0] == "0") or int(v) > largest for v in digits):
        return 16
    # Of hexadecimal digits, ten in sixteen are decimal ones; the first one says less.
    seen = sum(max(len(v) - 1, 0) for v in digits)
    if 0.625**seen < 1e-3:
        return 10
    base = 10 if decimal else 16
    table.guesses.append(f"{what}.base: {base} is a guess, since no digit is a letter; is it {26 - base}?")
    return base


def _cells(table: Table) -> list[Column]:
    """The columns of bytes, if each byte has one: numbered names, or the longest run of columns of such values."""
    byte = r"(0[xX])?[0-9A-Fa-f]{1,2}|\d{1,3}(\.0)?"
    numbered: dict[str, dict[int, Column]] = {}
    for c in table.free():
        if (m := re.fullmatch(_BYTE, c.name)) and c.all(byte, empty=True):
            numbered.setdefault(c.name[: m.start(1)], {})[int(m[1])] = c
    if numbered:
        best = max(numbered.values(), key=len)
        if len(best) > 1:
            return [best[n] for n in sorted(best)]
    runs: list[list[Column]] = [[]]
    for c in table.columns:
        usable = c in table.free() and (not c.name or not any(c.called(what) for what in NAMES))
        if usable and c.all(byte, empty=True):
            runs[-1].append(c)
        else:
            runs.append([])
    run = max(runs, key=len)
    # The length stands before the bytes: as many as there are behind it.
    for start in (0, 1):
        filled = [[c.values[n] for c in run[start + 1 :]] for n in range(table.rows)]
        if run[start:] and all(_is_length(run[start].values[n], filled[n]) for n in range(table.rows)):
            return run[start + 1 :]
    return run if len(run) > 1 else []


def _is_length(text: str, cells: list[str]) -> bool:
    return (
        text.isdigit()
        and int(text) <= len(cells)
        and all(bool(cell) for cell in cells[: int(text)])
        and (not any(cells[int(text) :]) or all(set(cell) <= {"0"} for cell in cells[int(text) :]))
    )


def _payload(table: Table, made: dict[str, Any]) -> dict[str, Any]:
    whole = r"\[?(0[xX])?[0-9A-Fa-f]{0,3}([ ,:_-]*(0[xX])?[0-9A-Fa-f]{1,3})*\]?"

    def is_whole(c: Column) -> bool:
        spelt = [re.sub(r"^\[|\]$|0[xX]", "", v) for v in c.values if v]
        apart = any(re.search("[ ,:_-]", v) for v in spelt)
        long = max(map(len, spelt), default=0) >= (4 if c.called("payload") else 9)
        return (
            c.all(whole, empty=True)
            and len(set(spelt)) > 1
            and (apart or (long and all(len(v) % 2 == 0 for v in spelt)))
        )

    cells = _cells(table)
    column = table.one("payload", is_whole, needed=len(cells) < 2)
    if column is None and not cells:
        raise CanidsError(f"{table.path}: no column, and no columns, hold payloads in hexadecimal or decimal bytes")
    if column is not None:
        tokens = [t for v in column.values for t in re.findall(r"(?:0[xX])?[0-9A-Fa-f]+", v)]
        packed = any(len(t.removeprefix("0x")) > 3 for t in tokens)
        base = (
            16
            if packed
            else _base(table, "payload", tokens, column.name, 255, decimal=any(len(t) == 1 for t in tokens))
        )
        return {"column": table.take(column), **({"base": 10} if base == 10 else {})}
    tokens = [v for c in cells for v in c.values if v]
    base = _base(table, "payload", tokens, "", 255, decimal=any(len(t) == 1 for t in tokens))
    return {"columns": [table.take(c) for c in cells], **({"base": 10} if base == 10 else {})}


def _id(table: Table, decimal: bool) -> dict[str, Any]:
    def fits(c: Column) -> bool:
        values = set(c.values)
        return (
            all(re.fullmatch(r"(0[xX])?[0-9A-Fa-f]{1,8}[xX]?|\d{1,10}(\.0)?", v) for v in values)
            and 1 < len(values) <= max(0.7 * table.rows, 3)
            and (c.called("id") or max(map(len, values)) >= 3)
        )

    column = table.one("id", fits, needed=True)
    if column is None:
        raise CanidsError(f"{table.path}: no column holds arbitration IDs, hexadecimal or decimal numbers that recur")
    values = [
        v.removesuffix("x").removesuffix("X") if not v.lower().startswith("0x") else v for v in set(column.values)
    ]
    # Few buses mix IDs of 11 bits with some of 29 that begin with zeros.
    padded = len({len(v) for v in values}) == 1 and len(values[0]) in (4, 8) and any(v[0] == "0" for v in values)
    largest = MAX_EXTENDED_ID if padded or max(map(len, values)) > 4 else MAX_STANDARD_ID
    base = _base(table, "id", values, column.name, largest, decimal)
    return {"column": table.take(column), **({"base": 10} if base == 10 else {})}


def _label(table: Table) -> dict[str, Any] | None:
    column = table.one("label", lambda c: len(set(c.values)) <= 50 and all(c.values))
    if column is None:
        for c in reversed(table.free()):
            words = {v.lower() for v in c.values}
            if not c.name and words <= (_NORMAL | _ATTACKED) and words & {"r", "t", "normal", "attack", "benign"}:
                column = c
                table.guesses.append(f"label: column {c.place + 1} is a guess; is it the direction?")
                break
    if column is None:
        return None
    seen = sorted(set(column.values))
    normal, attacked = ([v for v in seen if v.lower() in words] for words in (_NORMAL, _ATTACKED))
    if not normal and not attacked:
        table.guesses.append(
            f"label: column {table.name_of(column)} may be one, but none of its values is known: {printable(', '.join(seen), 80)}"
        )
        return None
    made: dict[str, Any] = {"column": table.take(column)}
    if len(normal) + len(attacked) < len(seen):
        table.guesses.append(f"label: all but {', '.join(normal or attacked)} mean the opposite")
        return {**made, **({"normal": normal} if normal else {"attacked": attacked})}
    return {**made, **({"attacked": attacked} if attacked else {}), **({"normal": normal} if normal else {})}


def format_of(path: Path, likely_unit: LikelyUnit) -> tuple[str, Proposal | None]:
    """The format of a capture; of one that no format recognises `table`, with the mapping that is proposed.

    `likely_unit` is that of `canids_preprocess.timestamps`.

    Raises `CanidsError` if several formats fit, or it is no table that can be read.
    """
    return ("table", propose(path, likely_unit)) if not fitting(path) else (recognise(path), None)


def propose(path: Path, likely_unit: LikelyUnit) -> Proposal:
    """The mapping that a file in no known format may have; `likely_unit` as in `format_of`.

    Raises `CanidsError` with the reason if it is no table, or no column fits a meaning that is needed, or rows cannot be read so.
    """
    table = Table(path)
    made: dict[str, Any] = {"delimiter": table.delimiter, **({"skip": table.skip} if table.skip else {})}
    time = _time(table)
    # What only names show, before what values show.
    for what in ("direction", "channel"):
        column = table.one(what, lambda c: len(set(c.values)) <= 20)
        if column is None and what == "direction":
            column = next((c for c in table.free() if {v.lower() for v in c.values} <= _DIRECTIONS), None)
        if column is None and what == "channel":
            column = next((c for c in table.free() if c.all(r"[vs]?can\d{1,2}")), None)
        if column:
            made[what] = table.take(column)
    for what in ("extended", "remote", "fd"):
        if column := table.one(what, lambda c: len(set(c.values)) <= 3):
            made[what] = {"column": table.take(column)}
    length = table.one("dlc", lambda c: c.all(r"\d{1,3}(\.0)?"))
    if length:
        made["dlc"] = table.take(length)
    named_id = next((c for c in table.free() if c.called("id")), None)
    label = _label(table)
    payload = _payload(table, made) if named_id is None else _without(table, named_id, lambda: _payload(table, made))
    made["id"] = _id(table, decimal=payload.get("base") == 10)
    made |= {"time": time, "payload": payload}
    if "dlc" not in made and (column := _length_of(table, payload)):
        made["dlc"] = table.take(column)
    if label:
        made["label"] = label
    order = (
        "delimiter",
        "skip",
        "time",
        "id",
        "dlc",
        "payload",
        "channel",
        "direction",
        "extended",
        "remote",
        "fd",
        "label",
    )
    return _checked(path, {key: made[key] for key in order if key in made}, table.guesses, likely_unit)


def _without(table: Table, column: Column, what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is found where a column is kept for another meaning."""
    table.taken.add(column.place)
    found = what()
    table.taken.discard(column.place)
    return found


def _length_of(table: Table, payload: dict[str, Any]) -> Column | None:
    """A free column of small numbers that are the payload's length in every row."""
    names = [name.strip() for name in table.written]
    places = [names.index(c) if isinstance(c, str) else c - 1 for c in payload.get("columns", [payload.get("column")])]
    cells = [[table.columns[place].values[n] for place in places] for n in range(table.rows)]
    if "column" in payload:
        cells = [
            re.findall("..", c.replace("0x", "")) if re.fullmatch("[0-9A-Fa-fx]+", c) else re.findall(r"\w+", c)
            for (c,) in cells
        ]
    return next((c for c in table.free() if all(map(_is_length, c.values, cells))), None)


def _checked(path: Path, table: dict[str, Any], guesses: list[str], likely_unit: LikelyUnit) -> Proposal:
    """The proposal, if its rows can be read so; with the unit of time that they look like."""
    entry = {"table": table, "content": "unlabelled"}
    batch = next(TABLE.read(path, entry), None)
    if batch is None or len(batch.rejects) > 0.02 * (len(batch.frames) + len(batch.rejects)):
        reason = f"line {batch.rejects['line'][0]}: {batch.rejects['reason'][0]}" if batch is not None else "no rows"
        raise CanidsError(f"{path}: fits no known format, and as a table ({table}) it cannot be read: {reason}")
    stated = table["time"].get("unit")
    if table["time"].get("form", "number") in ("number", "delta"):
        likely = likely_unit(batch.frames, stated)
        if likely == "":
            raise CanidsError(f"{path}: no unit of time makes a bus of its timestamps")
        if likely:
            table["time"]["unit"] = likely
            guesses.append(f"time.unit: {likely} is a guess from the frame rate")
        elif not stated and len(batch.frames) < 100:
            guesses.append(f"time.unit: seconds are a guess, since {len(batch.frames)} frames are too few to tell")
    per_second = PER_SECOND[table["time"].get("unit") or "s"]
    return Proposal(table, guesses, _shown(path, batch.frames.with_columns(pl.col("timestamp") / per_second)))


def _shown(path: Path, frames: pl.DataFrame) -> list[str]:
    """Some rows as they stand in the file and as they are read; an attacked one among them, if there is one."""
    lines = [str(line) for line in head_lines(first_bytes(path, HEAD))]
    frames = frames.filter(pl.col("line") <= len(lines))
    attacked = frames.filter(pl.col("label") == 1)[:1]
    chosen = pl.concat([frames.filter(pl.col("label").ne_missing(1))[: _SHOWN - len(attacked)], attacked]).sort("line")
    rows = chosen.select("line", "timestamp", "can_id", "dlc", "payload", "label").iter_rows()
    return [
        f"line {line}: {printable(lines[line - 1].strip(), 100)} → {time:.6f} s, ID {can_id:X}, DLC {dlc}, "
        f"{payload.hex(' ').upper() or 'no bytes'}, {'no label' if label is None else f'label {label}'}"
        for line, time, can_id, dlc, payload, label in rows
    ]
