"""Entries of a manifest: what a capture's name says, held against what is in the capture."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess.drafting.names import PUBLISHED_ON, VEHICLES, Hint, hint_of, kind_of_attack
from canids_preprocess.drafting.vehicles import Ids, ids_of
from canids_preprocess.formats import FORMATS
from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError

DOCUMENTS = (".yaml", ".yml", ".json", ".md", ".pdf", ".dbc", ".py", ".png", ".svg")
_OTIDS = ("dos", "fuzzing", "impersonation")
GROUP = re.compile("(train|test)_[A-Za-z0-9_-]+$")
"""Folders that give their captures the role."""
Entry = dict[str, Any]
LABEL = "python -m canids_preprocess.label CAPTURE LABELS"


@dataclass
class Drafted:
    """A drafted entry.

    Attributes:
        entry: as the manifest has it; without a vehicle where no name says it.
        comments: what has to be checked, each a line above the entry.
        ids: the arbitration IDs of the capture's beginning; empty if it is too short to tell.
        buses: of a log of several, the name of each → whether any frame is labelled as attacked (None: no labels).
    """

    entry: Entry
    comments: list[str] = field(default_factory=list)
    ids: Ids = frozenset()
    buses: dict[str, bool | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What is in a capture.

    Attributes:
        beginning: the first frames.
        attacked: whether any frame is labelled as attacked; None: frames have no labels.
        buses: names of buses, where there are several, with the same of each.
    """

    beginning: pl.DataFrame
    attacked: bool | None
    buses: dict[str, bool | None] = field(default_factory=dict)


def content_of(path: Path, capture_format: str, entry: Entry) -> Content:
    """Read a capture up to its first attacked frame, of several buses to its end; one without labels no further than its first frames.

    Raises `CanidsError` if it is refused, such as a log without times, or holds no frame.
    """
    # OTIDS is labelled by its attack's name: without one there are no labels.
    content = "labelled" if capture_format != "otids" or entry["attack"] in _OTIDS else "unlabelled"
    beginning, attacked, buses = None, None, dict[str, bool | None]()
    for batch in FORMATS[capture_format].read(path, {**entry, "content": content}):
        if not len(batch.frames):
            continue
        if beginning is None:
            beginning = batch.frames
            names = sorted(beginning["channel"].unique().drop_nulls().to_list())
            buses = dict.fromkeys(names) if len(names) > 1 else {}
        if batch.frames["label"].null_count() == len(batch.frames):
            break
        attacked = bool(attacked or batch.frames["label"].max())
        for name, label in batch.frames.group_by("channel").agg(pl.col("label").max()).iter_rows():
            if name in buses:
                buses[name] = bool(buses[name] or label)
        if attacked and not buses:
            break
    if beginning is None:
        raise CanidsError(f"{path}: no frames in it")
    return Content(beginning, attacked, buses)


def group_of(path: Path, folder: Path) -> str:
    """The folder `train_…` or `test_…` below `folder` that a capture is in, or nothing."""
    return next((f.name for f in path.relative_to(folder).parents if GROUP.match(f.name)), "")


def named_in_layout(path: Path, folder: Path, capture_format: str) -> Entry:
    """Vehicle, attack and content of a capture in the layout of can-train-and-test, by its name; empty in any other."""
    if not group_of(path, folder) or capture_format != "can-train-and-test":
        return {}
    entry: Entry = {**manifest.entry_of(path, "")}
    return {key: entry[key] for key in ("vehicle", "attack", "content") if entry.get(key)}


