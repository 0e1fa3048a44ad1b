"""Files of labels: what is read of them, in which time, and what becomes of a manifest."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from canids_preprocess.draft import draft
from canids_preprocess.drafting.id_rates import IdRates
from canids_preprocess.drafting.label_files import read_labels
from canids_preprocess.drafting.labelling import keys_of, label_files_in, since_first
from canids_preprocess.formats.base import Batch
from canids_preprocess.label import label
from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError

START = 1_600_000_000.0


def recording(path: Path, start: float = START, seconds: int = 20) -> Path:
    """A log of two IDs, a frame each 5 ms, without labels; 0x200 is silent from 8 to 12 s."""
    rows = [
        f"({start + i / 200:.6f}) can0 {0x100 + 0x100 * (i % 2):03X}#0011"
        for i in range(200 * seconds)
        if not (i % 2 and 8 <= i / 200 < 12)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def rates(first: float = START, last: float = START + 20) -> IdRates:
    return IdRates(first, last, 1.0, np.array([1]), np.ones((1, 20), np.int64))


def intervals(path: Path, text: str, capture: str = "drive") -> list[tuple[Any, ...]]:
    path.write_text(text, encoding="utf-8")
    return [(i.start, i.end, i.kind) for i in read_labels(path, capture)]


@pytest.mark.parametrize(
    "text",
    [
        "8,12,mitm\n14,15.5,\n",
        "start,end,kind\n8,12,mitm\n14,15.5,\n",
        "\ufeffAttack Type;Start Time (s);End Time (s)\nmitm;8,0;12,0\n;14,0;15,5\nnormal;0;1\n",
        "# by hand\n\nfrom\tto\ttype\n8\t12\tmitm\n14\t15.5\tattack\n15\t16\tattack-free\n",
        "file,begin,stop,label\ndrive.log,8,12,mitm\nother.log,1,2,dos\ndrive,14,15.5,1\ndrive,0,8,0\n",
    ],
)
def test_csv_with_and_without_header(tmp_path: Path, text: str) -> None:
    assert intervals(tmp_path / "l.csv", text) == [(8.0, 12.0, "mitm"), (14.0, 15.5, None)]


@pytest.mark.parametrize(
    "content",
    [
        [[8, 12, "mitm"], [14, 15.5]],
        [{"start": 8, "end": 12, "attack": "mitm"}, {"from": 14, "to": 15.5}],
        {"drive": [[8, 12, "mitm"], [14, 15.5]], "other": [[1, 2]]},
        {
            "drive.log": [
                {"start": 8, "end": 12, "kind": "mitm"},
                {"injection_interval": [14, 15.5], "injection_id": "0D0"},
            ]
        },
    ],
)
def test_json(tmp_path: Path, content: Any) -> None:
    read = intervals(tmp_path / "l.json", json.dumps(content))
    assert read == [(8.0, 12.0, "mitm"), (14.0, 15.5, None)]


def test_json_of_road(tmp_path: Path) -> None:
    road = {"drive": {"injection_interval": [8.0, 12.0], "injection_id": "0D0"}, "x": {"injection_interval": None}}
    assert intervals(tmp_path / "l.json", json.dumps(road)) == [(8.0, 12.0, None)]
    with pytest.raises(CanidsError, match="x: injection_interval is null"):
        intervals(tmp_path / "l.json", json.dumps(road), "x")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("l.csv", "8,12\n9,8\n", r"l\.csv, line 2: \[9, 8\] does not end after it begins"),
        ("l.csv", "8,12\n9,1e999\n", "line 2: '1e999' is no time"),
        ("l.csv", "8\n", r"line 1: 1 fields, not start, end and perhaps kind"),
        ("l.csv", "first,end\n8,9\n", "line 1: no column 'start'"),
        ("l.csv", "2024-03-01 12:00:00,2024-03-01 12:00:05\n", "has no time zone"),
        ("l.csv", "", "no interval of an attack on 'drive'"),
        ("l.csv", "\0\n", "line 1"),
        ("l.json", "[8", "not JSON"),
        ("l.json", "[[8, 9], [true, 9]]", r"\[1\]: 'True' is no time"),
        ("l.json", "[[8, NaN]]", "'nan' is no time"),
        ("l.json", '{"other": [[1, 2]]}', "nor an entry of the capture 'drive'"),
        ("l.json", "7", "7 is no interval"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    with pytest.raises(CanidsError, match=complaint) as caught:
        intervals(tmp_path / name, text)
    assert str(caught.value).startswith(f"{tmp_path}/l.")
    assert str(caught.value).isprintable()


def placed(path: Path, text: str, known: IdRates, times: str = "auto") -> list[list[Any]]:
    path.write_text(text)
    return since_first(read_labels(path, "drive"), known, times)


def test_times_are_those_in_which_all_intervals_lie_in_the_capture(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    assert placed(path, "14,15.5\n8,12,dos\n", rates()) == [[8.0, 12.0, "dos"], [14.0, 15.5]]
    assert placed(path, f"{START + 8:.3f},{START + 12:.3f}\n", rates()) == [[8.0, 12.0]]
    assert placed(path, "2020-09-13T12:26:48+00:00,2020-09-13T14:26:52+02:00\n", rates()) == [[8.0, 12.0]]
    # Rounded times may lie a little outside.
    assert placed(path, "-0.4,20.6\n", rates()) == [[0.0, 20.0]]
    # A measurement that begins at 5 s: 8 s may be either.
    with pytest.raises(CanidsError, match=r"line 1: times fit as seconds since .* say which with --times"):
        placed(path, "8,12\n", rates(5.0, 25.0))
    assert placed(path, "8,12\n", rates(5.0, 25.0), "relative") == [[8.0, 12.0]]
    assert placed(path, "8,12\n", rates(5.0, 25.0), "absolute") == [[3.0, 7.0]]
    assert placed(path, "21,24\n", rates(5.0, 25.0)) == [[16.0, 19.0]]


@pytest.mark.parametrize("text", ["8,12\n14,22\n", "8,12\n-3,2\n", f"8,12\n{START + 1},{START + 2}\n"])
def test_an_interval_outside_the_capture_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CanidsError, match=r"l\.csv, line 2: \[.*\] lies outside the capture, which has 20 s, from 16"):
        placed(tmp_path / "l.csv", text, rates())


def test_kinds_become_the_attack_of_the_entry_or_of_the_interval() -> None:
    assert keys_of([[1, 2, "dos"], [3, 4, "dos"]], None) == {"attack": "dos", "attacked": [[1, 2], [3, 4]]}
    assert keys_of([[1, 2, "dos"], [3, 4]], None, "rpm") == {"attack": "rpm", "attacked": [[1, 2, "dos"], [3, 4]]}
    assert keys_of([[1, 2, "DoS"], [3, 4, "x"]], "dos") == {"attacked": [[1, 2], [3, 4, "x"]]}


def test_rates_are_counted_in_bins_that_grow(tmp_path: Path) -> None:
    def batches(pieces: int) -> list[Batch]:
        frames = pl.DataFrame(
            {"timestamp": np.arange(6000) / 100, "can_id": np.arange(6000) % 2, "extended": np.arange(6000) % 4 == 3}
        ).with_columns(pl.col("can_id").cast(pl.UInt32))
        return [Batch(part, pl.DataFrame()) for part in frames.iter_slices(6000 // pieces)]

    once, many = IdRates.of(batches(1)), IdRates.of(batches(7))
    assert once.counts.tolist() == many.counts.tolist()
    assert (once.first, once.last, once.width) == (0.0, 59.99, 0.16)
    assert once.ids.tolist() == [0, 1, (1 << 32) + 1]
    assert once.counts.sum(axis=1).tolist() == [3000, 1500, 1500]
    assert once.counts.shape[1] <= 512


def test_changes_show_what_falls_silent_and_what_is_new() -> None:
    counts = np.array([[10] * 40, [10] * 20 + [0] * 5 + [10] * 15, [0] * 30 + [20] * 2 + [0] * 8])
    changes = IdRates(0.0, 40.0, 1.0, np.arange(3), counts).changes()
    assert np.abs(changes[0]).max() < 0.01
    assert (changes[1, 20:25] < -3).all()
    assert np.abs(changes[1, :20]).max() < 0.01
    assert (changes[2, 30:32] > 3).all()
    assert not changes[2, :30].any()


def test_files_of_labels_lie_beside_their_captures(tmp_path: Path) -> None:
    drive, other = recording(tmp_path / "drive.log", seconds=1), recording(tmp_path / "drive2.log", seconds=1)
    for name in ("drive.labels.csv", "drive2_attacks.json", "drive-notes.txt", "labels.csv"):
        (tmp_path / name).write_text("1,2\n")
    # A capture whose name looks like that of labels.
    (tmp_path / "drive_attack.csv").write_text("timestamp,arbitration_id,data_field,attack\n1.0,123,00FF,0\n")
    assert label_files_in(tmp_path) == {tmp_path / "drive.labels.csv": drive, tmp_path / "drive2_attacks.json": other}


def test_a_draft_takes_labels_and_draws_them(workplace: Path) -> None:
    folder = workplace / "data/mycar"
    recording(folder / "suppression.log")
    (folder / "suppression.labels.csv").write_text(f"{START + 8},{START + 12}\n")
    recording(folder / "normal.log", seconds=8)
    recording(folder / "dos.log", seconds=8)
    (folder / "dos.labels.csv").write_text("1,9.5\n")
    result = draft(folder)
    lies = "lies outside the capture, which has 7.995 s, from 1600000000 to 1600000007.995 s"
    wrong = f"dos.labels.csv, line 1: [1, 9.5] {lies}"
    assert f"  # labels not taken: {wrong}\n" in result.text
    (folder / "manifest.yaml").write_text(result.text)
    captures = manifest.load("mycar", "data")
    assert {n: (c.role, c.content, c.attack, c.attacked) for n, c in captures.items()} == {
        "dos": ("to_score", "unlabelled", "dos", ()),
        "normal": ("train", "attack-free", None, ()),
        "suppression": ("test", "labelled", "suppression", ((8.0, 12.0),)),
    }
    assert "# labelled by suppression.labels.csv: do the intervals fit? See suppression.log.attacked.png" in result.text
    assert (folder / "suppression.log.attacked.png").read_bytes().startswith(b"\x89PNG")
    # The picture and the labels are no captures.
    assert draft(folder).added == []


MINE = """\
contract: manifest/1
captures:
  normal: {path: normal.log, vehicle: v, role: train, content: attack-free}
  # two drives
  a:   {path: a.log,   vehicle: v, role: test,
        content: unlabelled}  # why?
  b:
    path:   "b.log"
    content: unlabelled   # no idea
    role:  to_score
    vehicle: v
    # a last remark
