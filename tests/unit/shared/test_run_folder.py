"""The folder of a training run: models equal to the byte, and checkpoints that resume only what they belong to."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from captures import call

from canids_shared.contracts import model_file
from canids_shared.errors import CanidsError
from canids_shared.jobs import run_folder
from canids_shared.jobs.entry_point import Call

ARRAYS: model_file.Arrays = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.ones(2),
    "steps": np.array([7]),
}


def training(folder: Path, data: bytes = b"graphs", seed: int = 0, code: str = "aa") -> Call:
    """A training by its config, data and code."""
    path = folder / "graphs"
    path.write_bytes(data)
    return call({"dataset": "d"}, {"seed": seed}, folder / "model", {"graphs": [path]}, code=code)


def test_equal_content_equal_bytes(tmp_path: Path) -> None:
    header = {"b": [1, 2], "a": {"z": 0, "y": None}}
    for name in ("one", "two"):
        model_file.save_arrays(tmp_path / name, ARRAYS, header)
    model_file.save_arrays(tmp_path / "three", dict(reversed(ARRAYS.items())), dict(reversed(header.items())))
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two", "three")}) == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_arrays_round_trip(tmp_path: Path) -> None:
    model_file.save_arrays(tmp_path / "m", ARRAYS, {"contract": "model/1", "note": "ü"})
    arrays, header = model_file.load_arrays(tmp_path / "m", "model/1")
    assert header == {"contract": "model/1", "note": "ü", "digest": header["digest"]}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)


def test_arrays_in_another_order_and_without_a_dimension_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = {"transposed": np.arange(6.0).reshape(2, 3).T, "every_other": np.arange(6)[::2], "scalar": np.array(3.0)}
    model_file.save_arrays(tmp_path / "m", arrays, {"contract": "model/1"})
    for name, array in model_file.load_arrays(tmp_path / "m", "model/1")[0].items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


def test_absent_cut_and_other_contract_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with pytest.raises(CanidsError, match="m: no such file"):
        model_file.load_arrays(path, "model/1")
    model_file.save_arrays(path, ARRAYS, {"contract": "model/1"})
    with pytest.raises(CanidsError, match="m: contract model/1, not policy/1"):
        model_file.load_arrays(path, "policy/1")
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CanidsError, match="m: not a whole model file"):
            model_file.load_arrays(path, "model/1")


@pytest.mark.parametrize("length", [0, 7, -1])
def test_a_damaged_checkpoint_is_said_and_the_training_begins_at_its_start(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = run_folder.Checkpoint(training(tmp_path), tmp_path / "run")
    checkpoint.save(ARRAYS, {"epoch": 1})
    (path,) = (tmp_path / "run").rglob("state.safetensors")
    path.write_bytes(path.read_bytes()[:length])
    assert checkpoint.load() is None
    assert f"warning: {path}: a damaged checkpoint" in caplog.text
    assert not path.exists()
    checkpoint.save(ARRAYS, {"epoch": 2})
    assert checkpoint.load() is not None


def test_checkpoint_is_resumed_by_the_same_training(tmp_path: Path) -> None:
    checkpoint = run_folder.Checkpoint(training(tmp_path), tmp_path / "run")
    assert checkpoint.load() is None
    checkpoint.save(ARRAYS, {"epoch": 1})
    checkpoint.save({**ARRAYS, "bias": np.zeros(2)}, {"epoch": 2, "best": 0.5})
    resumed = run_folder.Checkpoint(training(tmp_path), tmp_path / "run").load()
    assert resumed is not None
    assert resumed[1] == {"epoch": 2, "best": 0.5}
    np.testing.assert_array_equal(resumed[0]["bias"], np.zeros(2))


@pytest.mark.parametrize("change", [{"data": b"other"}, {"seed": 1}, {"code": "bb"}])
def test_checkpoint_of_other_data_config_or_code_is_ignored(tmp_path: Path, change: dict[str, Any]) -> None:
    run_folder.Checkpoint(training(tmp_path), tmp_path / "run").save(ARRAYS, {"epoch": 1})
    assert run_folder.Checkpoint(training(tmp_path, **change), tmp_path / "run").load() is None


def test_success_removes_all_checkpoints_of_the_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_folder.Checkpoint(training(tmp_path, seed=seed), tmp_path / "run").save(ARRAYS, {"epoch": 1})
    (tmp_path / "run/model.safetensors").touch()
    checkpoint = run_folder.Checkpoint(training(tmp_path), tmp_path / "run")
    checkpoint.remove()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["model.safetensors"]
    checkpoint.remove()
    assert checkpoint.load() is None


def test_config_says_all_that_repeats_the_run(tmp_path: Path) -> None:
    made = training(tmp_path, seed=3)
    run_folder.write_config(tmp_path / "config.yaml", made)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["spec"] == {"wildcards": {"dataset": "d"}, "config": {"seed": 3}, "code": "aa"}
    assert written["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert len(written["inputs"]["graphs"][0]) == 64
    assert written["files"] == {"graphs": [str(tmp_path / "graphs")]}