def _judged(hint: Hint | None, kind: str, attacked: bool | None) -> tuple[Entry, list[str]]:
    """Role, content and attack by what the name says and whether a frame is attacked, and what has to be checked."""
    train, score = {"role": "train"}, {"role": "to_score", "content": "unlabelled"}
    if attacked:
        doubt = [f"called attack-free ({hint.name}), but frames of it are attacked"] if hint and not hint.kind else []
        return {**train, "content": "labelled", "attack": kind}, doubt
    if hint and not hint.kind:
        labels = "" if attacked is None else " and its labels"
        return {**train, "content": "attack-free"}, [f"attack-free by its name ({hint.name}){labels}: is it?"]
    if attacked is False and not hint:
        return {**train, "content": "attack-free"}, ["no frame is labelled as attacked: is it attack-free?"]
    if attacked is False:
        unknown = f"named as an attack, but no frame is labelled as attacked, so what is attacked is unknown: {LABEL}"
        return {**score, "attack": kind}, [unknown]
    unlabelled = (
        f"no labels: will be scored only; content attack-free (role train) or intervals ({LABEL}) allow training"
    )
    return {**score, **({"attack": kind} if hint and kind != "attack" else {})}, [unlabelled]


def drafted(
    path: Path,
    folder: Path,
    capture_format: str,
    unit: Callable[[pl.DataFrame], str | None],
    table: dict[str, Any] | None = None,
) -> Drafted:
    """The entry of a capture below `folder`.

    Args:
        path: the capture.
        folder: the dataset's folder.
        capture_format: its format.
        unit: the unit of time that frames look like, as `canids_preprocess.timestamps.likely_unit`.
        table: of a table, what its columns mean, the unit of time too.

    Raises `CanidsError` if the capture cannot be read.
    """
    relative = path.relative_to(folder)
    layout = named_in_layout(path, folder, capture_format)
    hint = hint_of(relative, [folder.name, folder.parent.name])
    if layout:
        hint = Hint(layout.get("attack", ""), relative.stem)
    # Attacks of the layout keep their names: folds leave them out by these.
    kind = layout.get("attack") or kind_of_attack(relative)
    metadata = path.with_name(manifest.ROAD_METADATA) if capture_format == "road" else None
    content = content_of(path, capture_format, {"attack": kind, "metadata": metadata, "table": table})
    judged, comments = _judged(hint, kind, content.attacked)
    entry: Entry = {"path": relative.as_posix(), "format": capture_format}
    known = re.search(VEHICLES, str(relative.with_suffix("")).lower())
    if vehicle := layout.get("vehicle") or (known[0] if known else PUBLISHED_ON.get(capture_format)):
        entry["vehicle"] = vehicle
    entry |= judged
    if (group := group_of(path, folder)).startswith("test_"):
        entry["role"] = group
    if metadata and entry["content"] == "labelled":
        entry["metadata"] = metadata.relative_to(folder).as_posix()
    if table is not None:
        entry["table"] = table
    elif not FORMATS[capture_format].unit_known:
        likely = unit(
            content.beginning.filter(channel=next(iter(content.buses))) if content.buses else content.beginning
        )
        if likely == "":
            raise CanidsError(f"{path}: no unit of time makes a bus of its timestamps")
        if likely:
            entry["timestamp_unit"] = likely
            comments.append("timestamp_unit is guessed from the frame rate; is it s, of a slow bus?")
    return Drafted(entry, comments, ids_of(content.beginning), content.buses)


def by_bus(name: str, one: Drafted, taken: set[str]) -> dict[str, Drafted]:
    """The captures that a log is, by name: one for each of its buses, whose name stands behind its own; added to `taken`."""
    if not one.buses:
        return {name: one}
    captures: dict[str, Drafted] = {}
    for channel, attacked in one.buses.items():
        plain = f"{name}.{re.sub('[^A-Za-z0-9_.-]', '-', channel)}"
        unique = plain if plain not in taken else f"{plain}-{len(taken)}"
        taken.add(unique)
        entry, comments = {**one.entry, "channel": channel}, ["one of the buses of its first frames", *one.comments]
        if attacked is False and one.entry["content"] == "labelled" and "attacked" not in one.entry:
            # The attack is on another bus of the log.
            del entry["attack"]
            entry["content"] = "attack-free"
            comments = ["no frame of this bus is labelled as attacked: is it attack-free?"]
        captures[unique] = Drafted(entry, comments, one.ids)  # all IDs of the log: its buses are one vehicle's
    return captures


def captures_in(folder: Path) -> Iterator[Path]:
    """The files below `folder` that may be captures, in the order of their paths."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix.lower() not in DOCUMENTS:
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
