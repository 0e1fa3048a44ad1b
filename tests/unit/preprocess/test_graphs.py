"""From frames to a split's graph store: chunks, splits, duplicates, folds, and that nothing leaks between them."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from captures import BLOCKS, built, traffic, write_frames

from canids_preprocess.windowing import frames, splits
from canids_preprocess.windowing.frames import Recording, clock_of
from canids_shared.contracts.manifest import SPLITS
from canids_shared.errors import CanidsError


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


@pytest.mark.parametrize("stride", [7, 20, 33])
@pytest.mark.parametrize("split", ["test", "select"])
def test_chunk_borders_lose_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, stride: int) -> None:
    path = capture(tmp_path)
    expected = built(tmp_path, path, split=split, stride=stride).path.read_bytes()
    for chunk in (3, 19, 20, 21, 333):
        monkeypatch.setattr(frames, "_CHUNK", chunk)
        assert built(tmp_path, path, split=split, stride=stride).path.read_bytes() == expected


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    path = capture(tmp_path)
    assert len({built(tmp_path, path, split="fit").path.read_bytes() for _ in range(2)}) == 1


def test_store_says_which_capture_has_assumed_times(tmp_path: Path) -> None:
    paths = [capture(tmp_path, "a", assumed_rate=50.0), capture(tmp_path, "b", seed=1, assumed_rate=None)]
    sources = built(tmp_path, *paths).header["sources"]
    assert sources["a"]["assumed_rate"] == 50.0
    assert "assumed_rate" not in sources["b"]


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


def test_restarts_know_nothing_of_what_came_before(tmp_path: Path) -> None:
    path = capture(tmp_path)
    once = built(tmp_path, path, split="fit")
    known = once.keys()
    store = built(tmp_path, path, split="fit", restarts={"every": 6.0, "length": 2.0})
    keys = store.keys()
    assert keys[: len(known)].equals(known)
    again = keys[len(known) :]
    assert again["window"].min() > 2000 // 20 + 1  # beyond the capture's end
    assert not keys.select("capture", "window").is_duplicated().any()
    begins = again.filter(pl.col("window").diff().fill_null(2) > 1)["t_start"].to_numpy() - known["t_start"][0]
    assert begins == pytest.approx([3.0, 9.0], abs=0.2)
    assert store.header["counts"]["a"]["restarted"] == len(again)

    table, block = pl.read_parquet(path), splits.Block(0, 0, 600)
    for part in splits.restarts(clock_of(Recording(path)), block, every=6.0, length=2.0):
        alone = built(tmp_path, write_frames(tmp_path / "part.parquet", table[part.start : part.stop]))
        (here,) = np.flatnonzero(store["t_start"] == alone["t_start"][0])[-1:]
        same = slice(here, here + len(alone))
        np.testing.assert_array_equal(store["t_end"][same], alone["t_end"])
        np.testing.assert_array_equal(store["statistics"][same], alone["statistics"])


def test_split_has_seen_no_frame_of_another(tmp_path: Path) -> None:
    path = capture(tmp_path)
    table = pl.read_parquet(path)
    cut = splits.blocks(clock_of(Recording(path)), **BLOCKS, window=20)
    for split in SPLITS:
        (block,) = cut[split]
        store = built(tmp_path, path, split=split)
        before = store.path.read_bytes()
        # Nor do the frames that prime the running statistics belong to any window.
        assert store["t_start"][0] == table["timestamp"][block.start]
        assert len(store) == (block.stop - block.start) // 20
        row = np.arange(len(table))
        in_block = pl.Series((row >= block.prime) & (row < block.stop))
        other = table.with_columns(
            can_id=pl.when(in_block).then("can_id").otherwise(pl.lit(5, pl.UInt32)),
            payload=pl.when(in_block).then("payload").otherwise(pl.lit(b"\x55")),
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
        ({"restarts": {"every": 1.0, "length": 2.0}}, "fit", "restarts.length: 2.0 s are longer than restarts.every (1.0 s)"),
        ({"blocks": {**BLOCKS, "gap": 0.1}}, "fit", "blocks.gap: 0.1 s of kia-dos are no longer than a window"),
        ({"window": 2001}, "test", "split 'test' of dataset 'fleet' has no whole window of 2001 frames"),
    ],
)  # fmt: skip
def test_config_that_cannot_be_met_is_named(tmp_path: Path, config: dict[str, Any], split: str, complaint: str) -> None:
    with pytest.raises(CanidsError) as caught:
        built(tmp_path, *fleet(tmp_path), split=split, **config)
    assert str(caught.value) == complaint
    assert not list(tmp_path.glob(f"*{split}.safetensors*"))
