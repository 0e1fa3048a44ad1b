"""Alarms for a person: which windows, which arbitration IDs, how far from the training."""

import logging
import sys
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from canids_evaluate import alarms, follow
from canids_evaluate.watch import attribution, drift
from canids_evaluate.watch.alarm_tracker import AlarmTracker, in_words, schema
from canids_evaluate.watch.attribution import FEATURES, Nodes, name_of
from canids_shared.contracts import streams
from canids_shared.contracts.detectors import DETECTORS, KEY, Detector, as_json
from canids_shared.contracts.graph_store import GraphStore, writing
from canids_shared.contracts.manifest import SCORED
from canids_shared.contracts.tables import DECISIONS, write
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

WINDOWS, ATTACK = 60, range(40, 46)
SLOW, FAST, FLOOD = 0x100, 0x200, 0x000
EXTENDED = 0x98DAF110


def traffic(
    path: Path,
    names: list[str] | None = None,
    flood: bool = True,
    shift: float = 0.0,
    shifted: Sequence[int] = range(WINDOWS),
) -> GraphStore:
    """Windows of a tenth of a second with three IDs; in the attack 000 floods, and 200 comes eight times as often.

    The features of the windows `shifted` lie off by `shift`.
    """
    rng = np.random.default_rng(1)
    nodes: list[tuple[int, int, list[float]]] = []
    counts = []
    for w in range(WINDOWS):
        hit = flood and w in ATTACK
        node_counts = [(SLOW, 2), (FAST, 16 if hit else 10), (EXTENDED, 3), *([(FLOOD, 170)] if hit else [])]
        counts.append(len(node_counts))
        for can_id, frames in node_counts:
            x = rng.normal(shift if w in shifted else 0.0, 0.05, len(FEATURES)).tolist()
            x[0] = -3.0 if hit and can_id == FAST else x[0]
            x[4] = 1.0 if can_id == FLOOD else 0.0
            nodes.append((can_id, frames, x))
    number = np.arange(WINDOWS)
    header = {
        "node_features": names or list(FEATURES),
        "edge_features": ["count"],
        "statistics": ["ids"],
        "attacks": ["", "dos"],
        "captures": ["drive"],
        "vehicles": ["van"],
        "sources": {"drive": {"sha256": "s", "vehicle": "van", "attack": "dos"}},
    }
    with writing(path, header, windows=WINDOWS, nodes=len(nodes), edges=WINDOWS) as writer:
        writer.append(
            {
                "y": np.isin(number, ATTACK) & flood,
                "n_attacked": np.zeros(WINDOWS),
                "attack": (np.isin(number, ATTACK) & flood).astype(int),
                "capture": np.zeros(WINDOWS),
                "vehicle": np.zeros(WINDOWS),
                "window": number,
                "t_start": 100 + number / 10,
                "t_end": 100 + (number + 1) / 10,
                "statistics": np.zeros((WINDOWS, 1)),
                "x": np.array([x for *_, x in nodes]),
                "node_id": np.array([i for i, *_ in nodes]),
                "node_count": np.array([n for _, n, _ in nodes]),
                "edge_source": np.zeros(WINDOWS),
                "edge_target": np.zeros(WINDOWS),
                "edge_attr": np.ones((WINDOWS, 1)),
                "node_counts": np.array(counts),
                "edge_counts": np.ones(WINDOWS),
            }
        )
    return GraphStore(path)


def decided(store: GraphStore, alarm: np.ndarray, detectors: Sequence[Detector] = DETECTORS) -> pl.DataFrame:
    score = np.where(alarm, 0.9, 0.1).astype(np.float32)
    scores = dict.fromkeys(("fusion_score", *(d.decided for d in detectors)), pl.Series(score))
    return store.keys().with_columns(**scores, alarm=pl.Series(alarm), action=pl.Series(alarm.astype(np.int16)))


def run(
    folder: Path, frame: pl.DataFrame, store: GraphStore, fit: GraphStore | None = None, split: str = SCORED
) -> dict[str, Path]:
    write(folder / "decisions.parquet", DECISIONS, frame, {KEY: as_json(DETECTORS)})
    output = {n: folder / n for n in ("alarms", "csv", "figure", "summary")}
    inputs = {"decisions": [folder / "decisions.parquet"], "graphs": [store.path], "fit": [fit.path] if fit else []}
    config: dict[str, Any] = {"episode_gap": 0.25, "explained_ids": 3}
    constants = {"code": "0123456789abcdef", "scenarios": [SCORED] if split == SCORED else ["test_dos"]}
    alarms.main(Call({"dataset": "d", "split": split}, config, constants, output, inputs, "{}"))
    return output


