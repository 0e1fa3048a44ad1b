"""Config by schema: defaults, and errors in one line that name the key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "window": {"type": "integer", "minimum": 2, "default": 100},
        "blocks": {
            "type": "object",
            "additionalProperties": False,
            "default": {},
            "properties": {
                "gap": {"type": "number", "default": 2.0},
                "shares": {"type": "object", "default": {}, "properties": {"fit": {"default": 0.5}}},
            },
        },
        "captures": {
            "type": "object",
            "default": {},
            "additionalProperties": {"type": "object", "properties": {"seed": {"default": 0}}},
        },
    },
}


def refused(value: Any) -> str:
    with pytest.raises(CanidsError) as caught:
        check(value, SCHEMA, "preprocess")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_reach_nested_mappings_and_leave_what_is_given() -> None:
    given = {"blocks": {"gap": 1.0}, "captures": {"a": {}, "b": {"seed": 7}}}
    assert check(given, SCHEMA, "") == {
        "window": 100,
        "blocks": {"gap": 1.0, "shares": {"fit": 0.5}},
        "captures": {"a": {"seed": 0}, "b": {"seed": 7}},
    }
    assert given == {"blocks": {"gap": 1.0}, "captures": {"a": {}, "b": {"seed": 7}}}


def test_defaults_are_not_shared_between_configs() -> None:
    check({}, SCHEMA, "")["blocks"]["shares"]["fit"] = 0.9
    assert check({}, SCHEMA, "")["blocks"]["shares"]["fit"] == 0.5


def test_what_yaml_repeats_by_name_gets_defaults_of_its_own() -> None:
    sizes = {
        name: {"type": "object", "default": {}, "properties": {name: {"type": "integer", "default": 1}}}
        for name in ("heads", "latent")
    }
    given = yaml.safe_load("{heads: &size {channels: 8}, latent: *size}")
    checked = check(given, {"type": "object", "properties": sizes}, "")
    assert checked == {"heads": {"channels": 8, "heads": 1}, "latent": {"channels": 8, "latent": 1}}


def test_a_boolean_of_the_command_line_is_one() -> None:
    """Snakemake hands on `--config stand_in=true` as text."""
    schema = {"type": "object", "properties": {"stand_in": {"type": "boolean", "default": False}}}
    assert [check({"stand_in": v}, schema, "")["stand_in"] for v in ("true", "false", True)] == [True, False, True]
    with pytest.raises(CanidsError, match="'yes' is not of type 'boolean'"):
        check({"stand_in": "yes"}, schema, "")


def test_misspelt_key_is_named_with_a_suggestion() -> None:
    assert refused({"windwo": 5}) == "unknown key 'preprocess.windwo'; did you mean 'window'?"
    assert refused({"blocks": {"gpa": 1}}) == "unknown key 'preprocess.blocks.gpa'; did you mean 'gap'?"
    assert refused({"zzz": 5}) == "unknown key 'preprocess.zzz'; known keys: blocks, captures, window"


def test_wrong_type_and_range_are_named() -> None:
    assert refused({"window": "100"}) == "preprocess.window: '100' is not of type 'integer'"
    assert refused({"window": 1}) == "preprocess.window: 1 is less than the minimum of 2"
    assert refused(None) == "preprocess: None is not of type 'object'"


def test_every_violation_is_told() -> None:
    assert refused({"window": 1, "blocks": {"gap": "long"}}).count(" | ") == 1


def test_key_that_yaml_does_not_read_as_text_is_named() -> None:
    assert refused({"captures": {2024: {}}, "b": 1}) == "preprocess.captures: key 2024 is not text; put it in quotes"


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"blocks": {"repeats": 1_000_000_000}}, "preprocess.blocks.repeats: 1000000000 is greater than the maximum of 100"),
        ({"restarts": {"every": 1e-9}}, "preprocess.restarts.every: 1e-09 is less than the minimum of 0.1"),
        ({"stride": 1e-300}, "preprocess.stride: 1e-300 is less than the minimum of 0.0001"),
        ({"window": 1}, "preprocess.window: 1 is less than the minimum of 2"),
        ({"window": 2.5}, "preprocess.window: 2.5 is not a multiple of 1"),
        ({"stride": 0.5}, "preprocess.stride: 0.5 is not a multiple of 1"),
        ({"window": 10**400}, "is greater than the maximum of 32767"),
    ],
)  # fmt: skip
def test_options_that_mean_endless_work_are_refused(section: dict[str, Any], complaint: str) -> None:
    schema = load_schema(Path(__file__).parents[3] / "modules/preprocess/config.schema.yaml")
    with pytest.raises(CanidsError) as caught:
        check(section, schema, "preprocess")
    assert complaint in str(caught.value)
    check({"window": 0.5, "stride": 0.25, "window_unit": "seconds"}, schema, "preprocess")
