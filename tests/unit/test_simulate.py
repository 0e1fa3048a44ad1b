"""The simulated vehicles: bus, payloads, attacks, and the capture that is written."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from canids_preprocess.simulate import START, Capture, simulate, write
from canids_preprocess.simulation.attacks import ATTACKS
from canids_preprocess.simulation.bus import arbitrate, frame_bits
from canids_preprocess.simulation.signals import Checksum, Counter, Sensor, as_bytes
from canids_preprocess.simulation.traffic import SECOND, frames_of
from canids_preprocess.simulation.vehicle import VEHICLES, design
from canids_shared.errors import CanidsError

DRIVE = {"duration": 30.0, "seed": 5, "n_episodes": 3, "episode_s": 2.0}


@cache
def drive(vehicle: str = "compact", attack: str | None = None) -> Capture:
    return simulate(vehicle, attack=attack, **DRIVE)


def within(capture: Capture, margin: float = 0.0) -> np.ndarray:
    """Frames received in an episode, or at most `margin` seconds outside; with a negative margin, well inside."""
    inside = np.zeros(len(capture.frames), dtype=bool)
    for start, end in capture.intervals:
        inside |= (capture.received >= (start - margin) * SECOND) & (capture.received < (end + margin) * SECOND)
    return inside


def injected_ids(capture: Capture, start: float, end: float) -> set[int]:
    chosen = capture.frames.injected & (capture.received >= start * SECOND) & (capture.received < (end + 0.1) * SECOND)
    return set(capture.frames.can_id[chosen].tolist())


def sensor_values(capture: Capture, can_id: int, chosen: np.ndarray) -> np.ndarray:
    """Raw values of the message's first sensor in its chosen frames, as a share of its range."""
    sensor = next(s for s in design("compact").message(can_id).layout.signals if isinstance(s, Sensor))
    words = capture.frames.payload[chosen & (capture.frames.can_id == can_id)]
    raw = (words >> np.uint64(64 - sensor.start - sensor.bits)) & np.uint64(2**sensor.bits - 1)
    return (raw.astype(np.float64) - sensor.low) / (sensor.high - sensor.low)


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
    for name, own in ids.items():
        assert 25 <= len(own) == len(design(name).messages) <= 60
        for other in set(VEHICLES) - {name}:
            assert 0 < len(own & ids[other]) < 0.3 * len(own)


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
    assert 0.3 < busy.sum() / SECOND / DRIVE["duration"] < 0.5
    assert 1500 < len(capture.frames) / DRIVE["duration"] < 2200


def test_lowest_id_goes_first_and_a_frame_under_way_is_not_interrupted():
    release = np.array([0, 10_000, 20_000, 30_000])
    frames = frames_of(np.array([0x300, 0x200, 0x100, 0x150]), 8, release, np.zeros(4, dtype=np.uint64))
    assert np.argsort(arbitrate(frames, 500_000)).tolist() == [0, 2, 3, 1]


def test_a_waiting_frame_is_overwritten_by_the_next_of_its_id():
    frames = frames_of(np.array([0x100, 0x200, 0x200]), 8, np.array([0, 10_000, 20_000]), np.zeros(3, dtype=np.uint64))
    received = arbitrate(frames, 500_000)
    assert received[1] == -1
    assert received[2] == 2 * received[0]


@pytest.mark.parametrize("name", VEHICLES)
def test_periodic_messages_hold_their_period(name):
    capture = drive(name)
    for message in design(name).messages:
        intervals = np.diff(capture.received[capture.frames.can_id == message.can_id]) / SECOND
        if message.periodic:
            assert np.median(intervals) == pytest.approx(message.period, rel=0.05)
            assert len(intervals) == pytest.approx(DRIVE["duration"] / message.period, abs=2)
        else:
            assert (intervals > 0.7 * message.period).all()


# --- payloads ----------------------------------------------------------------------------------------------------


def test_counters_roll():
    capture, found = drive(), 0
    for message in design("compact").messages:
        for counter in (s for s in message.layout.signals if isinstance(s, Counter)):
            words = capture.frames.payload[capture.frames.can_id == message.can_id]
            values = (words >> np.uint64(64 - counter.start - counter.bits)) & np.uint64(2**counter.bits - 1)
            assert (np.diff(values.astype(np.int64)) % 2**counter.bits == 1).all()
            found += 1
    assert found >= 5


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


