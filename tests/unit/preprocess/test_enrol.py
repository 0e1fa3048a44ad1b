"""The command that enrols a vehicle: what it writes, keeps and refuses; scoring and following that begin with its profile."""

import errno
import logging
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from captures import GRAPHS, call, csv

from canids_preprocess import enrol, follow, graphs, ingest
from canids_preprocess.enrolment.profiles import load
from canids_preprocess.formats.growing import IdleTimeout
from canids_shared.contracts import streams
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from preprocess.test_enrolment import PERIODS, RARE, traffic


def log_of(path: Path, table: pl.DataFrame) -> Path:
    rows = zip(table["timestamp"], table["can_id"], table["payload"], strict=True)
    path.write_bytes(csv(*(f"{t:.6f},{i:03X},{p.hex()},0" for t, i, p in rows)))
    return path


def candump(path: Path, buses: dict[str, pl.DataFrame]) -> Path:
    lines = [
        (t, f"({t:.6f}) {bus} {i:03X}#{p.hex()}")
        for bus, table in buses.items()
        for t, i, p in zip(table["timestamp"], table["can_id"], table["payload"], strict=True)
    ]
    path.write_text("".join(f"{line}\n" for _, line in sorted(lines)))
    return path


def flooded(seconds: float = 20.0) -> pl.DataFrame:
    """Traffic with a flood of ID 0 in its tenth to twelfth second."""
    flood = traffic(2.0, 1, begin=1.6e9 + 10).with_columns(can_id=pl.lit(0, pl.UInt32))
    return pl.concat([traffic(seconds, 1), flood]).sort("timestamp", maintain_order=True)


def enrolled(*arguments: Any) -> None:
    enrol.main([str(argument) for argument in arguments])


def scored(folder: Path, log: Path, profiles: Sequence[Path]) -> GraphStore:
    """Graphs of a log that is only scored."""
    entry = {"name": log.stem, "vehicle": "unknown", "format": "auto", "attack": None, "content": "unlabelled"}
    entry |= {"attacked": [], "channel": "all"}
    outputs = {"output": folder / f"{log.stem}.parquet", "rejects": folder / "r.parquet"}
    config = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}
    ingest.main(call({"dataset": "d"}, config, outputs, {"capture": [log], "metadata": []}, capture=entry))
    output = folder / "score.safetensors"
    wildcards = {"dataset": "d", "split": "score", "instance": ""}
    inputs = {"frames": [outputs["output"]], "profiles": [*profiles]}
    graphs.main(call(wildcards, {**GRAPHS, "enrolment": 0}, output, inputs))
    return GraphStore(output)


def test_profile_of_a_log_covers_all_of_it_or_the_seconds_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log, made = log_of(tmp_path / "quiet.csv", traffic(20.0)), tmp_path / "profiles/car.safetensors"
    enrolled(log, "--output", made, "--vehicle", "car")
    header = load(made).header
    (bus,) = header["buses"]
    assert (header["vehicle"], bus["ids"], bus["rare"], bus["warnings"]) == ("car", 4, [RARE], [])
    assert bus["seconds"] == pytest.approx(20.0, abs=0.1)
    assert "4 arbitration IDs" in caplog.text
    assert "fewer than five periods seen of 500" in caplog.text
    enrolled(log, "--output", made, "--seconds", 3)
    (bus,) = load(made).header["buses"]
    assert bus["seconds"] == pytest.approx(3.0, abs=0.1)
    second = log_of(tmp_path / "more.csv", traffic(10.0, 2, begin=1.7e9))
    enrolled(log, second, "--output", made, "--seconds", 25)
    (bus,) = load(made).header["buses"]
    assert bus["seconds"] == pytest.approx(25.0, abs=0.1)
    assert len(bus["sources"]) == 2


def test_earlier_profiles_are_kept_and_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, made = log_of(tmp_path / "quiet.csv", traffic(20.0)), tmp_path / "car.safetensors"
    contents = []
    for seconds in (3, 5, 8):
        enrolled(log, "--output", made, "--seconds", seconds)
        contents.append(made.read_bytes())
    assert [made.with_name(f"car.{n}.safetensors").read_bytes() for n in (1, 2)] == contents[:2]
    for content in reversed(contents[:2]):
        enrolled("--back", "--output", made)
        assert made.read_bytes() == content
    with pytest.raises(
        SystemExit, match=r"car\.safetensors: no earlier version lies beside it \(car\.1\.safetensors\)"
    ):
        enrolled("--back", "--output", made)
    with pytest.raises(SystemExit):
        enrolled("--output", made)
    assert "name captures, or --back" in capsys.readouterr().err


