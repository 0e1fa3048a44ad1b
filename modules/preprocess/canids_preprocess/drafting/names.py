"""What the names of captures and their folders say: the kind of attack, and the vehicle."""

import re
from pathlib import Path

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
VEHICLES = "sonata|soul|kia|spark|hyundai|chevrolet|impala|silverado|traverse|forester|subaru|tesla|renault|opel"
PUBLISHED_ON = {"hcrl-car-hacking": "sonata", "otids": "soul", "road": "road"}
"""The only vehicle of a published data set whose files do not name it."""


def _attack_in(name: str) -> str | None:
    """Attack by a file's or folder's name, `attack` for one of no known kind; empty: attack-free; None: the name has no hint."""
    # "FuzzyAttack" reads as "fuzzy_attack". Patterns in this order: named attacks come before words for attack-free.
    name = re.sub("(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()
    for words, kind in {**_ATTACKS, _ATTACKED: "attack", _ATTACK_FREE: "", _SUSPICIOUS: "attack"}.items():
        if re.search(words, name):
            return kind
    return None


def guess_attack(relative: Path) -> str | None:
    """Kind of attack by a file's name, or else by the names of the folders that it is in; None: attack-free."""
    names = [relative.stem, *(folder.name for folder in relative.parents)]
    attack = next((hint for name in names if (hint := _attack_in(name)) is not None), "attack")
    return f"{attack}-masquerade" if attack and "masquerade" in str(relative).lower() else attack or None
