"""Cutting captures by time: whole episodes, wide gaps, no frame in two places."""

from itertools import pairwise

import numpy as np
import pytest
from captures import BLOCKS, clock
from hypothesis import given
from hypothesis import strategies as st

from canids_preprocess.windowing.clock import Clock
from canids_preprocess.windowing.splits import Block, _borders, blocks, restarts
from canids_shared.contracts.manifest import SPLITS
from canids_shared.errors import CanidsError

SHARES: dict[str, float] = BLOCKS["shares"]
WINDOW = 20
PERIOD = 0.02


def layout(silences: list[float], lengths: list[float], begin: float, jitter: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and labels of a capture: silence, episode, silence, …, silence; steps back by up to 0.3 ms."""
    edges = begin + np.cumsum([x for pair in zip(silences, [*lengths, 0.0], strict=True) for x in pair][:-1])
    timestamp = np.arange(begin, edges[-1], PERIOD)
    timestamp += np.random.default_rng(jitter).uniform(-3e-4, 0, len(timestamp)) if jitter else 0
    attacked = np.zeros(len(timestamp), dtype=bool)
    for first, last in zip(edges[:-1:2], edges[1::2], strict=True):
        attacked |= (timestamp >= first) & (timestamp <= last)
    return timestamp, attacked


def in_order(of_splits: dict[str, list[Block]]) -> list[tuple[str, Block]]:
    return sorted(((s, b) for s in SPLITS for b in of_splits[s]), key=lambda pair: pair[1].start)


@st.composite
def layouts(draw: st.DrawFn, least: int, gap: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Captures with episodes further apart than a gap; also how many."""
    n = draw(st.integers(least, 9))
    apart = st.floats(max(gap, 1.0) + 0.1, 12.0)
    silences = draw(st.lists(apart, min_size=n + 1, max_size=n + 1))
    silences[0] = draw(st.floats(0.5, 20.0))
    lengths = draw(st.lists(st.floats(0.1, 6.0), min_size=n, max_size=n))
    begin = draw(st.sampled_from([0.0, 1_672_531_398.549451]))
    return *layout(silences, lengths, begin, draw(st.integers(0, 3))), n


@given(data=st.data(), gap=st.sampled_from([0.5, 0.7, 2.0]), repeats=st.sampled_from([1, 2]))
def test_blocks_lie_apart_in_time_order_and_cut_no_episode(data: st.DataObject, gap: float, repeats: int) -> None:
    timestamp, attacked, _ = data.draw(layouts(0, gap))
    weights = data.draw(st.lists(st.floats(0.05, 1.0), min_size=4, max_size=4))
    shares = dict(zip(SPLITS, weights, strict=True))
    in_time = in_order(blocks(clock(timestamp, attacked), shares=shares, repeats=repeats, gap=gap, window=WINDOW))
    order = [s for s, _ in in_time]
    assert order == sorted(order, key=SPLITS.index) or repeats > 1
    assert in_time[0][1].prime == in_time[0][1].start
    for (_, before), (_, behind) in pairwise(in_time):
        assert before.start < before.stop <= behind.prime <= behind.start < behind.stop <= len(timestamp)
        assert timestamp[behind.start :].min() - timestamp[: before.stop].max() >= gap - 1e-6
        assert behind.prime - before.stop > WINDOW
    owner = np.full(len(timestamp), -1)
    for number, (_, block) in enumerate(in_time):
        owner[block.start : block.stop] = number
    for first, last in clock(timestamp, attacked).episodes:
        frames = attacked & (timestamp >= first) & (timestamp <= last)
        assert len(set(owner[frames])) == 1
        assert owner[frames][0] >= 0


@given(data=st.data(), gap=st.sampled_from([0.5, 2.0]))
def test_every_block_holds_an_episode_where_there_are_four(data: st.DataObject, gap: float) -> None:
    timestamp, attacked, n = data.draw(layouts(4, gap))
    of_splits = blocks(clock(timestamp, attacked), shares=SHARES, repeats=1, gap=gap, window=WINDOW)
    held = {
        s: sum(len(clock(timestamp[b.start : b.stop], attacked[b.start : b.stop]).episodes) for b in of_splits[s])
        for s in SPLITS
    }
    assert all(held.values())
    assert sum(held.values()) == n


def test_shares_of_an_attack_free_capture() -> None:
    timestamp = 1.6e9 + np.arange(0, 160, PERIOD)
    free = np.zeros(len(timestamp), dtype=bool)
    in_time = in_order(blocks(clock(timestamp, free), shares=SHARES, repeats=1, gap=2.0, window=WINDOW))
    assert [s for s, _ in in_time] == list(SPLITS)
    starts = [timestamp[b.start] - 1.6e9 for _, b in in_time]
    stops = [timestamp[b.stop - 1] - 1.6e9 for _, b in in_time]
    assert starts == pytest.approx([0, 82, 102, 142], abs=0.05)
    assert stops == pytest.approx([80, 100, 140, 160], abs=0.05)
    assert [b.start - b.prime for _, b in in_time[1:]] == pytest.approx([100 - WINDOW - 1] * 3, abs=1)


def test_shares_are_relative_and_recur() -> None:
    timestamp = np.arange(0, 160, PERIOD)
    free = np.zeros(len(timestamp), dtype=bool)
    doubled = {s: 2 * v for s, v in SHARES.items()}
    whole = blocks(clock(timestamp, free), shares=SHARES, repeats=1, gap=1.0, window=WINDOW)
    assert blocks(clock(timestamp, free), shares=doubled, repeats=1, gap=1.0, window=WINDOW) == whole
    twice = in_order(blocks(clock(timestamp, free), shares=SHARES, repeats=2, gap=1.0, window=WINDOW))
    assert [s for s, _ in twice] == [*SPLITS, *SPLITS]
    assert timestamp[twice[4][1].start] == pytest.approx(81, abs=0.05)


def test_cuts_are_as_close_to_the_shares_as_the_episodes_allow() -> None:
    timestamp, attacked = layout([10.0, 10.0, 10.0, 10.0, 30.0], [5.0] * 4, 0.0, 0)  # episodes at 10, 25, 40 and 55 s
    of_splits = blocks(clock(timestamp, attacked), shares=SHARES, repeats=1, gap=2.0, window=WINDOW)
    # Of 90 s, the targets are 45, 56.25 and 78.75 s; only a cut between each two episodes gives every block one.
    ends = [timestamp[of_splits[s][0].stop - 1] for s in SPLITS]
    assert ends == pytest.approx([23.0, 38.0, 53.0, 90.0], abs=0.05)


def test_gap_clips_an_episode_only_where_a_block_would_else_hold_none() -> None:
    lengths = [5.0] * 5
    timestamp, attacked = layout([10.0, 10.0, 1.5, 10.0, 10.0, 30.0], lengths, 0.0, 0)  # 1.5 s hold no gap of 2 s
    of_splits = blocks(clock(timestamp, attacked), shares=SHARES, repeats=1, gap=2.0, window=WINDOW)
    assert [
        len(clock(timestamp[b.start : b.stop], attacked[b.start : b.stop]).episodes)
        for s in SPLITS
        for b in of_splits[s]
    ] == [1, 2, 1, 1]
    timestamp, attacked = layout([10.0, 10.0, 1.5, 10.0, 30.0], lengths[:4], 0.0, 0)
    of_splits = blocks(clock(timestamp, attacked), shares=SHARES, repeats=1, gap=2.0, window=WINDOW)
    assert all(attacked[b.start : b.stop].any() for s in SPLITS for b in of_splits[s])


def test_episodes_are_attacked_frames_less_than_a_second_apart() -> None:
    timestamp = np.array([0.0, 1.0, 1.5, 2.4, 3.6, 9.0])
    assert clock(timestamp, np.array([0, 1, 0, 1, 0, 1], bool)).episodes == [(1.0, 1.0), (2.4, 2.4), (9.0, 9.0)]
    assert clock(timestamp, np.array([0, 1, 1, 1, 0, 1], bool)).episodes == [(1.0, 2.4), (9.0, 9.0)]
    assert clock(timestamp, np.zeros(6, bool)).episodes == []


@given(data=st.data(), pieces=st.integers(1, 7))
def test_a_clock_of_pieces_tells_what_one_of_the_whole_does(data: st.DataObject, pieces: int) -> None:
    timestamp, attacked, _ = data.draw(layouts(0, 1.0))
    borders = np.linspace(0, len(timestamp), pieces + 1).astype(int)
    parts = [timestamp[a:b] for a, b in pairwise(borders)]
    marks = [attacked[a:b] for a, b in pairwise(borders)]
    pieced, whole = Clock(zip(parts, marks, strict=True), parts.__getitem__), clock(timestamp, attacked)
    assert (pieced.frames, pieced.begin, pieced.end) == (len(timestamp), timestamp.min(), timestamp.max())
    assert pieced.episodes == whole.episodes
    running = np.maximum.accumulate(timestamp)
    for time in (*data.draw(st.lists(st.floats(-1.0, 60.0), max_size=9)), 0.0, running[-1] - running[0]):
        assert pieced.frame_at(running[0] + time) == np.searchsorted(running, running[0] + time)
    for frame in (0, borders[-2], len(timestamp) // 2, len(timestamp) - 1, len(timestamp) + 5):
        assert pieced.time_of(frame) == running[min(frame, len(timestamp) - 1)]


def test_restarts_are_bounded_before_any_is_made() -> None:
    timestamp = np.arange(0.0, 2000.0, PERIOD)
    of_capture, whole = clock(timestamp, np.zeros(len(timestamp), bool)), Block(0, 0, len(timestamp))
    assert len(restarts(of_capture, whole, every=10.0, length=1.0)) == 200
    assert restarts(of_capture, whole, every=1e-9, length=0.0) == []
    with pytest.raises(CanidsError, match=r"restarts\.every: 0\.1 s make 20000 restarts of a block of 2000 s"):
        restarts(of_capture, whole, every=0.1, length=0.1)


def test_many_episodes_and_repeats_are_cut_within_seconds() -> None:
    # Whatever a cut costs, it takes the episodes one by one: all pairs of them would take hours.
    episodes = [(10.0 * i + 3, 10.0 * i + 5) for i in range(1000)]
    cuts = _borders(0.0, 10_000.0, episodes, [100.0 * (i + 1) for i in range(99)], 2.0)
    assert np.allclose(np.diff(cuts), 100.0)
