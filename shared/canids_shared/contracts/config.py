"""Check of a config against a JSON Schema: defaults filled in, errors in one line that name the key."""

import copy
import difflib
import math
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from canids_shared.errors import CanidsError

DEEPEST = 32
"""Levels of nesting in a config or manifest."""
MOST = 1_000_000
"""Values in one; what YAML's aliases repeat counts each time."""
_LONGEST, _SHOWN = 400, 20
"""Characters of a message, which quotes the value, and messages that are shown."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml is ten times as fast, where PyYAML was built with it: schemas are read whenever a Snakefile is."""


@cache
def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as stream:
        schema: dict[str, Any] = yaml.load(stream, _Loader)
    return schema


def load_schema(path: str | Path, common: bool = False) -> dict[str, Any]:
    """Read a schema; with `common`, add the keys that every module shares (`common.schema.yaml`)."""
    schema = copy.deepcopy(_read(str(path)))
    if common:
        shared = _read(str(Path(__file__).with_name("common.schema.yaml")))
        schema["properties"] = {**shared["properties"], **schema["properties"]}
    return schema


def fill_defaults(value: Any, schema: dict[str, Any]) -> None:
    """Add the schema's defaults to `value` in place, nested objects included; `true` and `false` as text become booleans."""
    if not isinstance(value, dict):
        return
    for key, sub in schema.get("properties", {}).items():
        if key not in value and "default" in sub:
            value[key] = copy.deepcopy(sub["default"])
        if sub.get("type") == "boolean" and value.get(key) in ("true", "false"):
            value[key] = value[key] == "true"  # `--config stand_in=true` arrives as text
        if isinstance(value.get(key), dict):
            value[key] = dict(value[key])  # YAML's `*name` gives one object twice
            fill_defaults(value[key], sub)
    # Keys that the schema does not name, such as captures of a manifest, share one schema.
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        for key in value.keys() - schema.get("properties", {}).keys():
            fill_defaults(value[key], extra)


def options_of(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every option of a schema, those of sections dotted (`gat.learning_rate`), with its own schema."""
    for key, sub in schema.get("properties", {}).items():
        if "properties" in sub:
            yield from options_of(sub, f"{prefix}{key}.")
        else:
            yield prefix + key, sub


def _pattern(validator: Any, pattern: str, text: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's `pattern`, whose `$` is the end of the text; Python's `re` allows a line break after it."""
    if isinstance(text, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), text):
        yield jsonschema.ValidationError(f"{text!r} does not match '{pattern}'")


_types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    # JSON Schema takes 3.0 for an integer; Python does not count with it.
    "integer",
    lambda _, value: isinstance(value, int) and not isinstance(value, bool),
)
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern}, type_checker=_types)  # type: ignore[no-untyped-call]


def _explain(error: jsonschema.ValidationError, where: str) -> str:
    place = ".".join([where, *map(str, error.absolute_path)]).strip(".")
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        schema: Any = error.schema
        known = list(schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known), key=str)
        # A misspelt key is the usual reason, so the closest known one is offered.
        hints = []
        for key in unknown[:_SHOWN]:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(sorted(known))}"
            hints.append(f"unknown key '{place}.{key}'; {hint}".replace("'.", "'"))
        return "; ".join(hints)
    rule: Any = error.validator_value
    if error.validator == "not" and error.instance in rule.get("enum", []):
        return f"{place}: {error.instance!r} is reserved; choose another name"
    # YAML takes `no`, `1e3` and `2024-01-31` for something else than text.
    quotes = "; put it in quotes" if error.validator == "type" and rule == "string" else ""
    message = error.message
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]}…{message[-_LONGEST // 2 :]}"
    return f"{place or 'config'}: {message}{quotes}"


def bounded(value: Any, where: str) -> None:
    """Raise `CanidsError` unless a config is no deeper than `DEEPEST` and holds `MOST` values at most.

    What refers to itself has no end, and what follows walks through all of it; Snakemake reads config files and takes both.
    """
    level, count = [value], 0
    for _ in range(DEEPEST):
        count += len(level)
        if count > MOST:
            raise CanidsError(f"{where}: more than {MOST} values, those that YAML's aliases repeat included")
        nested = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list)))
        level = list(islice(chain.from_iterable(nested), MOST))
        if not level:
            return
    raise CanidsError(f"{where}: nested more than {DEEPEST} levels deep, or refers to itself")


def _no_text(value: Any, where: str) -> Iterator[str]:
    """Messages for keys that YAML reads as numbers, dates or booleans; JSON Schema takes every key for text."""
    for key, item in value.items() if isinstance(value, dict) else []:
        if not isinstance(key, str):
            yield f"{where}: key {key} is not text; put it in quotes"
        yield from _no_text(item, f"{where}.{key}")


def _not_finite(value: Any, where: str) -> Iterator[str]:
    """Messages for NaN and infinity, which YAML can write (`.nan`) and JSON Schema lets pass every bound."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: {value} is not a finite number"
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _not_finite(item, f"{where}.{key}".strip("."))


def _one_line(messages: list[str]) -> str:
    more = len(messages) - _SHOWN
    return " | ".join([*messages[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def check(value: Any, schema: dict[str, Any], where: str) -> Any:
    """Return a copy of `value` with defaults filled in.

    Raises `CanidsError` with every violation in one line; `where` names the config section or file.
    """
    bounded(value, where)
    if wrong := [*_no_text(value, where), *_not_finite(value, where)]:
        raise CanidsError(_one_line(wrong))
    value = copy.deepcopy(value)
    fill_defaults(value, schema)
    validator = _Validator(schema)
    errors: Iterator[jsonschema.ValidationError] = validator.iter_errors(value)
    messages = sorted(_explain(error, where) for error in errors)
    if messages:
        raise CanidsError(_one_line(messages))
    return value
