"""The formats that are read as text: HCRL's data sets, candump and ROAD, python-can's CSV; and recognising formats."""

import json
import logging
from pathlib import Path
from typing import Any

import can
import pytest
from capture_files import OWN, WILD, by_python_can, in_the_wild, read, refused, said, written

from canids_preprocess.formats import FORMATS, recognise, text
from canids_shared.errors import CanidsError


def test_car_hacking_attacked_with_mark_padding_and_windows_line_ends() -> None:
    frames, rejects = read(OWN / "car_hacking_attacked.csv", "hcrl-car-hacking")
    assert not len(rejects)
    assert said(frames) == [
        (0x316, False, False, False, 8, bytes.fromhex("052168092121006f")),
        (0x2B0, False, False, False, 5, bytes.fromhex("ff7f000549")),
        (0x000, False, False, False, 8, bytes(8)),
        (0x5F0, False, False, False, 2, b"\x01\x00"),  # written with eight bytes
        (0x545, False, False, False, 0, b""),
    ]
    assert frames["timestamp"].to_list()[:2] == [1478198376.389427, 1478198376.389636]
    assert frames["label"].to_list() == [0, 0, 1, 0, 0]
    assert frames["line"].to_list() == [1, 2, 3, 4, 5]


def test_car_hacking_attack_free_text_has_no_labels() -> None:
    frames, rejects = read(OWN / "car_hacking_normal.txt", "hcrl-car-hacking")
    assert frames.select("can_id", "dlc").rows() == [(0x350, 8), (0x2C0, 8), (0x5F0, 2), (0x440, 0)]
    assert frames["label"].null_count() == len(frames)
    assert not len(rejects)


def test_survival_in_all_three_layouts() -> None:
    frames, _ = read(OWN / "survival_attacked.csv", "hcrl-survival")
    assert frames.select("can_id", "dlc", "label").rows() == [(0x153, 8, 0), (0, 8, 1), (0x2C0, 3, 0)]
    frames, rejects = read(OWN / "survival_free_driving.csv", "hcrl-survival")
    assert frames.select("can_id", "payload", "label").rows() == [
        (0x153, bytes.fromhex("20A110FF00FF501F"), None),
        (0x2A0, bytes.fromhex("620060"), None),
        (0x2C0, b"", None),
    ]
    assert not len(rejects)
    same, _ = read(OWN / "car_hacking_normal.txt", "hcrl-survival")
    assert same.equals(read(OWN / "car_hacking_normal.txt", "hcrl-car-hacking")[0])


@pytest.mark.parametrize(
    ("attack", "labels"),
    [
        ("DoS", [0, 1, 0, 0, 0]),
        ("fuzzy", [0, 0, 0, 1, 1]),
        ("fuzzing", [0, 0, 0, 1, 1]),
        ("impersonation", [0, 0, 0, 1, 1]),
    ],
)
def test_otids_is_labelled_by_its_documented_convention(attack: str, labels: list[int]) -> None:
    frames, rejects = read(OWN / "otids_remote.txt", "otids", content="labelled", attack=attack)
    assert frames["label"].to_list() == labels
    assert frames.filter("remote").select("can_id", "dlc", "payload").rows() == [(0x164, 8, b""), (0x153, 0, b"")]
    assert not len(rejects)


def test_otids_without_a_known_attack_or_without_labels() -> None:
    path = OWN / "otids_remote.txt"
    assert refused(path, "otids", content="labelled", attack="spoofing").startswith(
        ": OTIDS is labelled by its attack: set 'attack' in the manifest to dos, fuzzy or impersonation, not 'spoofing'"
    )
    assert read(path, "otids", content="attack-free")[0]["label"].null_count() == 5
    assert read(path, "otids", content="labelled", attacked=[[1.0, 2.0]])[0]["label"].null_count() == 5


