"""Entries of a manifest as far as a capture's name, folder and format give them."""

import re
from collections.abc import Iterator
from pathlib import Path

from canids_preprocess.drafting.names import PUBLISHED_ON, VEHICLES, guess_attack
from canids_preprocess.formats import FORMATS
from canids_preprocess.formats.hcrl import ATTACKED
from canids_preprocess.formats.text import first_bytes, mostly
from canids_shared.contracts import manifest

Entry = dict[str, str]


def _has_labels(path: Path, capture_format: str, attack: str) -> bool:
    if not FORMATS[capture_format].labelled:
        return False
    # Only the layout with flags has labels; the attack-free files of these data sets have others.
    if capture_format in ("hcrl-car-hacking", "hcrl-survival"):
        return mostly(first_bytes(path), ATTACKED.sniff)
    if capture_format == "otids":
        return attack in ("dos", "fuzzing", "impersonation")
    return True


def group_of(path: Path, folder: Path) -> str:
    """The folder `train_…` or `test_…` that a capture is in, or nothing."""
    return path.parent.name if path.parent.parent == folder and re.match("(train|test)_", path.parent.name) else ""


def guessed(path: Path, folder: Path, capture_format: str) -> Entry:
    """The entry of a capture below `folder`, by names and format: vehicle, role, content, attack."""
    relative = path.relative_to(folder)
    name = str(relative.with_suffix("")).lower()
    # The vehicle by a make or model in the path, by the published data set, or else by the folder.
    known = re.search(VEHICLES, name)
    vehicle = known[0] if known else PUBLISHED_ON.get(capture_format) or re.sub("[^A-Za-z0-9_.-]", "-", folder.name)
    entry = {"path": relative.as_posix(), "format": capture_format, "vehicle": vehicle}
    attack = guess_attack(relative)
    if attack is None:
        return {**entry, "role": "train", "content": "attack-free"}
    if not _has_labels(path, capture_format, attack):
        return {**entry, "role": "to_score", "content": "unlabelled"}
    if capture_format == "road":
        entry["metadata"] = relative.with_name(manifest.ROAD_METADATA).as_posix()
    return {**entry, "role": "train", "content": "labelled", "attack": attack}


def captures_in(folder: Path) -> Iterator[Path]:
    """The files below `folder` that may be captures, in the order of their paths."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        documents = path.suffix.lower() in (".yaml", ".yml", ".json", ".md", ".pdf", ".dbc", ".py")
        if path.is_file() and not hidden and not documents:
            yield path


def capture_name(path: Path, folder: Path, taken: set[str]) -> str:
    """A name for a capture that is not among `taken`, to which it is added."""
    relative = path.relative_to(folder)
    # The path below the folder, without its suffix unless another capture has that name already.
    names = [
        re.sub("[^A-Za-z0-9_.-]", "-", p.as_posix().replace("/", ".")) for p in (relative.with_suffix(""), relative)
    ]
    name = next((n for n in names if n not in taken), f"{names[1]}-{len(taken)}")
    taken.add(name)
    return name
