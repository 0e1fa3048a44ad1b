"""Following a log or a bus: frames come as they are written, and make the graphs that the finished capture makes."""

import argparse
import logging
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import can
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import yaml
from capture_files import record
from captures import built, call, csv, fed, frames, traffic
from polars.testing import assert_frame_equal

from canids_preprocess import follow, ingest
from canids_preprocess.features import relative
from canids_preprocess.features.relative import BusState, step
from canids_preprocess.formats import buses, candump, growing
from canids_preprocess.formats.base import FRAME_COLUMNS, REJECT_COLUMNS, Batch
from canids_preprocess.formats.growing import Enough, Growing, IdleTimeout
from canids_preprocess.formats.plain_lines import plain_frames
from canids_preprocess.windowing.windows import windows_of
from canids_shared.contracts import streams
from canids_shared.errors import CanidsError

SCHEMA = Path(follow.__file__).parents[1] / "config.schema.yaml"

GOOD = ["1.000000,123,00FF,0", "1.001000,0A0,,0", "1.002500,18FEF100,0011223344556677,1", "1.003000,123,01ff,0"]


class Writer:
    """Stands in for `time`: each time the reader sleeps, the next thing happens to the log, and at last waiting is over."""

    def __init__(self, timeout: IdleTimeout, steps: list[Callable[[], Any]]) -> None:
        self.timeout, self.steps = timeout, steps
        self.monotonic = lambda: 0.0

    def sleep(self, seconds: float) -> None:
        if self.steps:
            self.steps.pop(0)()
        else:
            self.timeout.at_end = True


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., IdleTimeout]:
    """Makes the timeout of a reader while whom these things happen."""

    def make(*steps: Callable[[], Any]) -> IdleTimeout:
        timeout = IdleTimeout()
        clock = Writer(timeout, list(steps))
        for module in (growing, follow):
            monkeypatch.setattr(module, "time", clock)
        return timeout

    return make


def appending(path: Path, *parts: bytes) -> list[Callable[[], Any]]:
    def append(part: bytes) -> None:
        with open(path, "ab") as stream:
            stream.write(part)

    return [lambda part=part: append(part) for part in parts]


def options(source: str | Path, *arguments: str) -> argparse.Namespace:
    return follow.parser().parse_args([str(source), "--window", "20", "--stride", "20", *arguments])


def followed(chosen: argparse.Namespace, timeout: IdleTimeout) -> tuple[dict[str, Any], pa.RecordBatch]:
    """Header and windows of what is sent."""
    stream = BytesIO()
    follow.follow(chosen, timeout, stream)
    stream.seek(0)
    header, schema, batches = streams.received(stream)
    return header, pa.Table.from_batches(list(batches), schema).combine_chunks().to_batches()[0]


def messages(count: int) -> list[can.Message]:
    rng = np.random.default_rng(3)
    time, drive = 0.0, []
    for _ in range(count):
        time = round(time + float(rng.choice([0.001, 0.002, 0.0005])), 4)
        number, size = int(rng.choice([0x10, 0x20, 0x7FF, 0x18EF0001])), int(rng.integers(0, 9))
        drive.append(
            can.Message(
                timestamp=time, arbitration_id=number, is_extended_id=number > 0x7FF, data=rng.bytes(size), channel=0
            )
        )
    return drive


@pytest.mark.parametrize("suffix", ["log", "asc", "trc", "csv", "stride"])
def test_graphs_of_a_growing_log_are_those_of_the_finished_one(
    tmp_path: Path, writing: Callable[..., IdleTimeout], suffix: str
) -> None:
    whole = tmp_path / f"whole.{suffix.replace('stride', 'csv')}"
    if suffix == "stride":  # the format of the large captures, and windows that overlap
        whole.write_bytes(csv(*(f"{m.timestamp:.4f},{m.arbitration_id:03X},{m.data.hex()},0" for m in messages(300))))
    else:
        record(whole, messages(300))
    raw = whole.read_bytes()
    entry = {"name": "a", "vehicle": "van", "format": "auto", "attack": None, "content": "unlabelled", "attacked": []}
    outputs = {"output": tmp_path / "a.parquet", "rejects": tmp_path / "r.parquet"}
    config = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}
    ingest.main(call({"dataset": "d"}, config, outputs, {"capture": [whole], "metadata": []}, capture=entry))
    stride = 7 if suffix == "stride" else 20
    store = built(tmp_path, outputs["output"], stride=stride)

    path = tmp_path / f"growing.{whole.suffix}"
    cuts = np.sort(np.random.default_rng(0).integers(0, len(raw), 12)).tolist()
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    header, batch = followed(options(path, "--stride", str(stride)), writing(*appending(path, *parts)))
    assert header["node_features"] == store.header["node_features"]
    for name in ("x", "node_id", "node_count", "edge_attr"):
        np.testing.assert_array_equal(streams.flat(batch, name), np.asarray(store[name]).reshape(-1))
    edges = np.stack([streams.flat(batch, "edge_source"), streams.flat(batch, "edge_target")])
    np.testing.assert_array_equal(edges, store["edge_index"])
    np.testing.assert_array_equal(streams.counts(batch, "node_id"), np.diff(store["node_ptr"]))
    assert streams.keys(batch).drop("capture", "vehicle").equals(store.keys().drop("capture", "vehicle"))