def test_the_profile_so_far_stays_where_it_is_when_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, made = log_of(tmp_path / "quiet.csv", traffic(20.0)), tmp_path / "car.safetensors"
    enrolled(log, "--output", made, "--seconds", 3)
    content = made.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("canids_shared.contracts.arrays.profile.write", full)
    with pytest.raises(SystemExit, match=r"error: .*car\.safetensors.*"):
        enrolled(log, "--output", made)
    assert made.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["car.safetensors", "quiet.csv"]


def test_traffic_that_looks_attacked_is_refused_unless_accepted(tmp_path: Path) -> None:
    log, made = log_of(tmp_path / "flood.csv", flooded()), tmp_path / "car.safetensors"
    with pytest.raises(SystemExit) as caught:
        enrolled(log, "--output", made)
    assert "looks attacked: the bus carries 0.98 to 2.0" in str(caught.value)
    assert "began long after the others, and was frequent then: 000" in str(caught.value)
    assert not list(tmp_path.glob("*.safetensors"))
    enrolled(log, "--output", made, "--accept")
    assert len(load(made).header["buses"][0]["warnings"]) == 3


@pytest.mark.parametrize(
    ("kind", "warning"),
    [
        ("injected", r"up to 3.0 times as many frames as usual in a second: 200"),
        ("random", r"of \d+ arbitration IDs were seen 5 times or less, as random ones are"),
        ("paused", r"the bus carries 0.00 to 1.0"),
        ("early", r"of the frames come in less than half of their ID's interval"),
    ],
)
def test_what_looks_attacked_is_named(tmp_path: Path, kind: str, warning: str) -> None:
    table = traffic(20.0, 1)
    rng = np.random.default_rng(0)
    since = pl.col("timestamp") - 1.6e9
    if kind == "injected":
        extra = traffic(1.0, 2, begin=1.6e9 + 10).filter(can_id=0x100).with_columns(can_id=pl.lit(0x200, pl.UInt32))
        table = pl.concat([table, extra])
    elif kind == "random":
        extra = traffic(2.0, 2, begin=1.6e9 + 10).filter(can_id=0x300)
        table = pl.concat(
            [table, extra.with_columns(can_id=pl.Series(rng.integers(0x600, 0x7FF, len(extra)), dtype=pl.UInt32))]
        )
    elif kind == "paused":
        table = table.filter(~since.is_between(9, 11.5))
    else:
        extra = table.filter(pl.col("can_id") == 0x300).with_columns(pl.col("timestamp") + 0.02)
        table = pl.concat([table, extra])
    path = log_of(tmp_path / "log.csv", table.sort("timestamp", maintain_order=True))
    with pytest.raises(SystemExit) as caught:
        enrolled(path, "--output", tmp_path / "p.safetensors")
    assert re.search(warning, str(caught.value))


def test_capture_that_is_absent_or_attacked_by_its_own_labels_is_named(tmp_path: Path) -> None:
    made = tmp_path / "p.safetensors"
    with pytest.raises(SystemExit, match=r"error: .*gone\.csv: no such file"):
        enrolled(tmp_path / "gone.csv", "--output", made)
    path = tmp_path / "a.csv"
    path.write_bytes(csv("1.0,100,00FF11,0", "1.5,2A0,00,1"))
    with pytest.raises(SystemExit, match=r"error: .*a\.csv, line 3: an attacked frame"):
        enrolled(path, "--output", made)


def test_scored_and_followed_logs_begin_with_the_profile_and_are_equal(tmp_path: Path) -> None:
    made = tmp_path / "car.safetensors"
    enrolled(log_of(tmp_path / "quiet.csv", traffic(20.0)), "--output", made)
    drive = log_of(tmp_path / "drive.csv", traffic(5.0, 7, begin=1.7e9))
    cold, known = scored(tmp_path, drive, []), scored(tmp_path, drive, [made])
    assert known.header["profiles"].keys() == {"unknown"}
    young = known.header["node_features"].index("young_max")
    assert known["x"][:, young].max() < 0.4 < cold["x"][:, young].max()
    arguments = [str(drive), "--window", "20", "--stride", "20", "--profile", str(made), "--exit-at-end"]
    stream = BytesIO()
    follow.follow(follow.parser().parse_args(arguments), IdleTimeout(at_end=True), stream)
    stream.seek(0)
    header, _, batches = streams.received(stream)
    assert header["profiles"] == known.header["profiles"]
    x = np.concatenate([streams.flat(batch, "x") for batch in batches])
    np.testing.assert_array_equal(x, np.asarray(known["x"]).reshape(-1))


