"""Nothing absolute: the features of attack-free traffic do not depend on IDs, on the bus's pace, nor on how long payloads are.

A vehicle is driven for half a minute. What is stated here is what "about the same" means on another vehicle's bus.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from captures import features, frames
from simulated import drive

from canids_preprocess.features.frame_kernel import FRAME_FEATURES
from canids_preprocess.features.relative import EDGE_FEATURES, NODE_FEATURES, STATISTICS

SETTLED = 10.0
"""Seconds after which every ID of this vehicle has been seen often enough."""


@pytest.fixture(scope="module")
def recorded() -> pl.DataFrame:
    capture = drive()
    sent = capture.frames
    payload = [int(p).to_bytes(8, "big")[:n] for p, n in zip(sent.payload, sent.dlc, strict=True)]
    return frames(capture.logged / 1e9, sent.can_id, payload)


@pytest.fixture(scope="module")
def usual(recorded: pl.DataFrame) -> dict[str, np.ndarray]:
    return features(recorded)


def with_payloads(table: pl.DataFrame, change: Callable[[bytes], bytes]) -> pl.DataFrame:
    return table.with_columns(payload=pl.Series([change(p) for p in table["payload"]], dtype=pl.Binary))


def test_no_feature_is_a_length_a_share_or_a_count() -> None:
    absolute = {
        "dlc",
        "share",
        "count",
        "distinct_ids",
        "largest_share",
        "id_entropy",
        "edges",
        "frames_per_s",
        "position",
    }
    whole = {*FRAME_FEATURES, *EDGE_FEATURES, *(name.rpartition("_")[0] for name in (*NODE_FEATURES, *STATISTICS))}
    assert not absolute & whole


def test_renaming_the_ids_changes_nothing(recorded: pl.DataFrame, usual: dict[str, np.ndarray]) -> None:
    new = np.random.default_rng(0).permutation(2048).astype(np.uint32)
    values = features(recorded.with_columns(can_id=pl.Series(new[recorded["can_id"]])))
    for name in FRAME_FEATURES:
        assert values[name].tobytes() == usual[name].tobytes(), name


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_a_slower_or_faster_bus_has_the_same_features(
    factor: float, recorded: pl.DataFrame, usual: dict[str, np.ndarray]
) -> None:
    time = recorded["timestamp"].to_numpy()
    values = features(recorded.with_columns(timestamp=time[0] + factor * (time - time[0])))
    settled = time - time[0] > SETTLED
    for name in FRAME_FEATURES:
        difference = np.abs(values[name] - usual[name])[settled]
        assert difference.max() < 0.02, name


@pytest.mark.parametrize("pad", [lambda p: p + bytes(3), lambda p: b"\xaa\x55" + p, lambda p: p + b"\xff" * 20])
def test_bytes_that_never_move_change_nothing(
    pad: Callable[[bytes], bytes], recorded: pl.DataFrame, usual: dict[str, np.ndarray]
) -> None:
    values = features(with_payloads(recorded, pad))
    for name in FRAME_FEATURES:
        assert values[name].tobytes() == usual[name].tobytes(), name


@pytest.mark.parametrize("length", [4, 6])
def test_shorter_payloads_leave_features_about_the_same(
    length: int, recorded: pl.DataFrame, usual: dict[str, np.ndarray]
) -> None:
    values = features(with_payloads(recorded, lambda p: p[:length]))
    time = recorded["timestamp"].to_numpy()
    settled = time - time[0] > SETTLED
    for name in FRAME_FEATURES:
        now, before = values[name][settled], usual[name][settled]
        assert abs(now.mean() - before.mean()) < 0.15, name
        assert now.max() < before.max() + 0.5, name
