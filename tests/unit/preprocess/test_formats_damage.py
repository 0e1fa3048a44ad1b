"""Damaged captures of every format: read row by row with nothing lost unsaid, or refused in one line, and never for ever.

The number of rows is counted here a second time, from the damaged bytes alone.
"""

import logging
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from capture_files import MESSAGES, OWN, limited, read, record
from damage import DAMAGE, Damage, damaged
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from canids_preprocess.formats import FORMATS, recognise
from canids_shared.errors import CanidsError


def lines_of(raw: bytes) -> list[bytes]:
    """Lines, without the empty ones at the end."""
    lines = [line.removesuffix(b"\r") for line in raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def all_lines(raw: bytes) -> int:
    return len(lines_of(raw))


def candump_rows(raw: bytes) -> int:
    """Lines but those whose ID is that of an error frame."""
    error = re.compile(rb"\([^)]*\) +[^ ]+ +20000[0-3][0-9A-Fa-f]{2}#[^ ]*( +[RT])?[ \t]*")
    return sum(not error.fullmatch(line) for line in lines_of(raw))


def csv_rows(raw: bytes) -> int:
    """Lines below the header but those of error frames."""
    rows = [line.split(b",") for line in lines_of(raw)[1:]]
    flags = {b"0", b"1"}
    return sum(not (len(r) == 7 and r[4] == b"1" and {r[2], r[3]} <= flags) for r in rows)


def asc_rows(raw: bytes) -> int:
    """Lines with something on them, but headers, comments and events."""
    other = (b"date ", b"date\t", b"base hex", b"base dec", b"internal events", b"no internal events", b"//")
    other += (b"begin triggerblock", b"end triggerblock")
    text = [line.decode("latin-1").lstrip().lower() for line in lines_of(raw)]
    event = re.compile(r"\d+\.\d+\s+(start of measurement|(\d+\s+)?(statistic:|errorframe))", re.ASCII)
    return sum(
        bool(t) and not t.encode("latin-1", "ignore").startswith(other) and not event.match(t) for t in text
    )  # fmt: skip


def trc_rows(raw: bytes) -> int:
    """Lines with something on them, but comments and status."""
    text = [line.decode("latin-1").split() for line in lines_of(raw)]
    version = [line.partition(b"=")[2].strip() for line in lines_of(raw) if line.startswith(b";$FILEVERSION=")] or [
        b"1.0"
    ]
    status: set[str] = {b"1.0": {"FFFFFFFF"}, b"1.1": {"Warng", "Error"}, b"2.1": {"ST", "EC", "ER", "EV"}}.get(
        version[-1], set()
    )
    columns = [line.partition(b"=")[2].strip() for line in lines_of(raw) if line.startswith(b";$COLUMNS=")] or [
        b"N,O,T"
    ]
    names = columns[-1].split(b",")
    place = names.index(b"T") if version[-1] == b"2.1" and b"T" in names else 2
    return sum(bool(t) and t[0][0] != ";" and not (len(t) > place and t[place] in status) for t in text)


def rows_below(raw: bytes) -> int:
    """Lines below the header."""
    return len(lines_of(raw)[1:])


def console_rows(raw: bytes) -> int:
    """Lines but those about errors."""
    return sum(not (line.rstrip().endswith(b"ERRORFRAME") or re.match(rb"\t[a-z]", line)) for line in lines_of(raw))


def crtd_rows(raw: bytes) -> int:
    return sum(not re.match(rb"\s*[0-9]+(\.[0-9]+)?\s+[0-9]*C[A-Z]{2}(\s|$)", line) for line in lines_of(raw))


def busmaster_rows(raw: bytes) -> int:
    return sum(not line.lstrip().startswith(b"***") for line in lines_of(raw))


TEXTS: list[tuple[str, str, Callable[[bytes], int]]] = [
    ("car_hacking_attacked.csv", "hcrl-car-hacking", all_lines),
    ("car_hacking_normal.txt", "hcrl-car-hacking", all_lines),
    ("survival_free_driving.csv", "hcrl-survival", all_lines),
    ("otids_remote.txt", "otids", all_lines),
    ("candump.log", "candump", candump_rows),
    ("road/max_speedometer_attack_1.log", "road", candump_rows),
    ("python_can.csv", "python-can-csv", csv_rows),
    ("log.asc", "asc", asc_rows),
    ("log_v1_1.trc", "trc", trc_rows),
    ("log_v2_1.trc", "trc", trc_rows),
    ("dialects/candump_console.log", "candump-console", console_rows),
    ("dialects/savvycan_gvret.csv", "gvret", rows_below),
    ("dialects/ovms.crtd", "crtd", crtd_rows),
    ("dialects/busmaster.log", "busmaster", busmaster_rows),
    ("dialects/crysys.log", "crysys", all_lines),
    ("dialects/tab_log.log", "tab-log", rows_below),
    ("dialects/hcrl_challenge.csv", "hcrl-challenge", rows_below),
    ("dialects/daga.csv", "daga", rows_below),
    ("dialects/can_mirgu.log", "can-mirgu", all_lines),
]


def outcome(path: Path, name: str, **entry: Any) -> tuple[int, int] | None:
    """Numbers of frames and rejects, or None for a file that is refused as it should be."""
    complaint = ""
    try:
        with limited():
            frames, rejects = read(path, name, **entry)
    except CanidsError as error:
        complaint = str(error)
    if complaint:
        assert complaint.startswith(str(path))
        assert complaint.isprintable()
        assert len(complaint) < 700
        return None
    assert not frames.drop("channel", "label").null_count().sum_horizontal().item()
    assert frames["timestamp"].is_finite().all()
    assert (frames["payload"].bin.size() == frames["dlc"]).filter(~frames["remote"]).all()
    assert frames["can_id"].max() is None or (frames["can_id"] <= 0x1FFFFFFF).all()
    assert all(reason and reason.isprintable() and len(reason) <= 160 for reason in rejects["reason"])
    assert all(t.isprintable() and len(t) <= 160 for t in rejects["text"])
    lines = [*frames["line"], *rejects["line"]]
    assert len(set(lines)) == len(lines)
    return len(frames), len(rejects)


@pytest.mark.parametrize(("file", "name", "count"), TEXTS, ids=[file for file, _, _ in TEXTS])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAMAGE)
@example([("replace", 0, b"")])
@example([("cut", 0, b"")])
@example([("windows", 0, b"")])
@example([("insert", 0, b"\xef\xbb\xbf")])
@example([("insert", 60, b"0" * 140_000)])
@example([("insert", 60, b"\n\n\n")])
@example([("insert", 0, b"\n")])
@example([("insert", -1, b"\n\r\n\n")])
@example([("insert", -1, b"\n\r")])
@example([("first line", 0, b"")])
@example([("first line", 3, b"")])
def test_damaged_text_loses_nothing(
    folder: Path, file: str, name: str, count: Callable[[bytes], int], damage: Damage
) -> None:
    raw = damaged((OWN / file).read_bytes(), damage)
    path = folder / Path(file).name
    path.write_bytes(raw)
    entry = {"content": "labelled", "attack": "fuzzy", "metadata": OWN / "road/capture_metadata.json"}
    sizes = outcome(path, name, **entry)
    if sizes:
        assert sum(sizes) == count(raw)


