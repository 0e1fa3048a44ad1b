"""`run.json`: what is written is read again, and one that is absent, damaged or of another run is refused."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from training_records import record

from canids_shared.contracts import training_run
from canids_shared.contracts.training_run import history_columns
from canids_shared.contracts.whole import digest_of, reading
from canids_shared.errors import BusyError, CanidsError
from canids_shared.files import sha256_of

RUN = record(
    variant="small_kd",
    dataset="smoke",
    instance="@seed-1",
    seed=1,
    inputs={"graphs": ["fit", "select"]},
    input_digests={"graphs": ["aa", "bb"]},
    best=1,
    history={"fit_loss": [0.5, None]},
    select={"auroc": None},
    data={"fit": {"windows": 3}},
    sizes={"model": 100},
    digests={"model": "0" * 64},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "experimentruns" / RUN.name
    folder.mkdir(parents=True)
    training_run.write(folder / "run.json", RUN)
    return folder / "run.json"


def test_what_is_written_is_read_again(path: Path) -> None:
    assert training_run.read(path) == RUN
    assert RUN.name == "gat_small_kd@seed-1"


def test_a_breach_of_the_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match=r"r\.json: latency\.median_ms: -1 is less than or equal to the minimum"):
        training_run.write(tmp_path / "r.json", replace(RUN, latency={"median_ms": -1, "device": "cpu"}))
    assert not list(tmp_path.iterdir())


def changed(**values: Any) -> Callable[[str], str]:
    """Other values, sealed with the digest of what the file then holds."""

    def change(text: str) -> str:
        content = {**json.loads(text), **values}
        return json.dumps({**content, "digest": digest_of(content)})

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text[:40], "not a whole record of a training; delete the folder"),
        (lambda text: "[1]", "no header of contract run/2"),
        (lambda text: "\udcff", "not a whole record"),
        (changed(contract="run/0"), "contract run/0, not run/2; delete the folder .* and train again"),
        (changed(stand_in=True), "a stand-in, which holds no results"),
        (changed(seed="1"), r"run\.json: seed: '1' is not of type 'integer'"),
        (changed(instance=""), "is of instance '', not '@seed-1'; delete the folder"),
        (changed(kind="vgae"), "is the record of vgae_small_kd@seed-1; delete the folder"),
        (changed(digests={"model": "x"}), r"digests\.model: 'x' does not match"),
        (changed(parameters=[1]), r"parameters: \[1\] is not of type 'integer'"),
        (changed(surplus=1), "Additional properties are not allowed"),
        (lambda text: text.replace('"seed": 1', '"seed": 2'), "was changed since it was written"),
        (lambda text: '{"a":' * 100_000, "not a whole record"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused(path: Path, change: Callable[[str], str], complaint: str) -> None:
    path.write_bytes(change(path.read_text()).encode("utf-8", "surrogateescape"))
    with pytest.raises(CanidsError, match=complaint) as caught:
        training_run.read(path)
    assert "\n" not in str(caught.value)
    assert "run.json" in str(caught.value)


def test_an_absent_record_is_named_with_the_remedy(path: Path) -> None:
    path.unlink()
    with pytest.raises(CanidsError, match=rf"run\.json: no such file; delete the folder {path.parent} and train again"):
        training_run.read(path)


def test_the_model_beside_a_record_is_the_one_that_it_is_of(path: Path) -> None:
    model = path.with_name("model.safetensors")
    model.write_bytes(b"weights")
    with pytest.raises(CanidsError, match=r"model\.safetensors: is not the model that .*run\.json is the record of"):
        training_run.read(path)
    run = replace(RUN, digests={"model": sha256_of(model)})
    training_run.write(path, run)
    assert training_run.read(path) == run


ROWS = [
    {"epoch": 1, "loss": 0.5, "seconds": 3.0, "mb": None},
    {"epoch": 2, "loss": float("nan"), "seconds": 3.5, "mb": None},
]


def test_a_history_is_read_again_and_an_edited_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    training_run.write_history(path, ROWS)
    history = training_run.read_history(path)
    assert history.columns == ["epoch", "loss", "seconds", "mb"]
    assert history["epoch"].to_list() == [1, 2]
    with pytest.raises(CanidsError, match="column 'epoch' holds no numbers"):
        training_run.write_history(path, [{"epoch": "one"}])
    header = pl.read_parquet_metadata(path)["canids"]
    history.with_columns(loss=pl.Series([0.4, 0.3])).write_parquet(path, metadata={"canids": header})
    with pytest.raises(CanidsError, match=r"history\.parquet: the rows of '' are not those that were made"):
        training_run.read_history(path)
    history.write_parquet(path)
    with pytest.raises(CanidsError, match="not a whole canids table"):
        training_run.read_history(path)


CONFIG = {
    "spec": {"config": {"seed": 1, "rate": 1e-05}},
    "inputs": {"fuse": ["a"]},
    "files": {"fuse": ["f"]},
    "python": "3.11",
}


def test_a_config_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    training_run.write_config(path, CONFIG)
    assert training_run.read_config(path) == CONFIG


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: "- a\n- list\n", "no header of contract run_config/1"),
        (lambda text: "spec: [\n", "not a whole config of a run"),
        (lambda text: "", "no header of contract run_config/1"),
        (lambda text: text.replace("seed: 1", "seed: 2"), "was changed since it was written"),
        (lambda text: text.replace("seed: 1", "seed: one"), r"spec\.config\.seed: 'one' is not of type 'integer'"),
        (lambda text: text.replace("seed: 1", "seed: 2001-01-01"), r"is not of type 'integer'"),
        (lambda text: text + "surplus: 1\n", "Additional properties are not allowed"),
        (lambda text: "a: &a [1]\nb: [*a, *a]\n" + text, "Additional properties are not allowed"),
        (lambda text: "[" * 5_000, "not a whole config of a run"),
        (lambda text: text + "when: !!python/object/apply:os.getcwd []\n", "not a whole config of a run"),
    ],
)
def test_a_config_that_cannot_be_trusted_is_refused(
    tmp_path: Path, change: Callable[[str], str], complaint: str
) -> None:
    path = tmp_path / "config.yaml"
    training_run.write_config(path, CONFIG)
    path.write_text(change(path.read_text()))
    with pytest.raises(CanidsError, match=complaint) as caught:
        training_run.read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_columns_of_a_history_are_numbers_or_null() -> None:
    rows = [{"epoch": 1, "loss": 0.5, "seconds": 3.0}, {"epoch": 2, "loss": float("nan"), "auroc": float("inf")}]
    assert history_columns(rows, leave_out=["seconds"]) == {"epoch": [1, 2], "loss": [0.5, None]}
    assert history_columns([]) == {}


@pytest.mark.parametrize(
    "error", [OSError("x"), ValueError("x"), KeyError("x"), IndexError("x"), EOFError(), ZeroDivisionError()]
)
def test_errors_of_a_reader_become_one_line(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(CanidsError, match="f: not a whole table; make it again"),
        reading(tmp_path / "f", "table", ZeroDivisionError, again="make it again"),
    ):
        raise error


@pytest.mark.parametrize(
    ("error", "kind", "complaint"),
    [
        (OSError(errno.ESTALE, "x"), BusyError, r"cannot be read \(Stale file handle\)"),
        (MemoryError(), BusyError, r"cannot be read \(out of memory\)"),
        (PermissionError(errno.EACCES, "x"), CanidsError, r"cannot be read \(Permission denied\)"),
    ],
)
def test_what_the_system_refuses_is_no_damage(error: Exception, kind: type[CanidsError], complaint: str) -> None:
    with pytest.raises(CanidsError, match=f"^f: {complaint}$") as caught, reading("f", "table"):
        raise error
    assert type(caught.value) is kind


def test_a_fault_of_the_code_stays_what_it_is() -> None:
    with pytest.raises(NameError), reading("f", "table"):
        raise NameError