def lines(path: Path, timeout: IdleTimeout) -> list[tuple[int, bytes]]:
    return [(piece.line, bytes(piece.text)) for piece in Growing.of(path, timeout).pieces()]


def test_a_line_is_read_once_it_is_whole(
    tmp_path: Path, writing: Callable[..., IdleTimeout], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xef\xbb\xbfone\ntw")
    timeout = writing(*appending(path, b"o", b"", b"\nthree\nfo", b"ur"))
    assert lines(path, timeout) == [(1, b"one\n"), (2, b"two\nthree\n")]
    assert caplog.messages == [f"{path}, line 4: has no line end, so it may be half a line; left out"]


def test_lines_wait_until_enough_are_there_or_some_time_has_passed(
    tmp_path: Path, writing: Callable[..., IdleTimeout]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"1\n2\n")
    asked = [*[Enough(3, 1.0)] * 4, *[Enough(9, 1.0)] * 2, Enough(9, 0.0), *[Enough(9, 1.0)] * 4]
    parts = appending(path, b"3\n4\n", b"5\n", b"6\n", b"7\n")
    pieces = Growing.of(path, writing(*parts, lambda: path.write_bytes(b"other")), lambda: asked.pop(0)).pieces()
    enough, late, left = (next(pieces) for _ in range(3))
    assert enough == (1, 4, b"1\n2\n3\n4\n")
    assert late == (5, 2, b"5\n6\n")
    assert left == (7, 1, b"7\n"), "before the error"
    with pytest.raises(CanidsError, match="cut short behind line 7"):
        next(pieces)


@pytest.mark.parametrize(
    ("unit", "frames", "wanted"),
    [
        ("frames", 0, 20),
        ("frames", 19, 1),
        ("frames", 20, 7),
        ("frames", 25, 2),
        ("frames", 27, 7),
        ("seconds", 5, sys.maxsize),
    ],
)
def test_frames_are_read_together_that_complete_a_window(unit: str, frames: int, wanted: int) -> None:
    chosen = options("a.log", "--stride", "7", "--window-unit", unit)
    assert follow.wanted_after(frames, chosen).frames == wanted


PLAIN = b"(1600000000.123457) can0 0A0#\n(1600000001.1) vcan-1 7ff#00ffA0 R\r\n(1.25) c 18FEF100#0011223344556677 T\n"


def test_plain_lines_are_the_frames_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(PLAIN)
    (batch,) = candump.read(path, {})
    plain = plain_frames(1, 3, PLAIN, candump._PLAIN)
    assert plain is not None
    assert_frame_equal(plain.frames, batch.frames, check_exact=True)
    assert plain.rejects.equals(batch.rejects)


@pytest.mark.parametrize(
    "line",
    [
        b"(1.0) can0 123#R4\n",
        b"(1.0) can0 123##1AABB\n",
        b"(1.0) can0 123#001122334455667788\n",
        b"(1.0) can0 123#0011223344556677_9\n",
        b"(1.0) can0 123#001\n",
        b"(1.0) can0 800#00\n",
        b"(1.0) can0 20000004#0000000000000000\n",
        b"(1e3) can0 123#00\n",
        b"(1.0) can0 123#00 1\n",
        b"\n",
        b"(1.0) can0 123#00",
    ],
)
def test_lines_that_need_a_closer_look_are_not_plain(line: bytes) -> None:
    assert plain_frames(1, 4, PLAIN + line, candump._PLAIN) is None


def test_half_a_line_at_the_end_is_no_shorter_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.log"
    path.write_bytes(b"(1.0) can0 185#EB00001122334455\n(1.1) can0 185#EB0000112233445A\n(1.2) can0 185#EB0000")
    _, batch = followed(options(path, "--window", "2", "--stride", "1"), IdleTimeout(at_end=True))
    assert streams.keys(batch)["t_end"].to_list() == [1.1]
    assert caplog.messages[-2:] == [
        f"{path}, line 3: has no line end, so it may be half a line; left out",
        f"{path}: 2 frames, 0 rejects, 1 windows",
    ]


def test_that_a_log_is_waited_for_is_said_once(
    tmp_path: Path, writing: Callable[..., IdleTimeout], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "log"
    assert Growing.of(path, writing(*appending(path, b"", b"on", b"e\n"))).arrive(10)
    assert caplog.messages == [f"{path}: not there yet; waiting for it"]


def test_who_asks_to_stop_gets_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    assert lines(path, IdleTimeout(stopped=True)) == [(1, b"one\n")]


def test_waiting_is_over_when_nothing_comes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    assert lines(path, IdleTimeout(idle=0.02)) == [(1, b"one\n")]
    assert not Growing.of(tmp_path / "nowhere", IdleTimeout(idle=0.02)).arrive(10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(b"o"), "cut short behind line 2"),
        (lambda path: path.write_bytes(b"six\nten\n"), "cut and rewritten behind line 2"),
        (lambda path: path.write_bytes(b"six\nten\ntwelve\n"), "cut and rewritten behind line 2"),
        (lambda path: path.unlink(), "removed or moved away behind line 2"),
        (
            lambda path: (path.rename(path.with_name("log.1")), path.write_bytes(b"one\ntwo\nthree\n")),
            "replaced by another file behind line 2",
        ),
    ],
)
def test_a_log_that_is_not_the_same_any_more_is_named(
    tmp_path: Path, writing: Callable[..., IdleTimeout], change: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\n")
    with pytest.raises(CanidsError, match=f"log: {message}; follow the"):
        lines(path, writing(lambda: change(path)))


def test_a_bad_line_stops_with_its_number_or_is_put_aside(
    tmp_path: Path, writing: Callable[..., IdleTimeout], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    parts = [csv(*GOOD), b"1.004,1G,00,0\n", b"1.005,123,00,0\n"]
    with pytest.raises(CanidsError, match=r"a\.csv, line 6: arbitration ID '1G' is not a hexadecimal number; correct"):
        followed(options(path), writing(*appending(path, *parts)))
    path.unlink()
    rejects = tmp_path / "rejects.csv"
    chosen = options(path, "--on-bad-rows", "quarantine", "--rejects", str(rejects), "--window", "5")
    _, batch = followed(chosen, writing(*appending(path, *parts)))
    assert len(batch) == 1
    assert pl.read_csv(rejects).rows() == [(6, "arbitration ID '1G' is not a hexadecimal number", "1.004,1G,00,0")]
    assert "line 6: arbitration ID '1G' is not a hexadecimal number; put aside" in caplog.text


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("(1.05) can0 1G#00", "line 51: arbitration ID '1G' has neither"),
        ("(0.5) can0 123#00", "line 51: the timestamp steps back by 0.549000 s"),
        ("(86401.0) can0 123#00", "line 51: the timestamp lies 86399.951000 s ahead of those around it"),
        ("(1.05) can1 123#00", r"frames of several buses \(can0, can1\)"),
    ],
)
def test_the_windows_before_a_bad_row_are_sent(tmp_path: Path, bad: str, message: str) -> None:
    path = tmp_path / "a.log"
    rows = [f"(1.{n:03d}) can0 123#{n:02X}" for n in range(100)]
    path.write_text("\n".join([*rows[:50], bad, *rows[50:], ""]))
    stream = BytesIO()
    with pytest.raises(CanidsError, match=message):
        follow.follow(options(path), IdleTimeout(at_end=True), stream)
    stream.seek(0)
    _, _, batches = streams.received(stream)
    assert [next(batches)["t_end"].to_pylist()] == [[1.019, 1.039]]
    with pytest.raises(streams.NeighbourError, match="breaks off: the stage before has failed"):
        next(batches)