def test_the_ids_behind_an_alarm_are_named_with_what_is_unusual(tmp_path: Path) -> None:
    store = traffic(tmp_path / "score.safetensors")
    alarm = np.isin(np.arange(WINDOWS), ATTACK)
    alarm[42] = False  # a gap of a tenth of a second ends no alarm
    alarm[10] = True
    output = run(tmp_path, decided(store, alarm), store, traffic(tmp_path / "fit.safetensors", flood=False))
    table = pl.read_parquet(output["alarms"])
    assert table.schema == pl.Schema(schema(DETECTORS))
    assert table["windows"].to_list() == [1, 5]
    assert table["after_s"].to_list() == pytest.approx([1.0, 4.0])
    assert table["duration_s"].to_list() == pytest.approx([0.1, 0.6])
    assert table["attacked"].to_list() == [0, 1]
    attack = table.row(1, named=True)
    assert [i["can_id"] for i in attack["ids"]] == ["000", "200"]
    flood, fast = attack["ids"]
    assert flood["frames_per_s"] == pytest.approx(1700)
    assert flood["deviation"] is None
    assert flood["what"] == "never seen before, 1,700 frames/s"
    assert fast["interval"] == pytest.approx(0.125)
    assert fast["usual_frames_per_s"] == pytest.approx(100)
    assert "160.0 frames/s, usually 100.0" in fast["what"]
    assert "intervals 0.12 times as long as usual" in fast["what"]
    assert (attack["new_ids"], attack["new_frames_per_s"]) == (1, pytest.approx(1700))
    assert pl.read_csv(output["csv"])["ids"][1].startswith("000 (never seen before")
    words = output["summary"].read_text()
    assert "2 alarms" in words
    assert "6 windows are attacked; 5 of them are alarmed, and 1 others" in words
    assert "after 4.00 s, for 0.60 s (score 0.90). 000: never seen before" in words
    assert "Warning" not in words
    assert "drive" in output["figure"].read_text()


