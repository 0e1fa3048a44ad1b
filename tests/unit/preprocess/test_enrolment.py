"""Enrolment and profiles: which frames they take, the same windows in both regimes, no window whose profile contains it, causality."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from captures import GRAPHS, call, features, fed, frames, write_frames

from canids_preprocess import graphs, planning, profile
from canids_preprocess.enrolment.profiles import load
from canids_preprocess.enrolment.stretches import halves, stretches
from canids_preprocess.features.frame_kernel import BUS_COLUMNS, FRAME_FEATURES
from canids_preprocess.features.relative import BusState, step
from canids_preprocess.windowing.members import metadata_of
from canids_shared.contracts.arrays.profile import write as write_profile
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.planning.stage import Stage

SMALL = {**GRAPHS, "window": 10, "stride": 10}
"""Five seconds of `traffic` have 80 windows."""
PERIODS = {0x100: 0.01, 0x200: 0.02, 0x300: 0.1}
RARE = 0x500


def traffic(seconds: float, seed: int = 0, begin: float = 1.6e9, offset: float = 0.0) -> pl.DataFrame:
    """Three periodic IDs with little jitter, whose second payload byte counts, and a fourth ID that comes twice."""
    rng = np.random.default_rng(seed)
    rows = []
    for can_id, period in PERIODS.items():
        times = np.arange(offset * period, seconds, period)
        jitter = rng.normal(0, period / 100, len(times))
        rows += [
            (t, can_id, bytes([can_id >> 8, n % 256, 0, 7, 0, 0, 0, 0]))
            for n, t in enumerate(np.maximum(times + jitter, 0))
        ]
    rows += [(seconds * share, RARE, bytes(8)) for share in (0.2, 0.4)]
    times, ids, payloads = zip(*sorted(rows), strict=True)
    return frames(begin + np.array(times), ids, payloads)


def free(folder: Path, name: str, seconds: float = 20.0, vehicle: str = "van", **metadata: Any) -> Path:
    table = metadata.pop("table", None)
    table = traffic(seconds, len(name) + ord(name[-1])) if table is None else table
    return write_frames(
        folder / f"{name}.parquet", table, vehicle=vehicle, **{"content": "attack-free", "attack": None} | metadata
    )


def attacked(folder: Path, name: str = "dos", vehicle: str = "van") -> Path:
    table = traffic(20.0, 3).with_columns(label=pl.lit(1, pl.UInt8), attack=pl.lit("dos"))
    return write_frames(folder / f"{name}.parquet", table, vehicle=vehicle)


def enrolled(folder: Path, *paths: Path, vehicle: str = "van", seconds: float = 5.0, **config: Any) -> Path:
    output = folder / f"profile-{vehicle}.safetensors"
    wildcards = {"dataset": "fleet", "instance": "", "vehicle": vehicle}
    profile.main(call(wildcards, {**SMALL, "enrolment": seconds, **config}, output, {"frames": list(paths)}))
    return output


def built(folder: Path, split: str, paths: list[Path], profiles: list[Path], **config: Any) -> GraphStore:
    output = folder / f"{split}.safetensors"
    wildcards = {"dataset": "fleet", "split": split, "instance": ""}
    config = {**SMALL, "enrolment": 5.0, **config}
    graphs.main(call(wildcards, config, output, {"frames": paths, "profiles": profiles}))
    return GraphStore(output)


# --- which frames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "seconds", "expected"),
    [
        ([20.0], 5.0, [5.0]),
        ([20.0], 15.0, [10.0]),  # shorter than twice that: the first half
        ([20.0, 20.0, 20.0], 9.0, [3.0, 3.0, 3.0]),
        ([4.0, 20.0, 20.0], 12.0, [2.0, 5.0, 5.0]),  # what a short one lacks, the others give
        ([20.0, 8.0, 4.0], 12.0, [6.0, 4.0, 2.0]),
        ([4.0, 6.0], 60.0, [2.0, 3.0]),
    ],
)
def test_stretches_are_equal_shares_of_the_beginnings_of_captures(
    tmp_path: Path, lengths: list[float], seconds: float, expected: list[float]
) -> None:
    paths = [free(tmp_path, f"free-{n}", length) for n, length in enumerate(lengths)]
    captures = metadata_of(call({}, {}, tmp_path, {"frames": paths}))
    (of_bus,) = stretches(captures, seconds).values()
    assert [s.recording.path for s in of_bus] == paths[: len(expected)]
    assert [s.seconds for s in of_bus] == pytest.approx(expected, abs=0.2)
    for stretch in of_bus:
        times = pl.read_parquet(stretch.recording.path)["timestamp"]
        assert times[stretch.block.stop - 1] - times[0] == pytest.approx(stretch.seconds, abs=0.02)
    first, second = halves(of_bus)
    for whole, one, other in zip(of_bus, first, second, strict=True):
        assert (one.block.start, one.block.stop, other.block.stop) == (0, other.block.start, whole.block.stop)
        assert one.block.stop == whole.block.stop // 2


def test_profile_says_how_much_it_covers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    paths = [free(tmp_path, "a", 4.0), free(tmp_path, "b"), free(tmp_path, "c")]
    made = load(enrolled(tmp_path, *reversed(paths), seconds=10.0))
    (bus,) = made.header["buses"]
    assert made.header["vehicle"] == "van"
    assert bus["seconds"] == pytest.approx(10.0, abs=0.1)
    for path, seconds in zip(paths, (2.0, 4.0, 4.0), strict=True):
        times = pl.read_parquet(path)["timestamp"]
        assert bus["sources"][path.stem] == pytest.approx((times < times[0] + seconds).sum(), abs=4)
    assert bus["ids"] == 4
    assert bus["rare"] == [RARE]
    assert "fewer than five periods seen of 500" in caplog.text
    level = made.buses[0]["state"][:, made.header["columns"].index("level")]
    known = dict(zip(made.buses[0]["ids"].tolist(), level, strict=True))
    for can_id, period in PERIODS.items():
        assert 2 ** known[can_id] == pytest.approx(period, rel=0.02)


@pytest.mark.parametrize(
    ("lengths", "count"), [([], 0), ([6.2], 48), ([3.1, 3.1], 48)]
)  # of ten frames each, of half of the traffic
def test_vehicle_of_too_few_windows_has_no_enrolment_and_is_judged_zero_shot_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lengths: list[float], count: int
) -> None:
    short = [attacked(tmp_path), *(free(tmp_path, f"short-{n}", seconds) for n, seconds in enumerate(lengths))]
    long = free(tmp_path, "long", vehicle="kia")
    made = [enrolled(tmp_path, *short), enrolled(tmp_path, long, vehicle="kia")]
    assert f"van: {count} windows of attack-free traffic are too few to enrol it by (50)" in caplog.text
    assert load(made[0], may_be_empty=True).buses == []
    with pytest.raises(CanidsError, match="knows no bus, its traffic was too short"):
        load(made[0])
    paths = [*short, long]
    zero = built(tmp_path, "test", paths, made)
    assert set(zero.header["vehicles"]) == {"kia", "van"}
    for path in short:  # nothing of it is set aside
        assert zero.header["counts"][path.stem]["frames"] == pl.read_parquet(path).height
    known = built(tmp_path, "test_enrolled", paths, made)
    assert known.header["captures"] == ["long"]
    assert set(known.header["profiles"]) == {"kia"}
    assert built(tmp_path, "enrolment", paths[1:], []).header["captures"] == ["long"]
    for split in ("test_enrolled", "enrolment"):
        with pytest.raises(CanidsError, match=f"split '{split}' of dataset 'fleet': no vehicle is enrolled"):
            built(tmp_path, split, short, made[:1])


# --- both regimes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"stride": 7}, {"window_unit": "seconds", "window": 0.2, "stride": 0.1}])
def test_both_regimes_judge_the_same_windows(tmp_path: Path, config: dict[str, Any]) -> None:
    paths = [free(tmp_path, "a", 4.0), free(tmp_path, "b"), attacked(tmp_path)]
    profiles = [enrolled(tmp_path, *paths[:2], seconds=6.0)]
    zero, known = (built(tmp_path, split, paths, profiles, **config) for split in ("test", "test_enrolled"))
    assert zero.keys().equals(known.keys())
    assert zero.header["captures"] == known.header["captures"] == ["a", "b", "dos"]
    for name in ("node_id", "node_count", "edge_index", "n_attacked"):
        np.testing.assert_array_equal(zero[name], known[name])
    assert not np.array_equal(zero["x"], known["x"])
    assert set(known.header["profiles"]) == {"van"}
    assert "profiles" not in zero.header
    # What the vehicle was enrolled by is judged in neither.
    for path in paths[:2]:
        enrolment = pl.read_parquet(path)["timestamp"][load(profiles[0]).header["buses"][0]["sources"][path.stem] - 1]
        assert zero.keys().filter(capture=path.stem)["t_start"].min() > enrolment


def test_zero_shot_knows_nothing_of_the_vehicle(tmp_path: Path) -> None:
    """Not even of the frames just before, by which it was enrolled."""
    path = free(tmp_path, "a")
    made = enrolled(tmp_path, path)
    begin = load(made).header["buses"][0]["sources"]["a"]
    zero = built(tmp_path, "test", [path], [made])
    rest = free(tmp_path, "rest", table=pl.read_parquet(path)[begin:])
    alone = built(tmp_path, "alone", [rest], [])
    for name in ("x", "edge_attr", "statistics"):
        np.testing.assert_array_equal(zero[name], alone[name])


def test_vehicle_that_is_not_enrolled_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [free(tmp_path, "a"), attacked(tmp_path), attacked(tmp_path, "other", "kia")]
    profiles = [enrolled(tmp_path, paths[0])]
    assert built(tmp_path, "test_enrolled", paths, profiles).header["captures"] == ["a", "dos"]
    assert "other is left out: its vehicle, kia, is not enrolled" in caplog.text
    assert built(tmp_path, "test", paths, profiles).header["captures"] == ["a", "dos", "other"]


def test_no_window_of_the_enrolment_meets_a_profile_that_contains_it(tmp_path: Path) -> None:
    """Its windows are those of one half alone, behind a profile of the other half alone."""
    table = traffic(20.0, 1)
    path = free(tmp_path, "a", table=table)
    store = built(tmp_path, "enrolment", [path], [], enrolment=8.0)
    stop = load(enrolled(tmp_path, path, seconds=8.0)).header["buses"][0]["sources"]["a"]
    half = stop // 2
    (cut,) = np.flatnonzero(np.diff(store["window"]) != 1)
    assert store["t_end"][cut] < table["timestamp"][half] <= store["t_start"][cut + 1]
    assert store["t_end"][-1] <= table["timestamp"][stop - 1]
    for own, other, windows in (
        (slice(half), slice(half, stop), slice(cut + 1)),
        (slice(half, stop), slice(half), slice(cut + 1, None)),
    ):
        past = enrolled_by(tmp_path, table[other])
        alone = built(tmp_path, "test_enrolled", [free(tmp_path, "half", table=table[own])], [past])
        np.testing.assert_array_equal(store["statistics"][windows], alone["statistics"])


def test_each_half_of_the_enrolment_has_windows_of_all_captures(tmp_path: Path) -> None:
    paths = [free(tmp_path, "a"), free(tmp_path, "b")]
    keys = built(tmp_path, "enrolment", paths, [], enrolment=8.0).keys()
    for name in ("a", "b"):
        windows = keys.filter(capture=name)
        (cut,) = np.flatnonzero(np.diff(windows["window"]) != 1)
        assert len(windows) / 2 - 2 < cut + 1 < len(windows) / 2 + 2


def enrolled_by(folder: Path, table: pl.DataFrame) -> Path:
    """The profile of exactly these frames: they are the first half of a capture."""
    span = table["timestamp"].max() - table["timestamp"].min() + 1e-3
    doubled = pl.concat([table, table.with_columns(pl.col("timestamp") + span)])
    return enrolled(folder, free(folder, "doubled", table=doubled), seconds=span)


def test_buses_of_a_log_have_profiles_of_their_own(tmp_path: Path) -> None:
    two = pl.concat(
        [
            traffic(20.0, 1).with_columns(channel=pl.lit("can0")),
            traffic(20.0, 2).with_columns(pl.col("can_id") + 7, channel=pl.lit("can1")),
        ]
    ).sort("timestamp", maintain_order=True)
    channels = dict(two["channel"].value_counts().iter_rows())
    path = free(tmp_path, "log", table=two, channels=channels, channels_attacked=[])
    made = enrolled(tmp_path, path)
    header = load(made).header
    assert [bus["channel"] for bus in header["buses"]] == ["can0", "can1"]
    assert {int(i) for i in load(made).buses[1]["ids"]} == {can_id + 7 for can_id in (*PERIODS, RARE)}
    store = built(tmp_path, "test_enrolled", [path], [made])
    assert store.header["captures"] == ["log.can0", "log.can1"]
    # No ID of the profile is new to its bus.
    new = store["x"][:, store.header["node_features"].index("first_sighting_max")]
    assert new.max() == 0


# --- the past that a profile is ----------------------------------------------------------------------------------


def past(seconds: float = 10.0) -> BusState:
    state = BusState()
    step(fed(traffic(seconds, 5)), state)
    return BusState.of(state.arrays())


def named(table: pl.DataFrame, state: BusState) -> dict[str, np.ndarray]:
    return dict(zip(FRAME_FEATURES, step(fed(table), state)[0].T, strict=True))


def test_nothing_is_new_or_unusual_in_the_first_second_of_an_enrolled_bus() -> None:
    later = traffic(3.0, 6, begin=1.7e9, offset=0.3).filter(pl.col("can_id") != RARE)
    known, cold = named(later, past()), features(later)
    assert known["first_sighting"].max() == 0
    assert known["newcomer"].max() < 0.1
    assert known["young"].max() < 0.02 < cold["young"].max()
    assert known["overdue"].max() == 0
    assert np.abs(known["interval_ratio"]).max() < 0.5
    assert np.abs(known["payload_deviation"]).max() <= 2
    assert known["novel_bits"].max() == 0


def test_new_id_and_new_bit_are_news_at_once_on_an_enrolled_bus() -> None:
    later = traffic(1.0, 6, begin=1.7e9)
    row = np.arange(len(later)) == 5
    strange = later.with_columns(can_id=pl.when(pl.Series(row)).then(pl.lit(0x7FF, pl.UInt32)).otherwise("can_id"))
    assert named(strange, past())["first_sighting"][5] == 1.0
    assert features(strange)["first_sighting"][5] < 0.05
    second = later.with_row_index().filter(can_id=0x100)["index"][1]
    flipped = [b"\x01\xff\xff\x07" + bytes(4) if n == second else p for n, p in enumerate(later["payload"])]
    assert named(later.with_columns(payload=pl.Series(flipped)), past())["novel_bits"][second] > 0


def test_id_that_is_silent_from_the_first_frame_on_is_missed_after_its_period() -> None:
    later = traffic(2.0, 6, begin=1.7e9).filter(pl.col("can_id") != 0x300)
    overdue = named(later, past())["overdue"]
    since = later["timestamp"].to_numpy() - 1.7e9
    assert overdue[(since > 0.9) & (since < 1.5)].max() > 0.3  # between four and sixteen of its periods
    assert features(later)["overdue"].max() == 0


def test_id_that_fell_silent_at_the_end_of_the_enrolment_is_not_overdue_on_the_next_drive() -> None:
    ended = traffic(10.0, 5).filter((pl.col("can_id") != 0x300) | (pl.col("timestamp") < 1.6e9 + 9.2))
    state = BusState()
    overdue = step(fed(ended), state)[0][:, FRAME_FEATURES.index("overdue")]
    assert overdue[-1] == 1  # one ID, when the enrolment ends
    later = named(traffic(3.0, 6, begin=1.7e9, offset=0.9), BusState.of(state.arrays()))
    assert later["overdue"].max() == 0


def test_features_behind_a_profile_are_causal_and_the_same_in_chunks_of_any_size() -> None:
    later = traffic(2.0, 6, begin=1.7e9)
    whole = step(fed(later), past())[0]
    for size in (1, 7, 50):
        state = past()
        parts = [step(fed(later[first : first + size]), state)[0] for first in range(0, len(later), size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    other = pl.concat([later[:100], traffic(1.0, 9, begin=1.7e9 + 1.0)])
    np.testing.assert_array_equal(step(fed(other), past())[0][:100], whole[:100])


def test_state_of_a_profile_survives_the_file(tmp_path: Path) -> None:
    made = load(enrolled(tmp_path, free(tmp_path, "a")))
    again = BusState.of(made.buses[0])
    later = traffic(1.0, 6, begin=1.7e9)
    table = pl.read_parquet(tmp_path / "a.parquet")[: made.header["buses"][0]["sources"]["a"]]
    state = BusState()
    step(fed(table), state)
    state.rest()
    np.testing.assert_array_equal(step(fed(later), again)[0], step(fed(later), state)[0])


def test_profile_of_other_features_or_damaged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = enrolled(tmp_path, free(tmp_path, "a"))
    for name, columns in (("COLUMNS", ("seen",)), ("BUS_COLUMNS", BUS_COLUMNS[::-1])):
        with monkeypatch.context() as patched:
            patched.setattr(f"canids_preprocess.enrolment.profiles.{name}", columns)
            with pytest.raises(CanidsError, match="made for other frame features; enrol the vehicle again"):
                load(made)
    content = bytearray(made.read_bytes())
    content[-1] ^= 1
    made.write_bytes(content)
    with pytest.raises(CanidsError, match="was changed since it was written"):
        load(made)


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("dlc", 65, "dlc, older_dlc or latest_dlc"),
        ("older_dlc", 1e6, "dlc, older_dlc or latest_dlc"),
        ("latest_dlc", -1, "dlc, older_dlc or latest_dlc"),
        ("seen", -1, "seen"),
        (2, -1, "the bus's counts of frames"),
        (9, -1, "the bus's counts of frames"),
    ],
)
def test_profile_of_impossible_values_is_refused(tmp_path: Path, column: str | int, value: float, named: str) -> None:
    """Compiled code reads as many words as the lengths say."""
    made = load(enrolled(tmp_path, free(tmp_path, "a")))
    (bus,) = made.buses
    if isinstance(column, str):
        bus["state"][1, made.header["columns"].index(column)] = value
    else:
        bus["bus"][column] = value
    write_profile(made.path, {k: v for k, v in made.header.items() if k not in ("digest", "contract")}, [bus])
    with pytest.raises(CanidsError, match=f"bus 0: impossible values in {named}; enrol the vehicle again"):
        load(made.path)


# --- planning ----------------------------------------------------------------------------------------------------

SCHEMA = Path(__file__).parents[3] / "modules/preprocess/config.schema.yaml"
FREE = ["kia-free", "van-free"]


def fleet(**config: Any) -> Stage:
    """Two vehicles that are trained on, and one of another make."""
    common: dict[str, Any] = {"path": "a.csv", "format": "candump", "role": "train", "content": "attack-free"}
    captures = {f"{vehicle}-free": {**common, "vehicle": vehicle} for vehicle in ("kia", "van")}
    captures |= {f"{v}-dos": {**common, "vehicle": v, "content": "labelled", "attack": "dos"} for v in ("kia", "van")}
    captures["wrx"] = {**common, "vehicle": "wrx", "role": "unseen"}
    captures["to-score"] = {**common, "vehicle": "kia", "role": "score", "content": "unlabelled"}
    folder = Path("data/cars")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"contract": "manifest/1", "captures": captures}))
    left = {"without-kia": {"vehicles": ["kia"]}, "without-dos": {"attacks": ["dos"]}}
    instances = {fold: {"leave_out": out} for fold, out in left.items()}
    given = {"datasets": ["cars"], "data_root": "data", "instances": instances, "folds": left, "enrolment": 60}
    return Stage("preprocess", {**given, **config}, SCHEMA)


def inputs(made: Stage, split: str, instance: str) -> tuple[list[str], list[str]]:
    """Captures and profiles that the job of a scenario reads."""
    wildcards = SimpleNamespace(dataset="cars", split=split, instance=instance)
    read = planning.frames_of_scenario(made)(wildcards), planning.profiles_of_scenario(made)(wildcards)
    return [Path(p).stem for p in read[0]], read[1]


def test_a_fold_enrols_what_it_leaves_out_and_what_nothing_is_trained_on(workplace: Path) -> None:
    made, profiles = fleet(), "<profiles>@without-kia/{}.safetensors"
    for split in ("left_out", "left_out_enrolled"):
        captures, read = inputs(made, split, "@without-kia")
        assert set(captures) == {*FREE, "kia-dos", "van-dos"}  # the job leaves out what is not left out, by content too
        assert read == [profiles.format("kia")]
    for split in ("unseen", "unseen_enrolled"):
        assert inputs(made, split, "@without-kia") == (["wrx"], [profiles.format("wrx")])
    captures, read = inputs(made, "enrolment", "@without-kia")
    assert (set(captures), read) == ({"wrx", "kia-free"}, [])
    wildcards = SimpleNamespace(dataset="cars", instance="@without-kia", vehicle="kia")
    assert planning.frames_of_enrolment(made)(wildcards) == ["<frames>/kia-free.parquet"]
    wildcards.vehicle = "van"  # is trained on
    with pytest.raises(CanidsError, match="cars@without-kia: no scenario has an attack-free capture of vehicle 'van'"):
        planning.frames_of_enrolment(made)(wildcards)


def test_a_fold_of_attacks_has_no_attack_free_capture_to_enrol_by(workplace: Path) -> None:
    made = fleet()
    assert inputs(made, "left_out", "@without-dos")[1] == []
    with pytest.raises(CanidsError, match="no split or scenario 'left_out_enrolled'"):
        inputs(made, "left_out_enrolled", "@without-dos")
    assert inputs(made, "enrolment", "@without-dos")[0] == ["wrx"]


def test_without_enrolment_nothing_is_read_of_profiles_but_the_one_that_scoring_names(workplace: Path) -> None:
    made = fleet(enrolment=0, profile="car.safetensors")
    assert inputs(made, "left_out", "@without-kia")[1] == []
    assert inputs(made, "unseen", "")[1] == []
    assert inputs(made, "score", "") == (["to-score"], ["car.safetensors"])
    with pytest.raises(CanidsError, match="no split or scenario 'enrolment'"):
        inputs(made, "enrolment", "")
