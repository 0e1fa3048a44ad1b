"""Per-frame features: causal, independent of chunks and of ID values, and equal to what one works out by hand."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from captures import features, fed, frames, traffic
from hypothesis import given, settings
from hypothesis import strategies as st

from canids_preprocess.features.frame_kernel import (
    _ESTABLISHED,
    _OVERDUE_EVERY,
    _OVERDUE_FROM,
    _OVERDUE_TO,
    FRAME_FEATURES,
)
from canids_preprocess.features.relative import BusState, step

PERIOD = 1 / 64
"""Seconds; a power of two, so that intervals and their logarithms are exact."""
SEEDS = st.integers(0, 10**6)


def regular(n: int, late: dict[int, float] | None = None, payload: list[bytes] | None = None) -> dict[str, np.ndarray]:
    """Features of one regular ID; `late` sets the interval before some frames, in periods."""
    intervals = np.ones(n)
    for frame, periods in (late or {}).items():
        intervals[frame] = periods
    return features(frames(PERIOD * np.cumsum(intervals), [0x100] * n, payload))


# --- properties --------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 299))
def test_feature_depends_on_no_later_frame(seed: int, n: int) -> None:
    table = traffic(300, np.random.default_rng(seed))
    whole, part = step(fed(table), BusState())[0], step(fed(table.head(n)), BusState())[0]
    assert whole[:n].tobytes() == part.tobytes()


@given(SEEDS, st.lists(st.integers(0, 60), max_size=20))
def test_chunks_of_any_sizes_give_equal_features(seed: int, sizes: list[int]) -> None:
    table = traffic(300, np.random.default_rng(seed))
    borders = [0, *np.minimum(np.cumsum(sizes, dtype=int), 300).tolist(), 300]
    state = BusState()
    parts = [step(fed(table[a:b]), state)[0] for a, b in pairwise(borders)]
    assert np.concatenate(parts).tobytes() == step(fed(table), BusState())[0].tobytes()


@given(SEEDS)
def test_renaming_all_ids_changes_no_feature(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = traffic(300, rng)
    renamed = table.with_columns(can_id=pl.Series(rng.permutation(2048)[table["can_id"]], dtype=pl.UInt32))
    assert step(fed(renamed), BusState())[0].tobytes() == step(fed(table), BusState())[0].tobytes()


@given(SEEDS)
def test_features_are_finite_for_extreme_times_and_payloads(seed: int) -> None:
    values = step(fed(traffic(300, np.random.default_rng(seed))), BusState())[0]
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 64


@pytest.mark.parametrize("timestamp", [np.zeros(200), 1e9 * np.arange(200), np.geomspace(1e-9, 1e15, 200)])
def test_features_are_finite_for_standing_and_leaping_clocks(timestamp: np.ndarray) -> None:
    ids = np.random.default_rng(0).integers(0, 5, len(timestamp))
    assert np.isfinite(step(fed(frames(timestamp, ids)), BusState())[0]).all()


@settings(max_examples=20)
@given(SEEDS)
def test_more_ids_than_the_first_allocation_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 1 << 29, 400)
    table = frames(np.cumsum(0.5 + rng.random(400)), np.concatenate([ids, ids])[:400], extended=[True] * 400)
    assert (features(table)["first_sighting"][20:] == 1).sum() == len(set(ids[20:].tolist()) - set(ids[:20].tolist()))


# --- worked out by hand ------------------------------------------------------------------------------------------


def test_regular_id_deviates_in_nothing() -> None:
    values = regular(60)
    silent = set(FRAME_FEATURES) - {"young"}
    assert {name for name in silent if values[name].any()} == set()
    settled = PERIOD * np.arange(60) / 2.0  # 2 s after its first frame a bus has settled
    np.testing.assert_array_equal(values["young"], (settled / np.arange(1, 61)).astype(np.float32))


@pytest.mark.parametrize(("periods", "ratio"), [(4, 2.0), (0.25, -2.0), (2**12, 8.0), (0, -8.0)])
def test_interval_against_the_usual_one(periods: float, ratio: float) -> None:
    values = regular(20, late={16: periods})["interval_ratio"]
    assert values[16] == ratio
    assert not values[:16].any()


def test_one_late_frame_leaves_its_trace() -> None:
    values = regular(20, late={16: 4})
    assert values["interval_ratio"][17] == -1 / 16  # after 16 sightings the running median moves by 1/16
    # A gap of four among the last sixteen, whose running median has moved by 2/15 octave at most.
    assert values["bus_pace"][16] == pytest.approx(-np.log2((15 + 4) / 16), abs=0.01)


def test_an_id_that_appears_late_is_news() -> None:
    times = np.array([0, 1, 2, 3, 4, 4.5])
    values = features(frames(times, [1, 2, 1, 2, 3, 3]))
    assert values["first_sighting"].tolist() == [0, 0.5, 0, 0, 1, 0]
    assert values["young"] == pytest.approx([0, 0.5, 1 / 2, 1 / 2, 1, 1 / 2])


@pytest.mark.parametrize("before", [20, 500])
def test_what_is_usual_outlasts_a_flood(before: int) -> None:
    """Injected frames come early and with odd payloads; the genuine ones after them look as they did before."""
    flood = dict.fromkeys(range(before, before + 40), 1 / 64)
    rng = np.random.default_rng(0)
    payload = [rng.bytes(8) if i in flood else bytes(8) for i in range(before + 60)]
    values = regular(before + 60, late=flood, payload=payload)
    after = slice(before + 42, None)
    assert values["interval_ratio"][before] == -6.0
    assert np.abs(values["interval_ratio"][after]).max() < 0.25
    assert np.abs(values["payload_deviation"][after]).max() < 1.5


@pytest.mark.parametrize("early", [0.1, 0.5, 0.85, 0.97, 0.999])
def test_one_injected_frame_leaves_no_trace_on_a_periodic_id(early: float) -> None:
    """The sender's next frame is compared with the sender's last one, not with the injector's."""
    times = PERIOD * np.arange(50)
    times = np.insert(times, 40, times[39] + early * PERIOD)
    payload = [bytes(8)] * 51
    payload[40] = b"\xff" * 5
    values = features(frames(times, [0x10] * 51, payload))
    assert values["interval_ratio"][40] == pytest.approx(np.log2(early), abs=1e-3)
    assert values["payload_distance"][40] == values["novel_bits"][40] == pytest.approx(np.log2(1 + 40))
    assert values["dlc_changed"][40] == 1.0
    # One that comes when the sender's is due is mistaken for it, until the next but one.
    clean = 41 if early < 0.9 else 42
    for name in ("payload_distance", "dlc_changed", "novel_bits"):
        assert not values[name][clean:].any()
    assert np.abs(values["payload_deviation"][clean:]).max() < 1.0
    for name in ("interval_ratio", "byte_jump"):
        assert np.abs(values[name][clean:]).max() < 0.05


