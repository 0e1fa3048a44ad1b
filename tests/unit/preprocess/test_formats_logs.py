"""The loggers' formats: ASC, TRC, BLF, MF4, compared with what python-can reads of them."""

import logging
import struct
from pathlib import Path
from typing import Any

import can
import numpy as np
import pytest
from asammdf import MDF
from capture_files import MESSAGES, OWN, WILD, by_python_can, in_the_wild, limited, read, record, said, written

from canids_preprocess.formats import mf4, recognise
from canids_shared.errors import CanidsError

ERROR_FRAME = can.Message(timestamp=1.2, is_error_frame=True, channel=0)


@pytest.mark.parametrize(("file", "name"), [("log.asc", "asc"), ("log_v1_1.trc", "trc"), ("log_v2_1.trc", "trc")])
def test_own_logs(file: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    frames, rejects = read(OWN / file, name)
    assert not len(rejects)
    assert said(frames) == by_python_can(list(can.LogReader(str(OWN / file))))
    assert "events of the logger" in caplog.text
    assert frames["label"].null_count() == len(frames)


def test_other_buses_and_variables_of_asc_are_no_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows = """date Thu Sep 2 09:37:49 am 2021
base hex  timestamps absolute
   0.1 1  123             Rx   d 1 01
   0.2 Li 3c              Rx     8 00 01 02 03 04 05 06 07  checksum = 12   header time =  40, full time = 130
   0.3 L2 3c              Rx     1 00  checksum = 12
   0.4 EnvSpeed := 12
   0.5 Engine::Data::Speed = 3.5
   0.6 1  123             Rx   d 1 02
"""
    frames, rejects = read(written(tmp_path, rows), "asc")
    assert frames["line"].to_list() == [3, 8]
    assert not len(rejects)
    assert "4 events of the logger" in caplog.text


def test_lines_of_asc_and_their_times() -> None:
    frames, _ = read(OWN / "log.asc", "asc")
    assert frames.select("line", "timestamp").rows() == [
        (9, 2.510001),
        (10, 2.520002),
        (11, 3.098426),
        (12, 3.148421),
        (13, 3.15),
        (14, 3.2),
    ]


def test_times_of_trc_count_from_the_start() -> None:
    for file in ("log_v1_1.trc", "log_v2_1.trc"):
        frames, _ = read(OWN / file, "trc")
        assert frames["timestamp"].to_list() == pytest.approx([0.5, 0.5015, 0.502, 0.504, 0.505][: len(frames)])


@pytest.mark.parametrize("line", ["   2.6 1  1G0  Rx   d 1 00", "   2.6 1  100  Rx   d 2 00", "   2.6 1  800  Rx   d 1 00", "soon", "\0"])  # fmt: skip
def test_line_of_asc_that_python_can_passes_over_is_a_reject(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.asc"
    lines = (OWN / "log.asc").read_text().splitlines()
    path.write_text("\n".join([*lines[:9], line, *lines[9:]]))
    frames, rejects = read(path, "asc")
    assert len(frames) == 6
    assert rejects["line"].to_list() == [10]


@pytest.mark.parametrize(
    "line", ["     9)  502.0  Rx  02G0  1  00", "     9)  502.0  Rx  0200", "9)", "     9)  502.0  Xx  0200  0"]
)
def test_line_of_trc_that_python_can_passes_over_is_a_reject(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.trc"
    lines = (OWN / "log_v1_1.trc").read_text().splitlines()
    path.write_text("\n".join([*lines[:6], line, *lines[6:]]))
    frames, rejects = read(path, "trc")
    assert len(frames) == 4
    assert rejects["line"].to_list() == [7]


def test_first_frame_of_an_asc_without_header_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.asc"
    path.write_text("base dec  timestamps absolute\n   1.000000 1  100 Rx d 2 10 255\n   2.000000 1  101 Rx d 0\n")
    assert recognise(path) == "asc"
    assert said(read(path, "asc")[0]) == [
        (100, False, False, False, 2, b"\x0a\xff"),
        (101, False, False, False, 0, b""),
    ]


def test_logs_that_cannot_be_read_as_they_are_meant_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.asc"
    path.write_text("base hex  timestamps relative\n   1.000000 1  100 Rx d 0\n")
    with pytest.raises(CanidsError, match=r"a\.asc: timestamps are relative to the last event; export the log"):
        read(path, "asc")
    path.write_text(";$FILEVERSION=3.0\n")
    with pytest.raises(CanidsError, match=r"version 3\.0 of the TRC format"):
        read(path, "trc")
    path.write_text(";$FILEVERSION=2.1\n  1 1.0 DT 1 0100 Rx - 0\n")
    with pytest.raises(CanidsError, match=r"a\.asc: python-can cannot read its header"):
        read(path, "trc")


@pytest.mark.parametrize("name", ["asc", "blf", "mf4"])
def test_what_python_can_writes_is_read_back(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = record(tmp_path / f"log.{name}", [*MESSAGES[:2], ERROR_FRAME, *MESSAGES[2:]])
    assert recognise(path) == name
    frames, rejects = read(path, name)
    assert not len(rejects)
    assert said(frames) == by_python_can(MESSAGES)
    assert np.diff(frames["timestamp"]) == pytest.approx([0.001, 0.499, 0.25, 0.25, 0.5], abs=1e-6)
    assert "1 events of the logger" in caplog.text or name == "asc"


def many(n: int) -> list[can.Message]:
    """Messages of several containers, every tenth a remote frame."""
    return [
        can.Message(timestamp=k / 1000, arbitration_id=k % 2048, is_extended_id=False, is_remote_frame=k % 10 == 0, dlc=8,
                    data=None if k % 10 == 0 else k.to_bytes(8, "big"), channel=0)
        for k in range(n)
    ]  # fmt: skip


def test_blf_goes_on_across_containers(tmp_path: Path) -> None:
    messages = many(5000)
    frames, rejects = read(record(tmp_path / "log.blf", messages), "blf")
    assert said(frames) == by_python_can(messages)
    assert frames["line"].to_list() == list(range(1, 5001))
    assert not len(rejects)


def test_groups_of_mf4_are_merged_by_time_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "log.mf4", many(200))
    whole, _ = read(path, "mf4")
    assert said(whole) == by_python_can(many(200))
    for rows in (1, 7, 20):
        monkeypatch.setattr(mf4, "ROWS_A_BATCH", rows)
        assert read(path, "mf4")[0].equals(whole)


@pytest.mark.parametrize(
    ("can_id", "ide", "expected"),
    [
        (0x20000123, 0, None),
        (0x40000123, 1, None),
        (0x80000123, 0, None),
        (0x80000123, 1, (0x123, True)),
        (0x80000123, None, (0x123, True)),
        (0xC0000123, None, None),
        (0x1FFFFFFF, None, (0x1FFFFFFF, True)),
        (0x123, None, (0x123, False)),
    ],
)
def test_bits_of_an_id_in_mf4_beyond_29(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_id: int, ide: int | None, expected: tuple[int, bool] | None
) -> None:
    path = record(tmp_path / "log.mf4", MESSAGES[:1])
    get = MDF.get

    def changed(mdf: MDF, name: str, *place: Any, **options: Any) -> Any:
        signal = get(mdf, name, *place, **options)
        if name == "CAN_DataFrame":
            signal.samples["CAN_DataFrame.ID"] = can_id
            kept = [n for n in signal.samples.dtype.names if ide is not None or n != "CAN_DataFrame.IDE"]
            signal.samples = signal.samples[kept]
            if ide is not None:
                signal.samples["CAN_DataFrame.IDE"] = ide
        return signal

    monkeypatch.setattr(MDF, "get", changed)
    frames, rejects = read(path, "mf4")
    assert frames.select("can_id", "extended").rows() == ([expected] if expected else [])
    assert rejects["reason"].str.contains("has more than 29 bits").to_list() == ([] if expected else [True])


def test_circle_of_blocks_in_mf4_is_found(tmp_path: Path) -> None:
    path = record(tmp_path / "log.mf4", MESSAGES)
    raw = bytearray(path.read_bytes())
    (group,) = struct.unpack_from("<Q", raw, 64 + 24)
    struct.pack_into("<Q", raw, group + 24, group)
    path.write_bytes(raw)
    with limited(), pytest.raises(CanidsError, match="linked in a circle"):
        read(path, "mf4")


def test_number_of_frames_in_mf4_must_fit_its_data(tmp_path: Path) -> None:
    path = record(tmp_path / "log.mf4", MESSAGES)
    with MDF(path) as mdf:
        header = mdf.groups[0].channel_group
        place, frames = header.address, header.cycles_nr
    raw = bytearray(path.read_bytes())
    at = place + 24 + 6 * 8 + 8  # behind the block's header, six links, and the ID of its records
    assert struct.unpack_from("<Q", raw, at) == (frames,)
    for wrong in (frames - 1, frames + 1, 1 << 60):
        struct.pack_into("<Q", raw, at, wrong)
        path.write_bytes(raw)
        with limited(), pytest.raises(CanidsError, match="damaged"):
            read(path, "mf4")


@pytest.mark.parametrize(
    ("last", "cut"),
    [
        ("185#EB0000", True),
        ("185#EB0000\n", False),
        ("185#EB00001122334455", False),
        ("100#0A", False),  # as short as another of its ID
        ("00000185#EB", False),  # the first of its ID: nobody knows
        ("185#R4", False),
        ("185#", True),
    ],
)
def test_a_last_line_of_candump_that_was_cut_in_its_payload_is_no_shorter_frame(
    tmp_path: Path, last: str, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["185#EB00001122334455", "100#0A0B", "100#0A", "185#EB00001122334456", "185#R"]
    text = "\n".join(f"(1.00{n}) can0 {row}" for n, row in enumerate([*rows, last]))
    for size in (2, 1 << 18):
        monkeypatch.setattr("canids_preprocess.formats.text.ROWS_A_BATCH", size)
        frames, rejects = read(written(tmp_path, text), "candump")
        assert len(frames) == len(rows) + (not cut)
        assert (
            rejects.rows()
            == [
                (
                    6,
                    "the last line has no line end, and its payload is shorter than any other of this ID: it was cut",
                    f"#{last[4:].lower()}",
                )
            ]
            * cut
        )


@in_the_wild
def test_samples_in_the_wild() -> None:
    for file in ("vector_asc/issue_1256.asc", "vector_asc/logfile.asc", "peak_trc/test_CanMessage.trc",
                 "peak_trc/test_CanMessage_V2_1.trc", "mf4/00000001-60B621D9.MF4"):  # fmt: skip
        path = WILD / file
        before = path.stat().st_mtime_ns
        frames, rejects = read(path, recognise(path))
        assert not len(rejects)
        assert said(frames) == by_python_can(list(can.LogReader(str(path))))
        assert path.stat().st_mtime_ns == before  # the MF4 is unfinalised, and stays so


@in_the_wild
def test_format_samples_of_blf_hold_no_valid_frames() -> None:
    """Their fields are filled with 11, 22, 33, … to show the layout: a DLC of 51, payloads of 119 bytes."""
    for name in ("test_CanMessage.blf", "test_CanFdMessage.blf"):
        frames, rejects = read(WILD / "vector_blf" / name, "blf")
        assert (len(frames), rejects["line"].to_list()) == (0, [1, 2])
        assert rejects["reason"].str.contains("more than 11 bits").all()
