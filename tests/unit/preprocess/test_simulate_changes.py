"""Messages that are sent on changes too, beside their period."""

from functools import cache

import numpy as np
import pytest
from simulated import simulate

from canids_preprocess.simulate import Capture
from canids_preprocess.simulation.signals import as_bytes
from canids_preprocess.simulation.traffic import SECOND
from canids_preprocess.simulation.vehicle import VEHICLES, Message, design


@cache
def drive(vehicle: str, changes: float, seed: int = 5) -> Capture:
    return simulate(vehicle, duration=60.0, seed=seed, changes=changes)


def frames_of(capture: Capture, can_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Release times (s) and payload words of an ID."""
    of_id = capture.frames.can_id == can_id
    return capture.frames.release[of_id] / SECOND, capture.frames.payload[of_id]


def sent_more(vehicle: str, seed: int = 5) -> list[Message]:
    """Messages that this drive sends more often with changes than without."""
    quiet, busy = drive(vehicle, 0.0, seed), drive(vehicle, 12.0, seed)
    return [
        m for m in design(vehicle).messages if len(frames_of(busy, m.can_id)[0]) > len(frames_of(quiet, m.can_id)[0])
    ]


@pytest.mark.parametrize("vehicle", VEHICLES)
def test_only_slow_messages_are_sent_on_changes_and_the_same_in_every_drive(vehicle: str) -> None:
    some = sent_more(vehicle)
    assert some
    assert all(m.periodic and m.period >= 0.1 for m in some)
    slow = [m for m in design(vehicle).messages if m.periodic and m.period >= 0.1]
    either = {m.can_id for seed in (5, 6, 7) for m in sent_more(vehicle, seed)}
    assert len(either) <= max(1, round(0.4 * len(slow)))


@pytest.mark.parametrize("vehicle", VEHICLES)
def test_the_period_goes_on_and_all_is_said_before_its_next_tick(vehicle: str) -> None:
    quiet, busy = drive(vehicle, 0.0), drive(vehicle, 12.0)
    for message in sent_more(vehicle):
        ticks, (times, _) = frames_of(quiet, message.can_id)[0], frames_of(busy, message.can_id)
        assert np.isin(ticks, times).all()
        sent = times[~np.isin(times, ticks)]
        since = (sent - ticks[np.searchsorted(ticks, sent) - 1]) / message.period
        assert since.min() > 0.04
        assert since.max() < 0.95


def test_a_change_turns_bits_over_and_a_repetition_says_the_same() -> None:
    turned = 0
    for vehicle in VEHICLES:
        for message in sent_more(vehicle):
            if any(type(s).__name__ not in ("Constant", "Flags") for s in message.layout.signals):
                continue  # counters and sensors move with every frame
            ticks = frames_of(drive(vehicle, 0.0), message.can_id)[0]
            times, payload = frames_of(drive(vehicle, 12.0), message.can_id)
            on_change = ~np.isin(times, ticks)
            first = on_change & ~np.r_[False, on_change[:-1]]
            differs = np.r_[False, payload[1:] != payload[:-1]]
            assert differs[on_change & ~first].sum() <= 0.1 * on_change.sum()  # but for a flag that toggles by itself
            turned += int(differs[first].sum())
    assert turned > 10


def test_checksums_and_counters_are_right_on_changes_too() -> None:
    seen = 0
    for vehicle in VEHICLES:
        for message in sent_more(vehicle):
            layout = message.layout
            if layout.checksum:
                content = as_bytes(frames_of(drive(vehicle, 12.0), message.can_id)[1])[:, : layout.dlc]
                assert (layout.checksum.of(content[:, :-1]) == content[:, -1]).all()
                seen += 1
            for counter in (s for s in layout.signals if type(s).__name__ == "Counter"):
                words = frames_of(drive(vehicle, 12.0), message.can_id)[1]
                value = words >> np.uint64(64 - counter.start - counter.bits) & np.uint64(2**counter.bits - 1)
                assert (np.diff(value.astype(np.int64)) % 2**counter.bits == 1).all()
                seen += 1
    assert seen


@pytest.mark.parametrize("vehicle", VEHICLES)
def test_all_other_messages_are_released_as_without_changes(vehicle: str) -> None:
    more = {m.can_id for m in sent_more(vehicle)}
    others = [
        m for m in design(vehicle).messages if m.can_id not in more and m.period >= 0.1
    ]  # never lost on a full bus
    assert others
    for message in others:
        for quiet, busy in zip(
            frames_of(drive(vehicle, 0.0), message.can_id), frames_of(drive(vehicle, 12.0), message.can_id), strict=True
        ):
            assert np.array_equal(quiet, busy)


@pytest.mark.parametrize("per_minute", [2.0, 6.0])
def test_stretches_come_at_their_rate(per_minute: float) -> None:
    capture = simulate("van", duration=1200.0, seed=5, changes=per_minute)
    stretches = 0
    for message in design("van").messages:
        if message.periodic and message.period >= 0.1:
            times = frames_of(capture, message.can_id)[0]
            changes = times[1:][np.diff(times) < 0.5 * message.period]
            stretches += len(changes) and 1 + int((np.diff(changes) > 2.5).sum())
    assert 0.5 * per_minute < stretches / 20.0 < 1.3 * per_minute
