"""Draft a dataset's manifest from a folder of captures: `python -m canids_preprocess.draft data/mycar`.

Writes `manifest.yaml` into the folder, never over one that is there. Formats are recognised by the files' content; vehicle
and attack are guessed from names, so every entry has to be checked. In folders called `train_*` and `test_*`, the layout of
can-train-and-test, the folder gives the role.
"""

import argparse
import sys
from pathlib import Path

from canids_preprocess.drafting.entries import Entry, capture_name, captures_in, group_of, guessed
from canids_preprocess.drafting.text import manifest_text
from canids_preprocess.formats import FORMATS, recognise
from canids_preprocess.timestamps import likely_unit
from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError
from canids_shared.files import write_text

MANIFEST = "manifest.yaml"


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


def _entry(path: Path, folder: Path, capture_format: str) -> Entry:
    group, unit = group_of(path, folder), _timestamp_unit(path, capture_format)
    if group and capture_format == "can-train-and-test":
        return {**manifest.entry_of(path, folder.name), **unit}
    entry = guessed(path, folder, capture_format) | unit
    return {**entry, "role": group} if group.startswith("test_") else entry


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
    for path in captures_in(folder):
        relative = str(path.relative_to(folder))
        try:
            if not relative.isprintable():
                raise CanidsError(f"{relative}: a name with characters that cannot be printed; rename it")
            entry = _entry(path, folder, recognise(path))
        except CanidsError as error:
            unread.append(str(error).removeprefix(str(folder)).lstrip("/"))
            continue
        entries[capture_name(path, folder, set(entries))] = entry
    if not entries:
        raise CanidsError(f"{folder}: no capture in a format that is recognised; see 'Formats' in preprocess' README")
    labelled = [name for name, entry in entries.items() if entry["content"] == "labelled"]
    grouped = any(group_of(folder / entry["path"], folder) for entry in entries.values())
    if labelled and not grouped and sum(entry["role"] == "train" for entry in entries.values()) > 1:
        entries[labelled[-1]]["role"] = "test"
    return manifest_text(folder.name, entries, unread)


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
