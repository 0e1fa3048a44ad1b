"""The one way to read a file that may be absent, damaged, edited or another one; the reader of every contract uses it.

A header is checked against `{kind}.schema.yaml` beside this file, where its contract has one. Its key `digest` is the SHA-256 of
the header and of the digests of all that lies behind it, so that an edited or damaged file is refused.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from canids_shared.contracts import stand_in_mark
from canids_shared.contracts.config import load_schema
from canids_shared.contracts.detectors import DETECTORS
from canids_shared.errors import BusyError, CanidsError
from canids_shared.files import PASSING, canonical_json, write_text

AGAIN = "delete it and run again"
"""The usual remedy."""
_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
    *(ArithmeticError, MemoryError, RecursionError),
)
"""Exceptions of a reader of text, numbers and mappings on bytes that are not those of its contract."""
DIGEST = "digest"
_UNSEALED = (DIGEST, stand_in_mark.MARK)
"""Keys of a header that its digest leaves out: the digest itself, and the mark that is put on afterwards."""
_LONGEST = 200
"""Characters of a schema's complaint, which quotes the value."""
_INSTANCE = r"(?P<instance>(?:@[A-Za-z0-9_.-]+)?)"
_KINDS = "|".join([*(detector.name for detector in DETECTORS), "dqn", "fusion_baselines", "eval"])
_FOLDERS = (
    re.compile(rf"/(?:(?:{_KINDS})_|(?:states|decisions)/)(?P<variant>large|small_kd|small_nokd){_INSTANCE}$"),
    re.compile(rf"/results/[^/]+/(?:graphs|profiles|window_baselines){_INSTANCE}$"),
)
"""Folders whose names say what lies in them: of runs (`gat_large@seed-1`), states, decisions, graphs, profiles and window baselines."""


@contextmanager
def reading(path: str | Path, what: str, *errors: type[Exception], again: str = AGAIN) -> Iterator[None]:
    """Turn what reading a file raises into a `CanidsError` that names the file and the remedy.

    Args:
        path: the file.
        what: what it should be, such as "graph store".
        errors: exceptions of the library that reads it, beside those of damaged text and numbers.
        again: the remedy, in the imperative.
    """
    damage = (*errors, *_DAMAGE)
    try:
        yield
    except CanidsError:
        raise
    except FileNotFoundError:
        # A rule's inputs are there, so who meets this named the file; only a remedy of its own helps beyond the name.
        remedy = "" if again == AGAIN else f"; {again.removeprefix('delete it and ')}"
        raise CanidsError(f"{path}: no such file{remedy}") from None
    except damage as error:
        # What the system refuses is no damage: nothing is to be deleted, and some of it passes.
        if number := getattr(error, "errno", None):
            kind = BusyError if number in PASSING else CanidsError
            raise kind(f"{path}: cannot be read ({os.strerror(number)})") from None
        if isinstance(error, MemoryError):
            raise BusyError(f"{path}: cannot be read (out of memory)") from None
        raise CanidsError(f"{path}: not a whole {what}; {again}") from None


def _numbers(
    _: Any, bounds: list[float | None], values: Any, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """The keyword `numbers: [low, high]` of our schemas: a list of numbers or nulls within bounds, checked at once."""
    if values is None and "null" in schema.get("type", ()):
        return
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        array = np.zeros((0, 0))
    low, high = (limit if bound is None else bound for bound, limit in zip(bounds, (-np.inf, np.inf), strict=True))
    # A null becomes NaN, which no comparison finds; strings of digits and truth values are no numbers.
    outside = array.ndim != 1 or bool((array < low).any() or (array > high).any() or np.isinf(array).any())
    if not isinstance(values, list) or outside or {bool, str} & set(map(type, values)):
        yield jsonschema.ValidationError(f"is no list of numbers from {bounds[0]} to {bounds[1]}")


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"numbers": _numbers})  # type: ignore[no-untyped-call]


@cache
def _validator(kind: str) -> Any:
    """The validator of a contract's headers; None where it has no schema, as those of other repositories."""
    path, common = (Path(__file__).with_name(f"{name}.schema.yaml") for name in (kind, "headers"))
    if not path.exists():
        return None
    schema = load_schema(path)
    definitions = {**load_schema(common)["$defs"], **schema.pop("$defs", {})}

    def inlined(value: Any) -> Any:
        """References replaced by what they name: looking them up would take most of the time of a check."""
        if isinstance(value, list):
            return [inlined(item) for item in value]
        if not isinstance(value, dict):
            return value
        named = definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else {}
        both = {**named, **{key: item for key, item in value.items() if key != "$ref"}}
        # A key of both, such as `properties`, has the entries of both.
        for key in named.keys() & value.keys():
            both[key] = named[key] | value[key] if isinstance(value[key], dict) else [*named[key], *value[key]]
        return {key: inlined(item) for key, item in both.items()}

    return _Validator(inlined(schema))


