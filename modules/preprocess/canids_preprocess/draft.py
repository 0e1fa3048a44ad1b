"""Draft a dataset's manifest from a folder of captures: `python -m canids_preprocess.draft data/mycar`.

Writes `manifest.yaml` into the folder, never over one that is there. Formats are recognised by the files' content; vehicle
and attack are guessed from names, so every entry has to be checked. In folders called `train_*` and `test_*`, the layout of
can-train-and-test, the folder gives the role.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from canids_preprocess.drafting.buses import entries_by_bus
from canids_preprocess.drafting.mapping import Proposal, format_of
from canids_preprocess.formats import FORMATS
from canids_preprocess.formats.base import printable
from canids_preprocess.formats.hcrl import ATTACKED
from canids_preprocess.formats.text import first_bytes, mostly
from canids_preprocess.timestamps import likely_unit
from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError
from canids_shared.files import write_text

MANIFEST = "manifest.yaml"
_ATTACK_FREE = "(?<![a-z])(attack.?free|free.?driving|normal|ambient|benign|clean)(?![a-z])"
_ATTACKS = {
    "(?<![a-z])dos|flood": "dos",
    "fuzz": "fuzzing",
    "(?<![a-z])gear": "gear-spoofing",
    "(?<![a-z])rpm": "rpm-spoofing",
    "malfunction": "malfunction",
    "replay": "replay",
    "imperson": "impersonation",
    "suppress|suspen": "suppression",
    "accelerator": "accelerator",
    "correlated.?signal": "correlated-signal",
    "max.?engine.?coolant": "max-engine-coolant-temp",
    "max.?speedometer": "max-speedometer",
    "reverse.?light": "reverse-light",
    "spoof": "spoofing",
}
_ATTACKED = "attack(?!.?free)"
_SUSPICIOUS = "abnormal|unclean|malicious|intrusion|inject"
"""Attacks of no known kind; a word for attack-free comes before those of `_SUSPICIOUS`."""
_VEHICLES = "sonata|soul|kia|spark|hyundai|chevrolet|impala|silverado|traverse|forester|subaru|tesla|renault|opel"
_PUBLISHED_ON = {"hcrl-car-hacking": "sonata", "otids": "soul", "road": "road"}
"""The only vehicle of a published data set whose files do not name it."""

Entry = dict[str, Any]


def _attack_in(name: str) -> str | None:
    """Attack by a file's or folder's name, `attack` for one of no known kind; empty: attack-free; None: the name has no hint."""
    # "FuzzyAttack" reads as "fuzzy_attack". Patterns in this order: named attacks come before words for attack-free.
    name = re.sub("(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()
    for words, kind in {**_ATTACKS, _ATTACKED: "attack", _ATTACK_FREE: "", _SUSPICIOUS: "attack"}.items():
        if re.search(words, name):
            return kind
    return None


def _guess_attack(relative: Path) -> str | None:
    """Kind of attack by a file's name, or else by the names of the folders that it is in; None: attack-free."""
    names = [relative.stem, *(folder.name for folder in relative.parents)]
    attack = next((hint for name in names if (hint := _attack_in(name)) is not None), "attack")
    return f"{attack}-masquerade" if attack and "masquerade" in str(relative).lower() else attack or None


def _has_labels(path: Path, capture_format: str, attack: str, table: dict[str, Any] | None) -> bool:
    if table is not None:
        return "label" in table
    if not FORMATS[capture_format].labelled:
        return False
    # Only the layout with flags has labels; the attack-free files of these data sets have others.
    if capture_format in ("hcrl-car-hacking", "hcrl-survival"):
        return mostly(first_bytes(path), ATTACKED.sniff)
    if capture_format == "otids":
        return attack in ("dos", "fuzzing", "impersonation")
    return True


def _group(path: Path, folder: Path) -> str:
    """The folder `train_…` or `test_…` that a capture is in, or nothing."""
    return path.parent.name if path.parent.parent == folder and re.match("(train|test)_", path.parent.name) else ""


def _timestamp_unit(path: Path, capture_format: str) -> Entry:
    """The key `timestamp_unit` where the first frames of a capture in text show that it is needed.

    Raises `CanidsError` if the capture is refused by its beginning, such as a log without times.
    """
    if capture_format in ("blf", "mf4"):
        return {}
    beginning = next(FORMATS[capture_format].read(path, {"content": "unlabelled"}), None)
    unit = likely_unit(beginning.frames) if beginning and not FORMATS[capture_format].unit_known else None
    if unit == "":
        raise CanidsError(f"{path}: no unit of time makes a bus of its timestamps")
    return {"timestamp_unit": unit} if unit else {}


def _entry(path: Path, folder: Path, capture_format: str, table: dict[str, Any] | None) -> Entry:
    group, unit = _group(path, folder), {} if table else _timestamp_unit(path, capture_format)
    if group and capture_format == "can-train-and-test":
        return {**manifest.entry_of(path, folder.name), **unit}
    entry = _guessed(path, folder, capture_format, table) | unit | ({"table": table} if table else {})
    return {**entry, "role": group} if group.startswith("test_") else entry


