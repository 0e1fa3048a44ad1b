"""`pyproject.toml` with a module's package listed, edited as text so that comments and layout stay."""

import copy
import re
import tomllib
from typing import Any

from canids_shared.errors import CanidsError

_TEXT = r"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'"
_COMMENT = re.compile(rf"({_TEXT})|#[^\n]*")
_CLOSING = {"[": "]", "{": "}"}


def with_package(text: str, name: str) -> str:
    """`text` of `pyproject.toml` with the package `canids_NAME` of `modules/NAME` and its (empty) extra.

    The result is parsed again and compared with what it should say; if it says anything else, or the file is laid out
    in a way that this cannot edit, a `CanidsError` says what to add by hand.
    """
    package, folder, extra = f"canids_{name}", f"modules/{name}", name.replace("_", "-")
    wanted = _expected(tomllib.loads(text), package, folder, extra)
    try:
        edited = _append(text, "package-dir", f'{package} = "{folder}/{package}"')
        for key, item in (("packages", package), ("known-first-party", package), ("mypy_path", folder)):
            edited = _append(edited, key, f'"{item}"')
        edited = re.sub(r"^dev = \[", f"{extra} = []\n\\g<0>", edited, count=1, flags=re.MULTILINE)
        edited = re.sub(r'"canids\[([^]"]*)\]"', _with_extra(wanted, extra), edited)
        if tomllib.loads(edited) == wanted:
            return edited
    except (ValueError, LookupError):  # no such key, or no TOML any more
        pass
    raise CanidsError(
        f"pyproject.toml: cannot be edited safely; add by hand: package-dir and packages {package}, an extra {extra}, "
        f"also in dev, known-first-party {package}, mypy_path {folder}. Nothing was written"
    )


def _expected(project: dict[str, Any], package: str, folder: str, extra: str) -> dict[str, Any]:
    """What the edited file is to say."""
    wanted = copy.deepcopy(project)
    try:
        tools, extras = wanted["tool"], wanted["project"]["optional-dependencies"]
        tools["setuptools"]["package-dir"][package] = f"{folder}/{package}"
        tools["setuptools"]["packages"].append(package)
        tools["ruff"]["lint"]["isort"]["known-first-party"].append(package)
        tools["mypy"]["mypy_path"].append(folder)
        extras[extra] = []
        of_dev = next(i for i, d in enumerate(extras["dev"]) if d.startswith("canids["))
        extras["dev"][of_dev] = f"{extras['dev'][of_dev][:-1]},{extra}]"
    except (KeyError, StopIteration):
        raise CanidsError("pyproject.toml: not that of canids; run this in the root of a checkout") from None
    return wanted


def _with_extra(wanted: dict[str, Any], extra: str) -> Any:
    """Replacement function: the extras that `dev` takes, with the new one; others as they are."""
    of_dev = next(d for d in wanted["project"]["optional-dependencies"]["dev"] if d.startswith("canids["))
    return lambda found: f'"{of_dev}"' if f"{found[0][1:-2]},{extra}]" == of_dev else found[0]


def _append(text: str, key: str, item: str) -> str:
    """`text` with `item` at the end of the array or inline table that `key` holds; `ValueError` if there is not just one."""
    (begin,) = (m.end() - 1 for m in re.finditer(rf"^{re.escape(key)}\s*=\s*[\[{{]", text, re.MULTILINE))
    end = _closing(text, begin)
    content = text[begin + 1 : end].rstrip()
    tail = text[begin + 1 + len(content) : end]
    code = _COMMENT.sub(r"\1", content).rstrip()
    comma = "" if not code or code.endswith(",") else ","
    if "\n" in text[begin:end]:
        return f"{text[: begin + 1]}{content}{comma}\n    {item},\n{text[end:]}"
    return f"{text[: begin + 1]}{content}{comma} {item}{tail}{text[end:]}"


def _closing(text: str, begin: int) -> int:
    """Where the bracket at `begin` is closed; text in quotes and comments does not count."""
    expected: list[str] = []
    tokens = re.compile(rf"{_TEXT}|#[^\n]*|[][{{}}]")
    for token in tokens.finditer(text, begin):
        if token[0] in _CLOSING:
            expected.append(_CLOSING[token[0]])
        elif token[0] in ("]", "}"):
            if token[0] != expected.pop():
                break
            if not expected:
                return token.start()
    raise ValueError("bracket not closed")