def check_schema(path: str | Path, header: Mapping[str, Any], kind: str, again: str = AGAIN) -> None:
    """Raise `CanidsError` naming file and key unless a header keeps to `{kind}.schema.yaml`, where there is one."""
    validator = _validator(kind) if re.fullmatch("[a-z_]+", kind) else None
    if validator and (error := jsonschema.exceptions.best_match(validator.iter_errors(header))):
        key = ".".join(map(str, error.absolute_path))
        message = error.message if len(error.message) <= _LONGEST else error.message[:_LONGEST] + "…"
        raise CanidsError(f"{path}: {f'{key}: ' if key else ''}{message}; {again}")


def check_contract(path: str | Path, header: Any, contract: str, again: str = AGAIN) -> dict[str, Any]:
    """The header, if it is a mapping of this contract, keeps to its schema, and is of no stand-in; else `CanidsError` naming the file."""
    if not isinstance(header, dict):
        raise CanidsError(f"{path}: no header of contract {contract}; {again}")
    kind = contract.partition("/")[0]
    if header.get("contract") != contract:
        actual = header.get("contract")
        other_kind = isinstance(actual, str) and actual.partition("/")[0] != kind
        # Of another version it can be made again; a file of another kind is a finished one that was named by mistake.
        remedy = "a file of another kind; name the right one" if other_kind else again
        raise CanidsError(f"{path}: contract {str(actual)[:_LONGEST]}, not {contract}; {remedy}")
    stand_in_mark.refuse(path, header)
    check_schema(path, header, kind, again)
    return header


def check_identity(path: str | Path, header: Mapping[str, Any], again: str = AGAIN, **wanted: Any) -> None:
    """Raise `CanidsError` naming the file if its header says that it is another one than it is taken for.

    Args:
        path: the file. A folder named like those of `_FOLDERS` says variant, instance and run; other folders hold copies, and
            say nothing.
        header: what of `dataset`, `split`, `run`, `variant` and `instance` it has is compared.
        again: the remedy.
        wanted: what the reader asked for.
    """
    folder = Path(path).parent.resolve()
    named = next((match for pattern in _FOLDERS if (match := pattern.search(folder.as_posix()))), None)
    for key, value in {
        **({"run": folder.name, "variant": None, **named.groupdict()} if named else {}),
        **wanted,
    }.items():
        if header.get(key, value) != value:
            raise CanidsError(f"{path}: is of {key} '{header[key]}', not '{value}'; {again}")


def digest_of(header: Mapping[str, Any], parts: Mapping[str, str] | None = None) -> str:
    """SHA-256 of a header and of the digests of what lies behind it, by name (tensors with type and shape, captures)."""
    content = {key: value for key, value in header.items() if key not in _UNSEALED}
    return hashlib.sha256(canonical_json([content, parts or {}]).encode()).hexdigest()


def sealed(
    path: str | Path, header: Mapping[str, Any], contract: str, parts: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The header of a file to be written, as JSON reads it back, with its contract and digest.

    Raises `CanidsError` naming the key that breaks the contract's schema.
    """
    plain = json.loads(canonical_json({**header, "contract": contract}))
    made = {**plain, DIGEST: digest_of(plain, parts)}
    check_schema(path, made, contract.partition("/")[0])
    return made


def check_digest(
    path: str | Path, header: Mapping[str, Any], parts: Mapping[str, str] | None = None, again: str = AGAIN
) -> None:
    """Raise `CanidsError` naming the file unless its content has the digest that its header says."""
    if header.get(DIGEST) != digest_of(header, parts):
        raise CanidsError(f"{path}: was changed since it was written (its digest is another); {again}")


def parse_json(text: str | bytes) -> Any:
    """JSON without NaN and infinity, which Python's reader accepts and no contract holds (`ValueError`)."""
    return json.loads(text, parse_constant=_refuse_constant)


def read_json(path: str | Path, contract: str, what: str, again: str = AGAIN, **wanted: str) -> dict[str, Any]:
    """A JSON file that `write_json` wrote.

    Raises `CanidsError` naming the file if it is absent, damaged or edited, of another contract, a stand-in, or another one than its
    folder or `wanted` says.
    """
    with reading(path, what, again=again):
        content = check_contract(path, parse_json(Path(path).read_text(encoding="utf-8")), contract, again)
        check_digest(path, content, again=again)
        check_identity(path, content, again, **wanted)
        return content


def write_json(path: str | Path, contract: str, content: Mapping[str, Any], indent: int | None = 1) -> None:
    """Check and write a JSON file of a contract, whole, with its digest; keys are sorted."""
    made = sealed(path, content, contract)
    write_text(path, json.dumps(made, sort_keys=True, indent=indent, allow_nan=False) + "\n")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