@pytest.mark.parametrize(("split", "readings"), [(SCORED, 0), ("fuse", 0), ("test_dos", 1)])
def test_a_test_scenario_is_logged_as_read(
    split: str, readings: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = traffic(tmp_path / "s.safetensors")
    run(tmp_path, decided(store, np.zeros(WINDOWS, dtype=bool)), store, split=split)
    log = tmp_path / "experimentruns/test_readings.jsonl"
    assert len(log.read_text().splitlines() if log.exists() else []) == readings


def test_nothing_to_report(tmp_path: Path) -> None:
    store = traffic(tmp_path / "score.safetensors", flood=False)
    output = run(tmp_path, decided(store, np.zeros(WINDOWS, dtype=bool)), store)
    assert len(pl.read_parquet(output["alarms"])) == 0
    assert pl.read_csv(output["csv"]).columns == list(schema(DETECTORS))
    words = output["summary"].read_text()
    assert "no alarm" in words
    assert "Not known" in words


def test_drift_is_measured_overall_and_by_id(tmp_path: Path) -> None:
    fit = traffic(tmp_path / "fit.safetensors", flood=False)
    same = drift.measure(fit, np.ones(WINDOWS, dtype=bool), fit)
    assert same.overall == pytest.approx(0, abs=1e-6)
    moved = traffic(tmp_path / "moved.safetensors", flood=False, shift=0.1)
    result = drift.measure(moved, np.ones(WINDOWS, dtype=bool), fit)
    # Four of five features moved by two standard deviations; the fifth is constant.
    assert result.overall == pytest.approx(2 * np.sqrt(4 / 5), rel=0.1)
    assert list(result.features.values()) == pytest.approx([2, 2, 2], rel=0.15)
    assert set(result.by_id) == {SLOW, FAST, EXTENDED}
    output = run(tmp_path, decided(moved, np.zeros(WINDOWS, dtype=bool)), moved, fit)
    words = output["summary"].read_text()
    assert "**Warning**: this traffic is unlike" in words
    assert "recalibrate" in words


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    store = traffic(tmp_path / "score.safetensors")
    other = traffic(tmp_path / "other.safetensors", names=[f"f{i}" for i in range(5)])
    with pytest.raises(CanidsError, match="other node features than"):
        drift.measure(store, np.ones(WINDOWS, dtype=bool), other)
    with pytest.raises(CanidsError, match="every window raises an alarm"):
        drift.measure(store, np.zeros(WINDOWS, dtype=bool), store)
    output = run(tmp_path, decided(store, np.zeros(WINDOWS, dtype=bool)), store, other)
    assert "Not known: " in output["summary"].read_text()
    with pytest.raises(CanidsError, match=r"no node feature 'interval_ratio_mean'"):
        alarms.alarms_of(decided(other, np.zeros(WINDOWS, dtype=bool)), other, DETECTORS, 0.25, 3)
    with pytest.raises(CanidsError, match=r"decisions\.parquet: not the windows of"):
        run(tmp_path, decided(store, np.zeros(WINDOWS, dtype=bool))[:-1], store)


def test_an_alarm_without_a_past_is_not_explained(tmp_path: Path) -> None:
    store = traffic(tmp_path / "score.safetensors")
    alarm = np.zeros(WINDOWS, dtype=bool)
    alarm[[0, 1, 2, 50]] = True
    result = alarms.alarms_of(decided(store, alarm), store, DETECTORS, 0.25, 3)
    assert result[0]["ids"] == []
    assert "too few normal windows before it" in in_words({**result[0], "new_ids": 0})
    assert result[1]["new_ids"] == 0, "000 was there in windows 40 to 45, though no window with it raised an alarm"


def test_names_of_ids() -> None:
    assert [name_of(i) for i in (0, 0x7FF, EXTENDED)] == ["000", "7FF", "18DAF110"]


def stream_of(
    store: GraphStore, alarm: np.ndarray, borders: list[int], detectors: Sequence[Detector] = DETECTORS
) -> BytesIO:
    """The windows of a store, decided on, as the chain hands them over."""
    frame = decided(store, alarm, detectors)
    schema = streams.schema_of_graphs({k: store.header[k] for k in ("node_features", "edge_features")})
    kinds = dict.fromkeys(("fusion_score", *(d.decided for d in detectors)), pa.float32())
    wide = streams.widened(schema, {**kinds, "alarm": pa.bool_(), "action": pa.int16()}, detectors=as_json(detectors))
    nodes, ones = np.diff(store["node_ptr"]), np.ones(len(store), np.int64)
    lists = {
        **{name: streams.lists(store[name], nodes) for name in ("x", "node_id", "node_count")},
        **{name: streams.lists(np.zeros(len(store), np.int16), ones) for name in ("edge_source", "edge_target")},
        "edge_attr": streams.lists(store["edge_attr"], ones),
    }
    columns = [lists[f.name] if f.name in lists else frame[f.name].to_arrow().cast(f.type) for f in wide]
    batch = pa.RecordBatch.from_arrays(columns, schema=wide)
    stream = BytesIO()
    with streams.sending(stream, wide) as send:
        for begin, end in pairwise(borders):
            send(batch.slice(begin, end - begin))
    stream.seek(0)
    return stream


def test_alarms_of_windows_that_come_in_pieces_are_those_of_the_finished_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = traffic(tmp_path / "score.safetensors")
    alarm = np.isin(np.arange(WINDOWS), ATTACK)
    alarm[42], alarm[10], alarm[58:] = False, True, True
    output = run(tmp_path, decided(store, alarm).with_columns(label=pl.lit(None, dtype=pl.UInt8)), store)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream_of(store, alarm, [0, 1, 30, 41, 43, 44, WINDOWS])))
    chosen = ["--csv", str(tmp_path / "f.csv"), "--windows", str(tmp_path / "w.csv"), "--episode-gap", "0.25"]
    follow.main(follow.parser().parse_args([*chosen, "--explained-ids", "3"]))
    exact, result = pl.read_csv(output["csv"]), pl.read_csv(tmp_path / "f.csv")
    assert result.drop("attacked").equals(exact.drop("attacked"))
    assert pl.read_csv(tmp_path / "w.csv")["alarm"].to_list() == alarm.tolist()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ALARM", "over"] * 3
    assert lines[2].startswith("ALARM  after 4.00 s (score 0.90). 000: never seen before")
    assert lines[3].startswith("over   after 4.00 s, for 0.60 s (score 0.90). 000: never seen before, 1,700 frames/s")