def test_many_bad_rows_are_said_once_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reject = pl.DataFrame([(7, "odd", "")], schema=REJECT_COLUMNS, orient="row")
    written: list[Any] = []
    rejects = SimpleNamespace(writerows=written.extend)
    batches = [Batch(pl.DataFrame(schema=FRAME_COLUMNS), reject)] * 300
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "time", SimpleNamespace(monotonic=lambda: len(written) / 128))
        assert list(follow._frames("can0", iter(batches), rejects)) == []
    assert len(written) == 300
    said = "can0, line 7: odd; put aside"
    assert caplog.messages == [said, f"{said}, and 127 more", f"{said}, and 127 more"]


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"(1.0) can0 18", b"(1.0) can0 123#00\n"])
def test_who_stops_before_the_first_window_gets_no_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.log"
    if content is not None:
        path.write_bytes(content)
    stream = BytesIO()
    assert follow.follow(options(path), IdleTimeout(stopped=True), stream) == 0
    stream.seek(0)
    assert list(streams.received(stream).batches) == [], "a stream that was closed"


def test_a_clock_that_is_set_begins_another_capture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def rows(begin: float) -> list[str]:
        return [f"({begin + n / 1000:.3f}) can0 {(n % 5) * 16:03X}#{n % 251:02X}" for n in range(110)]

    path = tmp_path / "a.log"
    path.write_text("\n".join([*rows(5000), *rows(1000), *rows(9000), ""]))
    _, batch = followed(options(path, "--on-bad-rows", "quarantine"), IdleTimeout(at_end=True))
    keys = streams.keys(batch)
    assert keys["capture"].to_list() == [name for name in ("a", "a-2", "a-3") for _ in range(5)]
    assert keys["window"].to_list() == [*range(5)] * 3
    x = streams.flat(batch, "x").reshape(3, -1)
    np.testing.assert_allclose(x[1:], x[[0, 0]], rtol=1e-4, atol=1e-4, err_msg="nothing is left of the past")
    said = [message.split(": ", 1)[1] for message in caplog.messages]
    assert said == [
        "the clock jumps back by 4000.109 s; the past starts again, and capture a-2 begins",
        "the clock jumps ahead by 7999.891 s; the past starts again, and capture a-3 begins",
        "330 frames, 0 rejects, 15 windows",
    ]
    path.write_text("\n".join(line for n in range(24) for line in rows(1000 * (n % 2))[:15]) + "\n")
    with pytest.raises(
        CanidsError, match="line 301: the clock has jumped back 10 times without a whole window in between"
    ):
        followed(options(path, "--on-bad-rows", "quarantine"), IdleTimeout(at_end=True))