@cache
def recorded(name: str) -> bytes:
    """A binary log with 60 frames."""
    with TemporaryDirectory() as folder:
        return record(Path(folder) / f"log.{name}", MESSAGES * 10).read_bytes()


@pytest.mark.parametrize("name", ["blf", "mf4"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAMAGE)
@example([("cut", 0, b"")])
@example([("cut", 200, b"")])
@example([("cut", 1000, b"")])
def test_damaged_binary_log_loses_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Damage
) -> None:
    caplog.set_level(logging.INFO)
    caplog.clear()
    raw = damaged(recorded(name), damage)
    path = folder / f"log.{name}"
    path.write_bytes(raw)
    sizes = outcome(path, name)
    if sizes and sum(sizes) != 60:
        assert "events of the logger" in caplog.text


@settings(max_examples=100)
@given(st.sampled_from([file for file, _, _ in TEXTS]), DAMAGE)
def test_format_of_a_damaged_file_is_recognised_or_asked_for(folder: Path, file: str, damage: Damage) -> None:
    path = folder / "capture"
    path.write_bytes(damaged((OWN / file).read_bytes(), damage))
    try:
        said = recognise(path)
    except CanidsError as error:
        said = str(error)
    assert said in FORMATS or (said.startswith(str(path)) and said.isprintable())
