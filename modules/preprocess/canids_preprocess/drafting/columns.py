"""The first rows of a table whose columns' meaning is to be found: its delimiter, its header, its columns."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canids_preprocess.formats.base import printable
from canids_preprocess.formats.table import kernel
from canids_preprocess.formats.table.mapping import split
from canids_preprocess.formats.text import first_bytes, head_lines
from canids_shared.errors import CanidsError

HEAD = 1 << 20
"""Bytes that are looked at."""
_ROWS, _FEWEST = 2000, 5
_DELIMITERS = ("\t", ";", "|", ",", " ")
NAMES = {
    "time": r"time.*|.*timestamp.*|ts|t|date.*|zeit.*|.*time|sec(ond)?s?|offset",
    "id": r"(can|arb|arbitration|msg|message|frame)?id(entifier|hex|dec)?|aid|arbid|ident(ifier)?|address|addr",
    "dlc": r"dlc|len(gth)?|(data|payload)(len|length|size)|n?bytes|size|numbytes",
    "payload": r"(data|payload)(field|bytes?|hex|dec)?|bytes?|hexdata|content|msgdata|raw",
    "label": r"label|class|attack|flag|target|anomaly|is(attack|anomaly|malicious)|malicious|category|y",
    "channel": r"channel|chan?|bus|interface|iface|network|busid|can(bus|channel)",
    "direction": r"dir(ection)?|rxtx|txrx",
    "extended": r"(is)?ext(ended)?(id)?|ide|xtd|eff",
    "remote": r"(is)?(rtr|remote)(frame)?",
    "fd": r"(is)?(can)?fd(f|frame)?|edl",
}
"""Names of columns, in small letters and digits, by what they mean."""


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


@dataclass
class Column:
    """A column: its place from 0, its name in small letters and digits, and its values."""

    place: int
    name: str
    values: list[str]

    def called(self, what: str) -> bool:
        """Whether its name is one of those of a meaning."""
        return bool(re.fullmatch(NAMES[what], self.name))

    def all(self, pattern: str, empty: bool = False) -> bool:
        """Whether all values have this form, or (`empty`) are absent, but not all of them."""
        return all(re.fullmatch(pattern, v) or (empty and not v) for v in self.values) and any(self.values)

    def times(self, form: int, comma: bool) -> np.ndarray:
        """The values as times of a form (`kernel`); NaN where one is none."""
        raw = [np.frombuffer(v.encode() + b"\n", np.uint8) for v in self.values]
        return np.array([kernel.moment(text, 0, len(text) - 1, form, comma) for text in raw])


class Table:
    """The first rows of a file, as columns, and the meanings found so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        beginning = first_bytes(path, HEAD)
        if b"\0" in beginning:
            raise CanidsError(f"{path}: its beginning fits no known format, and is no text")
        lines = [str(line) for line in head_lines(beginning)[:_ROWS]]
        while lines and not lines[-1].strip():
            lines.pop()
        self.delimiter, parts = self._split(lines)
        self.skip = self._first_row(parts)
        above = [_plain(name) for name in parts[self.skip - 1]] if self.skip else []
        rows = parts[self.skip :]
        width = max(map(len, rows))
        # Names of columns, if they are as many, differ, and are no numbers.
        named = [name for name in above if name]
        is_header = (
            len(above) >= width - 1 and len(set(named)) == len(named) and any(re.search("[a-z]", n) for n in named)
        )
        self.names = above if is_header else []
        raw = lines[self.skip - 1] if is_header else ""
        self.written = [name.strip() for name in split(raw, self.delimiter)] if is_header else []
        names = [*self.names, *[""] * width]
        self.columns = [
            Column(n, names[n], [row[n].strip() if n < len(row) else "" for row in rows]) for n in range(width)
        ]
        self.rows = len(rows)
        self.guesses: list[str] = []
        self.taken: set[int] = set()

    def _split(self, lines: list[str]) -> tuple[str, list[list[str]]]:
        if len(lines) < _FEWEST:
            raise CanidsError(f"{self.path}: {len(lines)} lines are too few to tell what a table's columns mean")
        for delimiter in _DELIMITERS:
            parts = [split(line, delimiter) for line in lines]
            counts = Counter(len(part) for part in parts[len(parts) // 4 :])
            if sum(n for count, n in counts.items() if count >= 3) >= 0.9 * counts.total():
                return delimiter, parts
        raise CanidsError(f"{self.path}: its beginning fits no known format, and is no table of three columns or more")

    def _first_row(self, parts: list[list[str]]) -> int:
        """How many lines stand above the first row: those with fewer numbers than rows have."""
        # A name such as D0 could be a byte, so a number begins with a digit and has no letters.
        numbers = [sum(bool(re.fullmatch(r"-?\d[\d.,:TZ +/-]*", f.strip())) for f in p) for p in parts]
        usual = min(numbers[len(numbers) // 2 :])
        return next((n for n, count in enumerate(numbers) if count >= max(usual, 1) and len(parts[n]) >= 3), 0)

    def free(self) -> list[Column]:
        """The columns without a meaning."""
        return [c for c in self.columns if c.place not in self.taken and any(c.values)]

    def take(self, column: Column) -> int | str:
        """A column as the mapping names it; it has a meaning from now on."""
        self.taken.add(column.place)
        return self.written[column.place] if column.name else column.place + 1

    def one(self, what: str, fits: Callable[[Column], bool], needed: bool = False) -> Column | None:
        """The free column of a meaning: by its name, else (`needed`) the only one whose values fit."""
        fitting = [c for c in self.free() if fits(c)]
        if named := [c for c in fitting if c.called(what)]:
            # `data` before `data_hex`: the shorter name is the plainer one.
            named.sort(key=lambda c: len(c.name))
            if len(named) > 1:
                self.guesses.append(
                    f"{what}: column {self.name_of(named[0])}, not {self.name_of(named[1])}, is a guess"
                )
            return named[0]
        if not needed or not fitting:
            return None
        unnamed = [c for c in fitting if not c.name or not any(c.called(other) for other in NAMES)]
        if len(unnamed) > 1:
            self.guesses.append(
                f"{what}: column {self.name_of(unnamed[0])}, not {self.name_of(unnamed[1])}, is a guess"
            )
        return unnamed[0] if unnamed else None

    def name_of(self, column: Column) -> str:
        """A column for messages."""
        return printable(self.written[column.place], 40) if column.name else str(column.place + 1)
