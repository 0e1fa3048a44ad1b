"""The text of a manifest: drafted, with entries added, or with keys of an entry set. What a person wrote stays to the byte."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from canids_preprocess.drafting.entries import Drafted
from canids_preprocess.formats.base import printable
from canids_shared.contracts import manifest, yaml_file
from canids_shared.errors import CanidsError

_FEW = 8
"""Intervals that stand on one line."""


def _value(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").rstrip("\n")


def _key_lines(key: str, value: Any) -> list[str]:
    """Lines of a key and its value; many intervals have a line each."""
    if isinstance(value, list) and len(value) > _FEW:
        return [f"{key}:", *(f"  - {_value(item)}" for item in value)]
    if isinstance(value, dict):
        return [f"{key}:", *(f"  {_value(name)}: {_value(item)}" for name, item in value.items())]
    return [f"{_value(key)}: {_value(value)}"]


def entry_lines(name: str, drafted: Drafted) -> list[str]:
    """Lines of an entry, comments above, without indentation."""
    comments = [f"# {printable(comment, 500)}" for comment in drafted.comments]
    keys = [f"  {line}" for key, value in drafted.entry.items() for line in _key_lines(key, value)]
    return [*comments, f"{_value(name)}:", *keys]


def manifest_text(dataset: str, entries: Mapping[str, Drafted], unread: list[str]) -> str:
    """The text of a new manifest.

    Args:
        dataset: its name.
        entries: by name.
        unread: why files cannot be read, one line each.
    """
    lines = [
        f"# Drafted from the captures of {printable(dataset)}. Check every entry: vehicle, attack and content are guesses from names and IDs.",
        "# role: train, or the name of a test scenario. Keys: shared/canids_shared/contracts/manifest.schema.yaml",
    ]
    roles = {drafted.entry["role"] for drafted in entries.values()}
    if "train" not in roles:
        lines.append("# Missing: no capture to train on; which of them is attack-free (role: train)?")
    if roles == {"train"}:
        lines.append(
            "# No capture to test on, so blocks of the training captures will be judged; a scenario's name as role, such as test, sets one apart"
        )
    if not any(drafted.entry["content"] == "labelled" for drafted in entries.values()):
        lines += [
            "# No labelled attack. An attack-free capture with role host can have some put into it (README of preprocess, Injected attacks), such as",
            "#   NAME-dos: {format: injected, host: NAME, vehicle: VEHICLE, role: train, content: labelled, attack: dos, injection: {}}",
        ]
    lines += [f"# not a capture that can be read: {printable(complaint, 500)}" for complaint in unread]
    lines += [f"contract: {manifest.CONTRACT}", "captures:"]
    lines += [f"  {line}" for name, drafted in entries.items() for line in entry_lines(name, drafted)]
    return "\n".join(lines) + "\n"


def read_text(path: Path) -> str:
    """The text of a manifest with its line ends as they are."""
    with path.open(encoding="utf-8", newline="") as stream:
        return stream.read()


def _nodes(text: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Key and value nodes of a manifest's top level."""
    root = yaml.compose(text, yaml_file.BoundedLoader)
    return {key.value: (key, value) for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}


def _checked(path: Path, text: str, expected: Any, what: list[str]) -> str:
    """The text, if it says what is expected. Raises `CanidsError` with the lines to be written by hand if it does not."""
    try:
        same = yaml.load(text, yaml_file.BoundedLoader) == expected
    except yaml.YAMLError:
        same = False
    if not same:
        by_hand = " · ".join(line.strip() for line in what)
        raise CanidsError(f"{path}: is written in a way that cannot be added to safely; add by hand: {by_hand}")
    return text


def with_entries(path: Path, text: str, entries: Mapping[str, Drafted]) -> str:
    """The text of the manifest `path` with entries behind those that are there.

    Raises `CanidsError` if it cannot be added to without a change to anything else.
    """
    _, captures = _nodes(text)["captures"]
    old = yaml.load(text, yaml_file.BoundedLoader)
    expected = {**old, "captures": {**old["captures"], **{name: drafted.entry for name, drafted in entries.items()}}}
    lines = [line for name, drafted in entries.items() for line in entry_lines(name, drafted)]
    indent = " " * captures.value[0][0].start_mark.column
    ending = "\r\n" if "\r\n" in text else "\n"
    block = "".join(f"{indent}{line}{ending}" for line in lines)
    # A block of entries ends where a line begins that is less indented and no comment, or with the text.
    behind = re.compile(r"^(?![ #\n\r])", re.MULTILINE).search(text, captures.value[-1][0].start_mark.index)
    end = behind.start() if behind else len(text)
    before = text[:end]
    before += "" if before.endswith("\n") else ending
    return _checked(path, before + block + text[end:], expected, lines)


def with_keys(path: Path, text: str, name: str, added: dict[str, Any], replaced: dict[str, str]) -> str:
    """The text of the manifest `path` with keys added to an entry, and words of it replaced (key → word).

    Raises `CanidsError` if that cannot be done without a change to anything else.
    """
    old = yaml.load(text, yaml_file.BoundedLoader)
    expected = {**old, "captures": {**old["captures"], name: {**old["captures"][name], **replaced, **added}}}
    lines = [line for key, value in added.items() for line in _key_lines(key, value)]
    entry = next(value for key, value in _nodes(text)["captures"][1].value if key.value == name)
    changes: list[tuple[int, int, str]] = [
        (value.start_mark.index, value.end_mark.index, replaced[key.value])
        for key, value in entry.value
        if key.value in replaced
    ]
    if entry.flow_style:
        end = entry.value[-1][1].end_mark.index
        changes.append((end, end, "".join(f", {key}: {_value(value)}" for key, value in added.items())))
    else:
        # Behind the line of `content`, a word; where an anchor has it, behind that of any other scalar.
        scalars = [(key.value != "content", value) for key, value in entry.value if isinstance(value, yaml.ScalarNode)]
        ending = "\r\n" if "\r\n" in text else "\n"
        end = text.find(ending, min(scalars, key=lambda item: item[0])[1].end_mark.index) if scalars else -1
        indent = " " * entry.value[0][0].start_mark.column
        end = len(text) if end < 0 else end
        changes.append((end, end, "".join(f"{ending}{indent}{line}" for line in lines)))
    for start, stop, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[stop:]
    return _checked(path, text, expected, [f"{key}: {word}" for key, word in replaced.items()] + lines)
