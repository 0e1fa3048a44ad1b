"""Raw captures to frames: what a row becomes, and that a damaged one is refused with file and line."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from captures import call, csv
from damage import DAMAGE, Damage, damaged
from hypothesis import example, given
from hypothesis import strategies as st

from canids_preprocess import capture_inventory, ingest
from canids_preprocess.formats import FORMATS
from canids_shared.contracts import tables
from canids_shared.errors import CanidsError

GOOD = ["1.000000,123,00FF,0", "1.001000,0A0,,0", "1.002500,18FEF100,0011223344556677,1", "1.003000,123,01ff,0"]


def ingested(
    folder: Path,
    raw: bytes,
    content: str = "labelled",
    attack: str | None = "",
    tolerance: float = 0.0005,
    on_bad_rows: str = "error",
    attacked: tuple[tuple[Any, ...], ...] = (),
    **more: Any,
) -> tuple[Any, dict[str, Any]]:
    """Frames and metadata of a raw capture."""
    path, output = folder / "raw.csv", folder / "frames.parquet"
    path.write_bytes(raw)
    # Unless a test says so, a capture names an attack if it has one.
    attack = ("dos" if attacked or re.search(rb",1\r?(\n|$)", raw) else None) if attack == "" else attack
    entry = {"name": "a", "vehicle": "van", "format": "can-train-and-test", "attack": attack, "content": content}
    config = {"timestamp_tolerance": tolerance, "on_bad_rows": on_bad_rows}
    outputs = {"output": output, "rejects": folder / "rejects.parquet"}
    inputs = {"capture": [path], "metadata": []}
    ingest.main(
        call({"dataset": "d", "capture": "a"}, config, outputs, inputs, capture={**entry, "attacked": attacked, **more})
    )
    return tables.read(output, tables.FRAMES)


def refused(folder: Path, raw: bytes, **options: Any) -> str:
    """The complaint, without the path of the raw file in front."""
    with pytest.raises(CanidsError) as caught:
        ingested(folder, raw, **options)
    text = str(caught.value)
    assert text.startswith(str(folder / "raw.csv"))
    assert text.isprintable()
    assert not (folder / "frames.parquet").exists()
    return text.removeprefix(str(folder / "raw.csv"))


def test_rows_become_frames(tmp_path: Path) -> None:
    frames, metadata = ingested(tmp_path, csv(*GOOD))
    columns = ["timestamp", "can_id", "extended", "fd", "dlc", "payload", "label", "attack"]
    assert frames.select(columns).rows() == [
        (1.0, 0x123, False, False, 2, b"\x00\xff", 0, ""),
        (1.001, 0x0A0, False, False, 0, b"", 0, ""),
        (1.0025, 0x18FEF100, True, False, 8, bytes.fromhex("0011223344556677"), 1, "dos"),
        (1.003, 0x123, False, False, 2, b"\x01\xff", 0, ""),
    ]
    assert not frames["remote"].any()
    assert metadata["rows_read"] == metadata["frames"] == 4
    assert (metadata["rejects"], metadata["stepped_back"]) == (0, 0)
    assert (metadata["capture"], metadata["vehicle"], metadata["attack"]) == ("a", "van", "dos")
    assert len(metadata["sha256"]) == 64


def test_trimmed_fields_are_counted_in_the_account(tmp_path: Path) -> None:
    spaced = [row.replace(",00FF,", ",00FF\t,").replace(",,", ',"",') for row in GOOD]
    frames, metadata = ingested(tmp_path, csv(*spaced))
    assert frames.equals(ingested(tmp_path, csv(*GOOD))[0])
    assert (metadata["rows_read"], metadata["rejects"], metadata["trimmed"]) == (4, 0, 2)


def test_assumed_rate_marks_the_frames_of_a_log_without_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, outputs = tmp_path / "drive.txt", {"output": tmp_path / "f.parquet", "rejects": tmp_path / "r.parquet"}
    path.write_text("  can0  123   [2]  31 2E\n" * 5)
    entry = {"name": "a", "vehicle": "van", "format": "auto", "attack": None, "content": "unlabelled", "attacked": ()}

    def run(rate: float | None) -> dict[str, Any]:
        config = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}
        capture = {**entry, "assume_rate": rate}
        ingest.main(call({"dataset": "d"}, config, outputs, {"capture": [path], "metadata": []}, capture=capture))
        return tables.read(outputs["output"], tables.FRAMES)[1]

    with pytest.raises(CanidsError, match="has no times, and detection rests on intervals"):
        run(None)
    assert run(250.0)["assumed_rate"] == 250.0
    assert "all intervals are assumed, 250 frames/s" in caplog.text
    capture_inventory.main(call({"dataset": "d"}, {}, tmp_path / "i.csv", {"frames": [outputs["output"]]}))
    assert pl.read_csv(tmp_path / "i.csv").select("frames", "trimmed", "assumed_rate", "seconds").row(0) == (
        5,
        0,
        250.0,
        0.016,
    )
    path.write_text("(1.0) can0 123#00\n")
    with pytest.raises(CanidsError, match="its format has times; assume_rate in the manifest is for logs without"):
        run(250.0)


def test_timestamps_keep_their_microseconds(tmp_path: Path) -> None:
    frames, _ = ingested(tmp_path, csv("1672531398.549451,123,00,0", "1672531398.549452,123,00,0"))
    assert frames["timestamp"].to_list() == [1672531398.549451, 1672531398.549452]


@pytest.mark.parametrize("raw", [csv(*GOOD).replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + csv(*GOOD), csv(*GOOD)[:-1]])
def test_line_ends_and_byte_order_mark_of_windows_are_harmless(tmp_path: Path, raw: bytes) -> None:
    expected, _ = ingested(tmp_path, csv(*GOOD))
    assert ingested(tmp_path, raw)[0].equals(expected)


def test_can_fd_frame(tmp_path: Path) -> None:
    frames, _ = ingested(tmp_path, csv("1.0,123," + "5A" * 64 + ",0", "1.0,123," + "00" * 8 + ",0"))
    assert frames.select("fd", "dlc").rows() == [(True, 64), (False, 8)]
    assert frames["payload"][0] == b"\x5a" * 64


def test_identifier_of_29_bits_may_have_a_small_value(tmp_path: Path) -> None:
    frames, _ = ingested(tmp_path, csv("1.0,7FF,00,0", "1.0,800,00,0", "1.0,00000123,00,0", "1.0,1FFFFFFF,00,0"))
    assert frames.select("can_id", "extended").rows() == [
        (0x7FF, False),
        (0x800, True),
        (0x123, True),
        (0x1FFFFFFF, True),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("soon,123,00,0", "timestamp 'soon' is not a number of seconds"),
        ("nan,123,00,0", "timestamp 'nan' is not a number of seconds"),
        ("1e0,123,00,0", "timestamp '1e0' is not a number of seconds"),
        (",123,00,0", "timestamp '' is not a number of seconds"),
        ("", "not of the form 'timestamp,arbitration_id,data_field,attack'"),
        ("1.0,0x123,00,0", "arbitration ID '0x123' is not a hexadecimal number"),
        ("1.0,12G,00,0", "arbitration ID '12G' is not a hexadecimal number"),
        ("1.0,,00,0", "arbitration ID '' is not a hexadecimal number"),
        ("1.0,123456789,00,0", "arbitration ID '123456789' is not a hexadecimal number"),
        ("1.0,20000000,00,0", "arbitration ID '20000000' has more than 29 bits"),
        ("1.0,123,00F,0", "payload '00F' is not a row of bytes"),
        ("1.0,123,00 FF,0", "payload '00 FF' is not a row of bytes"),
        ("1.0,123,1E+15,0", "payload '1E+15' is not a row of bytes"),
        ("1.0,123," + "00" * 65 + ",0", "no CAN FD frame has 65 payload bytes"),
        ("1.0,123,00,2", "attack '2' is neither 0 nor 1"),
        ("1.0,123,00,", "attack '' is neither 0 nor 1"),
        ("1.0,123,00,T", "attack 'T' is neither 0 nor 1"),
        ("1.0,123,0\x00,0", "payload '0�' is not a row of bytes"),
        ("1.0,123,00,0,0", "not of the form 'timestamp,arbitration_id,data_field,attack'"),
        ('1.0,"123,00,0,0', "not of the form 'timestamp,arbitration_id,data_field,attack'"),
        ("1.0,123\r,00,0,", "not of the form 'timestamp,arbitration_id,data_field,attack'"),
        ("1.0,123,\udcff,0", "payload '�' is not a row of bytes"),
    ],
)
def test_bad_row_is_refused_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    lines = csv(*GOOD[:2]) + row.encode(errors="surrogateescape") + b"\n" + csv(GOOD[3]).split(b"\n", 1)[1]
    assert refused(tmp_path, lines).startswith(f", line 4: {reason}")


def test_short_row_is_refused_with_its_line(tmp_path: Path) -> None:
    for row in ("1.0", "1.0,123", "1.0,123,00"):
        assert refused(tmp_path, csv(GOOD[0], row, GOOD[1])).startswith(", line 3: ")
        assert refused(tmp_path, csv(row, GOOD[1])).startswith(", line 2: ")
        assert refused(tmp_path, csv(GOOD[1])[:-1] + b"\n" + row.encode()).startswith(", line 3: ")


def test_first_bad_row_is_named_and_the_others_are_counted(tmp_path: Path) -> None:
    text = refused(tmp_path, csv(GOOD[0], "1.0,xyz,00,0", GOOD[1], "1.0,123,0,0", "1.0,123,00,5"))
    assert text.startswith(", line 3: arbitration ID 'xyz'")
    assert "(and 2 more rows)" in text


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", ": the file is empty"),
        (csv(), ": no frames in it"),
        (csv()[:-1], ": no frames in it"),
        (b"1.0,123,00,0\n", ", line 1: header is '1.0,123,00,0', not 'timestamp,"),
        (csv(*GOOD).replace(b",attack", b",flag", 1), ", line 1: header is 'timestamp,arbitration_id,data_field,flag'"),
        (b"Timestamp;ID\x07\n1;2\n", ", line 1: header is 'Timestamp;ID�'"),
        (b"\xff\xfdt\x00\n", ", line 1: header is '��t�'"),
        (b"\xff\xfet\x00\n", ", line 1: header is 't�'"),  # UTF-16, cut off
    ],
)
def test_file_without_frames_or_with_another_header_is_refused(tmp_path: Path, raw: bytes, reason: str) -> None:
    assert refused(tmp_path, raw).startswith(reason)


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match=r"nowhere\.csv: no such file; is data_root right\?"):
        list(FORMATS["can-train-and-test"].read(tmp_path / "nowhere.csv", {}))


def test_step_back_within_the_tolerance_is_counted_and_beyond_it_refused(tmp_path: Path) -> None:
    rows = ["1.0000,1,,0", "0.9997,1,,0", "1.0002,1,,0", "1.0002,1,,0", "1.0001,1,,0"]
    frames, metadata = ingested(tmp_path, csv(*rows))
    assert metadata["stepped_back"] == 2
    assert frames["timestamp"].to_list() == [1.0, 0.9997, 1.0002, 1.0002, 1.0001]
    (tmp_path / "frames.parquet").unlink()
    text = refused(tmp_path, csv(*rows), tolerance=0.0002)
    assert text.startswith(", line 3: the timestamp steps back by 0.000300 s")
    assert "more than timestamp_tolerance (0.0002 s)" in text


def test_steps_back_count_from_the_latest_timestamp(tmp_path: Path) -> None:
    """A clock that creeps back by less than the tolerance at a time does not get away with it."""
    rows = [f"{2 - 0.0004 * i:.4f},1,,0" for i in range(10)]
    assert refused(tmp_path, csv(*rows)).startswith(", line 4: the timestamp steps back by 0.000800 s")
    frames, metadata = ingested(tmp_path, csv(*rows, "2.1,1,,0"), on_bad_rows="quarantine")
    assert frames["timestamp"].to_list() == [2.0, 1.9996, 2.1]
    assert (metadata["rows_read"], metadata["rejects"], metadata["stepped_back"]) == (11, 8, 1)


def test_timestamp_that_would_put_the_rest_aside_is_named(tmp_path: Path) -> None:
    before, behind = ([f"{start + i / 100:.2f},1,,0" for i in range(300)] for start in (1, 4))
    text = refused(tmp_path, csv(*before, "9000,1,,0", *behind), on_bad_rows="quarantine")
    assert text.startswith(", line 302: the timestamp is later than those of 300 frames below it")
    # A few late frames at the end are no more than that, nor are many before time goes on.
    for rows, rejects in (([*behind, *before[:100]], 100), ([*behind, *before, "7,1,,0"], 300)):
        _, metadata = ingested(tmp_path, csv(*rows), on_bad_rows="quarantine")
        assert metadata["rejects"] == rejects


def test_interval_behind_the_end_and_several_buses_are_refused(tmp_path: Path) -> None:
    text = refused(tmp_path, csv(*GOOD), attacked=((100.0, 200.0),))
    assert "attacked interval [100, 200] lies beyond the capture's end, 0.0 s after" in text


def test_attack_free_capture_holds_no_attacked_frame(tmp_path: Path) -> None:
    text = refused(tmp_path, csv(*GOOD), content="attack-free", attack=None)
    assert text.startswith(", line 4: an attacked frame, but the manifest calls the capture attack-free")
    frames, _ = ingested(tmp_path, csv(*GOOD[:2]), content="attack-free", attack=None)
    assert frames["label"].to_list() == [0, 0]


def test_a_named_attack_without_an_attacked_frame_is_unknown_and_refused(tmp_path: Path) -> None:
    rows = [row[:-1] + "0" for row in GOOD]
    text = refused(tmp_path, csv(*rows), attack="suppression")
    assert "names the attack 'suppression': where it is, is unknown. Give 'attacked: [[from, to], …]'" in text
    # Intervals make it known; without a name, and where the simulator wrote the labels, labels count as they are.
    assert ingested(tmp_path, csv(*rows), attack="suppression", attacked=((0.0005, 0.002),))[0]["label"].sum() == 1
    for known in ({"attack": None}, {"attack": "suppression", "format": "simulated"}):
        frames, metadata = ingested(tmp_path, csv(*rows), **known)
        assert (frames["label"].to_list(), metadata["attacks"]) == ([0, 0, 0, 0], [])


def test_an_unknown_capture_is_scored_without_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row[:-1] + "0" for row in GOOD]
    frames, metadata = ingested(tmp_path, csv(*rows), attack="suppression", scored=True)
    assert frames["label"].null_count() == metadata["frames"] == 4
    assert metadata["content"] == "unlabelled"
    assert "is unknown" in caplog.text
    # One with attacked frames keeps its labels.
    assert ingested(tmp_path, csv(*GOOD), scored=True)[1]["content"] == "labelled"


def test_intervals_may_name_their_kind_of_attack(tmp_path: Path) -> None:
    rows = [f"{100 + i},123,00,{int(i == 5)}" for i in range(8)]
    spans = ((0.5, 2.0, "replay"), (1.5, 4.0), (6.5, 9.0, "mitm"))
    frames, metadata = ingested(tmp_path, csv(*rows), attack="dos", attacked=spans)
    assert frames["attack"].to_list() == ["", "replay", "dos", "dos", "dos", "dos", "", "mitm"]
    assert metadata["attacks"] == ["dos", "replay", "mitm"]
    assert metadata["attacked"] == [[100.5, 102.0, "replay"], [101.5, 104.0], [106.5, 109.0, "mitm"]]
    _, metadata = ingested(tmp_path, csv(*rows[:5]), attack="dos", attacked=((0.5, 2.0, "replay"),))
    assert metadata["attacks"] == ["replay"]


def test_unlabelled_capture_keeps_no_label(tmp_path: Path) -> None:
    frames, _ = ingested(tmp_path, csv(*GOOD), content="unlabelled", attack=None)
    assert frames["label"].null_count() == 4
    assert set(frames["attack"]) == {""}


def test_attack_without_a_name_is_called_attack(tmp_path: Path) -> None:
    frames, _ = ingested(tmp_path, csv(*GOOD), attack=None)
    assert frames["attack"].to_list() == ["", "", "attack", ""]


def test_quarantine_keeps_every_row_as_a_frame_or_a_reject(tmp_path: Path) -> None:
    rows = [GOOD[0], "1.0,xyz,00,0", GOOD[1], "", "1.002,123,0,0", GOOD[3]]
    frames, metadata = ingested(tmp_path, csv(*rows), on_bad_rows="quarantine")
    rejects, _ = tables.read(tmp_path / "rejects.parquet", tables.REJECTS)
    assert frames["timestamp"].to_list() == [1.0, 1.001, 1.003]
    assert rejects["line"].to_list() == [3, 5, 6]
    assert rejects["text"].to_list() == ["1.0,xyz,00,0", "", "1.002,123,0,0"]
    assert rejects["reason"][0] == "arbitration ID 'xyz' is not a hexadecimal number"
    assert (metadata["rows_read"], metadata["frames"], metadata["rejects"]) == (6, 3, 3)


def test_oddly_spelt_rows_are_frames_all_the_same(tmp_path: Path) -> None:
    rows = [
        "01.,123,00,0",
        "+1.5,123,00,0",
        "1.60000000000000000,123,00,0",
        "0000000000001.7,123,00,0",
        "1.800,123,00,1",
    ]
    frames, _ = ingested(tmp_path, csv(*rows))
    assert frames["timestamp"].to_list() == [1.0, 1.5, 1.6, 1.7, 1.8]
    assert frames["label"].to_list() == [0, 0, 0, 0, 1]


@given(st.floats(0, 2e9, allow_nan=False), st.integers(0, 12))
def test_timestamp_is_the_nearest_double(folder: Path, seconds: float, decimals: int) -> None:
    text = f"{seconds:.{decimals}f}"
    frames, _ = ingested(folder, csv(f"{text},123,00,0"))
    assert frames["timestamp"][0] == float(text)


def test_intervals_of_the_manifest_label_what_leaves_no_frame(tmp_path: Path) -> None:
    rows = [f"{100 + i},123,00,0" for i in range(6)]
    frames, _ = ingested(tmp_path, csv(*rows), attack="suppression", attacked=((1.0, 2.0), (4.5, 9.0)))
    assert frames["label"].to_list() == [0, 1, 1, 0, 0, 1]
    assert frames["attack"].to_list() == ["", "suppression", "suppression", "", "", "suppression"]


def test_same_capture_same_bytes(tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        ingested(tmp_path, csv(*GOOD))
        written.append((tmp_path / "frames.parquet").read_bytes())
    assert written[0] == written[1]


@given(DAMAGE)
@example([("insert", 60, b'"' * 7 + b"0" * 140_000)])
def test_damaged_capture_is_read_row_by_row_or_refused(folder: Path, damage: Damage) -> None:
    raw = damaged(csv(*GOOD), damage)
    (folder / "frames.parquet").unlink(missing_ok=True)
    complaint = ""
    try:
        frames, metadata = ingested(folder, raw)
    except CanidsError as error:
        complaint = str(error)
    if complaint:
        assert complaint.startswith(str(folder / "raw.csv"))
        assert complaint.isprintable()
        assert len(complaint) < 500
        return
    lines = [line.removesuffix(b"\r") for line in raw.split(b"\n")[1:]]
    while lines and not lines[-1]:
        lines.pop()
    assert metadata["rows_read"] == len(frames) == len(lines)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=8))
def test_a_frame_within_any_interval_is_attacked(tmp_path_factory: pytest.TempPathFactory, pairs: Any) -> None:
    intervals = tuple((float(start), float(start + length)) for start, length in pairs)
    rows = [f"{second / 2:.6f},123,00,0" for second in range(40)]
    folder = tmp_path_factory.mktemp("intervals")
    frames, _ = ingested(folder, csv(*rows), attacked=intervals)
    expected = [any(start <= second / 2 <= end for start, end in intervals) for second in range(40)]
    assert frames["label"].to_list() == [int(inside) for inside in expected]
