"""Windows as graphs: a capture worked out by hand, labels, strides, and what every graph must satisfy."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from captures import built, frames, traffic, write_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from canids_preprocess.features.relative import EDGE_FEATURES, NODE_FEATURES, STATISTICS
from canids_shared.contracts.graph_store import GraphStore

A, B, C = 0x100, 0x200, 0x300


def columns(store: GraphStore, tensor: str, names: tuple[str, ...]) -> dict[str, list[float]]:
    return {name: store[tensor][:, i].tolist() for i, name in enumerate(names)}


# --- worked out by hand ------------------------------------------------------------------------------------------


def test_graph_of_eight_frames(tmp_path: Path) -> None:
    times = np.array([0, 1, 2, 4, 5, 6, 8, 16]) / 8
    path = write_frames(tmp_path / "a.parquet", frames(times, [A, A, B, A, B, A, C, B]))
    store = built(tmp_path, path, window=8, stride=8)
    assert store["node_id"].tolist() == [A, B, C]
    assert store["node_count"].tolist() == [4, 3, 1]
    nodes = columns(store, "x", NODE_FEATURES)
    # A new ID is the more surprising the longer the bus has been running, in full after 2 s; B comes at 1/4 s, C at 1 s.
    assert nodes["first_sighting_mean"] == pytest.approx([0, 1 / 8 / 3, 1 / 2])
    assert (nodes["first_sighting_min"], nodes["first_sighting_max"]) == ([0, 0, 0.5], [0, 1 / 8, 0.5])
    assert store["edge_index"].tolist() == [[0, 0, 1, 0, 2], [0, 1, 0, 2, 1]]
    edges = columns(store, "edge_attr", EDGE_FEATURES)
    # Log ratio of each gap to the mean gap, 2 s / 8.
    assert edges["gap_mean"] == [-1, -1, -0.5, 0, 2]
    assert edges["gap_min"] == [-1, -1, -1, 0, 2]
    assert edges["reciprocal"] == [1, 1, 1, 0, 0]
    statistics = columns(store, "statistics", STATISTICS)
    shown = np.array([1 / 8, 1 / 2, *[0] * 6])
    assert statistics["first_sighting_mean"] == pytest.approx([shown.mean()])
    assert statistics["first_sighting_std"] == pytest.approx([shown.std()])
    assert (store["t_start"].tolist(), store["t_end"].tolist()) == ([0.0], [2.0])


def test_second_window_has_nodes_of_its_own(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.parquet", frames(np.arange(8.0), [A, B, A, B, C, A, A, C]))
    store = built(tmp_path, path, window=4, stride=4)
    assert store["node_id"].tolist() == [A, B, C, A]
    assert store["node_ptr"].tolist() == [0, 2, 4]
    assert store["edge_ptr"].tolist() == [0, 2, 5]
    assert store["edge_index"].tolist() == [[0, 1, 0, 1, 1], [1, 0, 1, 1, 0]]
    assert store["window"].tolist() == [0, 1]


def test_label_is_any_attacked_frame_and_unknown_only_without_one(tmp_path: Path) -> None:
    labels = [0, 0, 0, 0, 0, 1, 1, 0, 0, None, 0, 0, None, None, 1, None]
    path = write_frames(tmp_path / "a.parquet", frames(np.arange(16.0), [A] * 16, label=labels, attack="fuzzing"))
    store = built(tmp_path, path, window=4, stride=4)
    assert store["y"].tolist() == [0, 1, -1, 1]
    assert store["n_attacked"].tolist() == [0, 2, 0, 1]
    assert store.header["attacks"] == ["", "fuzzing"]
    assert store.keys()["attack"].to_list() == ["", "fuzzing", "", "fuzzing"]
    assert store.keys()["label"].to_list() == [0, 1, None, 1]


def test_identifiers_of_11_and_29_bits_are_different_nodes(tmp_path: Path) -> None:
    table = frames(np.arange(4.0), [0x10] * 4, extended=[False, True, False, True])
    store = built(tmp_path, write_frames(tmp_path / "a.parquet", table), window=4, stride=4)
    assert store["node_id"].tolist() == [0x10, 0x80000010]


# --- strides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "windows", "dropped"), [(7, 13, 3), (20, 5, 7), (30, 3, 47), (100, 1, 87)])
def test_windows_advance_by_the_stride_and_the_tail_is_dropped(
    tmp_path: Path, stride: int, windows: int, dropped: int
) -> None:
    path = write_frames(tmp_path / "a.parquet", frames(np.arange(107.0), np.arange(107) % 5))
    store = built(tmp_path, path, window=20, stride=stride)
    starts = stride * np.arange(windows)
    np.testing.assert_array_equal(store["t_start"], starts)
    np.testing.assert_array_equal(store["t_end"], starts + 19)
    assert store["window"].tolist() == list(range(windows))
    assert store.header["counts"] == {"a": {"windows": windows, "frames": 107, "dropped": dropped}}
    assert (store["node_count"].sum(), store.header["window"], store.header["stride"]) == (20 * windows, 20, stride)


def test_windows_do_not_cross_captures(tmp_path: Path) -> None:
    paths = [write_frames(tmp_path / f"{n}.parquet", frames(np.arange(30.0), [A] * 30)) for n in "ab"]
    store = built(tmp_path, *paths)
    assert store.keys().select("capture", "window", "t_start").rows() == [("a", 0, 0.0), ("b", 0, 0.0)]
    young = store["x"][:, NODE_FEATURES.index("young_max")]
    assert young[0] == young[1] > 0  # what one capture has shown is unknown to the next


# --- properties --------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_renaming_all_ids_changes_nothing_but_node_id(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = traffic(200, rng)
    new = rng.permutation(2048).astype(np.uint32)
    renamed = table.with_columns(can_id=pl.Series(new[table["can_id"]]))
    before, after = (
        built(folder, write_frames(folder / f"{n}.parquet", t, capture="a"), split=f"test_{n}")
        for n, t in (("before", table), ("after", renamed))
    )
    for name in before.arrays.keys() - {"node_id"}:
        assert before[name].tobytes() == after[name].tobytes(), name
    extended = before["node_id"] & np.uint32(1 << 31)
    np.testing.assert_array_equal(after["node_id"], new[before["node_id"] & np.uint32(2047)] | extended)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 60))
def test_nodes_and_edges_of_a_window_are_its_ids_and_their_transitions(
    folder: Path, seed: int, window: int, stride: int
) -> None:
    table = traffic(200, np.random.default_rng(seed))
    path = write_frames(folder / "a.parquet", table)
    store = built(folder, path, window=window, stride=stride)
    assert len(store) == (200 - window) // stride + 1
    ids = table["can_id"].to_numpy() | np.where(table["extended"], np.uint32(1 << 31), np.uint32(0))
    for i in range(len(store)):
        inside = ids[i * stride : i * stride + window]
        nodes = slice(store["node_ptr"][i], store["node_ptr"][i + 1])
        edges = slice(store["edge_ptr"][i], store["edge_ptr"][i + 1])
        names = store["node_id"][nodes]
        assert names.tolist() == list(dict.fromkeys(inside.tolist()))
        assert store["node_count"][nodes].tolist() == [int((inside == n).sum()) for n in names]
        pairs = list(zip(inside[:-1].tolist(), inside[1:].tolist(), strict=True))
        source, target = names[store["edge_index"][:, edges]]
        assert list(zip(source.tolist(), target.tolist(), strict=True)) == list(dict.fromkeys(pairs))
        reciprocal = store["edge_attr"][edges, EDGE_FEATURES.index("reciprocal")]
        assert reciprocal.tolist() == [(b, a) in pairs for a, b in dict.fromkeys(pairs)]
    assert store["node_count"].sum() == window * len(store)
