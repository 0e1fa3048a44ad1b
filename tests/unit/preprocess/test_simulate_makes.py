"""Simulated vehicles that differ as widely as several makes do, parked ones, and attacks as sparse as a frame a second."""

import numpy as np
import pytest

from canids_preprocess.simulate import Capture, record
from canids_preprocess.simulation.signals import Constant
from canids_preprocess.simulation.traffic import SECOND
from canids_preprocess.simulation.vehicle import Vehicle, design
from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError

FLEET = [f"any-{number}" for number in range(1, 31)]
RECORDED = {  # IDs, frames/s, mean bytes: canids_preprocess.compare_traffic on attack-free captures
    "Kia Soul": (45, 2090, 7.8),
    "Hyundai Sonata": (27, 1953, 7.8),
    "car A": (51, 1446, 6.83),
    "car C": (98, 2571, 6.5),
    "Subaru WRX": (31, 977, 7.6),
    "Jaguar XF": (50, 479, 8.0),
}


def described(vehicle: Vehicle) -> tuple[int, float, float]:
    """IDs, frames a second, mean bytes a frame."""
    periodic = [m for m in vehicle.messages if m.periodic]
    rate = sum(1 / m.period for m in periodic)
    return len(vehicle.messages), rate, sum(m.layout.dlc / m.period for m in periodic) / rate


@pytest.mark.parametrize("name", RECORDED)
def test_each_recorded_vehicle_lies_within_the_range_of_the_fleet(name: str) -> None:
    drawn = np.array([described(design(vehicle)) for vehicle in FLEET])
    low, high = drawn.min(axis=0) * 0.95, drawn.max(axis=0) * 1.05
    assert (low <= RECORDED[name]).all(), low
    assert (RECORDED[name] <= high).all(), high


def test_their_buses_are_never_overloaded_and_of_several_speeds() -> None:
    vehicles = [design(name) for name in FLEET]
    load = [described(v)[1] * 130 / v.bit_rate for v in vehicles]
    assert max(load) < 0.8
    assert {v.bit_rate for v in vehicles} >= {125_000, 500_000}


def test_of_most_some_ids_and_not_all_have_a_payload_that_never_changes() -> None:
    still = [
        np.mean([all(isinstance(s, Constant) for s in m.layout.signals) for m in design(n).messages]) for n in FLEET
    ]
    assert np.min(still) > 0.1
    assert np.max(still) < 0.9
    assert np.ptp(still) > 0.3


def whole(vehicle: str, **options: object) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[float, float]]]:
    """IDs, payloads, labels and episodes of a capture."""
    parts: list[Capture] = list(record(vehicle, **options))  # type: ignore[arg-type]
    joined = [
        np.concatenate(c) for c in zip(*((p.frames.can_id, p.frames.payload, p.attacked) for p in parts), strict=True)
    ]
    return joined[0], joined[1], joined[2], [i for p in parts for i in p.intervals]


def test_a_parked_vehicle_moves_less_of_its_payloads_and_sends_as_often() -> None:
    def moving(parked: bool) -> tuple[int, int]:
        ids, payload, _, _ = whole("any-4", duration=20, seed=3, parked=parked)
        return sum(len(np.unique(payload[ids == i])) for i in np.unique(ids)), len(ids)

    (driven, frames), (parked, as_many) = moving(parked=False), moving(parked=True)
    assert parked < 0.7 * driven
    assert as_many == pytest.approx(frames, rel=0.01)


def test_most_ecus_sleep_until_the_ignition_is_on_and_none_falls_silent_afterwards() -> None:
    parts = list(record("any-4", duration=20, seed=3, ignition=8.0))
    ids, at = (np.concatenate(c) for c in ([p.frames.can_id for p in parts], [p.received / SECOND for p in parts]))
    before, behind = set(ids[at < 8].tolist()), set(ids[at > 8].tolist())
    assert 0 < len(before) < 0.8 * len(behind)
    assert before <= behind
    awake = list(record("any-4", duration=20, seed=3))
    assert (at > 8).sum() == pytest.approx(sum((p.received > 8 * SECOND).sum() for p in awake), abs=5)


@pytest.mark.parametrize("attack", ["spoofing", "fuzzing", "dos"])
def test_spacing_makes_an_attack_as_sparse_as_a_frame_a_second(attack: str) -> None:
    parts = list(record("any-7", attack=attack, duration=30, seed=1, episodes=2, episode_s=10, spacing=1.0))
    at = np.concatenate([p.received[p.frames.injected] for p in parts]) / SECOND
    assert 12 <= len(at) <= 22
    within = np.diff(at)[np.diff(at) < 3]
    assert (within > 0.3).all()
    assert np.median(within) == pytest.approx(1.0, abs=0.2)


def test_no_other_kind_is_taken_for_a_vehicle() -> None:
    with pytest.raises(CanidsError, match="no vehicle 'bus'; vehicles: compact, van, truck, any"):
        design("bus")


def test_the_fleet_has_many_makes_and_all_kinds_that_leave_a_trace() -> None:
    fleet = manifest.auxiliary_captures("simulated_fleet").values()
    assert len({c.vehicle for c in fleet}) >= 20
    assert {c.attack for c in fleet} == {None, "dos", "fuzzing", "spoofing", "replay", "jamming"}
    assert {bool(c.simulation and c.simulation.get("parked")) for c in fleet} == {True, False}
    assert len({c.simulation["seed"] for c in fleet if c.simulation}) == len(fleet)