def test_silence_and_a_stream_without_windows_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(growing, "time", SimpleNamespace(monotonic=lambda: now[0]))
    timeout = IdleTimeout()
    timeout.begin("can0")
    for now[0] in (1.0, 11.0, 12.0, 20.0):
        assert not timeout.over()
    timeout.renew()
    for now[0] in (30.0, 59.0, 61.0, 90.0, 119.0, 122.0):
        timeout.renew()
    timeout.window_sent()
    now[0] = 130.0
    timeout.renew()
    assert caplog.messages == [
        "can0: silent for 11 s; still waiting",
        "can0: goes on after 20 s of silence",
        "can0: frames come, but no whole window for 61 s",
        "can0: frames come, but no whole window for 61 s",
    ]


def test_what_cannot_be_followed_is_named(tmp_path: Path) -> None:
    over = IdleTimeout(at_end=True)
    with pytest.raises(CanidsError, match="nowhere: no such file"):
        followed(options(tmp_path / "nowhere"), over)
    (tmp_path / "words").write_text("nothing of the kind\n")
    with pytest.raises(CanidsError, match="fits no known format"):
        followed(options(tmp_path / "words"), over)
    (tmp_path / "log.blf").write_bytes(b"LOGG\n" + bytes(100))
    with pytest.raises(CanidsError, match="blf cannot be read while it is written; score the finished file"):
        followed(options(tmp_path / "log.blf"), over)
    with pytest.raises(CanidsError, match=r"nonsense:can0: cannot be opened: .*; interfaces: .*socketcan"):
        followed(options("nonsense:can0"), over)
    with pytest.raises(CanidsError, match=r"slcan:/dev/nowhere: cannot be opened: "):
        followed(options("slcan:/dev/nowhere"), over)


def test_a_channel_may_be_a_device_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert buses.is_bus("slcan:/dev/ttyUSB0@115200")
    assert not buses.is_bus("run:1/drive.log"), "no interface is called run"
    Path("socketcan:can0").touch()
    assert not buses.is_bus("socketcan:can0")


class Sending(IdleTimeout):
    """Sends messages as soon as someone listens."""

    def over(self) -> bool:
        if self.stopped:
            return True
        with can.Bus(interface="virtual", channel="follow", preserve_timestamps=True) as bus:
            for message in (*messages(50), can.Message(timestamp=9.0, is_error_frame=True)):
                bus.send(message)
        self.stopped = True
        return False