@pytest.mark.parametrize("names", [("pca",), ("trees", "forest", "pca")])
def test_alarms_have_a_score_of_every_declared_detector(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detectors = [Detector(name, name.upper(), f"{name}_error", supervised=False) for name in names]
    store = traffic(tmp_path / "score.safetensors")
    alarm = np.isin(np.arange(WINDOWS), ATTACK)
    (batch,) = alarms.alarms_of(decided(store, alarm, detectors), store, detectors, 0.25, 3)
    columns = ["fusion_score", *(f"{name}_score" for name in names)]
    assert {c: batch[c] for c in columns} == dict.fromkeys(columns, pytest.approx(0.9))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream_of(store, alarm, [0, 43, WINDOWS], detectors)))
    follow.main(follow.parser().parse_args(["--csv", str(tmp_path / "f.csv"), "--windows", str(tmp_path / "w.csv")]))
    live, windows = pl.read_csv(tmp_path / "f.csv"), pl.read_csv(tmp_path / "w.csv")
    assert live.columns == list(schema(detectors))
    assert live["fusion_score"].to_list() == pytest.approx([0.9])
    assert windows.columns[3:-2] == columns


@pytest.mark.parametrize("enrolled", [False, True, {"a"}, {"b"}])
def test_of_an_enrolled_vehicle_only_ids_that_its_profile_lacks_are_new(enrolled: bool | set[str]) -> None:
    """An alarm from the first window on: SLOW is of the profile, FAST is not, and both go on."""
    tracker = AlarmTracker(1.0, 3, (), enrolled)
    window = {"label": None, "alarm": True, "fusion_score": 0.9, "capture": "a"}
    for number, first_sighting in enumerate([[0.0, 1.0], [0.0, 0.0]]):
        x = np.zeros((2, 5), np.float32)
        x[:, FEATURES.index("first_sighting_max")] = first_sighting
        nodes = Nodes(np.array([SLOW, FAST], np.uint32), np.array([1, 9], np.int32), x, 0.1)
        tracker.update({**window, "t_start": number * 0.1, "t_end": number * 0.1 + 0.1}, nodes)
    count, rate = tracker.attribution.new_ids()
    assert (count, rate) == ((1, pytest.approx(90)) if enrolled in (True, {"a"}) else (2, pytest.approx(100)))


def test_a_capture_whose_bus_has_no_profile_is_not_taken_for_an_enrolled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, given = traffic(tmp_path / "score.safetensors"), []
    names = store.header["captures"]
    monkeypatch.setattr(alarms, "AlarmTracker", lambda *how: (given.append(how[3]), AlarmTracker(*how))[1])
    store.header |= {"profiles": {"van": "0" * 64}, "sources": {names[0]: {"vehicle": "van"}}}
    for profiled in (False, True):
        store.header["sources"][names[0]] |= {"profiled": profiled}
        alarms.alarms_of(decided(store, np.zeros(WINDOWS, bool)), store, DETECTORS, 0.25, 3)
    assert given == [set(), {names[0]}]


def test_a_new_capture_ends_the_alarm_of_the_one_before() -> None:
    tracker = AlarmTracker(1.0, 3, ())
    nodes = Nodes(np.array([SLOW], np.uint32), np.ones(1, np.int32), np.zeros((1, 5), np.float32), 0.1)
    window = {"t_start": 0.0, "t_end": 0.1, "label": None, "alarm": True, "fusion_score": 0.9}
    events = [e for c in ("a", "a", "b") for e in tracker.update({**window, "capture": c}, nodes)]
    assert [(e.alarm["capture"], e.ended) for e in [*events, *tracker.end()]] == [
        ("a", False),
        ("a", True),
        ("b", False),
        ("b", True),
    ]