def test_frames_that_a_profile_was_learnt_from_are_not_scored_by_it(tmp_path: Path) -> None:
    log, made = log_of(tmp_path / "log.csv", traffic(20.0)), tmp_path / "car.safetensors"
    enrolled(log, "--output", made, "--seconds", 5)
    store = scored(tmp_path, log, [made])
    assert store["t_start"][0] == pytest.approx(1.6e9 + 5, abs=0.1)
    enrolled(log, "--output", made)
    with pytest.raises(
        CanidsError, match=r"'d': .*car\.safetensors was learnt from all of the traffic that is to be judged"
    ):
        scored(tmp_path, log, [made])


def test_buses_of_a_log_are_enrolled_each_and_followed_one_by_one(tmp_path: Path) -> None:
    other = traffic(20.0, 2).with_columns(pl.col("can_id") + 7)
    log = candump(tmp_path / "two.log", {"can0": traffic(20.0, 1), "can1": other})
    made = tmp_path / "car.safetensors"
    enrolled(log, "--output", made, "--seconds", 10)
    assert [bus["channel"] for bus in load(made).header["buses"]] == ["can0", "can1"]
    assert {int(i) for i in load(made).buses[1]["ids"]} == {i + 7 for i in (*PERIODS, RARE)}
    options = follow.parser().parse_args(["x.log", "--profile", str(made)])
    with pytest.raises(CanidsError, match=r"has the buses can0, can1, not ''; name one of them \(--channel\)"):
        follow.past_of_stretches(options)
    options = follow.parser().parse_args(["x.log", "--profile", str(made), "--channel", "can1"])
    past, digests = follow.past_of_stretches(options)
    state = past()
    assert digests == {"unknown": load(made).header["digest"]}
    assert state is not None
    assert state.ids.count == len(PERIODS) + 1


def past_ids(made: Path, source: str, *options: str) -> set[int]:
    """Arbitration IDs of the past that following a source begins with."""
    past, _ = follow.past_of_stretches(follow.parser().parse_args([source, "--profile", str(made), *options]))
    state = past()
    assert state is not None
    return set(state.ids.ids().tolist())


def test_a_live_bus_begins_with_the_bus_of_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = traffic(20.0, 2).with_columns(pl.col("can_id") + 7)
    made, ids = tmp_path / "car.safetensors", {*PERIODS, RARE}
    enrolled(candump(tmp_path / "two.log", {"can0": traffic(20.0, 1), "can1": other}), "--output", made)
    assert past_ids(made, "socketcan:can0") == ids
    assert past_ids(made, "socketcan:can1") == {i + 7 for i in ids}
    with pytest.raises(CanidsError, match=r"has the buses can0, can1, not 'can2'; name one of them \(--channel\)"):
        past_ids(made, "socketcan:can2")
    assert past_ids(made, "socketcan:can2", "--channel", "can1") == {i + 7 for i in ids}
    enrolled(tmp_path / "two.log", "--channel", "can0", "--output", made)
    caplog.clear()
    assert past_ids(made, "slcan:/dev/ttyUSB0") == ids
    assert "is of bus can0, the traffic of /dev/ttyUSB0" in caplog.text


def test_a_bus_of_several_does_not_begin_with_the_profile_of_another(tmp_path: Path) -> None:
    log = candump(tmp_path / "two.log", {"can0": traffic(20.0, 1), "can1": traffic(20.0, 2)})
    made = tmp_path / "car.safetensors"
    enrolled(log, "--channel", "can0", "--output", made, "--seconds", 5)
    with pytest.raises(CanidsError, match=r"has the buses can0, not 'can1'; name one of them \(--channel\)"):
        past_ids(made, str(log), "--channel", "can1")
    drive = candump(tmp_path / "drive.log", {"can0": traffic(5.0, 3), "can1": traffic(5.0, 4)})
    cold, known = scored(tmp_path, drive, [])["x"].copy(), scored(tmp_path, drive, [made])
    second = np.repeat(known["capture"], np.diff(known["node_ptr"])) == 1
    assert known.header["captures"] == ["drive.can0", "drive.can1"]
    np.testing.assert_array_equal(known["x"][second], cold[second])
    assert [known.header["sources"][name].get("profiled") for name in known.header["captures"]] == [True, None]
    assert not np.array_equal(known["x"][~second], cold[~second])
    unnamed = tmp_path / "unnamed.safetensors"
    enrolled(log_of(tmp_path / "quiet.csv", traffic(20.0)), "--output", unnamed)
    assert past_ids(unnamed, str(log), "--channel", "can1") == {*PERIODS, RARE}
    one = candump(tmp_path / "one.log", {"can5": traffic(5.0, 3)})
    new = known.header["node_features"].index("first_sighting_max")
    assert scored(tmp_path, one, [made])["x"][:, new].max() == 0 < cold[:, new].max()
