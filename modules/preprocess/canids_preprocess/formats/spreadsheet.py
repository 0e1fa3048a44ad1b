"""Captures saved by a spreadsheet: it writes numbers as it shows them, and the digits that it left out are lost."""

from pathlib import Path

import polars as pl

from canids_preprocess.formats.base import printable
from canids_preprocess.formats.text import first_bytes, head_lines
from canids_shared.errors import CanidsError

HEAD = 1 << 16
"""Bytes of the beginning of a file that are judged."""
_EXPONENT = r"^[-+.0-9]+[eE][-+]?[0-9]+$"
_SHORTENED = {r"^[0-9]{9,10}(?:\.[0-9]{1,2})?$": 2, "^[0-9]+$": 20}
"""Seconds since 1970 with two decimals of their fraction or fewer, or any time without one → frames that share it on average.
No more than 20 frames of a bus share a millisecond, so whole milliseconds are neither."""
_NUMBER = r",[0-9](?:\.[0-9]+)?E\+[0-9]{2,3}(?:,|$)"
"""A hexadecimal field that was taken for a number (`1.23E+15`); no base64 has this form and length."""
_SINGLE_DIGIT = r"^[^,]*,[^,]*,[^,]*,.*\b[0-9A-Fa-f],"


def refuse(path: Path, header: bool = False, pattern: str = "", bytes_apart: bool = False) -> None:
    """Raise `CanidsError` if the first rows of a CSV, whose first field is a time, show that a spreadsheet has saved it.

    Most timestamps have an exponent; or most have lost their fractions, so that frames share them; or two hexadecimal
    fields have become numbers; or (`bytes_apart`) most rows have a byte of one digit.

    Args:
        path: the file.
        header: whether the first line is a header.
        pattern: regular expression of the rows that count.
        bytes_apart: whether each byte has a field of its own.
    """
    beginning = first_bytes(path, HEAD)
    rows = head_lines(beginning if len(beginning) == HEAD else beginning + b"\n")[int(header) :]
    rows = rows.filter((rows != "") & rows.str.contains(pattern))
    seconds = rows.str.extract("^([^,]*)").fill_null("")

    def share(text: pl.Series, pattern: str) -> float:
        return float(text.str.contains(pattern).sum()) / max(1, len(rows))

    lost = []
    shared = len(rows) / max(1, seconds.n_unique())
    if share(seconds, _EXPONENT) > 0.5 or any(share(seconds, p) > 0.5 and shared >= n for p, n in _SHORTENED.items()):
        lost.append("timestamps have lost their fractions")
    numbers = share(rows, _NUMBER)
    if numbers > 0.5 or numbers * len(rows) > 1:
        lost.append("IDs and payloads have become numbers")
    digits = share(rows, _SINGLE_DIGIT) if bytes_apart else 0.0
    if digits > 0.5 or (lost and digits):
        lost.append("leading zeros of IDs and bytes are gone")
    if lost:
        raise CanidsError(
            f"{path}: mangled by a spreadsheet: {' and '.join(lost)} ('{printable(rows[0], 60)}'); "
            "take the file as it was published"
        )
