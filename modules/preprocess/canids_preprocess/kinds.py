"""Kinds of attack: datasets give one kind many names, and a fold that leaves an attack out has to know its relatives."""

import re

_KINDS = {
    "(?<![a-z])dos|flood|jam": "dos",
    "fuzz": "fuzzing",
    "replay": "replay",
    "suppress|suspen": "suppression",
    "masquerad": "masquerade",
    # Frames with an ID of the vehicle and content of the attacker's, whatever they are to feign.
    "spoof|gear|rpm|imperson|malfunction|fabricat|accelerator|correlated|max.|reverse.?light": "spoofing",
}


def kind_of(attack: str) -> str | None:
    """The kind that an attack with this name is of, or None if the name tells none."""
    return next((kind for pattern, kind in _KINDS.items() if re.search(pattern, attack.casefold())), None)
