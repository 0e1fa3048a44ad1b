"""Windows as graphs: a capture worked out by hand, labels, strides, chunks, folds and leakage."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from captures import BLOCKS, GRAPHS, call, frames, traffic, write_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from canids_preprocess import graphs, splits
from canids_preprocess.windows import EDGE_FEATURES, NODE_FEATURES, STATISTICS
from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphStore
from canids_shared.manifest import SPLITS

A, B, C = 0x100, 0x200, 0x300


def built(folder: Path, *paths: Path, split: str = "test", **config: Any) -> GraphStore:
    """The store of a split of these captures."""
    output = folder / f"{split}.safetensors"
    wildcards = {"dataset": "fleet", "split": split, "instance": ""}
    graphs.main(call(wildcards, {**GRAPHS, **config}, output, {"frames": list(paths)}))
    return GraphStore(output)


def capture(folder: Path, name: str = "a", seed: int = 0, episodes: int = 4, **metadata: Any) -> Path:
    """40 s of traffic at 50 frames a second on average, with attack episodes of 2 s spread evenly."""
    table = traffic(2000, np.random.default_rng(seed), seconds=40.0)
    since = table["timestamp"].to_numpy() - 1.6e9
    label = np.zeros(len(table), bool)
    for i in range(episodes):
        label |= abs(since - 40 * (i + 0.5) / episodes) < 1
    label &= np.random.default_rng(seed).random(len(table)) < 0.5
    attack = metadata.get("attack", "dos") or ""
    table = table.with_columns(label=pl.Series(label, dtype=pl.UInt8), attack=pl.Series(np.where(label, attack, "")))
    return write_frames(folder / f"{name}.parquet", table, **metadata)


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
    assert nodes["share"] == [4 / 8, 3 / 8, 1 / 8]
    assert nodes["first_sighting_mean"] == pytest.approx([1 / 4, 1 / 3, 1])
    assert (nodes["first_sighting_min"], nodes["first_sighting_max"]) == ([0, 0, 1], [1, 1, 1])
    assert nodes["young_mean"] == pytest.approx([25 / 12 / 4, 11 / 6 / 3, 1])
    assert nodes["dlc_mean"] == [1, 1, 1]
    assert store["edge_index"].tolist() == [[0, 0, 1, 0, 2], [0, 1, 0, 2, 1]]
    edges = columns(store, "edge_attr", EDGE_FEATURES)
    assert edges["count"] == pytest.approx(np.log2([2, 3, 3, 2, 2]))
    assert edges["share"] == pytest.approx([1 / 4, 2 / 4, 2 / 3, 1 / 4, 1])
    # Log ratio of each gap to the mean gap, 2 s / 8.
    assert edges["gap_mean"] == [-1, -1, -0.5, 0, 2]
    assert edges["gap_min"] == [-1, -1, -1, 0, 2]
    assert edges["position"] == [1 / 8, 2 / 8, 3 / 8, 6 / 8, 7 / 8]
    assert edges["reciprocal"] == [1, 1, 1, 0, 0]
    statistics = columns(store, "statistics", STATISTICS)
    entropy = -sum(p * np.log2(p) for p in (4 / 8, 3 / 8, 1 / 8))
    for name, value in {
        "distinct_ids": 3,
        "largest_share": 0.5,
        "id_entropy": entropy,
        "edges": 5,
        "frames_per_s": 4,
    }.items():
        assert statistics[name] == pytest.approx([value])
    assert statistics["first_sighting_mean"] == pytest.approx([3 / 8])
    assert statistics["first_sighting_std"] == pytest.approx([np.sqrt(3 / 8 * 5 / 8)])
    assert (store["t_start"].tolist(), store["t_end"].tolist()) == ([0.0], [2.0])


def test_second_window_starts_anew(tmp_path: Path) -> None:
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


# --- strides and chunks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "windows", "dropped"), [(7, 13, 3), (20, 5, 7), (30, 3, 27), (100, 1, 87)])
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
    first = store["x"][:, NODE_FEATURES.index("first_sighting_max")]
    assert first.tolist() == [1, 1]  # what one capture has shown is unknown to the next


@pytest.mark.parametrize("stride", [7, 20, 33])
@pytest.mark.parametrize("split", ["test", "select"])
def test_chunk_borders_lose_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, stride: int) -> None:
    path = capture(tmp_path)
    expected = built(tmp_path, path, split=split, stride=stride).path.read_bytes()
    for chunk in (3, 19, 20, 21, 333):
        monkeypatch.setattr(graphs, "_CHUNK", chunk)
        assert built(tmp_path, path, split=split, stride=stride).path.read_bytes() == expected


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
def test_counts_of_a_window_add_up(folder: Path, seed: int, window: int, stride: int) -> None:
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
        counts = 2 ** store["edge_attr"][edges, 0] - 1
        assert counts == pytest.approx([pairs.count(p) for p in dict.fromkeys(pairs)])
    assert store["node_count"].sum() == window * len(store)


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    path = capture(tmp_path)
    assert len({built(tmp_path, path, split="fit").path.read_bytes() for _ in range(2)}) == 1


# --- splits, duplicates, folds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [5, 20])
@pytest.mark.parametrize("repeats", [1, 2])
def test_windows_of_different_splits_never_overlap(tmp_path: Path, stride: int, repeats: int) -> None:
    path = capture(tmp_path)
    config = {"stride": stride, "blocks": {**BLOCKS, "repeats": repeats, "gap": 1.0}}
    spans = []
    for split in SPLITS:
        keys = built(tmp_path, path, split=split, **config).keys()
        spans += [(split, *row) for row in keys.select("t_start", "t_end").rows()]
    for split, start, end in spans:
        assert not [s for s, first, last in spans if s != split and first <= end and start <= last]


def test_blocks_of_one_split_never_look_adjacent(tmp_path: Path) -> None:
    config = {"blocks": {**BLOCKS, "repeats": 2, "gap": 1.0}}
    keys = built(tmp_path, capture(tmp_path), split="fit", **config).keys()
    step, silence = keys["window"].diff()[1:], keys["t_start"][1:] - keys["t_end"][:-1]
    assert (step >= 1).all()
    assert ((step == 1) == (silence < 1)).all()
    assert (step > 1).sum() == 1


def test_split_has_seen_no_frame_of_another(tmp_path: Path) -> None:
    path = capture(tmp_path)
    table = pl.read_parquet(path)
    cut = splits.blocks(table["timestamp"].to_numpy(), (table["label"] == 1).to_numpy(), **BLOCKS, window=20)
    for split in SPLITS:
        (block,) = cut[split]
        before = built(tmp_path, path, split=split).path.read_bytes()
        row = np.arange(len(table))
        own = pl.Series((row >= block.prime) & (row < block.stop))
        other = table.with_columns(
            can_id=pl.when(own).then("can_id").otherwise(pl.lit(5, pl.UInt32)),
            payload=pl.when(own).then("payload").otherwise(pl.lit(b"\x55")),
        )
        changed = write_frames(tmp_path / "changed.parquet", other, capture="a")
        assert built(tmp_path, changed, split=split).path.read_bytes() == before


def test_attack_free_windows_of_fit_hold_no_attacked_frame(tmp_path: Path) -> None:
    path = capture(tmp_path)
    table = pl.read_parquet(path)
    store = built(tmp_path, path, split="fit", stride=3)
    keys = store.keys()
    assert set(keys["label"]) == {0, 1}
    for start, end, label, count in zip(
        keys["t_start"], keys["t_end"], keys["label"], store["n_attacked"], strict=True
    ):
        inside = table.filter(pl.col("timestamp").is_between(start, end))
        assert (len(inside), inside["label"].sum()) == (20, count)
        assert (count > 0) == label


def test_capture_that_occurs_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    paths = [
        capture(tmp_path, "a", sha256="same"),
        capture(tmp_path, "again", sha256="same"),
        capture(tmp_path, "b", 1),
    ]
    store = built(tmp_path, *paths, split="fit")
    assert store.header["captures"] == ["a", "b"]
    assert set(store.keys()["capture"]) == {"a", "b"}
    assert "again has the same content as an earlier capture and counts once" in caplog.text
    source = {"sha256": "same", "vehicle": "van", "attack": "dos", "content": "labelled", "rows_read": 2000}
    assert store.header["sources"]["a"] == source
    assert list(store.header["sources"]) == ["a", "b"]


def fleet(folder: Path) -> list[Path]:
    entries = [("kia-dos", "kia", "dos"), ("van-dos", "van", "dos"), ("van-replay", "van", "replay")]
    attacked = [capture(folder, n, i, vehicle=v, attack=a) for i, (n, v, a) in enumerate(entries)]
    free = [capture(folder, f"{v}-free", 7, 0, vehicle=v, attack=None, content="attack-free") for v in ("kia", "van")]
    return attacked + free


@pytest.mark.parametrize(
    ("leave_out", "left"),
    [
        ({"vehicles": ["kia"]}, {"kia-dos", "kia-free"}),
        ({"attacks": ["replay"]}, {"van-replay"}),
        ({"vehicles": ["kia"], "attacks": ["replay"]}, {"kia-dos", "kia-free", "van-replay"}),
    ],
)
def test_fold_keeps_what_it_leaves_out_for_its_scenario(
    tmp_path: Path, leave_out: dict[str, list[str]], left: set[str]
) -> None:
    paths = fleet(tmp_path)
    for split in SPLITS:
        store = built(tmp_path, *paths, split=split, leave_out=leave_out)
        assert set(store.header["captures"]) == {p.stem for p in paths} - left
        assert set(store.header["sources"]) == set(store.header["counts"]) == set(store.header["captures"])
    store = built(tmp_path, *paths, split="left_out", leave_out=leave_out)
    assert set(store.header["captures"]) == left
    assert len(store) == 100 * len(left)  # whole captures, no block and no gap


@pytest.mark.parametrize(
    ("config", "split", "complaint"),
    [
        ({"leave_out": {"vehicles": ["ki"]}}, "fit", "leave_out.vehicles: the training captures of dataset 'fleet' have no vehicle 'ki'; they have kia, van"),
        ({"leave_out": {"attacks": ["rpm"]}}, "fit", "leave_out.attacks: the training captures of dataset 'fleet' have no attack 'rpm'; they have dos, replay"),
        ({"leave_out": {"vehicles": ["kia", "van"]}}, "fit", "leave_out leaves no capture for split 'fit'"),
        ({"blocks": {**BLOCKS, "gap": 0.1}}, "fit", "blocks.gap: 0.1 s of kia-dos hold fewer frames than a window"),
        ({"window": 2001}, "test", "split 'test' of dataset 'fleet' has no whole window of 2001 frames"),
    ],
)  # fmt: skip
def test_config_that_cannot_be_met_is_named(tmp_path: Path, config: dict[str, Any], split: str, complaint: str) -> None:
    with pytest.raises(CanidsError) as caught:
        built(tmp_path, *fleet(tmp_path), split=split, **config)
    assert str(caught.value) == complaint
    assert not list(tmp_path.glob(f"*{split}.safetensors*"))
