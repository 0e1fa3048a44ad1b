"""The graph store: a whole file or a clear error."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from canids_shared.contracts.graph_store import GraphStore, writing
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json

HEADER: dict[str, Any] = {
    "node_features": ["a", "b"],
    "edge_features": ["c"],
    "statistics": ["d", "e", "f"],
    "attacks": ["", "dos"],
    "captures": ["first", "second"],
    "vehicles": ["kia", "van"],
    "sources": {"first": {"sha256": "0"}, "second": {"sha256": "1"}},
}


def chunk(nodes: list[int], edges: list[int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Arrays of windows with these numbers of nodes and edges."""
    w, n, e = len(nodes), sum(nodes), sum(edges)
    return {
        "y": rng.integers(-1, 2, w),
        "n_attacked": rng.integers(0, 9, w),
        "attack": rng.integers(0, 2, w),
        "capture": rng.integers(0, 2, w),
        "vehicle": rng.integers(0, 2, w),
        "window": np.arange(w),
        "t_start": rng.random(w),
        "t_end": rng.random(w),
        "statistics": rng.random((w, 3), np.float32),
        "x": rng.random((n, 2), np.float32),
        "node_id": rng.integers(0, 2**32, n),
        "node_count": rng.integers(1, 9, n),
        "edge_source": rng.integers(0, 9, e),
        "edge_target": rng.integers(0, 9, e),
        "edge_attr": rng.random((e, 1), np.float32),
        "node_counts": np.array(nodes),
        "edge_counts": np.array(edges),
    }


def write(path: Path, *chunks: dict[str, np.ndarray], header: dict[str, Any] = HEADER, **more: int) -> Path:
    """A store of the chunks; `more` windows, nodes or edges are announced than come."""
    units = {"windows": "y", "nodes": "x", "edges": "edge_attr"}
    rows = {unit: sum(len(c[name]) for c in chunks) + more.get(unit, 0) for unit, name in units.items()}
    with writing(path, header, **rows) as writer:
        for part in chunks:
            writer.append(part)
    return path


def whole(path: Path) -> Path:
    rng = np.random.default_rng(0)
    return write(path, chunk([3, 2], [4, 1], rng), chunk([5], [6], rng))


def refused(path: Path) -> str:
    with pytest.raises(CanidsError) as caught:
        GraphStore(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip_in_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [chunk([3, 2], [4, 1], rng), chunk([5], [6], rng), chunk([1], [0], rng)]
    store = GraphStore(write(tmp_path / "deep/g.safetensors", *parts))
    assert len(store) == 4
    assert store["node_ptr"].tolist() == [0, 3, 5, 10, 11]
    assert store["edge_ptr"].tolist() == [0, 4, 5, 11, 11]
    for name in set(parts[0]) - {"node_counts", "edge_counts", "edge_source", "edge_target"}:
        np.testing.assert_array_equal(store[name], np.concatenate([p[name] for p in parts]))
    ends = [np.concatenate([p[f"edge_{end}"] for p in parts]) for end in ("source", "target")]
    np.testing.assert_array_equal(store["edge_index"], ends)
    assert store.header == {**HEADER, "contract": "graphs/1"}


def test_tensors_are_mapped_and_read_only(tmp_path: Path) -> None:
    store = GraphStore(whole(tmp_path / "g"))
    assert all(isinstance(array, np.memmap) for array in store.arrays.values())
    with pytest.raises(ValueError, match="read-only"):
        store["x"][0] = 1


def test_tensors_are_aligned(tmp_path: Path) -> None:
    store = GraphStore(whole(tmp_path / "g"))
    assert all(array.offset % array.itemsize == 0 for array in store.arrays.values() if isinstance(array, np.memmap))


def test_safetensors_reads_it_too(tmp_path: Path) -> None:
    path = whole(tmp_path / "g.safetensors")
    store = GraphStore(path)
    loaded = load_file(path)
    assert loaded.keys() == store.arrays.keys()
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, store[name])
        assert array.dtype == store[name].dtype
    with safe_open(path, "numpy") as opened:
        assert list(opened.metadata()) == ["canids"]


def test_same_graphs_same_bytes_however_they_are_chunked(tmp_path: Path) -> None:
    part = chunk([3, 2], [4, 1], np.random.default_rng(0))
    first = {k: v[: {2: 1, 5: 3 if k in ("x", "node_id", "node_count") else 4}[len(v)]] for k, v in part.items()}
    second = {k: v[len(first[k]) :] for k, v in part.items()}
    one, two = write(tmp_path / "one", part), write(tmp_path / "two", first, second)
    assert one.read_bytes() == two.read_bytes()


