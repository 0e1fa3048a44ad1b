"""Members of a split: which captures a fold leaves out or keeps, each content once."""

import logging
from typing import Any

from canids_preprocess.windowing.frames import Recording
from canids_shared.contracts.attacks import kind_of
from canids_shared.contracts.manifest import LEFT_OUT, SPLITS
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

_FOLD_KEYS = {"vehicles": "vehicle", "attacks": "attack", "captures": "capture"}


def _named(metadata: dict[str, Any], kind: str) -> set[str]:
    """What of a capture a key of `leave_out` names."""
    more = metadata["attacks"] if kind == "attacks" else [metadata.get("entry")] if kind == "captures" else []
    return {name for name in (metadata[_FOLD_KEYS[kind]], *more) if name}


log = logging.getLogger(__name__)


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
    leave_out = call.config["leave_out"]
    if leave_out and call.wildcards["split"] in (*SPLITS, LEFT_OUT):
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
        if leave_out and (content in left_out) != (call.wildcards["split"] == LEFT_OUT):
            continue
        if content in chosen:
            log.info("%s has the same content as an earlier capture and counts once", metadata["capture"])
            continue
        chosen[content] = recording
    if all(captures[recording]["auxiliary"] for recording in chosen.values()):
        raise CanidsError(f"leave_out leaves no capture for split '{call.wildcards['split']}'")
    return list(chosen.values())
