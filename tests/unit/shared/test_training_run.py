"""`run.json`: what is written is read again, and one that is absent, damaged or of another run is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training_records import record

from canids_shared.contracts import training_run
from canids_shared.contracts.training_run import history_columns
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError

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
    folder = tmp_path / RUN.name
    folder.mkdir()
    training_run.write(folder / "run.json", RUN)
    return folder / "run.json"


def test_what_is_written_is_read_again(path: Path) -> None:
    assert training_run.read(path) == RUN
    assert RUN.name == "gat_small_kd@seed-1"


def test_a_breach_of_the_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match=r"r\.json\.latency\.median_ms: -1 is less than or equal to the minimum"):
        training_run.write(tmp_path / "r.json", replace(RUN, latency={"median_ms": -1, "device": "cpu"}))
    assert not list(tmp_path.iterdir())


def changed(**values: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **values})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text[:40], "not a whole record of a training; delete the folder"),
        (lambda text: "[1]", "no header of contract run/1"),
        (lambda text: "\udcff", "not a whole record"),
        (changed(contract="run/0"), "contract run/0, not run/1; delete the folder .* and train again"),
        (changed(stand_in=True), "a stand-in, which holds no results"),
        (changed(seed="1"), r"run\.json\.seed: '1' is not of type 'integer'"),
        (changed(instance=""), "is the record of gat_small_kd; delete the folder"),
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


def test_a_fault_of_the_code_stays_what_it_is() -> None:
    with pytest.raises(NameError), reading("f", "table"):
        raise NameError