def test_an_irregular_id_has_no_early_frames() -> None:
    """Event-driven traffic is compared with the frame before, whenever that came."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(1.0, 60))
    payload = [bytes([i % 2] * 8) for i in range(60)]
    values = features(frames(times, [0x10] * 60, payload))
    assert values["payload_distance"][_ESTABLISHED:] == pytest.approx(np.log2(1 + 8 / (1 + 8)))
    assert not values["extra_frame"].any()


def test_payload_distance_counts_bits_that_move() -> None:
    # Seven bits move at first; from then on frames differ by 7, 3, 4 and no bits.
    moving = [b"\x00\x00", b"\x55\x07"] * (_ESTABLISHED // 2)
    values = regular(_ESTABLISHED + 4, payload=[*moving, b"\x00\x00", b"\x00\x07", b"\x55\x07", b"\x55\x07"])
    expected = [np.log2(1 + bits / (1 + 7)) for bits in (7, 3, 4, 0)]
    assert values["payload_distance"].tolist() == pytest.approx([0] * _ESTABLISHED + expected)


def test_payload_deviation_is_against_the_usual_distance() -> None:
    values = regular(4, payload=[b"\x00\x00", b"\x00\x07", b"\xff\x07", b"\xff\x07"])
    # Against the running medians of distance (3, then 8) and of its deviation (0, then 5), plus one bit; trusted in
    # full after eight sightings.
    assert values["payload_deviation"] == pytest.approx([0, 0, 2 / 8 * 5 / 1, 3 / 8 * -8 / 6])


@pytest.mark.parametrize(
    ("before", "after", "bits"),
    [(127, 128, 1), (128, 127, 1), (0, 128, 1), (0, 255, 1), (250, 1, 3), (63, 66, 2), (64, 191, 7)],
)
def test_a_measurement_that_carries_over_has_hardly_changed(before: int, after: int, bits: int) -> None:
    """127 to 128, or of a signed value 0 to −1, turns eight bits over, yet the value changes by one."""
    moving = [bytes([1, n, before]) for n in (0, 255) * (_ESTABLISHED // 2)]
    # Of the byte in the middle, eight bits move.
    values = regular(_ESTABLISHED + 2, payload=[*moving, bytes([1, before, before]), bytes([1, after, before])])
    assert values["payload_distance"][-1] == pytest.approx(np.log2(1 + bits / 9))
    # In a byte that never moved so, each bit counts.
    values = regular(_ESTABLISHED + 1, payload=[bytes([1, before])] * _ESTABLISHED + [bytes([1, after])])
    assert values["payload_distance"][-1] == pytest.approx(np.log2(1 + (before ^ after).bit_count()))


def test_bits_that_never_toggled_before() -> None:
    quiet, odd = bytes(8), b"\x03" + bytes(7)
    n = _ESTABLISHED
    values = regular(n + 4, payload=[quiet] * n + [odd, quiet, odd, quiet])["novel_bits"]
    assert values.tolist() == [0] * n + [np.float32(np.log2(1 + 2)), 0, 0, 0]
    # The more an ID's payload moves, the less are two bits.
    lively = [bytes([0, 255 * (i % 2)]) for i in range(n)]
    assert regular(n + 1, payload=[*lively, b"\x03\xff"])["novel_bits"][-1] == pytest.approx(np.log2(1 + 2 / 9))
    # An ID seen less often has not shown yet which bits it toggles.
    assert not regular(n + 4, payload=[quiet] * (n - 1) + [odd] + [quiet] * 4)["novel_bits"].any()


def test_jump_of_a_byte_against_its_usual_change() -> None:
    counter = [bytes([(250 + i) % 256]) for i in range(10)]
    assert not regular(10, payload=counter)["byte_jump"].any()
    jumping = [*counter[:5], bytes([(counter[4][0] + 7) % 256])]
    assert regular(6, payload=jumping)["byte_jump"].tolist() == [0, 0, 0, 0, 0, 5 / 8 * 2.0]  # log2((1 + 7) / (1 + 1))


def test_change_of_length() -> None:
    assert regular(4, payload=[bytes(8), bytes(64), bytes(64), b""])["dlc_changed"].tolist() == [0, 1, 0, 1]


def test_all_64_bytes_are_compared() -> None:
    quiet = [bytes(64)] * _ESTABLISHED
    values = regular(_ESTABLISHED + 2, payload=[*quiet, bytes(63) + b"\xff", bytes(63) + b"\xff"])
    assert values["payload_distance"][-2:].tolist() == pytest.approx([np.log2(1 + 8), 0])


def test_newcomer_is_the_share_of_the_time_without_another_new_id() -> None:
    values = features(frames([10.0, 12.0, 14.0, 16.0, 18.0], [1, 1, 2, 2, 2]))["newcomer"]
    assert values == pytest.approx([0, 0, 0, 0, 4 / 8])  # from the third frame on
    stepping_back = features(frames([10.0, 9.9997, 9.9998, 10.0001], [1, 2, 1, 2]))["newcomer"]
    assert ((stepping_back >= 0) & (stepping_back <= 1)).all()


def test_of_ids_that_appear_together_one_is_a_newcomer() -> None:
    """A bus that wakes up: five IDs appear after 10 s, and stay; another one and one a tenth as fast appear at 20 and 25 s."""
    begins = {0: 0.0, **{i: 10 + 0.001 * i for i in range(1, 6)}, 6: 20.0, 7: 25.0}
    periods = [PERIOD * (10 if i == 7 else 1) for i in begins]
    times = [t + p * np.arange(int((30 - t) / p)) for t, p in zip(begins.values(), periods, strict=True)]
    order = np.argsort(np.concatenate(times), kind="stable")
    ids = np.repeat(list(begins), [len(t) for t in times])[order]
    timestamp = np.concatenate(times)[order]
    values = features(frames(timestamp, ids))
    last = {i: float(values["newcomer"][ids == i][-1]) for i in begins}
    assert [last[i] for i in (0, 1, 6, 7)] == pytest.approx([0, 10 / 30, 10 / 30, 5 / 30 / 10], abs=5e-3)
    assert max(last[i] for i in range(2, 6)) < 1e-3
    # Its pace, six times as fast as before, is soon the usual one.
    pace = values["bus_pace"]
    assert pace[(timestamp > 10.1) & (timestamp < 10.4)].max() > 1.5
    assert np.abs(pace[(timestamp > 11) & (timestamp < 20)]).max() < 0.5


@pytest.mark.parametrize("slowest", [0.5, 5.0])
def test_a_new_id_is_news_once_the_slowest_could_have_been_seen_twice(slowest: float) -> None:
    times = slowest * np.arange(40)
    known = np.repeat(slowest * np.arange(4), 2)
    for seconds in (1.5, 8.0, 14.0):
        seen = known[known < seconds]
        values = features(frames([*seen, seconds], [*([1, 2] * len(seen))[: len(seen)], 3]))["first_sighting"]
        longest = slowest if len(seen) == len(known) else 1.0
        assert values[-1] == pytest.approx(min(seconds / (2 * max(longest, 1.0)), 1.0))
    assert not features(frames(times, [1] * 40))["first_sighting"].any()


# --- one frame too many ------------------------------------------------------------------------------------------


def between(phase: float, injected: bytes, sender: list[bytes]) -> np.ndarray:
    """Feature `extra_frame` of a periodic ID with a frame injected behind the 40th, `phase` periods later."""
    times = PERIOD * np.arange(len(sender))
    payload = [*sender[:41], injected, *sender[41:]]
    return features(frames(np.insert(times, 41, times[40] + phase * PERIOD), [7] * len(payload), payload))[
        "extra_frame"
    ]


@pytest.mark.parametrize("phase", [0.05, 0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("injected", [bytes(8), b"\x07" + bytes(7)])
def test_an_injected_frame_is_one_too_many_wherever_it_lies(phase: float, injected: bytes) -> None:
    """With the sender's own payload too: nothing but the count betrays it."""
    values = between(phase, injected, [bytes(8)] * 60)
    assert values[42] == pytest.approx(1.0, abs=0.1)
    assert not values[:41].any()
    assert not values[44:].any()


