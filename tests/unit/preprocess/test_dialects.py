"""Every text format: frames written by a small writer come back as they were, and again from `candump -l`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import can
import pytest
from capture_files import read, refused, said, written
from dialect_writers import CHALLENGE, DAGA, DIALECTS, GVRET, Frame, candump, console_by_delta, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canids_preprocess.formats import FORMATS, recognise, text

MICROS = st.integers(0, 2 * 10**15)


def frames_of(remote: bool, fd: bool, by_value: bool, whole: bool) -> st.SearchStrategy[list[Frame]]:
    """Frames in the order of their times; `by_value`: a format that tells 29-bit IDs by their value; `whole`: eight bytes each."""
    sizes = st.just(8) if whole else st.integers(0, 8)
    standard = st.builds(
        Frame, st.integers(1, 10**7), st.integers(0, 0x7FF), st.just(False), sizes.flatmap(lambda n: st.binary(min_size=n, max_size=n)),
        label=st.integers(0, 1),
    )  # fmt: skip
    long_ids = st.integers(0x800 if by_value else 0, 0x1FFFFFFF)
    kinds = [standard, st.builds(lambda f, i: replace(f, can_id=i, extended=True), standard, long_ids)]
    if remote:
        kinds.append(
            st.builds(lambda f, n: replace(f, payload=b"", remote=True, length=n), standard, st.integers(0, 8))
        )
    if fd:
        long = st.sampled_from(text.FD_LENGTHS).flatmap(lambda n: st.binary(min_size=n, max_size=n))
        kinds.append(st.builds(lambda f, p: replace(f, payload=p, fd=True), standard, long))

    def in_time(gaps: list[Frame], start: int) -> list[Frame]:
        made, us = [], start
        for frame in gaps:
            us += frame.us
            made.append(replace(frame, us=us))
        return made

    return st.builds(in_time, st.lists(st.one_of(kinds), min_size=1, max_size=12), MICROS)


ENTRY: dict[str, Any] = {"content": "unlabelled"}


def recorded(frames: list[Frame]) -> list[tuple[Any, ...]]:
    return [(f.can_id, f.extended, f.remote, f.fd, f.dlc, b"" if f.remote else f.payload) for f in frames]


@pytest.mark.parametrize("case", DIALECTS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_frames_written_in_a_dialect_come_back(folder: Path, case: str, data: st.DataObject) -> None:
    dialect = DIALECTS[case]
    frames = data.draw(frames_of(dialect.remote, dialect.fd, dialect.by_value, dialect.whole))
    path = written(folder, dialect.write(frames), "frames")
    entry = ENTRY if dialect.timed else {**ENTRY, "assume_rate": 500.0}
    back, rejects = read(path, dialect.name, **entry)
    assert not len(rejects)
    assert said(back) == recorded(frames)
    assert back["label"].to_list() == [f.label if dialect.labels else None for f in frames]
    if not dialect.timed:
        assert back["timestamp"].to_list() == [n / 500 for n in range(len(frames))]
    elif dialect.name == "busmaster":  # times of the day, to 100 µs, which begin again at midnight
        days = frames[0].us // 86_400_000_000
        assert back["timestamp"].to_list() == pytest.approx(
            [f.us // 100 / 1e4 - 86400 * days for f in frames], abs=1e-6
        )
    elif dialect.name == "gvret":
        assert back["timestamp"].to_list() == [f.us / 1e6 for f in frames]
    else:
        assert back["timestamp"].to_list() == [f.us // dialect.unit_us * dialect.unit_us / 1e6 for f in frames]
    # The same frames from what everybody can read.
    same = [replace(f, us=round(t * 1e6)) for f, t in zip(frames, back["timestamp"], strict=True)]
    again, _ = read(written(folder, rows(candump)(same), "log"), "candump")
    assert said(again) == said(back)
    assert again["timestamp"].to_list() == pytest.approx(back["timestamp"].to_list(), abs=1e-6)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames_of(remote=True, fd=True, by_value=False, whole=False))
def test_python_can_reads_the_same_of_candump_and_asc(folder: Path, frames: list[Frame]) -> None:
    # python-can takes a CAN FD frame without payload for a remote frame.
    kept = [f for f in frames if not f.fd or f.payload]
    for name, dialect in (("log", "candump"), ("asc", "asc-hex")):
        path = written(folder, DIALECTS[dialect].write(kept), f"frames.{name}")
        messages = list(can.LogReader(path)) if kept else []
        theirs = [(m.arbitration_id, m.is_extended_id, m.is_remote_frame, bytes(m.data)) for m in messages]
        assert theirs == [(f.can_id, f.extended, f.remote, f.payload) for f in kept]
        if kept:
            ours, _ = read(path, DIALECTS[dialect].name)
            assert ours.select("can_id", "extended", "remote", "payload").rows() == theirs


MANY = [
    Frame(1_600_000_000_000_000 + 1000 * n + 37 * (n % 3), 0x100 + n % 7, False, bytes([n % 256] * 8), label=n % 2)
    for n in range(40)
]


@pytest.mark.parametrize("case", DIALECTS)
def test_dialect_is_recognised(tmp_path: Path, case: str) -> None:
    assert recognise(written(tmp_path, DIALECTS[case].write(MANY))) == DIALECTS[case].name


@pytest.mark.parametrize("case", DIALECTS)
def test_pieces_and_batches_of_a_dialect_lose_nothing(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = DIALECTS[case]
    path = written(tmp_path, dialect.write(MANY))
    entry = ENTRY if dialect.timed else {**ENTRY, "assume_rate": 500.0}
    whole, _ = read(path, dialect.name, **entry)
    monkeypatch.setattr(text, "_CHUNK", 200)
    monkeypatch.setattr(text, "ROWS_A_BATCH", 2)
    assert read(path, dialect.name, **entry)[0].equals(whole)


@pytest.mark.parametrize("name", sorted({d.name for d in DIALECTS.values() if not d.timed}))
def test_log_without_times_is_refused_unless_a_rate_is_assumed(tmp_path: Path, name: str) -> None:
    case = next(d for d in DIALECTS.values() if d.name == name and not d.timed)
    path = written(tmp_path, case.write(MANY))
    assert refused(path, name) == (
        ": has no times, and detection rests on intervals; record it with times, or set assume_rate (frames/s) in the manifest"
    )
    assert FORMATS[name].untimed
    with_times = written(tmp_path, DIALECTS["console"].write(MANY))
    assert "assume_rate in the manifest is for logs without" in refused(
        with_times, "candump-console", assume_rate=100.0
    )


def test_console_with_times_since_the_row_above(tmp_path: Path) -> None:
    frames, rejects = read(written(tmp_path, console_by_delta(MANY)), "candump-console")
    assert not len(rejects)
    assert frames["timestamp"].to_list() == pytest.approx([(f.us - MANY[0].us) / 1e6 for f in MANY], abs=1e-9)


def test_console_with_dates_ascii_swapped_bytes_raw_dlc_and_errors(tmp_path: Path) -> None:
    content = """can0: candump -tA -a any,0:0,#FFFFFFFF
 (2021-03-04 05:06:07.250000)  can0  123   [2]  31 2E   '1.'
 (2021-03-04 05:06:07.500000)  can0  123   [3]  33`22`11
 (2021-03-04 05:06:07.750000)  can0  123   {D}  01 02 03 04 05 06 07 08
 (2021-03-04 05:06:07.800000)  can0  20000004   [8]  00 01 00 00 00 00 00 00   ERRORFRAME
