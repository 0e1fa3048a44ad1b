"""Cut training captures by time into blocks: `fit`, `select`, `fuse`, `calibrate`, with unused gaps between them.

Cuts are placed between attack episodes, so that every block holds whole ones where there are enough of them. Frames
in a gap belong to no split; its latter part primes the running statistics of the block behind it, so that no feature
of a block has ever seen a frame of another block.

Every capture to be judged begins with a bus of which nothing is known yet, but of the four splits only `fit` has such a
beginning, one a capture. So parts of each block recur in it as restarts, without any past.
"""

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from canids_preprocess.windowing.clock import Clock
from canids_shared.contracts.manifest import SPLITS
from canids_shared.errors import CanidsError

_MOST_RESTARTS = 10_000  # of one block: a day, with the default distance
_MARGIN = 1e-6
"""Seconds by which a cut stays clear of an episode: Unix times are exact to 0.24 µs, and a cut is rounded twice."""


@dataclass(frozen=True)
class Block:
    """Frames `start:stop` of a capture belong to the block; `prime:start` only warm up its running statistics."""

    prime: int
    start: int
    stop: int


def _borders(
    begin: float, end: float, episodes: list[tuple[float, float]], targets: list[float], gap: float
) -> list[float]:
    """Times at which to cut, as close to the targets as possible.

    Before that come as few blocks without an episode as possible, and then as few episodes whose beginning lies in the
    gap behind a cut. Dynamic programming over the zones before, between and behind the episodes; a cut lies within one
    zone, and the gap that follows it too where the zone is long enough.
    """
    edges = [begin, *(t for episode in episodes for t in episode), end]
    zones = [
        (low + _MARGIN, max(low + _MARGIN, high - gap - _MARGIN))
        for low, high in zip(edges[::2], edges[1::2], strict=True)
    ]
    # Best place for each cut in each zone: the target itself, or the nearest end of the zone.
    places = [[min(max(target, low), high) for low, high in zones] for target in targets]
    empty, clipped = 1e6 * (end - begin), 1e3 * (end - begin)  # either costs more than any displacement
    last = len(zones) - 1
    short = [z < last and low >= high for z, (low, high) in enumerate(zones)]

    def without_episode(before: int, behind: int) -> float:
        return empty if episodes and before == behind else 0.0

    # best[z]: cost and zones of the cheapest cuts up to the present one, if that lies in zone z. The end of the capture
    # counts as one more cut, in the last zone: the last block too should hold an episode.
    best: list[tuple[float, tuple[int, ...]]] = [(without_episode(0, z), (z,)) for z in range(len(zones))]
    for target, at in zip(targets, places, strict=True):
        placed = [(cost + abs(at[z] - target) + clipped * short[z], chosen) for z, (cost, chosen) in enumerate(best)]
        # The cut before this one lies in the same zone, or is the cheapest of those in an earlier one.
        earlier = [(math.inf, ()), *accumulate(placed[:-1], min)]
        best = [
            (cost, (*chosen, z))
            for z, (here, before) in enumerate(zip(placed, earlier, strict=True))
            for cost, chosen in [min((here[0] + without_episode(z, z), here[1]), before)]
        ]
    _, chosen = best[last]
    return [at[z] for at, z in zip(places, chosen, strict=False)]


def blocks(clock: Clock, *, shares: dict[str, float], repeats: int, gap: float, window: int) -> dict[str, list[Block]]:
    """Blocks of every split within one capture.

    Args:
        clock: of the capture.
        shares: share of the time for each split of `canids_shared.contracts.manifest.SPLITS`.
        repeats: how often the sequence of splits recurs along the capture.
        gap: seconds left out between two blocks.
        window: frames of a window; at least as many frames lie between a block and what primes the next.
    """
    begin, end = clock.begin, clock.end
    total = sum(shares[s] for s in SPLITS) * repeats
    order = [s for _ in range(repeats) for s in SPLITS]
    fractions = np.cumsum([shares[s] / total for s in order])[:-1]
    targets = [begin + float(f) * (end - begin) for f in fractions]
    cuts = _borders(begin, end, clock.episodes, targets, gap)
    out: dict[str, list[Block]] = {s: [] for s in SPLITS}
    for i, split in enumerate(order):
        # Behind a cut: frames of a window that nobody uses, then frames that prime the statistics, up to the gap's end.
        start = 0 if i == 0 else clock.frame_at(cuts[i - 1] + gap)
        prime = 0 if i == 0 else min(start, clock.frame_at(cuts[i - 1]) + window + 1)
        stop = clock.frames if i == len(order) - 1 else clock.frame_at(cuts[i])
        if stop > start:
            out[split].append(Block(prime, start, stop))
    return out


def restarts(clock: Clock, block: Block, *, every: float, length: float) -> list[Block]:
    """Stretches of `length` seconds of a block, one every `every` seconds, that nothing primes.

    Args:
        clock: of the capture.
        block: the block.
        every: seconds from one to the next; the first begins half as long behind the block's beginning.
        length: seconds.

    Raises `CanidsError` if that makes more than `_MOST_RESTARTS`.
    """
    if not length:
        return []
    first, last = clock.time_of(block.start), clock.time_of(block.stop - 1)
    if (last - first) / every > _MOST_RESTARTS:
        raise CanidsError(
            f"restarts.every: {every:g} s make {(last - first) / every:.0f} restarts of a block of {last - first:.0f} s, more "
            f"than {_MOST_RESTARTS}; choose a longer distance, or restarts.length: 0"
        )
    begins = np.arange(first + every / 2, last - length, every).tolist()
    starts = [clock.frame_at(begin) for begin in begins]
    stops = [clock.frame_at(begin + length) for begin in begins]
    return [Block(start, start, stop) for start, stop in zip(starts, stops, strict=True)]
