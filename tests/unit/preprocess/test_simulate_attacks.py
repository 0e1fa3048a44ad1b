"""The simulated attacks: what they add to a drive or take away, and how plainly."""

from functools import cache

import numpy as np
import pytest
from simulated import DRIVE, drive, injected_ids, sensor_values, simulate, within

from canids_preprocess.simulate import Capture
from canids_preprocess.simulation.attacks import ATTACKS, LEVELS
from canids_preprocess.simulation.traffic import SECOND
from canids_preprocess.simulation.vehicle import design

# --- attacks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_stay_in_their_episodes(attack):
    capture = drive(attack=attack)
    assert capture.attacked.any()
    assert not (capture.attacked & ~within(capture, margin=0.05)).any()
    assert not capture.attacked[capture.received < 0.15 * DRIVE["duration"] * SECOND].any()
    ends = [0.0, *(end for _, end in capture.intervals)]
    assert len(capture.intervals) == DRIVE["episodes"]
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
    assert 1250 < len(flood) / (DRIVE["episodes"] * DRIVE["episode_s"]) < 2500

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
    assert 0.5e-3 < DRIVE["episodes"] * DRIVE["episode_s"] / len(random) < 4e-3


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
    assert len(victims) == DRIVE["episodes"]
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
        of_target = capture.frames.can_id == can_id
        inside = of_target & (capture.frames.release >= start * SECOND) & (capture.frames.release < end * SECOND)
        assert capture.frames.injected[inside].all()
        assert inside.sum() == pytest.approx((end - start) / message.period, abs=2)
        intervals = np.diff(capture.received[of_target]) / SECOND
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
        assert len({vehicle.message(i).task.ecu for i in gone}) == 1
        assert any(vehicle.message(i).period <= 0.02 for i in gone)
        after = set(capture.frames.can_id[capture.received > end * SECOND].tolist())
        assert {i for i in gone if vehicle.message(i).periodic and vehicle.message(i).period <= 0.1} <= after


def test_jamming_leaves_the_bus_to_nothing_else():
    capture = simulate("van", attack="jamming", stealth="mixed", duration=30.0, seed=5, episodes=3, episode_s=1.0)
    assert len(capture.intervals) == 3
    for start, end in capture.intervals:
        inside = (capture.received >= (start + 0.01) * SECOND) & (capture.received < end * SECOND)
        assert inside.sum() > 3000 * (end - start)
        assert capture.attacked[inside].all()
        assert len(np.unique(capture.frames.can_id[inside])) == 1


# --- stealth -----------------------------------------------------------------------------------------------------


@cache
def stealthy(attack: str, stealth: str) -> Capture:
    return simulate("van", attack=attack, stealth=stealth, duration=30.0, seed=5, episodes=3, episode_s=2.0)


@pytest.mark.parametrize("attack", ["dos", "fuzzing", "spoofing", "replay"])
def test_stealthier_attacks_send_less(attack):
    rates = []
    for level in LEVELS:
        capture = stealthy(attack, level)
        rates.append(capture.frames.injected.sum() / sum(end - start for start, end in capture.intervals))
    assert rates[0] > 1.5 * rates[1] > 1.5 * 1.5 * rates[2] > 0


@pytest.mark.parametrize("attack", ATTACKS)
def test_mixed_stealth_goes_through_the_levels_and_stealthy_episodes_are_shorter(attack):
    capture = stealthy(attack, "mixed")
    assert [end - start for start, end in capture.intervals] == pytest.approx([2.0, 2.0, 1.0])
    assert not (capture.attacked & ~within(capture, margin=0.05)).any()
    for start, end in capture.intervals:
        inside = (capture.received >= start * SECOND) & (capture.received < end * SECOND)
        assert capture.attacked[inside].any()


def test_stealthy_floods_and_fuzzing_hide_among_the_vehicles_ids():
    ids = {m.can_id for m in design("van").messages}
    flooding = injected_ids(stealthy("dos", "stealthy"), 0, 30)
    assert 0 not in flooding
    assert max(flooding) < min(ids)
    assert injected_ids(stealthy("fuzzing", "stealthy"), 0, 30) <= ids


def test_stealthy_spoofing_follows_each_genuine_frame():
    capture = stealthy("spoofing", "stealthy")
    for start, end in capture.intervals:
        (can_id,) = injected_ids(capture, start, end)
        sent = capture.frames[capture.frames.can_id == can_id]
        genuine = sent.release[~sent.injected & sent.released_in(start, end)]
        forged = sent.release[sent.injected & sent.released_in(start, end + 0.01)]
        assert len(forged) == pytest.approx(len(genuine), abs=1)
        behind = forged - genuine[np.searchsorted(genuine, forged) - 1]
        assert (behind >= 0.2e-3 * SECOND).all()
        assert (behind <= 0.8e-3 * SECOND).all()


def test_stealthy_suppression_takes_every_second_frame_of_one_id():
    capture, free = stealthy("suppression", "stealthy"), simulate("van", duration=30.0, seed=5)
    for start, end in capture.intervals:

        def counts(of: Capture, start: float = start, end: float = end) -> np.ndarray:
            return np.bincount(of.frames.can_id[of.frames.released_in(start, end)], minlength=0x800)

        before, after = counts(free), counts(capture)
        (gone,) = np.flatnonzero(before != after)
        assert after[gone] == pytest.approx(before[gone] / 2, abs=1)