\tcontroller-problem{rx-overflow}
 (2021-03-04 05:06:08.000000)  can0  123   [4]  remote request
 (2021-03-04 05:06:08.250000)  can0  123   [2]  11 22 33
"""
    frames, rejects = read(written(tmp_path, content.replace("can0: ", "$ ")), "candump-console")
    assert frames.select("payload", "remote", "dlc").rows() == [
        (b"1.", False, 2),
        (b"\x11\x22\x33", False, 3),
        (bytes(range(1, 9)), False, 8),
        (b"", True, 4),
    ]
    assert (frames["timestamp"] - 1614834367.0).to_list() == [0.25, 0.5, 0.75, 1.0]
    assert rejects.select("line", "reason").rows() == [(8, "3 payload bytes, but a DLC of 2")]


def test_direction_and_number_of_the_interface_in_one(tmp_path: Path) -> None:
    rows = "(1.0) RX0 50F [2] 01 02\n(1.1) TX0 50F [1] 03\n1.2 RX0 18FEF100 [0]\n(1.3)  can0  TX - -  50F  [1]  01\n"
    frames, rejects = read(written(tmp_path, rows), "candump-console")
    assert frames.select("can_id", "channel").rows() == [(0x50F, "0"), (0x50F, "0"), (0x18FEF100, "0"), (0x50F, "can0")]
    assert not len(rejects)


def test_counter_of_32_bits_begins_again(tmp_path: Path) -> None:
    rows = "".join(f"{us},00000100,false,Rx,0,1,00,\n" for us in (2**32 - 500, 2**32 - 100, 300, 800, 700))
    frames, _ = read(written(tmp_path, GVRET + rows), "gvret")
    assert (frames["timestamp"] - (2**32 - 500) / 1e6).round(6).to_list() == [0.0, 0.0004, 0.0008, 0.0013, 0.0012]


def test_times_that_count_backwards_are_refused_with_the_remedy(tmp_path: Path) -> None:
    rows = "".join(f"{us},00000100,false,Rx,0,1,00,\n" for us in range(9000, 1000, -1000))
    assert refused(written(tmp_path, GVRET + rows), "gvret") == (
        ": times count backwards, the newest frame comes first; turn the rows round below the header (tac)"
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("5,00000100,false,Rx,0,2,00,", "1 payload bytes, but a DLC of 2"),
        ("5,00000100,false,Rx,0,1,00,07,", "payload '00 07' has more bytes than the length says"),
        ("5,00000100,false,Rx,0,x,00,", "length 'x' is not a number of bytes"),
        ("5,00000800,false,Rx,0,1,00,", "arbitration ID '00000800' has more than 11 bits"),
        ("x,00000100,false,Rx,0,1,00,", "timestamp 'x' is not a number of seconds"),
        ("5,00000100,false,Rx,0,1,0G,", "payload '0G"),
        ("5,1,false,Rx,0,1,00" + "," * 8 + "9", "more fields than the header has"),
        ("5", "not of the form 'Time Stamp,ID,"),
    ],
)
def test_bad_row_of_a_table_is_a_reject(tmp_path: Path, row: str, reason: str) -> None:
    frames, rejects = read(written(tmp_path, f"{GVRET}{row}\n"), "gvret")
    assert not len(frames)
    assert rejects["reason"][0].startswith(reason)


def test_fields_of_a_table_are_trimmed_and_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path, CHALLENGE + "1.0, 123 ,2, 0A 0B ,Normal,x\n1.1,123,2,0A 0B,Attack,x\n1.2,123,1,0A,maybe,x\n"
    )
    (batch,) = FORMATS["hcrl-challenge"].read(path, ENTRY)
    assert batch.frames.select("can_id", "payload", "label").rows() == [
        (0x123, b"\x0a\x0b", 0),
        (0x123, b"\x0a\x0b", 1),
    ]
    assert batch.trimmed == 1
    assert batch.rejects["reason"].to_list() == ["label 'maybe' is neither normal nor attack"]


def test_ids_that_a_tool_took_for_numbers(tmp_path: Path) -> None:
    rows = "0.5,130.0,16,0102,0,FALSE\n0.6,100000.0,16,0102,0,FALSE\n"
    frames, _ = read(written(tmp_path, DAGA + rows), "daga")
    assert frames.select("can_id", "payload", "label").rows() == [(0x130, b"\x01\x02", 0), (0x1E5, b"\x01\x02", 0)]


def test_relative_times_and_midnight_of_busmaster(tmp_path: Path) -> None:
    head = "***BUSMASTER Ver 3.2.2***\n***HEX***\n***{} MODE***\n"
    rows = "23:59:59:9990 Rx 1 0x100 s 1 00\n00:00:00:0010 Tx 1 0x100 s 1 00\n"
    frames, _ = read(written(tmp_path, head.format("SYSTEM") + rows), "busmaster")
    assert frames["timestamp"].diff().to_list()[1] == pytest.approx(0.002)
    rows = "0:0:0:0000 Rx 1 0x100 s 1 00\n0:0:0:0050 Rx 1 0x100 s 1 00\n0:0:0:0020 Rx 1 0x100 s 1 00\n"
    frames, _ = read(written(tmp_path, head.format("RELATIVE") + rows), "busmaster")
    assert frames["timestamp"].to_list() == pytest.approx([0.0, 0.005, 0.007])


def test_column_that_is_missing_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "Time Stamp,ID,Bus,LEN\n")
    assert refused(path, "gvret") == ", line 1: no column d1, extended in the header 'Time Stamp,ID,Bus,LEN'"


def test_headless_rows_of_trc(tmp_path: Path) -> None:
    directed = written(
        tmp_path, "     1)      1.5  Rx         0123  2  01 02\n     2)      2.5  Tx     18EF1234  1  FF\n"
    )
    assert recognise(directed) == "trc"
    assert said(read(directed, "trc")[0]) == [
        (0x123, False, False, False, 2, b"\x01\x02"),
        (0x18EF1234, True, False, False, 1, b"\xff"),
    ]
    plain = written(tmp_path, "     1)      1  0123  2  01 02\n     2)      2  0124  1  FF\n")
    assert recognise(plain) == "trc"
    assert read(plain, "trc")[0].select("can_id", "timestamp").rows() == [(0x123, 0.001), (0x124, 0.002)]
