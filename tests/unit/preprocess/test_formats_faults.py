"""Kinds of rows that loggers write and readers get wrong; compressed files and UTF-16."""

import bz2
import gzip
import logging
import lzma
import struct
import zipfile
import zlib
from pathlib import Path

import can
import pyarrow as pa
import pytest
from can.io import blf as python_can_blf
from capture_files import MESSAGES, OWN, WILD, read, record, refused, said, written

from canids_preprocess.formats import FORMATS, recognise
from canids_preprocess.formats.growing import Growing, IdleTimeout
from canids_shared.errors import CanidsError

ASC = "date Thu Sep 2 09:37:49 am 2021\nbase {}  timestamps absolute\ninternal events logged\n"
FAULTS = WILD.parent / "faults"


def asc(folder: Path, *rows: str, base: str = "hex") -> Path:
    return written(folder, ASC.format(base) + "\n".join(rows) + "\n", "log.asc")


def test_transmit_requests_of_asc_are_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = asc(
        tmp_path,
        "0.010 1  100  TxRq d 1 01  Length = 0 BitCount = 0 ID = 256",
        "0.011 1  100  Tx   d 1 01  Length = 0 BitCount = 0 ID = 256",
        "0.012 CANFD   1 TxRq  101   1 0 1  1 01  0  0  303000 0 0 0 0 0",
        "0.013 CANFD   1 Tx    101   1 0 1  1 01  0  0  303000 0 0 0 0 0",
        "0.014 CANFD   Start of measurement",
    )
    frames, rejects = read(path, "asc")
    assert (frames["line"].to_list(), len(rejects)) == ([5, 7], 0)
    assert "3 events of the logger" in caplog.text


def test_flags_of_asc_say_what_a_canfd_row_is(tmp_path: Path) -> None:
    row = "0.1 CANFD 1 Rx 4B0 {} 0 0 {} 102203 133 {} e0006659 46500250"
    path = asc(
        tmp_path,
        row.format("", "0 0", "303000"),
        row.format("Name_1", "2 2 0A 0B", "200000"),
        row.format("", "8 0", "200010"),
        row.format("", "9 12 " + "01 " * 12, "201000"),
        row.format("", "d 8 " + "01 " * 8, "200000"),
    )
    assert said(read(path, "asc")[0]) == [
        (0x4B0, False, False, True, 0, b""),
        (0x4B0, False, False, False, 2, b"\x0a\x0b"),
        (0x4B0, False, True, False, 8, b""),
        (0x4B0, False, False, True, 12, b"\x01" * 12),
        (0x4B0, False, False, False, 8, b"\x01" * 8),
    ]


def test_dlc_of_9_to_15_of_a_classical_frame_is_a_length_of_8(tmp_path: Path) -> None:
    eight = bytes(range(8))
    path = asc(tmp_path, f"1.0 1 545 Rx d d {eight.hex(' ')}", f"1.1 1 545 Rx d 8 {eight.hex(' ')}", "1.2 1 545 Rx r f")
    assert read(path, "asc")[0]["dlc"].to_list() == [8, 8, 8]
    log = record(tmp_path / "log.blf", [can.Message(arbitration_id=5, is_extended_id=False, data=eight)] * 2)
    raw = uncompressed(log)
    at = raw.index(struct.pack("<BL8s", 8, 5, eight))
    log.write_bytes(raw[:at] + b"\x0d" + raw[at + 1 :])
    frames, rejects = read(log, "blf")
    assert (frames["dlc"].to_list(), frames["payload"].to_list(), len(rejects)) == ([8, 8], [eight, eight], 0)


def uncompressed(path: Path) -> bytes:
    """A BLF file with its objects outside of any container."""
    raw = path.read_bytes()
    with open(path, "rb") as stream:
        reader = can.BLFReader(stream)
        header = raw[: reader.file_size and struct.unpack_from("<L", raw, 4)[0]]
    at, content = len(header), b""
    while at < len(raw):
        _, _, _, size, kind = python_can_blf.OBJ_HEADER_BASE_STRUCT.unpack_from(raw, at)
        body = raw[at + 16 : at + size]
        content += zlib.decompress(body[16:]) if kind == python_can_blf.LOG_CONTAINER else raw[at : at + size]
        at += size + size % 4
    fields = list(python_can_blf.FILE_HEADER_STRUCT.unpack_from(header))
    fields[10] = len(header) + len(content)
    return python_can_blf.FILE_HEADER_STRUCT.pack(*fields).ljust(len(header), b"\0") + content