# --- attacks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_stay_in_their_episodes(attack):
    capture = drive(attack=attack)
    assert capture.attacked.any()
    assert not (capture.attacked & ~within(capture, margin=0.05)).any()
    assert not capture.attacked[capture.received < 0.15 * DRIVE["duration"] * SECOND].any()
    ends = [0.0, *(end for _, end in capture.intervals)]
    assert len(capture.intervals) == DRIVE["n_episodes"]
    for (start, end), before in zip(capture.intervals, ends, strict=False):
        assert start >= before + (1.0 if before else 0.0)
        assert end - start == pytest.approx(DRIVE["episode_s"])
    if attack != "suppression":
        assert np.array_equal(capture.attacked, capture.frames.injected)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a not in ("masquerade", "suppression")])
def test_injection_leaves_the_vehicle_to_itself(attack):
    capture, free = drive(attack=attack), drive()
    genuine = capture.frames[~capture.frames.injected]
    released = set(zip(free.frames.can_id.tolist(), free.frames.release.tolist(), strict=True))
    assert set(zip(genuine.can_id.tolist(), genuine.release.tolist(), strict=True)) <= released


def test_dos_floods_with_id_zero_and_delays_low_priorities():
    capture, free = drive(attack="dos"), drive()
    flood = capture.frames[capture.attacked]
    assert set(flood.can_id.tolist()) == {0}
    assert not flood.payload.any()
    assert 1600 < len(flood) / (DRIVE["n_episodes"] * DRIVE["episode_s"]) < 3400

    def delay(of: Capture, chosen: np.ndarray) -> float:
        return float(np.mean((of.received - of.frames.release)[chosen]))

    inside, low = within(capture), capture.frames.can_id > 0x400
    before = delay(free, free.frames.can_id > 0x400)
    assert delay(capture, inside & low) > 2 * before
    assert delay(capture, ~within(capture, margin=0.1) & low) < 1.2 * before


def test_fuzzing_sends_random_ids_and_payloads():
    capture = drive(attack="fuzzing")
    random = capture.frames[capture.attacked]
    assert len(set(random.can_id.tolist())) > 0.5 * min(len(random), 2048)
    assert random.can_id.max() < 0x800
    assert len(set(random.payload.tolist())) == len(random)
    assert 0.5e-3 < DRIVE["n_episodes"] * DRIVE["episode_s"] / len(random) < 4e-3


def test_spoofing_outpaces_the_owner_with_three_kinds_of_payload():
    capture = drive(attack="spoofing")
    victims, distinct = set(), []
    for start, end in capture.intervals:
        (can_id,) = injected_ids(capture, start, end)
        victims.add(can_id)
        period = design("compact").message(can_id).period
        chosen = capture.attacked & (capture.received >= start * SECOND) & (capture.received < end * SECOND)
        assert chosen.sum() > 2.5 * (end - start) / period
        distinct.append(len(set(capture.frames.payload[chosen].tolist())) / chosen.sum())
    assert len(victims) == DRIVE["n_episodes"]
    assert distinct[1] < 0.02
    assert distinct[2] > 0.9


def test_replay_repeats_what_was_said_before():
    capture = drive(attack="replay")
    start, end = capture.intervals[0]
    assert 4 <= len(injected_ids(capture, start, end)) <= 8
    earlier = capture.frames[~capture.frames.injected & (capture.received < start * SECOND)]
    said = set(zip(earlier.can_id.tolist(), earlier.payload.tolist(), strict=True))
    chosen = capture.attacked & (capture.received < (end + 0.1) * SECOND)
    again = capture.frames[chosen]
    assert set(zip(again.can_id.tolist(), again.payload.tolist(), strict=True)) <= said


