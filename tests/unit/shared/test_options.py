"""Numbers from configs, manifests, JSON and command lines: finite, and within bounds."""

import argparse
import contextlib
import copy
import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from canids_shared.contracts import model_file, whole
from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.jobs.options import number, whole_number

ROOT = Path(__file__).parents[3]
SCHEMAS = [
    *sorted(ROOT.glob("modules/*/config.schema.yaml")),
    *(ROOT / "shared/canids_shared" / f for f in ("planning/folds.schema.yaml", "sweeps/sweep.schema.yaml")),
    ROOT / "examples/own_detector/detector/config.schema.yaml",
]
MANIFEST = ROOT / "shared/canids_shared/contracts/manifest.schema.yaml"


def numeric(schema: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every option of a schema that is a number: its place and its own schema."""
    kinds = schema.get("type")
    if {"integer", "number"} & set(kinds if isinstance(kinds, list) else [kinds]) and "enum" not in schema:
        yield place, schema
    for key, sub in schema.get("properties", {}).items():
        yield from numeric(sub, (*place, key))
    for key in ("additionalProperties", "items"):
        if isinstance(schema.get(key), dict):
            yield from numeric(schema[key], (*place, f"<{key}>"))
    for i, sub in enumerate(schema.get("oneOf", [])):
        yield from numeric(sub, (*place, f"<{i}>"))


OPTIONS = [(path, place, sub) for path in [*SCHEMAS, MANIFEST] for place, sub in numeric(load_schema(path))]


def ids(values: list[tuple[Path, tuple[str, ...], dict[str, Any]]]) -> list[str]:
    return [f"{path.parent.name}-{'.'.join(place)}" for path, place, _ in values]


@pytest.mark.parametrize(("path", "place", "schema"), OPTIONS, ids=ids(OPTIONS))
def test_every_number_has_bounds_and_its_default_is_within(
    path: Path, place: tuple[str, ...], schema: dict[str, Any]
) -> None:
    assert {"minimum", "exclusiveMinimum"} & schema.keys()
    assert {"maximum", "exclusiveMaximum"} & schema.keys()
    if schema.get("default") is not None:
        check({"x": schema["default"]}, {"properties": {"x": schema}}, where="")


REACHED = [option for option in OPTIONS if option[0] != MANIFEST and not any("<" in key for key in option[1])]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("path", "place", "schema"), REACHED, ids=ids(REACHED))
def test_what_is_not_finite_is_refused_by_name(
    path: Path, place: tuple[str, ...], schema: dict[str, Any], value: float
) -> None:
    config: dict[str, Any] = {}
    section = config
    for key in place[:-1]:
        section = section.setdefault(key, {})
    section[place[-1]] = value
    with pytest.raises(CanidsError, match=rf"stage\.{'.'.join(place)}: {value} is not a finite number"):
        check(config, load_schema(path), where="stage")


@pytest.mark.parametrize("place", ["attacked", "duration", "episode_s"])
@pytest.mark.parametrize("text", [".nan", ".inf"])
def test_a_manifest_with_what_is_not_finite_is_refused(place: str, text: str) -> None:
    entry: dict[str, Any] = {
        "path": "a.csv",
        "format": "simulated",
        "vehicle": "v",
        "role": "train",
        "content": "labelled",
    }
    value = yaml.safe_load(text)
    if place == "attacked":
        entry["attacked"] = [[0.0, value]]
    else:
        entry["simulation"] = {"vehicle": "van", "duration": 1.0, place: value}
    with pytest.raises(CanidsError, match=f"{value} is not a finite number"):
        check({"captures": {"a": entry}}, load_schema(MANIFEST), where="manifest")


def test_json_with_nan_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"contract": "x/1", "f1": NaN}')
    with pytest.raises(CanidsError, match=r"metrics\.json: not a whole table"):
        whole.read_json(path, "x/1", "table")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_with_one_weight_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    arrays = {"bias": np.zeros(3, np.float32), "weight": np.ones((4, 3), np.float32)}
    path = tmp_path / "model.safetensors"
    model_file.save_arrays(path, arrays, {"contract": "weights/1"})
    assert model_file.load_arrays(path, "weights/1")[0].keys() == arrays.keys()
    damaged = copy.deepcopy(arrays)
    damaged["weight"][2, 1] = value
    model_file.save_arrays(path, damaged, {"contract": "weights/1"})
    with pytest.raises(CanidsError, match=r"model\.safetensors: tensor 'weight' holds NaN or infinity"):
        model_file.load_arrays(path, "weights/1")


@given(st.text(max_size=12))
def test_command_line_numbers_are_in_bounds_or_refused(text: str) -> None:
    for read, low, high in ((number(0, 60), 0, 60), (whole_number(1, 1000), 1, 1000)):
        with contextlib.suppress(argparse.ArgumentTypeError):
            assert low <= read(text) <= high


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-0.1", "60.1", "1e400", ""])
def test_command_line_numbers_out_of_bounds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number from 0 to 60"):
        number(0, 60)(text)


def test_above_leaves_out_the_lower_bound() -> None:
    assert number(0, 60)("0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="above 0 to 60"):
        number(0, 60, above=True)("0")


FOLLOWED = [
    ("preprocess", "timestamp_tolerance"),
    ("preprocess", "stride"),
    ("preprocess", "window"),
    ("train_drl", "recalibrate"),
    ("evaluate", "episode_gap"),
    ("evaluate", "explained_ids"),
]


@pytest.mark.parametrize(("stage", "option"), FOLLOWED)
def test_the_command_line_has_the_bounds_of_the_schema(stage: str, option: str) -> None:
    """A module's schema lies beside its package, so an installed one cannot read it."""
    schema = load_schema(ROOT / f"modules/{stage}/config.schema.yaml")["properties"][option]
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    parsers = [importlib.import_module(f"canids_{stage}.follow").parser()]
    if option not in ("window", "stride"):  # of a finished run, when the whole chain is started
        parsers.append(importlib.import_module("canids_shared.scoring.following").parser())
    for parser in parsers:
        (action,) = [a for a in parser._actions if f"--{option.replace('_', '-')}" in a.option_strings]
        assert callable(action.type)
        assert action.type(f"{schema['maximum']}") == schema["maximum"]
        for outside in (schema["maximum"] + 1, low - 1, *([low] if "exclusiveMinimum" in schema else [])):
            with pytest.raises(argparse.ArgumentTypeError):
                action.type(f"{outside}")


def test_a_file_of_another_kind_is_not_to_be_deleted(tmp_path: Path) -> None:
    """A policy handed to the export of detectors is a finished run, not a damaged one."""
    path = tmp_path / "model.safetensors"
    model_file.save_arrays(path, {"w": np.ones(1, np.float32)}, {"contract": "weights/1"})
    with pytest.raises(CanidsError, match=r"contract weights/1, not detector/\d; a file of another kind") as refusal:
        model_file.load_arrays(path, model_file.DETECTOR)
    assert "delete" not in str(refusal.value)
    with pytest.raises(CanidsError, match=r"contract weights/1, not weights/2; delete it and run again"):
        model_file.load_arrays(path, "weights/2")