def _guessed(path: Path, folder: Path, capture_format: str, table: dict[str, Any] | None) -> Entry:
    relative = path.relative_to(folder)
    name = str(relative.with_suffix("")).lower()
    # The vehicle by a make or model in the path, by the published data set, or else by the folder.
    known = re.search(_VEHICLES, name)
    vehicle = known[0] if known else _PUBLISHED_ON.get(capture_format) or re.sub("[^A-Za-z0-9_.-]", "-", folder.name)
    entry = {"path": relative.as_posix(), "format": capture_format, "vehicle": vehicle}
    attack = _guess_attack(relative)
    if attack is None:
        return {**entry, "role": "train", "content": "attack-free"}
    if not _has_labels(path, capture_format, attack, table):
        return {**entry, "role": "to_score", "content": "unlabelled"}
    if capture_format == "road":
        entry["metadata"] = relative.with_name(manifest.ROAD_METADATA).as_posix()
    return {**entry, "role": "train", "content": "labelled", "attack": attack}


def _captures(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        documents = path.suffix.lower() in (".yaml", ".yml", ".json", ".md", ".pdf", ".dbc", ".py")
        if path.is_file() and not hidden and not documents:
            yield path


def _name(path: Path, folder: Path, taken: set[str]) -> str:
    relative = path.relative_to(folder)
    # The path below the folder, without its suffix unless another capture has that name already.
    names = [
        re.sub("[^A-Za-z0-9_.-]", "-", p.as_posix().replace("/", ".")) for p in (relative.with_suffix(""), relative)
    ]
    name = next((n for n in names if n not in taken), f"{names[1]}-{len(taken)}")
    taken.add(name)
    return name


def draft(folder: Path) -> str:
    """Text of a manifest for all captures below `folder`, with comments on what has to be checked.

    Attack-free and labelled captures are training captures, all others the scenario `to_score`. The last labelled capture is
    held out as the scenario `test` if another one is left for training and no folder gives the roles.

    Raises `CanidsError` if there is no such folder, or no capture in it.
    """
    if not folder.is_dir():
        raise CanidsError(f"{folder}: no such folder")
    folder = folder.resolve()
    entries: dict[str, Entry] = {}
    unread: list[str] = []
    proposals: dict[str, Proposal] = {}
    taken: set[str] = set()
    for path in _captures(folder):
        relative = str(path.relative_to(folder))
        try:
            if not relative.isprintable():
                raise CanidsError(f"{relative}: a name with characters that cannot be printed; rename it")
            capture_format, proposal = format_of(path, likely_unit)
            entry = _entry(path, folder, capture_format, proposal.table if proposal else None)
            begun = next(
                FORMATS[capture_format].read(path, {"content": "unlabelled", "table": entry.get("table")}), None
            )
        except CanidsError as error:
            unread.append(str(error).removeprefix(str(folder)).lstrip("/"))
            continue
        for name, one in entries_by_bus(_name(path, folder, taken), entry, begun.frames if begun else None):
            unique = f"{name}-{len(entries)}" if name in entries else name
            entries[unique] = one
            taken.add(unique)
            if proposal:
                proposals[unique] = proposal
    if not entries:
        raise CanidsError(f"{folder}: no capture in a format that is recognised; see 'Formats' in preprocess' README")
    labelled = [name for name, entry in entries.items() if entry["content"] == "labelled"]
    grouped = any(_group(folder / entry["path"], folder) for entry in entries.values())
    if labelled and not grouped and sum(entry["role"] == "train" for entry in entries.values()) > 1:
        entries[labelled[-1]]["role"] = "test"
    return _text(folder.name, entries, unread, proposals)


def _text(dataset: str, entries: dict[str, Entry], unread: list[str], proposals: dict[str, Proposal]) -> str:
    lines = [
        f"# Drafted from the captures of {printable(dataset)}. Check every entry: vehicle, attack and content are guesses from file names.",
        "# role: train, or the name of a test scenario. Keys: shared/canids_shared/contracts/manifest.schema.yaml",
    ]
    roles = {entry["role"] for entry in entries.values()}
    if "train" not in roles:
        lines.append("# Missing: no capture to train on; which of them is attack-free (role: train)?")
    if roles == {"train"}:
        lines.append("# Missing: no capture to test on; give one of them a scenario's name as role, such as test")
    lines += [f"# not a capture that can be read: {printable(complaint, 500)}" for complaint in unread]
    lines += [f"contract: {manifest.CONTRACT}", "captures:"]
    for name, entry in entries.items():
        if entry["content"] == "attack-free":
            lines.append("  # attack-free by its name: is it?")
        elif entry["content"] == "unlabelled":
            lines.append(
                "  # no labels: will be scored only; content attack-free (role train) or 'attacked: [[from, to]]' allow training"
            )
        if "timestamp_unit" in entry:
            lines.append("  # timestamp_unit is guessed from the frame rate; is it s, of a slow bus?")
        if name in proposals:
            lines += [f"  # {comment}" for comment in proposals[name].comments()]
        body: str = yaml.safe_dump({name: entry}, sort_keys=False, allow_unicode=True, width=1000)
        lines += [f"  {line}" for line in body.splitlines()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the draft, or exit with one line that gives the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of one dataset's captures")
    folder: Path = parser.parse_args().folder
    try:
        if (folder / MANIFEST).exists():
            raise CanidsError(f"{folder / MANIFEST}: already exists; edit it, or move it away to draft a new one")
        text = draft(folder)
        try:
            write_text(folder / MANIFEST, text)
        except OSError as error:
            raise CanidsError(f"{folder / MANIFEST}: cannot be written ({error.strerror})") from None
    except CanidsError as error:
        sys.exit(f"error: {error}")
    print(text, end="")
    print(f"written to {folder / MANIFEST}; check it before the first run", file=sys.stderr)


if __name__ == "__main__":
    main()