def test_candump(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    frames, rejects = read(OWN / "candump.log", "candump")
    assert not len(rejects)
    # python-can knows neither the raw DLC of the last line but one, nor the error frame of the last.
    lines = (OWN / "candump.log").read_text().splitlines(keepends=True)
    messages = list(can.LogReader(str(written(tmp_path, "".join(lines[:-2]), "a.log"))))
    assert said(frames) == [
        *by_python_can(messages),
        (0x321, False, False, False, 8, bytes.fromhex("1122334455667788")),
    ]
    assert frames["channel"].to_list() == [*(m.channel for m in messages), "vcan0"]
    assert frames.select("can_id", "extended", "remote", "fd", "dlc").rows()[3:9] == [
        (0x123, False, False, False, 0),
        (0x123, False, True, False, 0),
        (0x123, True, True, False, 8),
        (0x213, False, False, True, 16),
        (0x18DAF110, True, False, True, 64),
        (0x123, False, False, True, 0),
    ]
    assert frames["label"].null_count() == len(frames)  # R and T are directions
    assert "1 events of the logger" in caplog.text  # the error frame


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "not of the form '(seconds) interface ID#payload'"),
        ("(1.0) can0 123", "not of the form"),
        ("(soon) can0 123#00", "timestamp 'soon' is not a number of seconds"),
        ("(1.0) can0 12#00", "arbitration ID '12' has neither three digits (11 bits) nor eight (29 bits)"),
        ("(1.0) can0 FFF#00", "arbitration ID 'FFF' has more than 11 bits"),
        ("(1.0) can0 F2345678#00", "arbitration ID 'F2345678' has more than 29 bits"),
        ("(1.0) can0 3ABCDEF0#00", "arbitration ID '3ABCDEF0' has more than 29 bits"),
        ("(1.0) can0 20000400#0000000000000000", "arbitration ID '20000400' has more than 29 bits"),
        ("(1e0) can0 123#00", "timestamp '1e0' is not a number of seconds"),
        ("(1.0) can0 12G#00", "arbitration ID '12G' is not a hexadecimal number"),
        ("(1.0) can0 123#0", "payload '0' is not a row of bytes"),
        ("(1.0) can0 123#001122334455667788", "more than the 8 payload bytes of classical CAN"),
        ("(1.0) can0 123##1001122334455667788", "no CAN FD frame has 9 payload bytes"),
        ("(1.0) can0 123##", "payload '#' has no CAN FD flags"),
        ("(1.0) can0 123#RX", "remote frame 'RX' is not R and its DLC"),
        ("(1.0) can0 123#00\0", "payload '00?' is not a row of bytes"),
    ],
)
def test_bad_line_of_candump_is_a_reject(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path, f"(0.5) can0 001#\n{line}\n(1.5) can0 002#\n")
    frames, rejects = read(path, "candump")
    assert frames["line"].to_list() == [1, 3]
    assert rejects["line"].to_list() == [2]
    assert rejects["reason"][0].replace("�", "?").startswith(reason)
    assert rejects["text"][0].replace("�", "\0") == line


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1.0,0316,8,05,21,68,09,21,21,00,6f", "not of the form 'seconds,ID,DLC,byte,...,byte,flag' with flag R or T"),
        ("1.0,0316,2,05,21,68,R", "3 payload bytes, but a DLC of 2"),
        ("1.0,0316,3,05,21,R", "2 payload bytes, but a DLC of 3"),
        ("1.0,0316,2,5,21,R", "payload '5,21,' is not a row of bytes"),
        ("1.0,0316,x,05,R", "DLC 'x' is not a number of bytes"),
        ("1.0,03 6,1,05,R", "arbitration ID '03 6' is not a hexadecimal number"),
        ("nan,0316,1,05,R", "timestamp 'nan' is not a number of seconds"),
        ("1.0,0316,9,00,00,00,00,00,00,00,00,00,R", "more than the 8 payload bytes"),
    ],
)
def test_bad_line_of_car_hacking_is_a_reject(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path, f"0.500,0316,1,05,R\n{line}\n1.500,0316,1,05,T\n")
    frames, rejects = read(path, "hcrl-car-hacking")
    assert frames["label"].to_list() == [0, 1]
    assert rejects.select("line", "text").rows() == [(2, line)]
    assert rejects["reason"][0].startswith(reason)


def test_road_labels_by_interval_id_and_payload() -> None:
    def labels(name: str, **entry: Any) -> list[int | None]:
        return read(OWN / f"road/{name}.log", "road", content="labelled", **entry)[0]["label"].to_list()

    # In turn: before the interval, so too, other payload, fits, other ID, the interval's end, after it.
    assert labels("max_speedometer_attack_1") == [0, 0, 0, 1, 0, 1, 0]
    assert labels("fuzzing_attack_1") == [0, 1, 1, 0, 0]
    assert labels("accelerator_attack_drive_1") == [1, 1]
    assert labels("fuzzing_attack_1", metadata=str(OWN / "road/capture_metadata.json")) == [0, 1, 1, 0, 0]
    for entry in ({"content": "attack-free"}, {"content": "labelled", "attacked": [[1.0, 2.0]]}):
        assert read(OWN / "road/fuzzing_attack_1.log", "road", **entry)[0]["label"].null_count() == 5


