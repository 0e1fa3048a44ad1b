"""The simulated vehicles: bus, payloads, attacks, and the capture that is written."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from simulated import DRIVE, drive, sensor_values, simulate

from canids_preprocess.simulate import START, record, rows, write
from canids_preprocess.simulation.attacks import ATTACKS
from canids_preprocess.simulation.bus import Bus, frame_bits
from canids_preprocess.simulation.driving import Journey
from canids_preprocess.simulation.signals import Checksum, Counter, Cycle, Sending, as_bytes
from canids_preprocess.simulation.traffic import SECOND, Frames, frames_of
from canids_preprocess.simulation.vehicle import VEHICLES, design
from canids_shared.errors import CanidsError


def crc8(content: list[int]) -> int:
    """CRC-8 SAE J1850, bit by bit."""
    crc = 0xFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1) ^ 0x11D if crc & 0x80 else crc << 1
    return crc ^ 0xFF


# --- vehicle -----------------------------------------------------------------------------------------------------


def test_vehicle_is_fixed_by_its_name_and_the_drive_by_its_seed():
    one, other = simulate("van", duration=5, seed=1), simulate("van", duration=5, seed=2)
    periodic = {m.can_id for m in design("van").messages if m.periodic}
    assert periodic <= set(one.frames.can_id.tolist()) <= {m.can_id for m in design("van").messages}
    assert periodic <= set(other.frames.can_id.tolist())
    assert not np.array_equal(one.frames.payload[:1000], other.frames.payload[:1000])


def test_vehicles_differ_in_most_of_their_ids():
    ids = {name: {m.can_id for m in design(name).messages} for name in VEHICLES}
    for name, ids_of_one in ids.items():
        assert 25 <= len(ids_of_one) == len(design(name).messages) <= 60
        for other in set(VEHICLES) - {name}:
            assert 0 < len(ids_of_one & ids[other]) < 0.3 * len(ids_of_one)


@pytest.mark.parametrize("name", VEHICLES)
def test_signals_fill_the_payload_without_overlap(name):
    for message in design(name).messages:
        layout = message.layout
        spans = sorted((s.start, s.start + s.bits) for s in layout.signals)
        ends = [0, *(end for _, end in spans)]
        assert [start for start, _ in spans] == ends[:-1]
        assert ends[-1] == 8 * (layout.dlc - bool(layout.checksum))


# --- bus ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VEHICLES)
def test_bus_carries_one_frame_at_a_time_at_a_usual_load(name):
    capture = drive(name)
    busy = frame_bits(capture.frames.dlc) * SECOND // design(name).bit_rate
    assert (np.diff(capture.received) >= busy[1:]).all()
    assert (capture.received - busy >= capture.frames.release).all()
    assert 0.4 < busy.sum() / SECOND / DRIVE["duration"] < 0.52
    assert 1800 < len(capture.frames) / DRIVE["duration"] < 2200


BUSY = 240_000
"""Nanoseconds that a frame of eight bytes takes at 500 kbit/s."""


def released(*frames: tuple[int, int]) -> Frames:
    """Frames of eight bytes by ID and time of release in nanoseconds."""
    ids, times = (np.array(column, dtype=np.int64) for column in zip(*frames, strict=True))
    return frames_of(ids, 8, times, np.zeros(len(ids), dtype=np.uint64))


def test_lowest_id_goes_first_and_a_frame_under_way_is_not_interrupted():
    frames = released((0x300, 0), (0x200, 10_000), (0x100, 20_000), (0x150, 30_000))
    sent, received = Bus(500_000).carry(frames, SECOND)
    assert sent.can_id.tolist() == [0x300, 0x100, 0x150, 0x200]
    assert received.tolist() == [BUSY, 2 * BUSY, 3 * BUSY, 4 * BUSY]


def test_a_waiting_frame_is_overwritten_by_the_next_of_its_id():
    sent, received = Bus(500_000).carry(released((0x100, 0), (0x200, 10_000), (0x200, 20_000)), SECOND)
    assert sent.release.tolist() == [0, 20_000]
    assert received.tolist() == [BUSY, 2 * BUSY]


def test_a_bus_stopped_while_it_sends_goes_on_with_what_waits():
    bus = Bus(500_000)
    sent, _ = bus.carry(released((0x300, 0), (0x200, 10_000), (0x250, 20_000)), 30_000)
    assert sent.can_id.tolist() == [0x300]
    sent, received = bus.carry(released((0x100, 40_000), (0x200, 50_000)), SECOND)
    assert sent.can_id.tolist() == [0x100, 0x200, 0x250]
    assert sent.release.tolist() == [40_000, 50_000, 20_000]
    assert received.tolist() == [2 * BUSY, 3 * BUSY, 4 * BUSY]


@pytest.mark.parametrize("name", VEHICLES)
def test_periodic_messages_hold_their_period(name):
    capture = drive(name)
    for message in design(name).messages:
        intervals = np.diff(capture.received[capture.frames.can_id == message.can_id]) / SECOND
        if message.periodic:
            period = message.period * (1 + design(name).ecus[message.task.ecu].drift)
            assert np.mean(intervals) == pytest.approx(period, rel=0.02)
            assert len(intervals) == pytest.approx(DRIVE["duration"] / period, abs=2)
        else:
            assert (intervals > 0.7 * message.period).all()


# --- payloads ----------------------------------------------------------------------------------------------------


def test_counters_roll():
    capture, sensors = drive(), 0
    for message in design("compact").messages:
        for counter in (s for s in message.layout.signals if isinstance(s, Counter)):
            words = capture.frames.payload[capture.frames.can_id == message.can_id]
            values = (words >> np.uint64(64 - counter.start - counter.bits)) & np.uint64(2**counter.bits - 1)
            assert (np.diff(values.astype(np.int64)) % 2**counter.bits == 1).all()
            sensors += 1
    assert sensors >= 5


def test_a_cycle_holds_each_value():
    sending = Sending(np.zeros(7), np.arange(3, 10), Journey([0]).drive(0.0, 1.0), [])
    assert Cycle(0, 8, (5, 9, 200), hold=2).raw(sending, np.random.default_rng(0)).tolist() == [9, 200, 200, 5, 5, 9, 9]


def test_checksums_are_right_on_genuine_frames():
    capture, kinds = drive(), set()
    for message in design("compact").messages:
        if not (checksum := message.layout.checksum):
            continue
        kinds.add(checksum.kind)
        dlc = message.layout.dlc
        for payload in as_bytes(capture.frames.payload[capture.frames.can_id == message.can_id][:20]).tolist():
            content, last = payload[: dlc - 1], payload[dlc - 1]
            xor = int(np.bitwise_xor.reduce([*content, checksum.data_id]))
            assert last == (xor if checksum.kind == "xor" else crc8([checksum.data_id, *content]))
    assert kinds == {"xor", "crc8"}


def test_crc_meets_the_published_check_value():
    digits = b"123456789"  # check value 0x4B of CRC-8 SAE J1850; the first digit goes in as data ID
    assert Checksum("crc8", digits[0]).of(np.frombuffer(digits[1:], dtype=np.uint8)[None]).tolist() == [0x4B]


def test_sensors_move_slowly_and_stay_in_their_range():
    capture = drive()
    everything = np.ones(len(capture.frames), dtype=bool)
    moved = []
    for message in design("compact").messages:
        if message.layout.has_sensor and message.period <= 0.05:
            share = sensor_values(capture, message.can_id, everything)
            assert share.min() > -0.1
            assert share.max() < 1.1
            assert np.quantile(np.abs(np.diff(share)), 0.99) < 0.1
            moved.append(np.ptp(share) > 0.1)
    assert sum(moved) >= 3


# --- the capture as a file ---------------------------------------------------------------------------------------


def test_file_has_the_layout_of_can_train_and_test(tmp_path: Path):
    capture = drive(attack="fuzzing")
    write([capture], tmp_path / "capture.csv")
    header, *lines = (tmp_path / "capture.csv").read_text().splitlines()
    assert header == "timestamp,arbitration_id,data_field,attack"
    stamps, ids, payloads, labels = zip(*(line.split(",") for line in lines), strict=True)
    assert [int(i, 16) for i in ids] == capture.frames.can_id.tolist()
    assert {len(i) for i in ids} == {3}
    assert [len(p) // 2 for p in payloads] == capture.frames.dlc.tolist()
    whole = as_bytes(capture.frames.payload)
    assert all(bytes.fromhex(p) == whole[k].tobytes()[: len(p) // 2] for k, p in enumerate(payloads))
    assert not any(c.islower() for text in (*ids, *payloads) for c in text)
    assert [label == "1" for label in labels] == capture.attacked.tolist()
    assert {len(s.partition(".")[2]) for s in stamps} == {6}
    seconds = np.array([float(s) for s in stamps])
    assert (np.diff(seconds) > 0).all()
    assert seconds - START == pytest.approx(capture.logged / SECOND, abs=2e-6)


def test_entry_point_repeats_to_the_byte(tmp_path: Path):
    entry = {"name": "x", "vehicle": "truck", "attack": "spoofing"}
    contents = []
    for name, seed in (("a.csv", 1), ("b.csv", 1), ("c.csv", 2)):
        options = {"duration": 10, "seed": seed, "episodes": 2, "episode_s": 2, "stealth": "blatant", "changes": 0}
        spec = json.dumps({"wildcards": {}, "config": {}, "capture": {**entry, "simulation": options}})
        command = [sys.executable, "-m", "canids_preprocess.simulate", "--spec", spec, "--output", tmp_path / name]
        subprocess.run(command, check=True, capture_output=True)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize(("vehicle", "changes"), [("compact", 0.0), ("compact", 12.0), ("truck", 0.0)])
@pytest.mark.parametrize("attack", [None, "replay", "masquerade"])
def test_how_much_is_simulated_at_a_time_makes_no_difference(vehicle, changes, attack):
    options = {"attack": attack, "duration": 40.0, "seed": 3, "episodes": 3, "episode_s": 5.0, "stealth": "mixed"}
    options["changes"] = changes
    texts = []
    for leg_s in (3.3, 40.0):
        parts = list(record(vehicle, leg_s=leg_s, **options))
        texts.append(b"".join(rows(p.frames, p.logged, p.attacked) for p in parts))
        assert len(parts) > 5 or leg_s == 40.0
    assert texts[0] == texts[1]


@pytest.mark.parametrize("changes", [0.0, 12.0])
def test_a_longer_drive_begins_like_a_shorter_one(changes):
    short, long = (simulate("truck", duration=d, seed=1, changes=changes) for d in (15.0, 70.0))
    n = len(short.frames)
    assert np.array_equal(short.logged, long.logged[:n])
    assert np.array_equal(short.frames.payload, long.frames.payload[:n])


def test_memory_does_not_grow_with_the_drive(tmp_path: Path):
    peaks = []
    for duration in (8.0, 24.0):
        tracemalloc.start()
        write(record("compact", duration=duration, seed=1, leg_s=2.0), tmp_path / "capture.csv")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_logger_keeps_the_order_and_is_late_by_microseconds():
    capture = drive()
    late = capture.logged - capture.received
    assert (np.diff(capture.logged) >= 1000).all()
    assert late.min() >= 0
    assert np.median(late) < 10_000
    assert 30_000 < late.max() < 100_000


def test_a_moment_without_frames_is_a_header_alone(tmp_path: Path):
    write(record("compact", duration=1e-5), tmp_path / "capture.csv")
    assert (tmp_path / "capture.csv").read_text() == "timestamp,arbitration_id,data_field,attack\n"


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", VEHICLES)
def test_shortest_drive_that_holds_an_episode(name, attack):
    assert simulate(name, attack=attack, duration=1.3, seed=3, episodes=1, episode_s=0.1).attacked.any()


# --- what a user can get wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vehicle", "options", "message"),
    [
        ("tank", {}, "no vehicle 'tank'; vehicles: compact, van, truck"),
        ("van-x", {}, "no vehicle 'van-x'; .* further ones of a kind: van-2, van-3"),
        ("van", {"attack": "ransom"}, "no attack 'ransom'; attacks: dos, jamming, fuzzing"),
        ("van", {"attack": "dos", "duration": 10}, "set duration to 24 or more"),
        ("van", {"attack": "dos", "episode_s": 0.01}, "episode_s is 0.01"),
        ("van", {"seed": -1}, "seed is -1"),
    ],
)
def test_errors_say_what_to_do(vehicle, options, message):
    with pytest.raises(CanidsError, match=message):
        simulate(vehicle, **options)


def test_entry_point_fails_in_one_line(tmp_path: Path):
    options = {"duration": 10, "seed": 1, "episodes": 4, "episode_s": 4, "stealth": "blatant", "changes": 0}
    entry = {"name": "x", "vehicle": "van", "attack": "dos", "simulation": options}
    spec = json.dumps({"wildcards": {}, "config": {}, "capture": entry})
    command = [sys.executable, "-m", "canids_preprocess.simulate", "--spec", spec, "--output", tmp_path / "x.csv"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: simulation: 4 episodes of 4 s do not fit into 10 s")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
