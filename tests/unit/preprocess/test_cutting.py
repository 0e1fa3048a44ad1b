"""Windows by count and by time, and the published features, against what one works out by hand."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from captures import built, frames, traffic, write_frames
from hypothesis import given
from hypothesis import strategies as st

from canids_preprocess.features.published import EDGE_FEATURES, NODE_FEATURES
from canids_preprocess.windowing.cutting import cuts
from canids_shared.contracts import tables
from canids_shared.errors import CanidsError


def test_windows_of_time_hold_the_frames_of_their_seconds(tmp_path: Path) -> None:
    times = [0.0, 0.2, 0.4, 1.1, 1.9, 3.0, 3.1, 4.2, 4.3, 5.0]
    label = [0, 0, 1, 0, 0, 0, 0, 0, 1, 0]
    path = write_frames(tmp_path / "a.parquet", frames(times, np.arange(10) % 3, label=label))
    store = built(tmp_path, path, window=1.0, stride=1.0, window_unit="seconds")
    # Of [2, 3) there is no frame, and [5, 6) is not complete.
    assert store["window"].tolist() == [0, 1, 3, 4]
    assert store["t_start"].tolist() == [0.0, 1.1, 3.0, 4.2]
    assert store["t_end"].tolist() == [0.4, 1.9, 3.1, 4.3]
    assert store["y"].tolist() == [1, 0, 0, 1]
    assert store["n_attacked"].tolist() == [1, 0, 0, 1]
    assert store.header["counts"]["a"] == {"windows": 4, "frames": 10, "dropped": 1}


@pytest.mark.parametrize("stride", [0.25, 1.0, 1.7])
def test_windows_of_time_do_not_depend_on_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: float
) -> None:
    path = write_frames(tmp_path / "a.parquet", traffic(500, np.random.default_rng(0), seconds=20.0))
    options = {"window": 1.0, "stride": stride, "window_unit": "seconds"}
    expected = built(tmp_path, path, **options).path.read_bytes()
    for chunk in (1, 7, 100):
        monkeypatch.setattr("canids_preprocess.windowing.frames._CHUNK", chunk)
        assert built(tmp_path, path, **options).path.read_bytes() == expected


@given(st.integers(0, 10**6))
def test_a_window_of_one_second_is_one_of_as_many_frames(folder: Path, seed: int) -> None:
    """Ten frames a second: a second holds what ten frames hold."""
    rng = np.random.default_rng(seed)
    path = write_frames(folder / "a.parquet", frames(np.arange(100) / 10, rng.integers(0, 9, 100)))
    by_count = built(folder, path, window=10, stride=10)
    counted = {name: np.array(by_count[name]) for name in ("x", "edge_attr", "edge_index", "node_ptr", "t_end")}
    by_time = built(folder, path, window=1.0, stride=1.0, window_unit="seconds")
    assert len(by_time) == 9  # the last one is not known to be complete
    for name, values in counted.items():
        np.testing.assert_array_equal(
            by_time[name],
            values[..., : by_time[name].shape[-1]] if name == "edge_index" else values[: len(by_time[name])],
        )


def test_window_of_a_broken_number_of_frames_is_refused(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.parquet", frames(np.arange(50.0), np.arange(50) % 3))
    with pytest.raises(CanidsError, match=r"window 20\.5, stride 20: whole numbers of frames"):
        built(tmp_path, path, window=20.5)


def test_published_features_of_a_worked_window(tmp_path: Path) -> None:
    ids = [0x10, 0x20, 0x10, 0x20, 0x30, 0x10]
    payload = [b"\xff\x00", b"\x00" * 8, b"\x00\xff", b"\x00" * 8, b"\x33", b"\x00\x00"]
    path = write_frames(tmp_path / "a.parquet", frames(np.arange(6.0), ids, payload))
    store = built(tmp_path, path, window=6, stride=6, features="published")
    assert store.header["features"] == "published"
    nodes = [dict(zip(NODE_FEATURES, row, strict=True)) for row in store["x"].tolist()]
    assert [n["can_id"] for n in nodes] == [0x10, 0x20, 0x30]
    assert nodes[0]["byte_0"] == pytest.approx(1 / 3)
    assert nodes[0]["byte_1"] == pytest.approx(1 / 3)
    assert nodes[2]["byte_0"] == pytest.approx(0x33 / 255)
    assert [n["count"] for n in nodes] == pytest.approx([1.0, 0.5, 0.0])
    assert [n["position"] for n in nodes] == pytest.approx([1.0, 3 / 5, 4 / 5])
    edges = {
        tuple(pair): dict(zip(EDGE_FEATURES, row, strict=True))
        for pair, row in zip(store["edge_index"].T.tolist(), store["edge_attr"].tolist(), strict=True)
    }
    assert set(edges) == {(0, 1), (1, 0), (1, 2), (2, 0)}
    twice = edges[0, 1]  # transitions 0 and 2 of five
    assert (twice["count"], twice["interval_mean"], twice["interval_std"], twice["regularity"]) == (2, 2, 0, 1)
    assert (twice["frequency"], twice["first"], twice["last"], twice["span"]) == pytest.approx((0.4, 0, 0.4, 0.4))
    assert (twice["reciprocal"], edges[1, 2]["reciprocal"]) == (1, 0)
    # 0x10 begins two transitions and ends two, 0x20 two and two, 0x30 one and one.
    assert (edges[2, 0]["degree_product"], edges[2, 0]["degree_ratio"]) == (8, 0.5)
    assert edges[1, 2]["interval_mean"] == edges[1, 2]["regularity"] == 0


def test_an_interval_without_a_frame_labels_the_windows_across_it(tmp_path: Path) -> None:
    """The whole bus is silent while the attack lasts: no frame can say so."""
    times = [*np.arange(0, 2, 0.1), *np.arange(5, 7, 0.1)]
    table = frames(times, np.arange(40) % 3)
    path = write_frames(tmp_path / "a.parquet", table, attacked=[[2.5, 4.5]], attack="suppression")
    store = built(tmp_path, path, window=8, stride=8)
    assert store["y"].tolist() == [0, 0, 1, 0, 0]
    assert store.keys()["attack"].to_list() == ["", "", "suppression", "", ""]


def test_an_interval_of_another_kind_labels_windows_with_it(tmp_path: Path) -> None:
    times = [*np.arange(0, 2, 0.1), *np.arange(5, 7, 0.1)]
    spans = {"attacked": [[0.1, 0.2], [2.5, 4.5, "mitm"]], "attack": "suppression", "attacks": ["suppression", "mitm"]}
    path = write_frames(tmp_path / "a.parquet", frames(times, np.arange(40) % 3), **spans)
    other = write_frames(tmp_path / "b.parquet", frames(times, np.arange(40) % 3), attack=None, content="attack-free")
    store = built(tmp_path, path, other, window=8, stride=8)
    assert store.keys().filter(capture="a")["attack"].to_list() == ["suppression", "", "mitm", "", ""]
    # A fold that leaves out a kind of interval leaves out the capture.
    left = built(tmp_path, path, other, window=8, stride=8, split="left_out", leave_out={"attacks": ["mitm"]})
    assert left.header["captures"] == ["a"]


def test_a_clock_that_is_set_is_refused_for_windows_of_time(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.parquet", frames([0.0, 1.0, 1.7e9], [1, 1, 1]))
    with pytest.raises(CanidsError, match=r"a\.parquet: the timestamps jump by 1699999999 s, from 1\.0"):
        built(tmp_path, path, window=0.1, stride=0.1, window_unit="seconds")


def test_overlapping_windows_are_built_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_frames(tmp_path / "a.parquet", traffic(300, np.random.default_rng(0)))
    expected = built(tmp_path, path, window=50, stride=1).path.read_bytes()
    monkeypatch.setattr("canids_preprocess.windowing.windows._MOST_ROWS", 120)
    assert built(tmp_path, path, window=50, stride=1).path.read_bytes() == expected


def test_frames_that_break_their_contract_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match=r"column 'dlc' leaves 0 to 64"):
        write_frames(tmp_path / "a.parquet", frames([0.0, 1.0], [1, 1], [bytes(65), b""]))
    wide = write_frames(tmp_path / "a.parquet", frames([0.0, 1.0], [1, 0x800]))
    with pytest.raises(CanidsError, match=r"column 'can_id' holds more than 11 bits"):
        built(tmp_path, wide, window=2, stride=2)


def test_many_windows_of_time_in_a_chunk_are_no_jump_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canids_preprocess.windowing.cutting._MOST_WINDOWS", 1000)
    path = write_frames(tmp_path / "a.parquet", frames(np.arange(300) * 4.0, np.arange(300) % 3))
    store = built(tmp_path, path, window=8.0, stride=0.25, window_unit="seconds")
    assert len(store) > 4 * 1000
    with pytest.raises(CanidsError, match=r"a\.parquet: 1\.19e\+04 windows of time for 300 frames, .* every 3\.99 s"):
        built(tmp_path, path, window=8.0, stride=0.1, window_unit="seconds")
    with pytest.raises(CanidsError, match=r"the timestamps jump by 4 s"):
        built(tmp_path, path, window=8.0, stride=0.003, window_unit="seconds")


@pytest.mark.parametrize("chunk", [7, 100, 1 << 15])
def test_windows_of_time_are_bounded_in_sum_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("canids_preprocess.windowing.cutting._MOST_WINDOWS", 100)
    config = {"window": 1.0, "stride": 0.5, "window_unit": "seconds"}

    def cut(seconds: np.ndarray) -> int:
        source = ({"timestamp": seconds[first : first + chunk]} for first in range(0, len(seconds), chunk))
        return sum(len(c.starts) for c in cuts(Path("a"), source, 0, config, lambda new, pending: new))

    # No gap alone is a jump, and 7 s are 14 windows a frame: no more than 16.
    assert cut(np.arange(1000) * 7.0) == 0
    with pytest.raises(CanidsError, match="are the timestamps in seconds"):
        cut(np.arange(1000) * 9.0)
    # Of a stride of nothing there are more windows than there are numbers.
    config["stride"] = 1e-300
    with pytest.raises(CanidsError, match="the timestamps jump"):
        cut(np.arange(1000) * 9.0)


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("timestamp", pl.lit(1.0, pl.Float32), "column 'timestamp' is float, not double"),
        ("label", pl.lit(True), "column 'label' is bool, not uint8"),
        ("can_id", pl.lit(3, pl.Int64), "column 'can_id' is int64, not uint32"),
        ("timestamp", pl.when(pl.col("timestamp") != 3).then("timestamp"), "column 'timestamp' has nulls"),
        ("payload", pl.when(pl.col("timestamp") != 3).then("payload"), "column 'payload' has nulls"),
    ],
)
@pytest.mark.parametrize("split", ["fit", "test"])
def test_columns_that_break_their_contract_are_refused(
    tmp_path: Path, column: str, values: pl.Expr, complaint: str, split: str
) -> None:
    path = write_frames(tmp_path / "a.parquet", frames(np.arange(60.0), np.arange(60) % 3))
    metadata = pq.read_metadata(path).metadata
    table = pl.read_parquet(path).with_columns(values.alias(column)).to_arrow().replace_schema_metadata(metadata)
    pq.write_table(table, path)
    with pytest.raises(CanidsError, match=rf"a\.parquet: {complaint}"):
        built(tmp_path, path, split=split, window=2, stride=2)


def test_frames_whose_metadata_is_not_whole_are_refused(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.parquet", frames(np.arange(60.0), np.arange(60) % 3))
    table, metadata = tables.read(path, tables.FRAMES)
    del metadata["attacks"]
    tables.write(path, tables.FRAMES, table, metadata)
    with pytest.raises(CanidsError, match=r"a\.parquet: its metadata lacks 'attacks'; delete it and run again"):
        built(tmp_path, path)
