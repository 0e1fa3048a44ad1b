"""The graph store: a whole file or a clear error."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import forged_store
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
        "t_end": 1 + rng.random(w),
        "statistics": rng.random((w, 3), np.float32),
        "x": rng.random((n, 2), np.float32),
        "node_id": rng.integers(0, 2**32, n),
        "node_count": rng.integers(1, 9, n),
        "edge_source": rng.integers(0, np.repeat(nodes, edges)),
        "edge_target": rng.integers(0, np.repeat(nodes, edges)),
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
    assert store.header == {**HEADER, "contract": "graphs/3", "digest": store.header["digest"]}


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
    assert (
        refused(path) == f"{path}: tensor '{name}' holds NaN or infinity (contract graphs/3); delete it and run again"
    )


def test_absent_other_contract_and_other_content_are_named(tmp_path: Path) -> None:
    path = tmp_path / "g"
    assert refused(path) == f"{path}: no such file"
    content = whole(path).read_bytes()
    path.write_bytes(content.replace(b"graphs/3", b"graphs/9"))
    assert refused(path).startswith(f"{path}: contract graphs/9, not graphs/3")
    path.write_bytes(content.replace(b'"node_id"', b'"node_xx"'))
    assert refused(path) == f"{path}: tensor 'node_id' is missing (contract graphs/3); delete it and run again"
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


def forged(path: Path, header: dict[str, Any] | None = None, **tensors: np.ndarray) -> Path:
    """A whole store with other tensors, sealed with the digest of what it holds: only the structural check can refuse it."""
    return forged_store(whole(path), path, header, **tensors)


def test_a_store_that_others_wrote_by_the_contract_is_read(tmp_path: Path) -> None:
    store = GraphStore(forged(tmp_path / "g", t_end=np.array([7.0, 8.0, 9.0]), header={"captures": ["b", "c"]}))
    assert store["t_end"].tolist() == [7, 8, 9]
    assert store.header["captures"] == ["b", "c"]


@pytest.mark.parametrize(
    ("name", "values", "complaint"),
    [
        ("node_ptr", np.array([0, 3, 10**9, 10]), "does not rise from 0 to 10, the number of nodes"),
        ("node_ptr", np.array([0, 10**9, 5, 10]), "does not rise from 0 to 10"),
        ("node_ptr", np.array([0, 0, 5, 10]), "does not rise from 0 to 10"),
        ("node_ptr", np.array([1, 3, 5, 10]), "does not rise from 0 to 10"),
        ("edge_ptr", np.array([0, 4, 5, 10]), "does not rise from 0 to 11, the number of edges"),
        ("edge_ptr", np.array([0, -4, 5, 11]), "holds -4 to 11, not 0 to any"),
        ("edge_index", np.full((2, 11), 30_000, np.int16), "names a node that its window does not have"),
        ("edge_index", np.full((2, 11), 3, np.int16), "names a node that its window does not have"),
        ("edge_index", np.full((2, 11), -1, np.int16), "'edge_source' holds -1 to -1, not 0 to any"),
        ("y", np.array([0, 7, 1], np.int8), "holds 0 to 7, not -1 to 1"),
        ("y", np.array([0, -2, 1], np.int8), "holds -2 to 1, not -1 to 1"),
        ("attack", np.array([0, 2, 0], np.int16), "holds 0 to 2, not 0 to 1"),
        ("capture", np.array([0, -1, 0], np.int16), "holds -1 to 0, not 0 to 1"),
        ("vehicle", np.array([0, 300, 0], np.int16), "holds 0 to 300, not 0 to 1"),
        ("window", np.array([0, -1, 2], np.int32), "holds -1 to 2, not 0 to any"),
        ("n_attacked", np.array([0, -1, 2], np.int32), "holds -1 to 2, not 0 to any"),
        ("t_start", np.array([0, np.nan, 0]), "holds NaN or infinity"),
        ("t_end", np.array([1, np.inf, 1]), "holds NaN or infinity"),
        ("t_end", np.array([1.0, -1.0, 1.0]), "lies before t_start"),
        ("y", np.zeros(2, np.int8), "is I16 [3], not I16 [2]"),
        ("y", np.zeros(3, np.int16), "is I16 [3], not I8 [3]"),
        ("x", np.zeros((10, 3), np.float32), "is F32 [10, 3], not F32 [10, 2]"),
        ("x", np.zeros(10, np.float32), "is F32 [10], not F32 [10, 2]"),
        ("edge_index", np.zeros((3, 11), np.int16), "is I16 [3, 11], not I16 [2, 11]"),
        ("surplus", np.zeros(1, np.int16), "is unknown"),
    ],
)
def test_tensors_that_break_the_contract_are_named(
    tmp_path: Path, name: str, values: np.ndarray, complaint: str
) -> None:
    path = tmp_path / "g"
    said = refused(forged(path, **{name: values}))
    assert said.startswith(f"{path}: tensor '")
    assert complaint in said
    assert said.endswith("(contract graphs/3); delete it and run again")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ({"captures": "first"}, "captures: 'first' is not of type 'array'"),
        ({"attacks": ["", 2]}, "attacks.1: 2 is not of type 'string'"),
        ({"node_features": ["a", "a"]}, "node_features: ['a', 'a'] has non-unique elements"),
        ({"node_features": ["a"]}, "tensor 'x' is F32 [10, 2], not F32 [10, 1]"),
        ({"vehicles": ["kia"]}, "tensor 'vehicle' holds 0 to 1, not 0 to 0"),
        ({"window": -5}, "window: -5 is less than or equal to the minimum of 0"),
        ({"split": 3}, "split: 3 is not of type 'string'"),
    ],
)
def test_headers_that_break_the_contract_are_named(tmp_path: Path, header: dict[str, Any], complaint: str) -> None:
    path = tmp_path / "g"
    assert refused(forged(path, header)).startswith(f"{path}: {complaint}")


LAYOUTS: list[Callable[[dict[str, Any]], None]] = [
    lambda y: y.update(data_offsets=[0, 3]),  # overlaps another tensor
    lambda y: y.update(data_offsets=[y["data_offsets"][0] + 1, y["data_offsets"][1] + 1]),
    lambda y: y.update(data_offsets=[-3, 0]),
    lambda y: y.update(data_offsets=y["data_offsets"][::-1]),
    lambda y: y.update(shape=[-3]),
    lambda y: y.update(shape=[10**18]),
    lambda y: y.update(shape=[2**63, 2]),
    lambda y: y.update(shape="3"),
    lambda y: y.update(dtype="U8"),
    lambda y: y.update(dtype=None),
    lambda y: y.clear(),
]


@pytest.mark.parametrize("number", range(len(LAYOUTS)))
def test_layouts_that_do_not_fit_the_file_are_refused(tmp_path: Path, number: int) -> None:
    path = whole(tmp_path / "g")
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    layout = json.loads(content[8 : 8 + length])
    LAYOUTS[number](layout["y"])
    text = json.dumps(layout).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    assert refused(path).startswith(f"{path}: ")


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_anywhere_is_refused(folder: Path, place: int, change: int) -> None:
    path = whole(folder / "g")
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(content)
    if bytes([content[place % len(content)]]).isspace():  # blanks behind the layout may be any white space
        return
    assert refused(path).startswith(f"{path}: ")


def test_a_store_of_another_split_or_dataset_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = {**HEADER, "dataset": "a", "split": "fit"}
    path = write(tmp_path / "g", chunk([3], [4], rng), header=made)
    assert len(GraphStore(path, dataset="a", split="fit")) == 1
    with pytest.raises(CanidsError, match="g: is of split 'fit', not 'select'; delete it and run again"):
        GraphStore(path, dataset="a", split="select")
    with pytest.raises(CanidsError, match="g: is of dataset 'a', not 'b'"):
        GraphStore(path, dataset="b")
