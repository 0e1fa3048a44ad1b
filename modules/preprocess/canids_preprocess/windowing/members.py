"""Captures of a job and members of its split: a capture for each bus, which captures a fold leaves out or keeps, each content once."""

import logging
import re
from collections.abc import Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from canids_preprocess.windowing.frames import Recording
from canids_shared.contracts import tables
from canids_shared.contracts.attacks import kind_of
from canids_shared.contracts.manifest import ENROLMENT, LEFT_OUT, SPLITS, base_of
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

_FOLD_KEYS = {"vehicles": "vehicle", "attacks": "attack", "captures": "capture"}
_METADATA = ("sha256", "vehicle", "attack", "content", "rows_read", "capture", "frames", "attacked", "attacks")
log = logging.getLogger(__name__)


def metadata_of(call: Call) -> dict[Recording, dict[str, Any]]:
    """Metadata of the frames of a call's captures, and whether each is `auxiliary`; frames of several buses are a capture each: no window
    holds frames of two.

    Raises `CanidsError` naming the file that is damaged or lacks some of it.
    """
    joining = call.inputs.get("auxiliary", [])
    captures = {path: tables.read_metadata(path, tables.FRAMES) for path in [*call.inputs["frames"], *joining]}
    for path, metadata in captures.items():
        if missing := [key for key in _METADATA if key not in metadata]:
            raise CanidsError(f"{path}: its metadata lacks '{missing[0]}'; delete it and run again")
        metadata["auxiliary"] = path in joining
        if metadata["auxiliary"]:
            # Also the vehicle: a recorded `van` has thresholds and scales of its own, whatever the simulator calls its vehicles.
            for key in ("capture", "vehicle"):
                metadata[key] = f"{call.constants['auxiliary']}.{metadata[key]}"
    return dict(chain.from_iterable(_by_bus(path, metadata) for path, metadata in captures.items()))


def _by_bus(path: Path, metadata: dict[str, Any]) -> Iterator[tuple[Recording, dict[str, Any]]]:
    channels: dict[str, int] = metadata.get("channels") or {}
    if not channels:
        yield Recording(path), metadata
    for number, (channel, frames) in enumerate(channels.items()):
        # Another bus of the same file is other content.
        own = {"frames": frames, "sha256": sha256(f"{metadata['sha256']} {channel}".encode()).hexdigest()}
        if len(channels) > 1:
            plain = re.sub("[^A-Za-z0-9_.-]", "-", channel) or "none"
            same = [c for c in list(channels)[:number] if re.sub("[^A-Za-z0-9_.-]", "-", c) == plain]
            own["capture"] = f"{metadata['capture']}.{plain}" + (f"-{number}" if same else "")
            own["entry"] = metadata["capture"]
            if (
                metadata["content"] == "labelled"
                and channel not in metadata["channels_attacked"]
                and not metadata["attacked"]
            ):
                # The attack is on another bus of the log.
                own |= {"content": "attack-free", "attack": None, "attacks": []}
        yield Recording(path, channel if len(channels) > 1 else None), metadata | own


def _named(metadata: dict[str, Any], kind: str) -> set[str]:
    """What of a capture a key of `leave_out` names."""
    more = metadata["attacks"] if kind == "attacks" else [metadata.get("entry")] if kind == "captures" else []
    return {name for name in (metadata[_FOLD_KEYS[kind]], *more) if name}


def _check_fold(call: Call, recorded: list[dict[str, Any]]) -> None:
    for kind, key in _FOLD_KEYS.items():
        known = {name for metadata in recorded for name in _named(metadata, kind)}
        for name in call.config["leave_out"].get(kind, []):
            if name not in known:
                raise CanidsError(
                    f"leave_out.{kind}: the training captures of dataset '{call.wildcards['dataset']}' have no "
                    f"{key} '{name}'; they have {', '.join(sorted(known)) or 'none'}"
                )


def members(call: Call, captures: dict[Recording, dict[str, Any]]) -> list[Recording]:
    """The captures of the split of a call, by the metadata of their frames; in the order of their names.

    So another order in the manifest, or of a job's inputs, makes the same graph store.
    Raises `CanidsError` if the fold names what no capture has, or leaves no capture.
    """
    # Only the training captures are what a fold is made of; an enrolment has those that it lists.
    split = base_of(call.wildcards.get("split", ENROLMENT))
    leave_out = call.config["leave_out"] if split in (*SPLITS, LEFT_OUT) else {}
    if leave_out:
        _check_fold(call, [metadata for metadata in captures.values() if not metadata["auxiliary"]])

    def is_left_out(metadata: dict[str, Any]) -> bool:
        if metadata["auxiliary"]:
            # Auxiliary captures have vehicles of their own, but the kinds of attack that all have. A name that shows no
            # kind leaves out all of them: any could be its relative.
            kinds = {kind_of(attack) for attack in leave_out.get("attacks", [])}
            return bool(metadata["attack"] and kinds and (None in kinds or kind_of(metadata["attack"]) in kinds))
        return any(_named(metadata, kind) & {*leave_out.get(kind, [])} for kind in _FOLD_KEYS)

    # By content: a copy of a left-out capture under another name is left out with it.
    left_out = {metadata["sha256"] for metadata in captures.values() if is_left_out(metadata)}
    chosen: dict[str, Recording] = {}
    for recording, metadata in sorted(captures.items(), key=lambda item: str(item[1]["capture"])):
        content = metadata["sha256"]
        if leave_out and (content in left_out) != (split == LEFT_OUT):
            continue
        if content in chosen:
            log.info("%s has the same content as an earlier capture and counts once", metadata["capture"])
            continue
        chosen[content] = recording
    if all(captures[recording]["auxiliary"] for recording in chosen.values()):
        raise CanidsError(f"leave_out leaves no capture for split '{split}'")
    return list(chosen.values())