def test_an_event_that_brings_a_change_is_none_too_many() -> None:
    quiet, event = bytes(8), b"\x07" + bytes(7)
    assert not between(0.3, event, [quiet] * 41 + [event] * 19).any()
    assert between(0.3, event, [quiet] * 60)[42] == pytest.approx(1.0, abs=0.1)


def test_a_late_frame_is_none_too_many() -> None:
    times = PERIOD * np.arange(60)
    times[40] += 0.25 * PERIOD
    assert not features(frames(times, [7] * 60))["extra_frame"].any()


def test_silent_id_is_overdue_until_it_is_forgotten() -> None:
    counted, alone = 2 * _OVERDUE_EVERY, int(_OVERDUE_FROM + _OVERDUE_TO) // 2
    both = counted - alone  # frames in which A and B take turns; from then on A comes alone, as often as before
    assert both >= 2 * _ESTABLISHED
    timestamp = PERIOD * np.concatenate([np.arange(both), both + 2.0 * np.arange(4 * _OVERDUE_EVERY)])
    ids = np.concatenate([np.arange(both) % 2, np.zeros(4 * _OVERDUE_EVERY, int)])
    values = features(frames(timestamp, ids))["overdue"]
    # At the count B is silent for `alone` of its intervals; at the next, for too many.
    assert not values[: counted - 1].any()
    assert set(values[counted - 1 : counted + _OVERDUE_EVERY - 1].tolist()) == {1.0}
    assert not values[counted + _OVERDUE_EVERY - 1 :].any()