def test_masquerade_takes_the_place_of_a_silenced_sender():
    capture, free = drive(attack="masquerade"), drive()
    for start, end in capture.intervals:
        (can_id,) = injected_ids(capture, start, end)
        message = design("compact").message(can_id)
        own = capture.frames.can_id == can_id
        inside = own & (capture.frames.release >= start * SECOND) & (capture.frames.release < end * SECOND)
        assert capture.frames.injected[inside].all()
        assert inside.sum() == pytest.approx((end - start) / message.period, abs=2)
        intervals = np.diff(capture.received[own]) / SECOND
        assert intervals.max() < 2 * message.period
        late = inside & (capture.frames.release > (start + 0.6) * SECOND)
        told = sensor_values(capture, can_id, late)
        real = (free.frames.release > (start + 0.6) * SECOND) & (free.frames.release < end * SECOND)
        assert abs(told.mean() - sensor_values(free, can_id, real).mean()) > 0.1


def test_suppression_silences_an_ecu_and_labels_the_interval():
    capture, free = drive(attack="suppression"), drive()
    assert not capture.frames.injected.any()
    assert np.array_equal(capture.attacked, within(capture))
    vehicle = design("compact")
    for start, end in capture.intervals:

        def heard(of: Capture, start: float = start, end: float = end) -> set[int]:
            inside = (of.received >= (start + 0.02) * SECOND) & (of.received < end * SECOND)
            return set(of.frames.can_id[inside].tolist())

        gone = heard(free) - heard(capture)
        assert len({vehicle.message(i).ecu for i in gone}) == 1
        assert any(vehicle.message(i).period <= 0.02 for i in gone)
        after = set(capture.frames.can_id[capture.received > end * SECOND].tolist())
        assert {i for i in gone if vehicle.message(i).periodic and vehicle.message(i).period <= 0.1} <= after


# --- the capture as a file ---------------------------------------------------------------------------------------


def test_file_has_the_layout_of_can_train_and_test(tmp_path: Path):
    capture = drive(attack="fuzzing")
    write(capture, tmp_path / "capture.csv")
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
    assert seconds - START == pytest.approx(capture.received / SECOND, abs=2e-6)


def test_entry_point_repeats_to_the_byte(tmp_path: Path):
    entry = {"name": "x", "vehicle": "truck", "attack": "spoofing"}
    contents = []
    for name, seed in (("a.csv", 1), ("b.csv", 1), ("c.csv", 2)):
        options = {"duration": 10, "seed": seed, "episodes": 2, "episode_s": 2}
        spec = json.dumps({"wildcards": {}, "config": {}, "capture": {**entry, "simulation": options}})
        command = [sys.executable, "-m", "canids_preprocess.simulate", "--spec", spec, "--output", tmp_path / name]
        subprocess.run(command, check=True, capture_output=True)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_a_moment_without_frames_is_a_header_alone(tmp_path: Path):
    write(simulate("compact", duration=1e-5), tmp_path / "capture.csv")
    assert (tmp_path / "capture.csv").read_text() == "timestamp,arbitration_id,data_field,attack\n"


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", VEHICLES)
def test_shortest_drive_that_holds_an_episode(name, attack):
    assert simulate(name, attack=attack, duration=1.3, seed=3, n_episodes=1, episode_s=0.1).attacked.any()


# --- what a user can get wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vehicle", "options", "message"),
    [
        ("tank", {}, "no vehicle 'tank'; vehicles: compact, van, truck"),
        ("van", {"attack": "ransom"}, "no attack 'ransom'; attacks: dos, fuzzing"),
        ("van", {"attack": "dos", "duration": 10}, "set duration to 24 or more"),
        ("van", {"attack": "dos", "episode_s": 0.01}, "episode_s is 0.01"),
        ("van", {"seed": -1}, "seed is -1"),
    ],
)
def test_errors_say_what_to_do(vehicle, options, message):
    with pytest.raises(CanidsError, match=message):
        simulate(vehicle, **options)


def test_entry_point_fails_in_one_line(tmp_path: Path):
    options = {"duration": 10, "seed": 1, "episodes": 4, "episode_s": 4}
    entry = {"name": "x", "vehicle": "van", "attack": "dos", "simulation": options}
    spec = json.dumps({"wildcards": {}, "config": {}, "capture": entry})
    command = [sys.executable, "-m", "canids_preprocess.simulate", "--spec", spec, "--output", tmp_path / "x.csv"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: simulation: 4 episodes of 4 s do not fit into 10 s")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
