"""Draft a dataset's manifest from a folder of captures: `python -m canids_preprocess.draft data/mycar`.

Writes `manifest.yaml` into the folder; one that is there keeps every byte, and captures that it does not list are added to it.
Formats are recognised by the files' content, and labels are read. Attacks are guessed from names, vehicles from names or from the
overlap of their arbitration IDs, so every entry has to be checked. In folders called `train_*` and `test_*`, the layout of
can-train-and-test, the folder gives the role. A file of labels beside a capture (`drive.log`, `drive.labels.csv`) becomes its
`attacked` intervals, with a picture to check them by (`drive.log.attacked.png`), as `python -m canids_preprocess.label` makes it.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from canids_preprocess.drafting import labelling, vehicles
from canids_preprocess.drafting.entries import (
    GROUP,
    LABEL,
    Drafted,
    by_bus,
    capture_name,
    captures_in,
    drafted,
    group_of,
)
from canids_preprocess.drafting.mapping import format_of
from canids_preprocess.drafting.names import says_attack
from canids_preprocess.drafting.text import manifest_text, read_text, with_entries
from canids_preprocess.formats import FORMATS
from canids_preprocess.formats.base import printable
from canids_preprocess.formats.table.reader import in_file_unit
from canids_preprocess.timestamps import in_seconds, likely_unit
from canids_shared.contracts import manifest
from canids_shared.contracts.manifest import Capture
from canids_shared.errors import CanidsError
from canids_shared.files import write_text

MANIFEST = "manifest.yaml"


@dataclass
class Draft:
    """A drafted manifest.

    Attributes:
        text: of the manifest.
        added: names of the entries that are new.
        unread: why files cannot be read, one line each.
        gone: captures that the manifest lists and that are not there.
        pictures: files of pictures that show labels.
    """

    text: str
    added: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)


def _plain(name: str) -> str:
    return re.sub("[^A-Za-z0-9_.-]", "-", name)


def _folders_of(capture: Path) -> list[str]:
    """The folders that a capture is in, as paths in the dataset, but for those that speak of splits and attacks."""
    vehicle_folders = [f for f in capture.parents if f.name and not GROUP.match(f.name) and not says_attack(f.name)]
    return ["/".join(map(_plain, f.parts)) for f in vehicle_folders]


def _name_vehicles(folder: Path, entries: Mapping[str, Drafted], old: Mapping[str, Drafted]) -> None:
    """Give every new entry a vehicle; `old` entries have theirs by the user."""
    dataset = _plain(folder.name)
    whole = {**old, **entries}
    grouped = vehicles.groups({name: one.ids for name, one in whole.items()})
    known = {name: one.entry["vehicle"] for name, one in whole.items() if "vehicle" in one.entry}
    folders = {name: _folders_of(Path(one.entry["path"])) for name, one in whole.items()}
    guessed = vehicles.names(grouped, folders, known, dataset)
    for group in grouped:
        new = [name for name in group if name in guessed and name in entries]
        if new and len(whole) > 1:
            others = f"mostly the arbitration IDs of {len(group) - 1} more" if len(group) > 1 else "IDs of its own"
            entries[new[0]].comments.append(f"vehicle {guessed[new[0]]} is a guess: the capture has {others}")
    for name, one in entries.items():
        one.entry = {
            **{key: one.entry[key] for key in ("path", "format")},
            "vehicle": known.get(name) or guessed.get(name) or dataset,
            **{key: value for key, value in one.entry.items() if key not in ("path", "format", "vehicle")},
        }


def _take_labels(folder: Path, one: Drafted, labels: Path, result: Draft) -> None:
    """Give a drafted entry the intervals of a file of labels, or a comment that says why they are not taken."""
    path = folder / one.entry["path"]
    form = FORMATS[one.entry["format"]]
    table = one.entry.get("table")
    unit = in_file_unit(table) if table else one.entry.get("timestamp_unit")
    batches = in_seconds(path, form, {"content": "unlabelled", "table": table}, unit)
    try:
        labelling.label_draft(one, labels, path, batches)
        result.pictures.append(labelling.picture_of(path))
    except CanidsError as error:
        one.comments.append(f"labels not taken: {str(error).removeprefix(str(folder)).lstrip('/')}")


def _read(
    folder: Path, captures: Mapping[str, Capture], result: Draft
) -> tuple[dict[str, Drafted], dict[str, Drafted]]:
    """Drafted entries of the captures below a folder, those that the manifest does not list yet and those that it does, by name."""
    listed = {Path(os.path.normpath(c.path)): name for name, c in captures.items() if c.path}
    taken = set(captures)
    new: dict[str, Drafted] = {}
    old: dict[str, Drafted] = {}
    label_files = labelling.label_files_in(folder)
    for path in captures_in(folder):
        relative = str(path.relative_to(folder))
        if path in label_files:
            continue
        try:
            if not relative.isprintable():
                raise CanidsError(f"{relative}: a name with characters that cannot be printed; rename it")
            capture_format, proposal = format_of(path, likely_unit)
            one = drafted(path, folder, capture_format, likely_unit, proposal.table if proposal else None)
            one.comments += proposal.comments() if proposal else []
            labels = next((file for file, capture in label_files.items() if capture == path), None)
            if path in listed:
                old[listed[path]] = one
                if labels and not captures[listed[path]].attacked:
                    result.unread.append(
                        f"{labels.relative_to(folder)}: labels of {relative}, which is listed already; {LABEL} imports them"
                    )
                continue
            if labels and one.buses:
                one.comments.append(
                    f"labels of {labels.name} not taken, since they do not say of which bus: {LABEL} --name NAME"
                )
            elif labels:
                _take_labels(folder, one, labels, result)
        except CanidsError as error:
            if path not in listed:
                result.unread.append(str(error).removeprefix(str(folder)).lstrip("/"))
            continue
        new |= by_bus(capture_name(path, folder, taken), one, taken)
    return new, old


def draft(folder: Path) -> Draft:
    """A manifest for all captures below `folder`, with comments on what has to be checked; or the one there, with those that it lacks.

    Attack-free and labelled captures are training captures, all others the scenario `to_score`. The last labelled capture is
    held out as the scenario `test` if another one is left for training and no folder gives the roles.

    Raises `CanidsError` if there is no such folder, no capture in it, or a manifest that cannot be read or added to.
    """
    if not folder.is_dir():
        raise CanidsError(f"{folder}: no such folder")
    folder, place = folder.resolve(), folder / MANIFEST
    captures = manifest.read(place, folder) if place.exists() else {}
    result = Draft(read_text(place) if captures else "")
    result.gone = [str(c.path) for c in captures.values() if c.path and not c.path.exists()]
    entries, old = _read(folder, captures, result)
    if not entries and not captures:
        why = f" ({printable(result.unread[0])})" if result.unread else ""
        raise CanidsError(f"{folder}: no capture that can be read{why}; see 'Formats' in preprocess' README")
    for name, one in old.items():
        one.entry["vehicle"] = captures[name].vehicle
    _name_vehicles(folder, entries, old)
    labelled = [one for one in entries.values() if one.entry["content"] == "labelled"]
    grouped = any(group_of(folder / one.entry["path"], folder) for one in entries.values())
    # Buses of one log stay together.
    training = len(
        {str(c.path) for c in captures.values() if c.role == "train"}
        | {one.entry["path"] for one in entries.values() if one.entry["role"] == "train"}
    )
    tested = any(c.role not in ("train", "to_score") for c in captures.values())
    if labelled and not grouped and not tested and training > 1:
        for one in entries.values():
            if one.entry["path"] == labelled[-1].entry["path"] and one.entry["role"] == "train":
                one.entry["role"] = "test"
    result.added = list(entries)
    if not captures:
        result.text = manifest_text(folder.name, entries, result.unread)
    elif entries:
        result.text = with_entries(place, result.text, entries)
    return result


def main() -> None:
    """Write the draft, or exit with one line that gives the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of one dataset's captures")
    folder: Path = parser.parse_args().folder
    place = folder / MANIFEST
    try:
        merged = place.exists()
        result = draft(folder)
        try:
            if result.added:
                write_text(place, result.text)
        except OSError as error:
            raise CanidsError(f"{place}: cannot be written ({error.strerror})") from None
    except CanidsError as error:
        sys.exit(f"error: {error}")
    print(result.text, end="")
    for capture in result.gone:
        print(f"gone: {capture} is listed, and there is no such file", file=sys.stderr)
    for picture in result.pictures:
        print(f"do the intervals fit? {picture}", file=sys.stderr)
    if merged:
        for complaint in result.unread:
            print(f"not a capture that can be read: {complaint}", file=sys.stderr)
        added = ", ".join(result.added) or "nothing"
        print(f"added to {place}: {added}; all else in it is as it was", file=sys.stderr)
    else:
        print(f"written to {place}; check it before the first run", file=sys.stderr)


if __name__ == "__main__":
    main()
