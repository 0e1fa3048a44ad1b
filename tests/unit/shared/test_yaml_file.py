"""YAML that users write: what goes beyond its bounds is one line with file and line, within a second."""

import time
from pathlib import Path
from typing import Any

import pytest

from canids_shared.contracts import yaml_file
from canids_shared.contracts.config import DEEPEST, bounded, check
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import section

REPEATED = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 40))
MERGED = "".join(f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 9)}]}}\n" for i in range(1, 40))
FAULTS = {
    "contract: 1\ncaptures: &c {a: *c}": ", line 2: refers to itself",
    "a: &a {<<: *a}": ", line 1: refers to itself",
    "&a [*a]": ", line 1: refers to itself",
    "[" * 5000 + "]" * 5000: ", line 1: nested more than 32 levels deep",
    "{a: " * 5000 + "}" * 5000: ", line 1: nested more than 32 levels deep",
    "\n".join(" " * i + "a:" for i in range(1000)): ", line 32: nested more than 32 levels deep",
    "x0: &x0 [1]\n" + REPEATED: ", line 7: more than 1000000 values, those that aliases repeat included",
    "x0: &x0 {a: 1}\n" + MERGED: ", line 7: more than 1000000 values, those that aliases repeat included",
    "a: 1\nb: 2\na: 3": ", line 3: key 'a' repeats line 1",
    "a: 2024-13-45": ", line 1: '2024-13-45' cannot be read as timestamp",
    "a: !!int b": ", line 1: 'b' cannot be read as int",
    "a: !!timestamp b": ", line 1: 'b' cannot be read as timestamp",
    "a: " + "9" * 5000: " cannot be read as int",
    "a: !!python/object/apply:os.getcwd []": "could not determine a constructor for the tag",
    "a: *b": ": not YAML: found undefined alias 'b'",
    "a: 1\n---\na: 2": ": not YAML: expected a single document",
    "? [a]\n: b": "found unhashable key",
    "a: \x00": ": not YAML: unacceptable character",
    "# " + "-" * (1 << 23): ": larger than 8 MiB",
}


@pytest.mark.parametrize(("text", "complaint"), FAULTS.items(), ids=range(len(FAULTS)))
def test_a_fault_is_one_line_within_a_second(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    begin = time.process_time()
    with pytest.raises(CanidsError) as caught:
        yaml_file.load(path)
    assert time.process_time() - begin < 1.0
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("a: Grün".encode("latin-1"))
    for name, complaint in {"latin": "not YAML: 'utf-8' codec", "absent": "cannot be read (No such file", "": "cannot be read (Is a"}.items():  # fmt: skip
        with pytest.raises(CanidsError) as caught:
            yaml_file.load(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {complaint}")


def test_aliases_and_merged_keys_within_bounds_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {b: 1, c: [1, 2]}\nd: {<<: *a, b: 2}\ne: [*a, *a]\n")
    a = {"b": 1, "c": [1, 2]}
    assert yaml_file.load(path) == {"a": a, "d": {"b": 2, "c": [1, 2]}, "e": [a, a]}


def within_itself() -> dict[str, Any]:
    config: dict[str, Any] = {"preprocess": {}}
    config["preprocess"]["blocks"] = config
    return config


def repeated() -> dict[str, Any]:
    value: Any = 1
    for _ in range(16):
        value = {"a": value, "b": [value, value]}
    return {"preprocess": value}


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (within_itself(), f"config: nested more than {DEEPEST} levels deep, or refers to itself"),
        (repeated(), "config: more than 1000000 values"),
    ],
)
def test_a_config_that_snakemake_has_read_is_bounded_too(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CanidsError, match=complaint):
        section(config, "preprocess")
    with pytest.raises(CanidsError, match=complaint):
        check(config, {"type": "object"}, "config")
    bounded({"a": [{"b": [1, {"c": []}]}]}, "config")


def test_what_yaml_takes_for_something_else_is_to_be_quoted() -> None:
    schema = {"properties": {"vehicle": {"type": "string", "pattern": "^[a-z]+$"}}}
    for value in (False, 8, 2024.0):
        with pytest.raises(CanidsError, match=r"c\.vehicle: .* is not of type 'string'; put it in quotes"):
            check({"vehicle": value}, schema, "c")
    with pytest.raises(CanidsError, match="does not match"):
        check({"vehicle": "van\n"}, schema, "c")
    assert check({"vehicle": "van"}, schema, "c") == {"vehicle": "van"}


def test_a_message_is_of_bounded_length() -> None:
    schema = {"properties": {}, "additionalProperties": {"enum": ["a"]}}
    with pytest.raises(CanidsError) as caught:
        check({f"k{i}": "x" * 100_000 for i in range(500)}, schema, "c")
    assert len(str(caught.value)) < 10_000
    assert str(caught.value).endswith("and 480 more")
