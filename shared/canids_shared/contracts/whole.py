"""The one way to read a file that may be absent or damaged; the reader of every contract uses it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from canids_shared.contracts import stand_in_mark
from canids_shared.errors import CanidsError

AGAIN = "delete it and run again"
"""The usual remedy."""
_DAMAGE: tuple[type[Exception], ...] = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError)
"""Exceptions of a reader of text, numbers and mappings on bytes that are not those of its contract."""


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
    except damage:
        raise CanidsError(f"{path}: not a whole {what}; {again}") from None


def check_contract(path: str | Path, header: Any, contract: str, again: str = AGAIN) -> dict[str, Any]:
    """The header, if it is a mapping of this contract and no stand-in; else `CanidsError` naming the file."""
    if not isinstance(header, dict):
        raise CanidsError(f"{path}: no header of contract {contract}; {again}")
    if header.get("contract") != contract:
        actual = header.get("contract")
        other_kind = isinstance(actual, str) and actual.partition("/")[0] != contract.partition("/")[0]
        # Of another version it can be made again; a file of another kind is a finished one that was named by mistake.
        remedy = "a file of another kind; name the right one" if other_kind else again
        raise CanidsError(f"{path}: contract {actual}, not {contract}; {remedy}")
    stand_in_mark.refuse(path, header)
    return header


def read_json(path: str | Path, contract: str, what: str, again: str = AGAIN) -> dict[str, Any]:
    """A JSON file of a contract; raises `CanidsError` naming the file if it is absent, damaged, of another contract or a stand-in."""
    with reading(path, what, again=again):
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        return check_contract(path, content, contract, again)


def _refuse_constant(name: str) -> None:
    """Refuse NaN and infinity, which Python's reader of JSON accepts and no contract holds."""
    raise ValueError(name)