def test_transmit_requests_of_blf_are_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sent = can.Message(arbitration_id=5, is_extended_id=False, data=b"\1" * 8, is_rx=False)
    log = record(tmp_path / "log.blf", [sent, sent])
    raw = uncompressed(log)
    at = raw.index(struct.pack("<BBL", 1, 8, 5))
    log.write_bytes(raw[:at] + b"\x02" + raw[at + 1 :])
    frames, rejects = read(log, "blf")
    assert (frames["line"].to_list(), len(rejects)) == ([1], 0)
    assert "1 events of the logger" in caplog.text


def test_base_dec_holds_wherever_it_stands_above_the_frames(tmp_path: Path) -> None:
    comments = "// a note of the recorder\n" * 400
    row = "1.0 1 100 Rx d 2 10 255\n"
    path = written(tmp_path, f"date Thu Sep 2 2021\n{comments}base dec  timestamps absolute\n{row}", "log.asc")
    assert said(read(path, "asc")[0]) == [(100, False, False, False, 2, b"\x0a\xff")]
    # A log that follows another in the same file declares its own.
    path.write_text(ASC.format("hex") + row.replace("255", "FF") + ASC.format("dec") + row)
    assert read(path, "asc")[0].select("can_id", "payload").rows() == [(0x100, b"\x10\xff"), (100, b"\x0a\xff")]
    path.write_text(f"date Thu Sep 2 2021\n1.0 1 100 Rx d 1 10\nbase dec  timestamps absolute\n{row}")
    assert refused(path, "asc") == ", line 3: base dec below frames in no declared base; move it above them"
    path.write_text(ASC.format("dec") + "1.0 1 10A Rx d 1 10\n1.0 1 100 Rx d 1 256\n")
    assert read(path, "asc")[1]["reason"].to_list() == [
        "arbitration ID '10A in base 10' is not a hexadecimal number",
        "payload '256' is not a row of bytes",
    ]


def test_names_for_ids_are_looked_up_at_the_end_of_the_row(tmp_path: Path) -> None:
    row = "1.0 1  {}  Rx   d 1 00  Length = 0 BitCount = 0 ID = {}"
    path = asc(tmp_path, row.format("EngineData", "100"), row.format("BAD", "291"), row.format("Diag_x", "418119424x"))
    assert read(path, "asc")[0].select("can_id", "extended").rows() == [(100, False), (291, False), (418119424, True)]
    path = asc(tmp_path, "1.0 1  EngineData  Rx   d 1 00")
    _, rejects = read(path, "asc")
    assert rejects["reason"].to_list() == [
        "arbitration ID 'EngineData' is a name, and no 'ID = ...' follows; export the log with numbers"
    ]


def test_label_behind_the_frame(tmp_path: Path) -> None:
    rows = "(1.0) can0 500#0C 0\n(1.1) can0 501# 1\n(1.2) can0 18EF1234#R4 R 0\n"
    path = written(tmp_path, rows)
    assert recognise(path) == "can-mirgu"
    frames, rejects = read(path, "can-mirgu")
    assert (frames["label"].to_list(), len(rejects)) == ([0, 1, 0], 0)
    # Labels on some rows only: quarantine must not put aside just the attacked ones.
    for name, line in (("can-mirgu", 4), ("candump", 2)):
        mixed = written(
            tmp_path,
            ("(0.9) can0 500#0C\n" if name == "candump" else rows)
            + "(1.3) can0 500#0C"
            + (" 1" if name == "candump" else "")
            + "\n",
        )
        assert refused(mixed, name).startswith(
            f", line {line}: some rows have a label (0 or 1) behind the frame and others none"
        )


@pytest.mark.parametrize(
    ("name", "row"), [("hcrl-car-hacking", "1.5,0316,2,05,21,R"), ("hcrl-survival", '1.5,0316,2,"05 21"')]
)
def test_names_of_columns_above_the_rows_are_no_row(tmp_path: Path, name: str, row: str) -> None:
    path = written(tmp_path, f"\ufeffTimestamp,CAN ID,DLC,DATA\n{row}\n")
    assert recognise(path) == name
    frames, rejects = read(path, name)
    assert (frames["line"].to_list(), len(rejects)) == ([2], 0)


