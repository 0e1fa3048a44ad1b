"""Synthetic detector outputs for the tests of train_drl, and the tests of reading them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from canids_shared.contracts import tables
from canids_shared.contracts.detectors import DETECTORS, KEY, Detector, as_json
from canids_shared.contracts.tables import KEYS, STATES
from canids_shared.contracts.whole import sealed
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json
from canids_train_drl.environment import states

LEVELS = {"known": (8.0, 2.0), "unknown": (-3.0, 4.0), "a": (8.0, 2.0), "b": (-8.0, 1.5)}
"""Mean and spread of the GAT's logit by attack; without attack −8 and 1.5."""
VGAE_RISE = {"known": 2.5, "unknown": 2.5, "a": 0.0, "b": 3.0}
"""Standard deviations by which the VGAE's log error rises; attack `a` only the GAT sees, `b` only the VGAE."""


def synthetic(
    seed: int, captures: int = 3, windows: int = 500, attacks: tuple[str, ...] = ("known",), drift: float = 0.0
) -> pl.DataFrame:
    """States of some captures with one or two attack episodes each; `drift` shifts attack-free outputs (another vehicle)."""
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(captures):
        name = attacks[number % len(attacks)] if attacks else ""
        label = np.zeros(windows, dtype=np.uint8)
        if name:
            for _ in range(2):
                length = int(rng.integers(windows // 5, windows * 3 // 10))
                start = int(rng.integers(0, windows - length))
                label[start : start + length] = 1
        attacked = label == 1
        noise = rng.normal(size=windows)
        for i in range(1, windows):
            noise[i] = 0.7 * noise[i - 1] + np.sqrt(1 - 0.49) * noise[i]
        logit = rng.normal(-8 + drift, 1.5, windows)
        if name:
            logit[attacked] = rng.normal(*LEVELS[name], attacked.sum())
        error = np.exp(0.5 * (noise + drift / 3 + (VGAE_RISE[name] * attacked if name else 0)))
        parts.append(
            pl.DataFrame(
                {
                    "capture": [f"capture-{number}"] * windows,
                    "vehicle": ["compact"] * windows,
                    "window": np.arange(windows, dtype=np.int32),
                    "t_start": np.arange(windows) * 0.05,
                    "t_end": np.arange(windows) * 0.05 + 0.049,
                    "label": label,
                    "attack": np.where(attacked, name, ""),
                    "gat_logit": logit.astype(np.float32),
                    "gat_embedding_0": rng.normal(size=windows).astype(np.float32),
                    "vgae_error": error.astype(np.float32),
                    "vgae_kl": rng.gamma(2.0, size=windows).astype(np.float32),
                },
                schema_overrides=KEYS,
            )
        )
    return pl.concat(parts)


def written(path: Path, frame: pl.DataFrame, detectors: Sequence[Detector] = DETECTORS) -> Path:
    tables.write(path, STATES, frame, {KEY: as_json(detectors)})
    return path


def loaded(folder: Path, frame: pl.DataFrame, name: str = "states") -> states.States:
    return states.read(written(folder / f"{name}.parquet", frame))


def test_segments_end_where_a_capture_or_its_numbering_does(tmp_path: Path) -> None:
    frame = synthetic(0, captures=2, windows=20)
    frame = frame.filter((pl.col("capture") != "capture-1") | (pl.col("window") != 7))
    assert loaded(tmp_path, frame).segments.tolist() == [0, 20, 27, 39]


def test_time_running_backwards_is_named(tmp_path: Path) -> None:
    frame = synthetic(0, captures=1, windows=10).with_columns(t_start=-pl.col("t_start"))
    with pytest.raises(CanidsError, match=r"states\.parquet.*row 1 .*not in time order"):
        loaded(tmp_path, frame)


def test_score_column_missing(tmp_path: Path) -> None:
    frame = synthetic(0, 1, 10).drop("vgae_error")
    header = sealed(tmp_path, {KEY: as_json(DETECTORS), "digests": {}}, STATES.contract)
    frame.write_parquet(tmp_path / "bad.parquet", metadata={"canids": canonical_json(header)})
    with pytest.raises(CanidsError, match=r"bad\.parquet.*'vgae_error' is missing"):
        states.read(tmp_path / "bad.parquet")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_value_not_finite_names_file_and_column(tmp_path: Path, value: float) -> None:
    frame = synthetic(0, 1, 10).with_columns(vgae_kl=pl.lit(value, dtype=pl.Float32))
    header = {KEY: as_json(DETECTORS), "digests": {}}
    sealed_header = sealed(tmp_path, header, STATES.contract)
    frame.write_parquet(tmp_path / "bad.parquet", metadata={"canids": canonical_json(sealed_header)})
    with pytest.raises(CanidsError, match=r"bad\.parquet.*vgae_kl"):
        states.read(tmp_path / "bad.parquet")


def test_missing_class_is_named(tmp_path: Path) -> None:
    quiet = loaded(tmp_path, synthetic(0, 1, 10, attacks=()))
    with pytest.raises(CanidsError, match="no attacked windows"):
        states.require(quiet, attacked=True, attack_free=True)


def labelled(labels: list[int], segments: list[int]) -> states.States:
    numbers = np.arange(len(labels))
    keys = pl.DataFrame({"capture": ["a"] * len(labels), "window": numbers})
    values, known = numbers[:, None], np.array(labels, np.int8)
    return states.States(Path("fuse"), DETECTORS, keys, ("gat_logit",), values, known, np.array(segments))


@pytest.mark.parametrize(
    ("labels", "segments", "count", "rows"),
    [
        ([0, 0, 0, 0, 1, 1, 0, 0], [0, 8], 4, [2, 3, 4, 5]),
        ([0, 0, 1, 1, 1, 1, 0, 1], [0, 2, 8], 4, [4, 5, 6, 7]),  # it begins with its segment, and ends in it
        ([-1, 1, 1, 1, 0, 0, 0, 0], [0, 5, 8], 4, [1, 2, 3, 4]),  # whether it begins at 1 is not known
        ([0, 0, 0, 1, 0], [0, 2, 5], 4, [2, 3, 4]),  # a short segment
    ],
)
def test_a_stretch_lies_around_the_first_beginning_or_end_of_an_attack(
    labels: list[int], segments: list[int], count: int, rows: list[int]
) -> None:
    chosen = states.stretch(labelled(labels, segments), count)
    assert chosen.values[:, 0].tolist() == chosen.keys["window"].to_list() == rows
    assert chosen.labels.tolist() == [labels[row] for row in rows]
    assert chosen.segments.tolist() == [0, len(rows)]


def test_a_split_in_which_no_attack_begins_or_ends_has_no_stretch() -> None:
    with pytest.raises(CanidsError, match="fuse: no attack begins or ends in it"):
        states.stretch(labelled([1, 1, 0, 0, -1, 1], [0, 2, 6]), 2)