def test_road_accelerator_attack_with_an_interval_and_the_keys_of_other_copies(tmp_path: Path) -> None:
    path = written(tmp_path, (OWN / "road/fuzzing_attack_1.log").read_bytes(), "a.log")
    injection = {"injection_interval": [1, 2], "injected_aid": None, "injection_data": None}
    metadata = written(tmp_path, json.dumps({"a": injection}), "m.json")
    frames, _ = read(path, "road", content="labelled", metadata=metadata)
    assert frames["label"].to_list() == [0, 1, 1, 1, 0]
    metadata = written(tmp_path, json.dumps({**injection, "injected_aid": "0C0", "injection_data": "00"}), "m.json")
    frames, _ = read(path, "road", content="labelled", metadata=metadata)
    assert frames["label"].to_list() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        (None, "no such file; set 'metadata' in the manifest"),
        ("{", "not JSON"),
        ("[]", "no entry 'a', the capture's file name without .log"),
        ('{"b": {}}', "no entry 'a'"),
        ('{"a": {"injection_interval": [2, 1]}}', "a: injection_interval is [2, 1], not [from, to] in seconds"),
        ('{"a": {"injection_interval": [NaN, 1e999]}}', "a: injection_interval is [NaN, Infinity], not [from, to]"),
        ('{"a": {"injection_interval": [-1, 2]}}', "a: injection_interval is [-1, 2], not [from, to]"),
        ('{"a": {"injection_interval": [1, 1' + "0" * 400 + "]}}", "a: injection_interval is [1, 1000"),
        ('{"a": {"injection_id": "0D0"}}', "a: no injection_interval; give [from, to] in seconds, or null"),
        ('{"a": {"injection_interval": "1-2"}}', "a: injection_interval is"),
        (
            '{"a": {"injection_interval": null, "injection_id": "wheel"}}',
            "a: injection_id is 'wheel', not a hexadecimal ID, XXX or null",
        ),
        (
            '{"a": {"injection_interval": null, "injection_data_str": "F("}}',
            "a: injection_data_str is 'F(', not hexadecimal digits and X",
        ),
    ],
)
def test_metadata_of_road_that_cannot_be_used_is_named(tmp_path: Path, metadata: str | None, complaint: str) -> None:
    path = written(tmp_path, (OWN / "road/fuzzing_attack_1.log").read_bytes(), "a.log")
    if metadata is not None:
        written(tmp_path, metadata, "capture_metadata.json")
    with pytest.raises(CanidsError) as caught:
        read(path, "road", content="labelled")
    assert str(caught.value).startswith(f"{tmp_path / 'capture_metadata.json'}: {complaint}")


def test_python_can_csv() -> None:
    frames, rejects = read(OWN / "python_can.csv", "python-can-csv")
    assert not len(rejects)
    expected = by_python_can(list(can.CSVReader(str(OWN / "python_can.csv"))))
    assert said(frames)[:4] == expected[:4]
    assert said(frames)[4] == (0x1FFFFFFF, True, False, True, 12, bytes(range(12)))  # CSV does not tell CAN FD
    assert frames["line"].to_list() == [2, 3, 4, 5, 7]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1.0,0x123,0,0,0,2", "not of the form"),
        ("1.0,0x123,0,2,0,2,AAE=", "extended, remote and error must be 0 or 1"),
        ("1.0,0x123,0,0,0,3,AAE=", "2 payload bytes, but a DLC of 3"),
        ("1.0,0x123,0,0,0,2,AA", "payload 'AA' is not a row of bytes"),
        ("1.0,0x800,0,0,0,2,AAE=", "arbitration ID '800' has more than 11 bits"),
        ("1.0,0x20000000,1,0,0,2,AAE=", "arbitration ID '20000000' has more than 29 bits"),
    ],
)
def test_bad_line_of_python_can_csv_is_a_reject(tmp_path: Path, line: str, reason: str) -> None:
    header = "timestamp,arbitration_id,extended,remote,error,dlc,data"
    frames, rejects = read(written(tmp_path, f"{header}\n{line}\n"), "python-can-csv")
    assert not len(frames)
    assert rejects["line"].to_list() == [2]
    assert rejects["reason"][0].startswith(reason)
    assert refused(written(tmp_path, line), "python-can-csv").startswith(", line 1: header is '1.0,0x")


def test_spreadsheet_is_refused_with_the_reason(tmp_path: Path) -> None:
    rows = "".join(f"1478198376,{n:x},8,5,21,68,9,21,21,0,6f,R\n" for n in range(20))
    path = written(tmp_path, rows)
    assert recognise(path) == "hcrl-car-hacking"
    assert refused(path, "hcrl-car-hacking").startswith(
        ": mangled by a spreadsheet: timestamps have lost their fractions and leading zeros of IDs and bytes are gone"
    )