def test_a_bus_is_followed_and_its_error_frames_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert buses.is_bus("virtual:follow")
    _, batch = followed(options("virtual:follow", "--name", "bus"), Sending())
    sent = messages(50)
    assert streams.keys(batch)["capture"].to_list() == ["bus", "bus"]
    assert streams.flat(batch, "t_start").tolist() == [sent[0].timestamp, sent[20].timestamp]
    assert streams.flat(batch, "t_end").tolist() == [sent[19].timestamp, sent[39].timestamp]
    assert set(streams.flat(batch, "node_id").tolist()) == {
        m.arbitration_id | m.is_extended_id << 31 for m in sent[:40]
    }
    assert "1 error frames are no frames and left out" in caplog.text
    assert "50 frames, 0 rejects, 2 windows" in caplog.text


def test_what_is_kept_is_bounded_however_many_ids_and_frames_there_are() -> None:
    """An attacker's random IDs are forgotten, the vehicle's own are not."""
    rng = np.random.default_rng(0)
    config = {"window": 100, "stride": 30, "window_unit": "frames", "features": "relative"}
    kept = []

    def source() -> Any:
        for n in range(40):
            can_id = np.where(np.arange(500) % 2, rng.integers(1 << 28, 1 << 29, 500), 0x100 + np.arange(500) % 8)
            table = frames(n + np.arange(500) / 500, can_id, extended=can_id > 0x7FF)
            part = {**fed(table), "label": np.full(500, -1, np.int8), "attack": np.zeros(500, np.int32)}
            yield {**part, "attacks": np.array([""], dtype=object)}

    original = relative.step

    def counted(frames: Any, state: BusState, reserve: int) -> Any:
        values = original(frames, state, reserve)
        kept.append((state.ids.count, len(state.by_id.state), len(state.ids._known)))
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relative, "step", counted)
        windows = list(windows_of(Path("bus"), source(), 0, config, [""], most_ids=600))
    most = 300 + 100 + 250 + 600  # what is left, what pending frames need, what a chunk brings, before it is looked at
    assert max(count for count, _, _ in kept) <= most
    assert len({size for _, *size in kept[20:] for size in [tuple(size)]}) == 1, "arrays do not grow any more"
    # The eight IDs of the vehicle have a past all along: first sightings are the attacker's alone.
    last = windows[-1]
    column = follow.header_of("bus", options("bus"))["node_features"].index("first_sighting_max")
    genuine = np.isin(last["node_id"], 0x100 + np.arange(8))
    assert (last["x"][genuine, column] == 0).all()
    assert (last["x"][~genuine, column] == 1).all()


def test_forgetting_changes_nothing_for_ids_that_are_kept() -> None:
    rng = np.random.default_rng(1)
    table = traffic(2000, rng, seconds=4.0)
    whole, cut = BusState(), BusState()
    step(fed(table[:1000]), cut)
    renumbered = cut.forget(10_000, np.arange(3))
    assert renumbered.tolist() == [0, 1, 2]
    expected, _ = step(fed(table), whole)
    np.testing.assert_array_equal(step(fed(table[1000:]), cut)[0], expected[1000:])


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--window", "0"),
        ("--window", "99999"),
        ("--stride", "0"),
        ("--timestamp-tolerance", "-1"),
        ("--timestamp-tolerance", "nan"),
        ("--idle", "nan"),
        ("--idle", "inf"),
    ],
)
def test_options_out_of_their_bounds_are_refused(capsys: pytest.CaptureFixture[str], option: str, text: str) -> None:
    with pytest.raises(SystemExit):
        options("a.log", option, text)
    assert f"argument {option}: '{text}' is not a number" in capsys.readouterr().err


def test_windows_of_frames_are_whole(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match=r"^window 1\.5, stride 20\.0: whole numbers of frames"):
        follow.main(options(tmp_path / "a.log", "--stride", "20", "--exit-at-end", "--window", "1.5"))


def test_rejects_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv(*GOOD))
    with pytest.raises(CanidsError, match=r"nowhere/rejects\.csv: cannot be written"):
        followed(options(path, "--rejects", str(tmp_path / "nowhere/rejects.csv")), IdleTimeout(at_end=True))


def test_defaults_are_those_of_the_module() -> None:
    schema = yaml.safe_load(SCHEMA.read_text())["properties"]
    chosen = vars(follow.parser().parse_args(["log"]))
    for name in ("window", "stride", "window_unit", "on_bad_rows", "timestamp_tolerance"):
        assert chosen[name] == schema[name]["default"], name
    assert SimpleNamespace(**chosen).format == "auto"