def test_silence_of_an_id_without_a_period_means_nothing() -> None:
    rng = np.random.default_rng(0)
    event = np.cumsum(PERIOD * 2.0 ** rng.uniform(-3, 3, 200))
    periodic = np.arange(0, 2 * event[-1], PERIOD)
    timestamp = np.concatenate([event, periodic])
    order = np.argsort(timestamp, kind="stable")
    ids = np.repeat([1, 2], [len(event), len(periodic)])
    assert not features(frames(timestamp[order], ids[order]))["overdue"].any()


def test_ids_of_a_fuzzing_attack_are_not_missed_afterwards() -> None:
    rng = np.random.default_rng(0)
    times = [np.arange(0, 40, 0.01) + 0.0007 * i for i in range(10)]  # ten periodic IDs all along
    ids = [np.full(len(t), i) for i, t in enumerate(times)]
    for begin in (10.0, 20.0, 30.0):
        times.append(np.sort(begin + 5 * rng.random(10_000)))
        ids.append(rng.integers(100, 400, 10_000))  # about 33 frames of each ID in 5 s, at random times
    order = np.argsort(np.concatenate(times), kind="stable")
    timestamp = np.concatenate(times)[order]
    overdue = features(frames(timestamp, np.concatenate(ids)[order]))["overdue"]
    for begin in (15.0, 25.0, 35.0):
        assert not overdue[(timestamp > begin + 0.5) & (timestamp < begin + 5)].any()


def test_equal_values_of_11_and_29_bits_are_different_ids() -> None:
    table = frames(PERIOD * np.arange(4), [0x10] * 4, [b"\x00", b"\xff"] * 2, extended=[False, True] * 2)
    values = features(table)
    assert values["young"].tolist() == pytest.approx([0, PERIOD / 2, PERIOD / 2, 3 * PERIOD / 4])
    assert not values["payload_distance"].any()


def test_two_buses_share_nothing() -> None:
    table = fed(traffic(50, np.random.default_rng(0)))
    first, _ = step(table, BusState())
    assert step(table, BusState())[0].tobytes() == first.tobytes()
