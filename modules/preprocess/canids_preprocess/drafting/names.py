"""What the names of captures and their folders say: attack-free or attacked, the kind of attack, and the vehicle."""

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

_KINDS = {
    "(?<![a-z])d?dos|flood|(?<![a-z])flut|denial.?of.?service": "dos",
    "(?<![a-z])jam(?![a-z])|jamming|jammed": "jamming",
    "fuzz": "fuzzing",
    "malfunction|fehlfunktion": "malfunction",
    "replay|einspielung|eingespielt": "replay",
    "imperson": "impersonation",
    "suppress|suspen|unterdr(ü|ue?)ck": "suppression",
    "mitm|man.?in.?the.?middle": "mitm",
    "fabricat": "fabrication",
    "correlated.?signal": "correlated-signal",
    "max.?engine.?coolant": "max-engine-coolant-temp",
    "max.?speedometer": "max-speedometer",
    "spoof|f(ä|ae?)lsch": "spoofing",
    "masquerad|maskerad": "masquerade",
}
"""Words that name an attack, whatever else a name says → its kind."""
_TARGETS = {
    "(?<![a-z])gear": "gear-spoofing",
    "(?<![a-z])rpm": "rpm-spoofing",
    "accelerator": "accelerator",
    "reverse.?light": "reverse-light",
}
"""What an attack aimed at: no attack by itself (`gear-shift.log` may be a drive), but its kind in a capture with one."""
_NOT = "(?<![a-z])(non?|not|without|ohne|kein[a-z]*)[^a-z0-9]*((an|any|einen)[^a-z0-9]*)?(attack|angriff)[a-z]*"
_ATTACK_FREE = (
    f"attack.?free|angriffs?.?frei|{_NOT}|(?<![a-z])(free.?driving|normal|normal(fahrt|betrieb|er?|es)|ambient|benign|clean|"
    "baseline|legit|legitimate|unattacked|genuine)(?![a-z])"
)
_ATTACKED = "attack(?!.?free)|angriff(?!s?.?frei)"
_SUSPICIOUS = {
    "(?<!fuel)(?<!fuel.)inject|injektion|einschleus": "injection",
    "abnormal|unclean|malicious|intrusion": "attack",
}
"""Attacks too, but a word for attack-free comes before them."""
VEHICLES = "sonata|soul|kia|spark|hyundai|chevrolet|impala|silverado|traverse|forester|subaru|tesla|renault|opel"
PUBLISHED_ON = {"hcrl-car-hacking": "sonata", "otids": "soul", "road": "road"}
"""The only vehicle of a published data set whose files do not name it."""


class Hint(NamedTuple):
    """What the name of a file or folder says: the `kind` of attack, `attack` for one of no known kind, empty: attack-free."""

    kind: str
    name: str


def _plain(name: str) -> str:
    """A name in small letters with its words apart: "FuzzyAttack" becomes "fuzzy_attack"."""
    return re.sub("(?<=[a-z0-9])(?=[A-Z][a-z])", "_", unicodedata.normalize("NFC", name)).lower()


def _first(words: dict[str, str], name: str) -> str | None:
    return next((kind for pattern, kind in words.items() if re.search(pattern, name)), None)


def _attack_in(name: str) -> str | None:
    """The kind of a `Hint`, or None if the name has no hint."""
    name = _plain(name)
    kind = _first(_KINDS, name)
    if kind is None and re.search(_ATTACKED, re.sub(_NOT, "", name)):
        kind = "attack"
    elif kind is None and not re.search(_ATTACK_FREE, name):
        kind = _first(_SUSPICIOUS, name)
    if kind is None:
        return "" if re.search(_ATTACK_FREE, name) else None
    # A target says more than that something is attacked or spoofed.
    return (_first(_TARGETS, name) if kind in ("attack", "spoofing", "injection") else None) or kind


def hint_of(relative: Path, around: list[str] | None = None) -> Hint | None:
    """What a capture's name says, or else the names of the folders that it is in, from the innermost on; None: nothing.

    Args:
        relative: path of the capture in its dataset.
        around: names of the dataset's folder and of those around it. They can say that all is attack-free, and no more.
    """
    names = [relative.stem, *(folder.name for folder in relative.parents)]
    hints = (Hint(kind, name) for name in names if (kind := _attack_in(name)) is not None)
    free = (Hint("", name) for name in around or [] if _attack_in(name) == "")
    hint = next(hints, None) or next(free, None)
    if hint and hint.kind not in ("", "masquerade") and re.search("mas[qk]uerad|maskerad", str(relative).lower()):
        return Hint("masquerade" if hint.kind == "attack" else f"{hint.kind}-masquerade", hint.name)
    return hint


def kind_of_attack(relative: Path) -> str:
    """Kind of the attack on a capture that has one, by the names of its file and folders; `attack` if they show none."""
    names = [relative.stem, *(folder.name for folder in relative.parents)]
    targets = (target for name in names if (target := _first(_TARGETS, _plain(name))))
    hint = hint_of(relative)
    return hint.kind if hint and hint.kind not in ("", "attack") else next(targets, "attack")


def says_attack(name: str) -> bool:
    """Whether a name speaks of attacks, present or absent, and so names no vehicle."""
    return _attack_in(name) is not None