@pytest.mark.parametrize(
    ("name", "content", "trimmed"),
    [
        (
            "can-train-and-test",
            'timestamp,arbitration_id,data_field,attack\n1.0,123,00FF\t,0\n1.1,123,"",1\n1.2,123,0A,0\n',
            2,
        ),
        ("can-train-and-test", "Timestamp, Arbitration_ID, Data_Field, Attack\n1.0, 123, 00FF, 0\n", 1),
        ("hcrl-car-hacking", "1.5,0316,2,05,21,R\n" * 2 + "1.6, 0316 ,1,05,T \n", 1),
        ("hcrl-survival", '1.5,0316,2,"05 21"\n' * 2 + '1.6, 0316, 2,"05 21"\n', 1),
        ("candump", "  (1.0) can0 123#00\n(1.1) can0 123#00\n", 1),
        ("python-can-csv", "timestamp,arbitration_id,extended,remote,error,dlc,data\n1.0,0x123, 0,0,0,2,AAE= \n", 1),
    ],
)
def test_white_space_and_quotes_around_fields_are_trimmed_and_counted(
    tmp_path: Path, name: str, content: str, trimmed: int
) -> None:
    batches = list(FORMATS[name].read(written(tmp_path, content), {"content": "unlabelled"}))
    assert sum(len(b.rejects) for b in batches) == 0
    assert sum(b.trimmed for b in batches) == trimmed
    lines = [line for b in batches for line in b.frames["line"]]
    assert lines == sorted(lines)


def packed(folder: Path, content: bytes, kind: str) -> Path:
    path = folder / f"drive.log.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("drive.log", content)
            archive.writestr("__MACOSX/._drive.log", b"x")
    elif kind == "zst":
        path.write_bytes(pa.Codec("zstd").compress(content, asbytes=True))
    else:
        path.write_bytes({"gz": gzip, "xz": lzma, "bz2": bz2}[kind].compress(content))
    return path


COMPRESSIONS = ["gz", "xz", "bz2", "zst", "zip"]


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compressed_captures_are_read_as_they_are(tmp_path: Path, kind: str) -> None:
    plain, _ = read(OWN / "candump.log", "candump")
    path = packed(tmp_path, (OWN / "candump.log").read_bytes(), kind)
    assert recognise(path) == "candump"
    assert read(path, "candump")[0].equals(plain)
    # By the content, not by the name; and pieces of a large one.
    path = path.rename(tmp_path / "capture")
    many = b"".join(b"(%d.%06d) can0 123#00FF\n" % divmod(n, 10**6) for n in range(0, 10**9, 10_000))
    packed(tmp_path, many, kind).rename(path)
    assert len(read(path, "candump")[0]) == 100_000


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compressed_capture_that_is_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    path = packed(tmp_path, (OWN / "candump.log").read_bytes() * 500, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "it is cut off, damaged or encrypted" in refused(path, "candump")


def test_zip_of_several_files_and_a_growing_compressed_log_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, b"(1.0) can0 123#00\n", "zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b.log", b"x")
    assert refused(path, "candump").startswith(": a zip of 2 files, not of one; unpack it")
    growing = Growing.of(packed(tmp_path, b"(1.0) can0 123#00\n", "gz"), IdleTimeout(at_end=True))
    with pytest.raises(CanidsError, match="gz cannot be read while it is written"):
        recognise(growing)


@pytest.mark.parametrize("name", ["blf", "mf4"])
def test_compressed_binary_captures(tmp_path: Path, name: str) -> None:
    log = record(tmp_path / f"log.{name}", MESSAGES)
    path = packed(tmp_path, log.read_bytes(), "xz")
    assert recognise(path) == name
    assert read(path, name)[0].equals(read(log, name)[0])
    if name == "blf":
        assert "cut off or damaged" in refused(packed(tmp_path, log.read_bytes()[:-30], "xz"), name)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    content = (OWN / "candump.log").read_text()
    path = written(tmp_path, ("\ufeff" + content.replace("\n", "\r\n")).encode(encoding))
    assert recognise(path) == "candump"
    assert read(path, "candump")[0].equals(read(OWN / "candump.log", "candump")[0])
    path = written(tmp_path, gzip.compress(("\ufeff" + content).encode(encoding)))
    assert len(read(path, "candump")[0]) == len(read(OWN / "candump.log", "candump")[0])


EXPECTED = {
    "asc_txrq.asc": (3, 0),
    "blf_txrq.blf": (3, 0),
    "asc_canfd_len0_and_classic.asc": (5, 0),
    "asc_canfd_start_of_measurement.asc": (1, 0),
    "asc_classic_dlc13.asc": (2, 0),
    "asc_base_dec_after_4KiB.asc": (2, 0),
    "asc_symbolic_names.asc": (4, 0),
    "can_mirgu_label_behind.log": (20, 4),
    "car_hacking_with_header.csv": (20, 10),
    "hcrl_attack_defense_challenge.csv": (10, 1),
    "drive.log.gz": (10, 0),
    "utf16.log": (10, 0),
}


@pytest.mark.skipif(not FAULTS.is_dir(), reason=f"no samples of faults in {FAULTS}")
@pytest.mark.parametrize("file", EXPECTED)
def test_samples_of_faults(file: str) -> None:
    frames, rejects = read(FAULTS / file, recognise(FAULTS / file))
    assert (len(frames), int(frames["label"].sum()), len(rejects)) == (*EXPECTED[file], 0)
