"""Indices of arbitration IDs: the order of first sighting, whatever the hash, and bounded work for IDs chosen to collide."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canids_preprocess.features import id_index
from canids_preprocess.features.id_index import IdIndex

EXTENDED = 1 << 31


@pytest.mark.parametrize("multiplier", [1, 3, 2654435769, 0x9E3779B97F4A7C15, (1 << 64) - 1])
@given(ids=st.lists(st.integers(0, 0x7FF) | st.integers(EXTENDED, EXTENDED + 0x1FFFFFFF), max_size=300))
def test_indices_are_the_order_of_first_sighting_with_every_multiplier(multiplier: int, ids: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_index, "_MULTIPLIER", np.uint64(multiplier))
        index = IdIndex()
        half = len(ids) // 2
        seen = [index.look_up(np.array(part, np.uint32)) for part in (ids[:half], ids[half:])]
        order = {can_id: n for n, can_id in enumerate(dict.fromkeys(ids))}
        assert np.concatenate(seen).tolist() == [order[can_id] for can_id in ids]
        assert index.count == len(order)
        # Kept ones are renumbered in the order given.
        kept = list(order)[::-2]
        index.keep(np.array([order[can_id] for can_id in kept], np.int32))
        assert index.look_up(np.array(kept, np.uint32)).tolist() == list(range(len(kept)))


def crafted(count: int) -> np.ndarray:
    """29-bit IDs that share a place under Knuth's constant, which everybody knows, in every table of up to 2^17 places."""
    bits = 25  # of the product; those from the eighth on were the place
    inverse = pow(2654435769, -1, 1 << bits)
    low = (inverse * ((5 << 8) + np.arange(256))) & ((1 << bits) - 1)
    high = np.arange(1 << (29 - bits)) << bits
    return (EXTENDED | high[:, None] | low).ravel()[:count].astype(np.uint32)


def test_ids_chosen_to_collide_cost_what_others_cost() -> None:
    chosen = crafted(2000)
    assert len(chosen) == 2000
    others = np.random.default_rng(0).choice(1 << 29, 2000, replace=False).astype(np.uint32) | np.uint32(EXTENDED)

    def seconds(ids: np.ndarray) -> float:
        index, frames = IdIndex(), np.tile(ids, 20)
        index.look_up(ids)
        begin = time.process_time()
        index.look_up(frames)
        return time.process_time() - begin

    seconds(others)  # compiled, or loaded
    # With a hash that is known beforehand, a thousand times as long.
    assert min(seconds(chosen) for _ in range(3)) < 20 * min(seconds(others) for _ in range(3))
