"""The Parquet contracts: what is written is read again, and what breaks the contract is refused by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from captures import frames
from hypothesis import given
from hypothesis import strategies as st

from canids_shared.contracts import tables, whole
from canids_shared.contracts.detectors import DETECTORS, KEY, Detector, as_json, declared
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json

TABLE = frames([0.0, 0.5, 1.0], [1, 2, 3], [b"", b"\x00\xff", bytes(64)], [0, 1, None])
STATE = pl.DataFrame(
    {
        "capture": ["a", "a"],
        "vehicle": ["van", "van"],
        "window": pl.Series([0, 1], dtype=pl.Int32),
        "t_start": [0.0, 1.0],
        "t_end": [1.0, 2.0],
        "label": pl.Series([0, None], dtype=pl.UInt8),
        "attack": ["", ""],
        "gat_logit": pl.Series([-1.0, 2.0], dtype=pl.Float32),
        "vgae_error": pl.Series([0.1, 0.2], dtype=pl.Float32),
        "vgae_kl": pl.Series([0.5, 1.5], dtype=pl.Float32),
    }
)
DECLARED = {KEY: as_json(DETECTORS)}


def sealed(**header: Any) -> str:
    """A header with its digest, as a writer outside this project makes it."""
    return canonical_json({**header, "digest": whole.digest_of(header)})


def refused(action: Any, *arguments: Any) -> str:
    with pytest.raises(CanidsError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("contract", "table"), [(tables.FRAMES, TABLE), (tables.STATES, STATE)])
def test_round_trip(tmp_path: Path, contract: tables.Table, table: pl.DataFrame) -> None:
    path = tmp_path / "t.parquet"
    tables.write(path, contract, table, {"capture": "ü", "n": 3, **DECLARED})
    read, metadata = tables.read(path, contract)
    assert read.equals(table)
    of_rows = {"digests": tables.digests(table)} if contract is tables.STATES else {}
    written = {"capture": "ü", "n": 3, **DECLARED, **of_rows, "contract": contract.contract}
    assert metadata == {**written, "digest": whole.digest_of(written)}
    assert tables.read(path, contract, columns=["label"])[0].equals(table.select("label"))


def test_same_table_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        tables.write(tmp_path / name, tables.FRAMES, TABLE, {"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (TABLE.with_columns(timestamp=pl.lit(float("nan"))), "column 'timestamp' holds NaN or infinity"),
        (TABLE.with_columns(timestamp=pl.lit(float("inf"))), "column 'timestamp' holds NaN or infinity"),
        (TABLE.with_columns(can_id=pl.lit(None, pl.UInt32)), "column 'can_id' has nulls"),
        (TABLE.drop("payload"), "column 'payload' is missing (contract frames/2)"),
        (TABLE.with_columns(dlc=pl.col("dlc").cast(pl.Int64)), "column 'dlc' is Int64, not UInt8 (contract frames/2)"),
        (TABLE.with_columns(extra=pl.lit(1)), "unknown column 'extra' (contract frames/2)"),
    ],
)
def test_breach_of_the_contract_is_refused_on_both_sides(tmp_path: Path, change: pl.DataFrame, complaint: str) -> None:
    path = tmp_path / "t.parquet"
    assert refused(tables.write, path, tables.FRAMES, change, {}) == f"{path}: {complaint}"
    assert list(tmp_path.iterdir()) == []
    change.write_parquet(path, metadata={"canids": sealed(contract="frames/2")})
    assert refused(tables.read, path, tables.FRAMES) == f"{path}: {complaint}"


def test_state_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    wrong = STATE.with_columns(vgae_kl=pl.Series([0.0, float("nan")], dtype=pl.Float32))
    assert refused(tables.write, tmp_path / "t", tables.STATES, wrong, DECLARED).endswith(
        "'vgae_kl' holds NaN or infinity"
    )


PCA = Detector("pca", "PCA", "pca_residual", supervised=False)


@pytest.mark.parametrize(
    ("declaration", "complaint"),
    [
        ({}, "declares no detectors; delete it and run again"),
        ({KEY: []}, "declares no detectors"),
        ({KEY: [{"name": "gat"}]}, "detectors: {'name': 'gat'} is not a detector (name, label, score, "),
        ({KEY: as_json([*DETECTORS, PCA])}, "column 'pca_residual' is missing (contract states/3)"),
        ({KEY: as_json(DETECTORS[:1])}, "unknown column 'vgae_error' (contract states/3)"),
        ({KEY: as_json([replace(PCA, name="fusion_2")])}, "detector 'fusion_2': a name does not begin with fusion"),
        ({KEY: as_json([replace(PCA, score="kl")])}, "detector 'pca': its score column must begin with pca_"),
        ({KEY: as_json([PCA, PCA])}, "detector 'pca': its columns have the same prefix as those of 'pca'"),
    ],
)
def test_states_hold_the_columns_of_the_detectors_that_they_declare(
    tmp_path: Path, declaration: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "t.parquet"
    assert refused(tables.write, path, tables.STATES, STATE, declaration).startswith(f"{path}: {complaint}")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_states_of_any_number_of_detectors_come_back_in_their_order(tmp_path: Path, n: int) -> None:
    detectors = (*DETECTORS, PCA)[-n:]
    scores = [d.score for d in detectors]
    frame = STATE.select(*tables.KEYS, *(pl.lit(0.5, pl.Float32).alias(score) for score in scores))
    tables.write(tmp_path / "t", tables.STATES, frame, {KEY: as_json(detectors)})
    assert declared(tables.read(tmp_path / "t", tables.STATES)[1], tmp_path / "t") == detectors


def test_reading_some_columns_checks_them(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    wrong = TABLE.with_columns(timestamp=pl.lit(float("nan")))
    wrong.write_parquet(path, metadata={"canids": sealed(contract="frames/2")})
    assert tables.read(path, tables.FRAMES, columns=["label"])[0].width == 1
    assert "'timestamp' holds NaN" in refused(tables.read, path, tables.FRAMES, ["timestamp"])
    wrong.drop("dlc").write_parquet(path, metadata={"canids": sealed(contract="frames/2")})
    assert (
        refused(tables.read, path, tables.FRAMES, ["label", "dlc"])
        == f"{path}: column 'dlc' is missing (contract frames/2)"
    )


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ({"digests": 5}, "digests: 5 is not of type 'object'"),
        ({"digests": {"a": "x"}}, "digests.a: 'x' does not match"),
        ({"split": 3}, "split: 3 is not of type 'string'"),
        ({KEY: 3}, "detectors: 3 is not of type 'array'"),
        ({"digests": {"a": "0" * 64}}, "the rows of 'a' are not those that were made"),
        ({"digests": {}}, "the rows of 'a' are not those that were made"),
    ],
)
def test_metadata_that_break_the_contract_are_named(tmp_path: Path, header: dict[str, Any], complaint: str) -> None:
    path = tmp_path / "t.parquet"
    whole_header = {"contract": "states/3", "digests": tables.digests(STATE), **DECLARED, **header}
    STATE.write_parquet(path, metadata={"canids": sealed(**whole_header)})
    assert refused(tables.read, path, tables.STATES).startswith(f"{path}: {complaint}")


def test_metadata_that_were_edited_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    header = {"contract": "states/3", "digests": tables.digests(STATE), **DECLARED, "split": "fuse"}
    text = sealed(**header).replace('"fuse"', '"calibrate"')
    STATE.write_parquet(path, metadata={"canids": text})
    assert refused(tables.read, path, tables.STATES).startswith(f"{path}: was changed since it was written")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"label": [0, 2]}, "column 'label' leaves 0 to 1"),
        ({"window": [-1, 1]}, "column 'window' leaves 0 to inf"),
        ({"window": [1, 0]}, "row 1 (a): windows are not in order"),
        ({"capture": ["a", "b", "a"]}, "row 2 (a): windows are not in order"),
        ({"t_end": [1.0, 0.5]}, "column 't_end' lies before t_start"),
        ({"t_start": [0.0, float("inf")]}, "column 't_start' holds NaN or infinity"),
    ],
)
def test_keys_that_break_the_contract_are_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    path = tmp_path / "t.parquet"
    ((name, values),) = change.items()
    frame = pl.concat([STATE, STATE[1:]])[: len(values)]
    wrong = frame.with_columns(pl.Series(name, values, dtype=frame.schema[name]))
    assert refused(tables.write, path, tables.STATES, wrong, DECLARED).startswith(f"{path}: {complaint}")
    assert list(tmp_path.iterdir()) == []
    header = {"contract": "states/3", "digests": tables.digests(wrong), **DECLARED}
    wrong.write_parquet(path, metadata={"canids": sealed(**header)})
    assert refused(tables.read, path, tables.STATES).startswith(f"{path}: {complaint}")


def test_a_table_of_another_split_or_variant_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    tables.write(path, tables.STATES, STATE, {**DECLARED, "split": "fuse", "variant": "large"})
    assert tables.read(path, tables.STATES, split="fuse", variant="large")[0].equals(STATE)
    with pytest.raises(CanidsError, match="is of split 'fuse', not 'select'; delete it and run again"):
        tables.read(path, tables.STATES, split="select")
    with pytest.raises(CanidsError, match="is of variant 'large', not 'small_kd'"):
        tables.read_metadata(path, tables.STATES, variant="small_kd")


@pytest.mark.parametrize(("contract", "table"), [(tables.FRAMES, TABLE), (tables.STATES, STATE)])
@given(place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_a_changed_byte_anywhere_is_refused_or_changes_nothing(
    folder: Path, contract: tables.Table, table: pl.DataFrame, place: int, change: int
) -> None:
    path = folder / "t.parquet"
    tables.write(path, contract, table, DECLARED)
    before = tables.read(path, contract)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(content)
    try:
        frame, header = tables.read(path, contract)
    except CanidsError as error:
        said = str(error)
        assert said.startswith(f"{path}: ") and "\n" not in said  # noqa: PT018
    else:
        assert frame.equals(before[0])
        assert header == before[1]


def test_other_contract_and_absent_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert refused(tables.read, path, tables.FRAMES) == f"{path}: no such file"
    tables.write(path, tables.STATES, STATE, DECLARED)
    assert refused(tables.read, path, tables.FRAMES).startswith(f"{path}: contract states/3, not frames/2")
    TABLE.write_parquet(path)
    assert refused(tables.read, path, tables.FRAMES).startswith(f"{path}: not a whole canids table")
    TABLE.write_parquet(path, metadata={"canids": "[]"})
    assert refused(tables.read, path, tables.FRAMES).startswith(f"{path}: ")


@given(st.integers(0, 10_000))
def test_file_cut_off_anywhere_is_refused(folder: Path, length: int) -> None:
    path = folder / "whole.parquet"
    tables.write(path, tables.FRAMES, TABLE, {})
    whole = path.read_bytes()
    cut = folder / "cut.parquet"
    cut.write_bytes(whole[: length % len(whole)])
    assert refused(tables.read, cut, tables.FRAMES).startswith(f"{cut}: ")
