"""The mapping of a table (`table` in the manifest) as the compiled loop takes it: columns by their place, words by their value."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canids_preprocess.formats.base import printable
from canids_preprocess.formats.table import kernel
from canids_preprocess.formats.text import first_bytes, head_lines
from canids_shared.errors import CanidsError

_HEAD = 1 << 16
_FORMS = {
    "number": kernel.NUMBER,
    "delta": kernel.NUMBER,
    "date": kernel.YMD,
    "date_dmy": kernel.DMY,
    "date_mdy": kernel.MDY,
    "time_of_day": kernel.TIME_OF_DAY,
}
_FLAGS = {
    "extended": (kernel.EXTENDED, ("1", "true", "yes", "x", "ext", "extended", "e", "29")),
    "remote": (kernel.REMOTE, ("1", "true", "yes", "r", "rtr", "remote")),
    "fd": (kernel.FD, ("1", "true", "yes", "fd", "canfd", "can fd")),
}
"""Columns of yes or no, and the words that mean yes."""
_NO_FRAME = ("txrq",)
"""Directions of rows that are no frames: a request to send, behind which the frame itself follows."""


@dataclass(frozen=True)
class Mapping:
    """What the columns of one file mean.

    Attributes:
        delimiter: between fields; a blank stands for any white space.
        skip: lines above the first row.
        comment: with which lines begin that are no rows; empty: none do.
        roles: what each column means (`kernel`), up to the last one that means anything.
        places: of a column that is a byte, which one of the payload.
        words: what the values of columns mean: (role, word in small letters, value).
        other: label of values that are no such word; `kernel.REFUSED`: there may be none.
        form: how times are written (`kernel`).
        delta: whether times count from the row above.
        wraps: value at which the time begins again at 0, or None.
        id_base, base: of arbitration IDs and of bytes.
        width: fields of the header; 0: there is none.
        shape: the names of the columns, or what they mean, for messages.
    """

    delimiter: str
    skip: int
    comment: str
    roles: tuple[int, ...]
    places: tuple[int, ...]
    words: tuple[tuple[int, str, int], ...]
    other: int
    form: int
    delta: bool
    wraps: float | None
    id_base: int
    base: int
    width: int
    shape: str

    @property
    def timed(self) -> bool:
        """Whether rows have times."""
        return kernel.TIME in self.roles

    def how(self) -> tuple[int, ...]:
        """The loop's argument `how`."""
        blank, extended = self.delimiter == " ", kernel.EXTENDED in self.roles
        comment = ord(self.comment) if self.comment else 0
        return (
            ord(self.delimiter),
            blank,
            self.form,
            self.id_base,
            self.base,
            self.other,
            self.width,
            extended,
            comment,
        )

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The loop's arguments `roles`, `places`, `words` and `word_table`."""
        text, table = b"", []
        for role, word, value in self.words:
            table.append((role, len(text), len(text) + len(word.encode()), value))
            text += word.encode()
        roles, places = np.array(self.roles, np.int64), np.array(self.places, np.int64)
        return roles, places, np.frombuffer(text + b"\0", np.uint8), np.array(table, np.int64).reshape(-1, 4)


def split(line: str, delimiter: str) -> list[str]:
    """The fields of a line."""
    return (
        line.split() if delimiter == " " else next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    )


def word(value: Any) -> str:
    """A value as a word: what YAML takes for a number or for yes and no is written as tables write it."""
    return str(value).strip().lower()


def _lines(path: Path, number: int) -> list[str]:
    return [str(line) for line in head_lines(first_bytes(path, _HEAD))[:number]]


def of(path: Path, table: dict[str, Any]) -> Mapping:
    """The mapping of a file, by its entry's `table`.

    Raises `CanidsError` if a column is none of the header's, or two keys name one column, or a key contradicts another.
    """
    delimiter, skip = table["delimiter"], table.get("skip", 0)
    above = _lines(path, skip)
    header = [name.strip().lower() for name in split(above[-1], delimiter)] if len(above) == skip > 0 else []
    columns: dict[int, tuple[int, int]] = {}
    words: list[tuple[int, str, int]] = []

    def add(key: str, column: int | str, role: int, cell: int = 0) -> None:
        if isinstance(column, int):
            number = column - 1
        else:
            if column.strip().lower() not in header:
                place = f"line {skip}" if skip else "no header (skip: 0)"
                raise CanidsError(
                    f"{path}: table.{key}: no column '{printable(column, 60)}' in {place}; the names are "
                    f"{printable(', '.join(header) or 'none', 200)}; columns can also be named by number, from 1"
                )
            number = header.index(column.strip().lower())
        if number in columns:
            raise CanidsError(f"{path}: table.{key}: column {number + 1} has a meaning already")
        columns[number] = (role, cell)

    if "time" in table:
        add("time.column", table["time"]["column"], kernel.TIME)
    add("id.column", table["id"]["column"], kernel.ID)
    if ("column" in table["payload"]) == ("columns" in table["payload"]):
        raise CanidsError(
            f"{path}: table.payload: give either 'column', of the whole payload, or 'columns', one a byte"
        )
    for cell, column in enumerate(table["payload"].get("columns", [])):
        add("payload.columns", column, kernel.BYTE, cell)
    if "column" in table["payload"]:
        add("payload.column", table["payload"]["column"], kernel.PAYLOAD)
    for key, role in (("dlc", kernel.DLC), ("channel", kernel.CHANNEL), ("direction", kernel.DIRECTION)):
        if key in table:
            add(key, table[key], role)
    words += [(kernel.DIRECTION, text, 1) for text in _NO_FRAME]
    for key, (role, usual) in _FLAGS.items():
        if key in table:
            add(f"{key}.column", table[key]["column"], role)
            words += [(role, word(value), 1) for value in table[key].get("values", usual)]
    other = 0
    if label := table.get("label"):
        add("label.column", label["column"], kernel.LABEL)
        attacked, normal = (list(map(word, label.get(key, []))) for key in ("attacked", "normal"))
        if (not attacked and not normal) or set(attacked) & set(normal):
            raise CanidsError(
                f"{path}: table.label: needs values that mean 'attacked', or 'normal', or different ones of both"
            )
        words += [(kernel.LABEL, text, value) for value, texts in ((1, attacked), (0, normal)) for text in texts]
        other = kernel.REFUSED if attacked and normal else int(not attacked)
    if "remote" in table and "dlc" not in table:
        raise CanidsError(f"{path}: table.remote: remote frames have no payload, so 'dlc' is needed too")
    time = table.get("time", {})
    known = max(columns) + 1
    meanings = [columns.get(number, (kernel.SKIP, 0)) for number in range(known)]
    return Mapping(
        delimiter=delimiter,
        skip=skip,
        comment=table.get("comment", ""),
        roles=tuple(role for role, _ in meanings),
        places=tuple(cell for _, cell in meanings),
        words=tuple(words),
        other=other,
        form=_FORMS[time.get("form", "number")],
        delta=time.get("form") == "delta",
        wraps=time.get("wraps"),
        id_base=table["id"].get("base", 16),
        base=table["payload"].get("base", 16),
        width=len(header),
        shape=printable(above[-1].strip(), 80) if header else f"{known} fields with '{delimiter}' between them",
    )