@pytest.mark.parametrize(
    ("shifted", "expected"),
    [
        ((), []),
        (range(30, WINDOWS), ["DRIFT  after 3.50 s. Warning: this traffic is unlike what the detectors"]),
        (
            range(20, 40),
            ["DRIFT  after 2.50 s. Warning: this traffic is unlike", "over   after 5.00 s: drift. Overall 0."],
        ),
    ],
)
def test_drift_of_a_bus_is_told_once_when_it_begins_and_once_when_it_is_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    shifted: Sequence[int],
    expected: list[str],
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(drift, "_BLOCK", 5)
    monkeypatch.setattr(drift, "_BLOCKS", 2)
    fit = traffic(tmp_path / "fit.safetensors", flood=False)
    store = traffic(tmp_path / "score.safetensors", flood=False, shift=0.1, shifted=shifted)
    quiet = np.zeros(WINDOWS, dtype=bool)
    stream = stream_of(store, quiet, list(range(WINDOWS + 1)))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    follow.main(follow.parser().parse_args(["--csv", str(tmp_path / "f.csv"), "--fit", str(fit.path)]))
    lines = capsys.readouterr().out.splitlines()
    # Ten windows are looked at together, every five.
    assert len(lines) == len(expected)
    assert all(line.startswith(begin) for line, begin in zip(lines, expected, strict=True))
    last = drift.measure(store, np.arange(WINDOWS) >= WINDOWS - 10, fit)
    assert f"{WINDOWS} windows, 0 alarms, {min(len(lines), 1)} drifts; at the end: " in caplog.text
    assert " ".join(drift.in_words(last)).replace("**", "") in caplog.text


def test_a_stream_that_breaks_off_ends_the_open_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = traffic(tmp_path / "score.safetensors")
    stream = stream_of(store, np.arange(WINDOWS) >= 50, [0, 30, WINDOWS])
    broken = BytesIO(stream.getvalue()[:-8])  # without the end that a writer in good order sends
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=broken))
    with pytest.raises(streams.NeighbourError, match="breaks off"):
        follow.main(follow.parser().parse_args(["--csv", str(tmp_path / "f.csv")]))
    assert pl.read_csv(tmp_path / "f.csv")["windows"].to_list() == [WINDOWS - 50]
    assert caplog.messages[-1].startswith(f"{WINDOWS} windows, 1 alarms, ")


def test_a_full_disk_is_named_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = traffic(tmp_path / "score.safetensors")
    stream = stream_of(store, np.ones(WINDOWS, dtype=bool), [0, WINDOWS])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    with pytest.raises(CanidsError, match=r"^/dev/full: cannot be written \(No space left on device\)$"):
        follow.main(follow.parser().parse_args(["--csv", "/dev/full"]))


def test_the_end_without_a_window_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fit = traffic(tmp_path / "fit.safetensors", flood=False)
    for windows, said in ((0, "no window has come"), (WINDOWS, "every window raises an alarm")):
        stream = stream_of(fit, np.ones(WINDOWS, dtype=bool), [0, windows] if windows else [])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
        follow.main(follow.parser().parse_args(["--csv", str(tmp_path / "f.csv"), "--fit", str(fit.path)]))
        assert (
            caplog.messages[-1]
            == f"{windows} windows, {int(windows > 0)} alarms, 0 drifts; at the end: Not known: {said}."
        )


def test_drift_that_cannot_be_told_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = traffic(tmp_path / "score.safetensors", flood=False)
    other = traffic(tmp_path / "other.safetensors", names=[f"f{i}" for i in range(5)])
    for chosen, why in (
        ([], "the training graphs of this run are not here"),
        (["--fit", str(other.path)], "other node"),
    ):
        stream = stream_of(store, np.zeros(WINDOWS, dtype=bool), [0, WINDOWS])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
        follow.main(follow.parser().parse_args(["--csv", str(tmp_path / "f.csv"), *chosen]))
        assert why in caplog.messages[-1]


def test_what_is_kept_does_not_grow_with_windows_or_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "MOST_IDS", 300)
    monkeypatch.setattr(attribution, "LONGEST", 100)
    rng = np.random.default_rng(0)
    tracker = AlarmTracker(0.25, 3, DETECTORS)
    events = 0
    for w in range(900):
        ids = np.append(rng.integers(1 << 28, 1 << 29, 3), SLOW).astype(np.uint32)
        nodes = Nodes(ids, np.ones(4, np.int32), np.zeros((4, 5), np.float32), 0.1)
        scores = dict.fromkeys(("vgae_score", "gat_score", "fusion_score"), 0.5)
        alarmed = 300 <= w < 700 and w % 2 == 0
        keys = {"capture": "c", "t_start": w / 10, "t_end": w / 10 + 0.1, "label": None}
        events += len(tracker.update({**keys, **scores, "alarm": alarmed}, nodes))
        attributed = tracker.attribution
        assert len(attributed._past) <= attribution.LONGEST
        assert len(attributed._between) <= attribution.LONGEST
        assert max(len(attributed._ids), len(attributed._new) - 4) <= 300
        assert len(attributed._known) <= 4 * attribution.LONGEST + 300
    assert events == 2
    assert len(attributed._past) == attribution.LONGEST