"""


@pytest.fixture
def labelled_by_hand(tmp_path: Path) -> Path:
    for name in ("a", "b", "normal"):
        recording(tmp_path / f"{name}.log")
    (tmp_path / "manifest.yaml").write_text(MINE)
    (tmp_path / "l.csv").write_text("8,12,suppression\n14,15,replay\n")
    return tmp_path


def test_the_command_adds_keys_and_keeps_all_else(labelled_by_hand: Path) -> None:
    folder = labelled_by_hand
    keys = "attack: attack, attacked: [[8.0, 12.0, suppression], [14.0, 15.0, replay]]"
    said = label(folder / "a.log", folder / "l.csv", None, "auto", folder / "a.svg")
    assert said == f"2 intervals written to {folder}/manifest.yaml, captures.a; picture: {folder}/a.svg"
    assert (folder / "a.svg").read_text().startswith("<?xml")
    first = MINE.replace("content: unlabelled}", f"content: labelled, {keys}}}")
    assert (folder / "manifest.yaml").read_text() == first
    (folder / "l.csv").write_text("8,12,suppression\n")
    assert "its role is 'to_score'" in label(folder / "b.log", folder / "l.csv", None, "auto", None)
    lines = "    attack: suppression\n    attacked: [[8.0, 12.0]]\n"
    second = first.replace("content: unlabelled   # no idea\n", f"content: labelled   # no idea\n{lines}")
    assert (folder / "manifest.yaml").read_text() == second
    assert (folder / "b.log.attacked.png").is_file()
    manifest.read(folder / "manifest.yaml", folder)


def test_the_command_contradicts_nobody(labelled_by_hand: Path) -> None:
    folder, labels = labelled_by_hand, labelled_by_hand / "l.csv"
    with pytest.raises(CanidsError, match=r"captures\.normal is called attack-free; make that 'unlabelled'"):
        label(folder / "normal.log", labels, None, "auto", None)
    label(folder / "b.log", labels, None, "auto", None)
    text = (folder / "manifest.yaml").read_text()
    with pytest.raises(CanidsError, match=r"captures\.b has 'attacked' intervals; remove them there"):
        label(folder / "b.log", labels, None, "auto", None)
    labels.write_text("8,30\n")
    with pytest.raises(CanidsError, match="lies outside the capture"):
        label(folder / "a.log", labels, None, "auto", None)
    with pytest.raises(CanidsError, match=r"no manifest\.yaml above it lists it; draft one"):
        label(recording(folder / "c.log", seconds=1), labels, None, "auto", None)
    with pytest.raises(CanidsError, match=r"a picture is \.png or \.svg"):
        label(folder / "a.log", None, None, "auto", folder / "a.pdf")
    assert (folder / "manifest.yaml").read_text() == text


def test_without_labels_there_is_only_a_picture(labelled_by_hand: Path) -> None:
    path = labelled_by_hand / "a.log"
    command = [sys.executable, "-m", "canids_preprocess.label", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"0 intervals in {labelled_by_hand}/manifest.yaml, captures.a; picture: ")
    assert (labelled_by_hand / "manifest.yaml").read_text() == MINE
    assert yaml.safe_load(MINE)["captures"].keys() == {"normal", "a", "b"}
