"""Units of timestamps: stated ones are applied, others than seconds are recognised by the frame rate and refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from capture_files import WILD, in_the_wild
from simulated import drive

from canids_preprocess import follow
from canids_preprocess.draft import draft
from canids_preprocess.formats import FORMATS, recognise
from canids_preprocess.formats.base import PER_SECOND, Batch, Format
from canids_preprocess.ingest import RowCounts, read
from canids_preprocess.timestamps import in_seconds, likely_unit
from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError

START_US = 1_600_000_000_000_000
ROWS = {
    "can-train-and-test": "{t},{id:03X},{data},0",
    "candump": "({t}) can0 {id:03X}#{data}",
    "hcrl-car-hacking": "{t},{id:04x},8,{spaced},R",
    "hcrl-survival": '{t},{id:04X},8,"{apart}"',
    "otids": "Timestamp: {t}        ID: {id:04x}    000    DLC: 8    {apart}",
    "python-can-csv": "{t},0x{id:x},0,0,0,8,AAECAwQFBgc=",
}
HEADERS = {
    "can-train-and-test": "timestamp,arbitration_id,data_field,attack\n",
    "python-can-csv": "timestamp,arbitration_id,extended,remote,error,dlc,data\n",
}
DATA = bytes(range(8)).hex()


def capture(path: Path, form: str, unit: str, digits: int, frames: int = 2000) -> np.ndarray:
    """Write the beginning of a simulated drive, times in `unit` with `digits` decimals; returns its times in seconds."""
    made = drive()
    microseconds = START_US + made.logged[:frames] // 1000
    times = microseconds / (1e6 / PER_SECOND[unit])
    apart = bytes.fromhex(DATA).hex(" ")
    rows = [
        ROWS[form].format(t=f"{t:.{digits}f}", id=i, data=DATA, spaced=apart.replace(" ", ","), apart=apart)
        for t, i in zip(times.tolist(), made.frames.can_id[:frames].tolist(), strict=True)
    ]
    path.write_text(HEADERS.get(form, "") + "\n".join(rows) + "\n")
    return microseconds / 1e6


def ingested(path: Path, form: str, unit: str | None = None, **options: Any) -> pl.DataFrame:
    entry = {"attack": None, "content": "attack-free", "attacked": [], "timestamp_unit": unit, **options}
    parts = read(path, FORMATS[form], entry, tolerance=0.0005, quarantine=False, counts=RowCounts())
    return pl.concat([batch.frames for batch in parts])


@pytest.mark.parametrize("digits", [0, 3])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("form", ROWS)
def test_a_stated_unit_gives_seconds_and_an_unstated_one_is_named(
    tmp_path: Path, form: str, unit: str, digits: int
) -> None:
    path = tmp_path / "capture"
    seconds = capture(path, form, unit, digits)
    read_in = ingested(path, form, unit)["timestamp"].to_numpy()
    if unit == "us":
        np.testing.assert_array_equal(read_in, seconds)
    assert np.abs(read_in - seconds).max() <= (6e-4 if unit == "ms" and digits == 0 else 1e-6)
    remedy = f"looks like {unit}; state `timestamp_unit: {unit}` in the manifest"
    with pytest.raises(CanidsError, match=remedy) as caught:
        ingested(path, form)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("form", ROWS)
def test_seconds_are_read_as_they_are_stated_or_not(tmp_path: Path, form: str) -> None:
    path = tmp_path / "capture"
    seconds = capture(path, form, "s", 6)
    for unit in (None, "s"):
        np.testing.assert_array_equal(ingested(path, form, unit)["timestamp"], seconds)


def test_a_unit_that_is_stated_wrongly_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    capture(path, "candump", "us", 0)
    with pytest.raises(CanidsError, match="frames a second, if timestamps are in ms: looks like us"):
        ingested(path, "candump", "ms")
    capture(path, "candump", "s", 6)
    with pytest.raises(CanidsError, match="frames a second, if timestamps are in ns: looks like s"):
        ingested(path, "candump", "ns")


def test_units_do_not_move_labels(tmp_path: Path) -> None:
    # OTIDS counts its labels from 250 s on, the manifest's intervals are in seconds too.
    path = tmp_path / "capture"
    seconds = capture(path, "otids", "ms", 3, frames=20_000)
    label = ingested(path, "otids", "ms", attacked=[[1.0, 2.0]], attack="x", content="labelled")["label"].to_numpy()
    since = seconds - seconds[0]
    assert 0 < label.sum() < len(label)
    np.testing.assert_array_equal(label == 1, (since >= 1.0) & (since <= 2.0))
    with pytest.raises(CanidsError, match="no frame is labelled as attacked"):
        ingested(path, "otids", "ms", attack="fuzzy", content="labelled")


def test_pauses_short_captures_and_slow_buses_are_no_other_unit() -> None:
    times, ids = drive().logged / 1e9, drive().frames.can_id.astype(np.uint32)

    def judged(seconds: np.ndarray, stated: str | None = None) -> str | None:
        return likely_unit(pl.DataFrame({"timestamp": seconds, "can_id": ids[: len(seconds)]}), stated)

    assert judged(times) is None
    assert judged(1000 * times) == "ms"
    # A night between two drives, and a logger that stamps every 10 ms.
    assert judged(np.where(np.arange(len(times)) > 5000, times + 36_000, times)) is None
    assert judged(np.floor(100 * times) / 100) is None
    # Fifty frames say nothing. Eight IDs twice a second each do not look like a car that is a thousand times as fast.
    assert judged(1000 * times[:50]) is None
    slow = pl.DataFrame({"timestamp": np.arange(400) / 16, "can_id": np.arange(400) % 8})
    assert likely_unit(slow) is None
    # A parked car: its manifest may insist on seconds.
    assert judged(1000 * times[:2000], "s") is None
    assert judged(120.0 * np.arange(2000), "s") is None
    assert judged(120.0 * np.arange(2000)) == "us"
    assert judged(times / 1e6) == ""
    # An adapter that hands over 24 frames every 16 ms.
    batched = 0.016 * (np.arange(2400) // 24) + 1e-5 * (np.arange(2400) % 24)
    assert judged(batched) is None


def test_a_followed_log_is_judged_after_a_second_of_traffic(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    seconds = capture(path, "candump", "ms", 3)
    arguments = [str(path), "--exit-at-end"]
    for more, message in (([], "--timestamp-unit"), (["--timestamp-unit", "us"], "looks like ms")):
        options = follow.parser().parse_args(arguments + more)
        with pytest.raises(CanidsError, match=message):
            list(follow.batches(str(path), options, follow.IdleTimeout(True, None), lambda: follow.Enough(1, 0.0)))
    options = follow.parser().parse_args([*arguments, "--timestamp-unit", "ms"])
    batches = list(follow.batches(str(path), options, follow.IdleTimeout(True, None), lambda: follow.Enough(1, 0.0)))
    assert np.abs(pl.concat([b.frames for b in batches])["timestamp"].to_numpy() - seconds).max() < 1e-6


def test_frames_that_come_one_by_one_are_judged_by_the_hundredth(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    capture(path, "candump", "us", 0)
    (whole,) = FORMATS["candump"].read(path, {})
    taken = 0

    def one_by_one(*_: object) -> Iterator[Batch]:
        nonlocal taken
        for taken in range(1, len(whole.frames)):
            yield Batch(whole.frames[taken - 1 : taken], whole.rejects)

    form = Format(one_by_one, lambda *_: True, labelled=False)
    with pytest.raises(CanidsError, match="looks like us"):
        list(in_seconds(path, form, {}, None))
    assert taken == 100
    with pytest.raises(CanidsError, match="remove timestamp_unit"):
        list(in_seconds(path, replace(form, unit_known=True), {}, "us"))
    assert len(list(in_seconds(path, form, {}, "us"))) == len(whole.frames) - 1


def test_a_draft_states_the_unit(workplace: Path) -> None:
    folder = workplace / "data/mixed"
    (folder / "train_01").mkdir(parents=True)
    capture(folder / "train_01/attack-free-van.csv", "can-train-and-test", "us", 0)
    capture(folder / "normal.log", "candump", "s", 6)
    capture(folder / "dos.txt", "hcrl-car-hacking", "ms", 3)
    capture(folder / "dos.log", "candump", "ns", 0)
    (folder / "manifest.yaml").write_text(draft(folder).text)
    units = {c.name: c.timestamp_unit for c in manifest.load("mixed", "data").values()}
    assert units == {"train_01.attack-free-van": "us", "normal": None, "dos": "ns", "dos.txt": "ms"}


@in_the_wild
def test_no_capture_in_the_wild_looks_like_another_unit() -> None:
    judged = 0
    for path in sorted(WILD.parent.rglob("*")):
        if path.suffix not in (".log", ".csv", ".asc", ".MF4") or path.stat().st_size > 4 << 20:
            continue
        try:
            (batch, *_) = FORMATS[recognise(path)].read(path, {"content": "unlabelled"})
        except (CanidsError, ValueError):
            continue
        assert likely_unit(batch.frames) is None, path
        if len(batch.frames) > 1500 and batch.frames["channel"].n_unique() == 1:
            for unit in ("ms", "us", "ns"):
                made = batch.frames.with_columns(pl.col("timestamp") * PER_SECOND[unit])
                assert likely_unit(made) == unit, path
            judged += 1
    assert judged >= 5