@in_the_wild
def test_samples_in_the_wild() -> None:
    frames, rejects = read(WILD / "hcrl_car_hacking/dos.csv", "hcrl-car-hacking")
    assert (len(frames), len(rejects)) == (5000, 0)
    assert set(frames.filter(frames["label"] == 1)["can_id"]) == {0}
    frames, rejects = read(WILD / "hcrl_car_hacking/fuzzy.csv", "hcrl-car-hacking")
    assert (len(frames), len(rejects)) == (1051, 0)
    complaint = refused(WILD / "hcrl_car_hacking/dos_mangled_by_a_spreadsheet.csv", "hcrl-car-hacking")
    assert "timestamps have lost their fractions and leading zeros of IDs and bytes are gone" in complaint
    frames, rejects = read(WILD / "candump/sample-can.log", "candump")
    assert not len(rejects)
    assert said(frames) == by_python_can(list(can.LogReader(str(WILD / "candump/sample-can.log"))))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("car_hacking_attacked.csv", "hcrl-car-hacking"),
        ("car_hacking_normal.txt", "hcrl-car-hacking"),
        ("survival_attacked.csv", "hcrl-car-hacking"),  # written alike
        ("survival_free_driving.csv", "hcrl-survival"),
        ("otids_remote.txt", "otids"),
        ("candump.log", "candump"),
        ("road/fuzzing_attack_1.log", "road"),
        ("log.asc", "asc"),
        ("log_v1_1.trc", "trc"),
        ("log_v2_1.trc", "trc"),
        ("python_can.csv", "python-can-csv"),
        ("dialects/candump_console.log", "candump-console"),
        ("dialects/savvycan_gvret.csv", "gvret"),
        ("dialects/ovms.crtd", "crtd"),
        ("dialects/busmaster.log", "busmaster"),
        ("dialects/crysys.log", "crysys"),
        ("dialects/tab_log.log", "tab-log"),
        ("dialects/hcrl_challenge.csv", "hcrl-challenge"),
        ("dialects/daga.csv", "daga"),
        ("dialects/ciciov.csv", "ciciov"),
        ("dialects/can_mirgu.log", "can-mirgu"),
    ],
)
def test_format_is_recognised(file: str, name: str) -> None:
    assert recognise(OWN / file) == name


def test_otids_is_recognised_by_its_published_names(tmp_path: Path) -> None:
    content = (OWN / "car_hacking_normal.txt").read_bytes()
    assert recognise(written(tmp_path, content, "Attack_free_dataset.txt")) == "otids"
    assert recognise(written(tmp_path, b"timestamp,arbitration_id,data_field,attack\n")) == "can-train-and-test"


@in_the_wild
def test_samples_in_the_wild_are_recognised() -> None:
    folders = {"hcrl_car_hacking": "hcrl-car-hacking", "can_train_and_test": "can-train-and-test", "candump": "candump"}
    folders |= {"vector_asc": "asc", "vector_blf": "blf", "peak_trc": "trc", "mf4": "mf4"}
    recognised = {path: recognise(path) for path in WILD.glob("*/*")}
    assert recognised == {path: folders[path.parent.name] for path in recognised}


@pytest.mark.parametrize("content", [b"hello\n", b"\0\1\2\3", b"1,2,3\n", b"\n\n\n"])
def test_unknown_format_is_refused_with_the_known_ones(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(
        CanidsError, match="fits no known format; name the format in the manifest if it is one of can-train"
    ):
        recognise(written(tmp_path, content))


def test_two_formats_that_fit_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "other", FORMATS["asc"])
    with pytest.raises(CanidsError, match="may be asc or other; name the format in the manifest"):
        recognise(OWN / "log.asc")


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"can-train-and-test"}))
def test_absent_empty_or_foreign_file_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path / "nowhere", name).startswith(": no such file; is data_root right?")
    assert refused(written(tmp_path, b""), name) == ": the file is empty"


def test_pieces_of_a_large_file_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = read(OWN / "candump.log", "candump")
    for size in (41, 97, 300):
        monkeypatch.setattr(text, "_CHUNK", size)
        monkeypatch.setattr(text, "ROWS_A_BATCH", 2)
        assert read(OWN / "candump.log", "candump")[0].equals(whole)
        assert len(read(OWN / "car_hacking_attacked.csv", "hcrl-car-hacking")[0]) == 5


def test_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = written(tmp_path, b"(1.0) can0 123#00\n" + b"0" * (text.LONGEST_LINE + 1))
    assert refused(path, "candump").startswith(", line 2: longer than 1048576 bytes")
