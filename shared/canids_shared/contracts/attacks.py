"""Kinds of attack by the names that data sets give them."""

import re

_KINDS = {
    "(?<![a-z])dos|flood|jam": "dos",
    "fuzz": "fuzzing",
    "replay": "replay",
    "suppress|suspen": "suppression",
    "masquerad": "masquerade",
    # Frames with an ID of the vehicle and content of the attacker's, whatever they are to feign.
    "spoof|gear|rpm|speed|standstill|neutral|imperson|malfunction|fabricat|accelerator|correlated|max.|reverse.?light": "spoofing",
}
"""Kinds of attack by the names that data sets give them."""


def kind_of(attack: str) -> str | None:
    """Kind of the attack with this name, or None if the name does not show it."""
    return next((kind for pattern, kind in _KINDS.items() if re.search(pattern, attack.casefold())), None)
