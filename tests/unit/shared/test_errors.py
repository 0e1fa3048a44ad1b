"""Messages for the user: one line that can be printed, of bearable length, whatever names and values a file holds."""

import pytest

from canids_shared.errors import LONGEST, CanidsError


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a b'c ö/x.csv, line 3: no", "a b'c ö/x.csv, line 3: no"),
        ("a\nb\r\tc\x00\x1b[31m\u2028", r"a\nb\r\tc\x00\x1b[31m\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_message_is_one_printable_line(message: str, line: str) -> None:
    assert str(CanidsError(message)) == line
    assert line.isprintable()


def test_of_a_long_message_both_ends_are_kept() -> None:
    line = str(CanidsError("file: " + "x" * 100_000 + "; remedy"))
    assert len(line) < LONGEST + 10
    assert line.startswith("file: x")
    assert line.endswith("x; remedy")