def test_keys_name_capture_vehicle_and_attack(tmp_path: Path) -> None:
    part = chunk([1, 1], [1, 1], np.random.default_rng(0))
    part |= {k: np.array(v) for k, v in {"y": [1, -1], "attack": [1, 0], "capture": [1, 0], "vehicle": [0, 1]}.items()}
    keys = GraphStore(write(tmp_path / "g", part)).keys()
    assert keys.select("capture", "vehicle", "window", "label", "attack").rows() == [
        ("second", "kia", 0, 1, "dos"),
        ("first", "van", 1, None, ""),
    ]


def test_counts_of_a_split_and_of_chosen_windows(tmp_path: Path) -> None:
    part = chunk([1, 1, 1], [1, 1, 1], np.random.default_rng(0))
    values = {"y": [1, -1, 0], "attack": [1, 0, 0], "capture": [1, 0, 1], "vehicle": [0, 1, 0]}
    part |= {k: np.array(v) for k, v in values.items()}
    store = GraphStore(write(tmp_path / "g", part, header={**HEADER, "auxiliary_captures": ["second"]}))
    assert store.is_auxiliary.tolist() == [True, False, True]
    both = {"attacked": 1, "attacks": {"dos": 1}, "captures": ["first", "second"]}
    assert store.counts() == {**both, "windows": 3, "auxiliary": 2, "vehicles": {"kia": 2, "van": 1}}
    assert store.counts(store["y"] >= 0) == {**both, "windows": 2, "auxiliary": 2, "vehicles": {"kia": 2}}
    assert not GraphStore(write(tmp_path / "none", part)).is_auxiliary.any()


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    path = whole(tmp_path / "g")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refused(path).startswith(f"{path}: ")
    assert "delete it and run again" in refused(path)


@given(st.integers(0, 10**6))
def test_file_cut_off_anywhere_is_refused(folder: Path, length: int) -> None:
    content = whole(folder / "whole").read_bytes()
    cut = folder / "cut"
    cut.write_bytes(content[: length % len(content)])
    assert refused(cut).startswith(f"{cut}: ")


@pytest.mark.parametrize("name", ["x", "edge_attr", "statistics"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, name: str, value: float) -> None:
    part = chunk([3, 2], [4, 1], np.random.default_rng(0))
    part[name][-1, -1] = value
    path = write(tmp_path / "g", part)
    assert refused(path) == f"{path}: tensor '{name}' holds NaN or infinity"


def test_absent_other_contract_and_other_content_are_named(tmp_path: Path) -> None:
    path = tmp_path / "g"
    assert refused(path) == f"{path}: no such file"
    content = whole(path).read_bytes()
    path.write_bytes(content.replace(b"graphs/1", b"graphs/9"))
    assert refused(path).startswith(f"{path}: contract graphs/9, not graphs/1")
    path.write_bytes(content.replace(b'"node_id"', b'"node_xx"'))
    assert refused(path) == f"{path}: tensor 'node_id' is missing (contract graphs/1)"
    for head in (b"[]", b"{}", canonical_json({"__metadata__": 5}).encode()):
        path.write_bytes(struct.pack("<Q", len(head)) + head)
        assert refused(path).startswith(f"{path}: not a whole graph store")


def test_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def fail_halfway() -> None:
        with writing(tmp_path / "g", HEADER, windows=1, nodes=3, edges=4) as writer:
            writer.append(chunk([3], [4], rng))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []
    whole(tmp_path / "g")
    assert [p.name for p in tmp_path.iterdir()] == ["g"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"windows": 1}, "1 windows instead of the 2 that were announced"),
        ({"nodes": 1}, "3 nodes instead of the 4 that were announced"),
        ({"edges": -1}, "more than the 3 edges that were announced"),
    ],
)
def test_chunks_that_disagree_with_what_was_announced_are_refused(
    tmp_path: Path, more: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "g", chunk([3], [4], np.random.default_rng(0)), **more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("x", np.zeros((3, 1)), r"'x' has the shape \(3, 1\), not \(3, 2\)"),
        ("node_id", np.zeros(2), r"'node_id' has the shape \(2,\), not \(3,\)"),
        ("t_end", np.zeros(2), r"'t_end' has the shape \(2,\), not \(1,\)"),
        ("edge_counts", np.array([5]), "'edge_counts' disagrees with the 4 edges of 1 windows"),
    ],
)
def test_arrays_of_a_chunk_that_disagree_are_refused(
    tmp_path: Path, name: str, values: np.ndarray, message: str
) -> None:
    part = {**chunk([3], [4], np.random.default_rng(0)), name: values}
    with pytest.raises(ValueError, match=message), writing(tmp_path / "g", HEADER, windows=1, nodes=3, edges=4) as w:
        w.append(part)
    assert list(tmp_path.iterdir()) == []
