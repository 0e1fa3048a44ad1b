"""`compare_traffic`: statistics of captures side by side, on frames worked by hand."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from canids_preprocess.compare_traffic import describe, table
from canids_shared.contracts import tables
from canids_shared.errors import CanidsError


def frames(*rows: tuple[float, int, bytes, int | None]) -> pl.DataFrame:
    """Frames by timestamp (s), ID, payload and label, in the order of time."""
    seconds, ids, payloads, labels = zip(*sorted(rows), strict=True)
    columns = {
        "timestamp": seconds,
        "can_id": ids,
        "extended": [False] * len(ids),
        "remote": [False] * len(ids),
        "fd": [False] * len(ids),
        "dlc": [len(p) for p in payloads],
        "payload": payloads,
        "channel": [None] * len(ids),
        "label": labels,
        "attack": ["x" if label else "" for label in labels],
    }
    return pl.DataFrame({k: pl.Series(k, v, dtype=tables.FRAMES.columns[k]) for k, v in columns.items()})


def regular(
    can_id: int, payloads: list[bytes], period: float, first: float = 0.0
) -> list[tuple[float, int, bytes, int]]:
    return [(first + k * period, can_id, payload, 0) for k, payload in enumerate(payloads)]


EVEN = regular(0x100, [bytes(8)] * 11, 0.1)
"""Eleven empty payloads of eight bytes within a second."""


def test_one_steady_id():
    described = describe(frames(*EVEN))
    assert described["frames"] == "11"
    assert described["seconds"] == "1.0"
    assert described["frames/s"] == "11"
    # 47 bits + 64 of payload + 9 stuffed, eleven times in a second of 500,000
    assert described["bus load at 500 kbit/s"] == "0.3%"
    assert described["IDs"] == "1"
    assert described["entropy of IDs (bits)"] == "0.00"
    assert described["periodic IDs"] == "100%"
    assert described["variation of intervals per ID"] == "0.00 / 0.00 / 0.00"
    assert described["IDs whose payload never changes"] == "100%"
    assert described["bits that change per ID"] == "0 / 0 / 0"
    assert described["frames behind another without a pause"] == "0%"


def test_entropy_is_that_of_the_ids_shares():
    others = [regular(can_id, [bytes(8)] * 11, 0.1, 0.01 * k) for k, can_id in enumerate((0x200, 0x300, 0x400), 1)]
    described = describe(frames(*EVEN, *(row for other in others for row in other)))
    assert described["IDs"] == "4"
    assert described["entropy of IDs (bits)"] == "2.00"


def test_bits_that_change_and_flip():
    # A counter of two bits: 0 → 1 → 2 → 3 → 0 flips 1, 2, 1, 2 bits; the other payload says nothing.
    counter = regular(0x200, [bytes([k % 4, 0]) for k in range(9)], 0.1, 0.05)
    described = describe(frames(*regular(0x100, [bytes(8)] * 9, 0.1), *counter))
    assert described["IDs whose payload never changes"] == "50%"
    assert described["bits that change per ID"] == "0 / 1 / 2"
    assert described["bits that flip from frame to frame, per ID"] == "0.15 / 0.75 / 1.35"
    # 1.5 of 16 bits and 0 of 64, nine frames each
    assert described["Hamming distance of payloads, all frames (share of bits)"] == "0.047"


def test_intervals_that_alternate():
    seconds = [0.0]
    for k in range(100):
        seconds.append(seconds[-1] + (0.008 if k % 2 else 0.012))
    described = describe(frames(*((s, 0x100, bytes(8), 0) for s in seconds)))
    assert described["variation of intervals per ID"] == "0.20 / 0.20 / 0.20"
    assert described["alternation of intervals per ID"] == "1.00 / 1.00 / 1.00"
    assert described["periodic IDs"] == "100%"


def test_an_event_is_not_periodic():
    burst = [(k * 3.0 + j * 0.02, 0x100, bytes(8), 0) for k in range(4) for j in range(3)]
    described = describe(frames(*burst, *regular(0x200, [bytes(8)] * 20, 0.5, 0.25)))
    assert described["periodic IDs"] == "50%"


def test_frames_without_a_pause():
    pairs = [
        (0.1 * k + gap, can_id, bytes(8), 0) for k in range(10) for gap, can_id in ((0.0, 0x100), (0.25e-3, 0x200))
    ]
    assert describe(frames(*pairs))["frames behind another without a pause"] == "53%"  # 10 of 19 gaps


def test_attacked_frames_are_left_out_and_unlabelled_ones_are_not():
    flood = [(0.5 + k * 1e-3, 0x000, bytes(8), 1) for k in range(100)]
    assert describe(frames(*EVEN, *flood)) == describe(frames(*EVEN))
    unlabelled = [(*row[:3], None) for row in EVEN]
    assert describe(frames(*unlabelled)) == describe(frames(*EVEN))


def test_payloads_of_changing_length_count_as_padded():
    rows = [(0.1 * k, 0x100, b"\xff" if k % 2 else b"\xff\x01", 0) for k in range(9)]
    described = describe(frames(*rows))
    assert described["bits that change per ID"] == "1 / 1 / 1"
    assert described["bits that flip from frame to frame, per ID"] == "1.00 / 1.00 / 1.00"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0.1 * k, 0x100, bytes(8), 1) for k in range(9)], "no two frames without an attack"),
        ([(1.0, 0x100, bytes(8), 0)] * 9, "no two frames without an attack"),
        ([(0.1 * k, k, bytes(8), 0) for k in range(9)], "no ID has 8 frames"),
    ],
)
def test_too_little_traffic_is_an_error(rows, message):
    with pytest.raises(CanidsError, match=message):
        describe(frames(*rows))


def test_table_has_a_column_for_each_file(tmp_path: Path):
    tables.write(tmp_path / "a.parquet", tables.FRAMES, frames(*EVEN), {"capture": "first"})
    tables.write(tmp_path / "b.parquet", tables.FRAMES, frames(*EVEN), {})
    lines = table([tmp_path / "a.parquet", tmp_path / "b.parquet"]).splitlines()
    assert lines[0] == "|  | first | b |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == "| frames | 11 | 11 |"
    assert all(line.count("|") == 4 for line in lines)


def test_command_fails_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "canids_preprocess.compare_traffic", str(tmp_path / "absent.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"error: {tmp_path}/absent.parquet: no such file\n"
