"""The text of a drafted manifest, with comments on what has to be checked."""

import yaml

from canids_preprocess.drafting.entries import Entry
from canids_preprocess.formats.base import printable
from canids_shared.contracts import manifest


def manifest_text(dataset: str, entries: dict[str, Entry], unread: list[str]) -> str:
    """The text of a manifest.

    Args:
        dataset: its name.
        entries: by name.
        unread: why files cannot be read, one line each.
    """
    lines = [
        f"# Drafted from the captures of {printable(dataset)}. Check every entry: vehicle, attack and content are guesses from file names.",
        "# role: train, or the name of a test scenario. Keys: shared/canids_shared/contracts/manifest.schema.yaml",
    ]
    roles = {entry["role"] for entry in entries.values()}
    if "train" not in roles:
        lines.append("# Missing: no capture to train on; which of them is attack-free (role: train)?")
    if roles == {"train"}:
        lines.append("# Missing: no capture to test on; give one of them a scenario's name as role, such as test")
    lines += [f"# not a capture that can be read: {printable(complaint, 500)}" for complaint in unread]
    lines += [f"contract: {manifest.CONTRACT}", "captures:"]
    for name, entry in entries.items():
        if entry["content"] == "attack-free":
            lines.append("  # attack-free by its name: is it?")
        elif entry["content"] == "unlabelled":
            lines.append(
                "  # no labels: will be scored only; content attack-free (role train) or 'attacked: [[from, to]]' allow training"
            )
        if "timestamp_unit" in entry:
            lines.append("  # timestamp_unit is guessed from the frame rate; is it s, of a slow bus?")
        body: str = yaml.safe_dump({name: entry}, sort_keys=False, allow_unicode=True, width=1000)
        lines += [f"  {line}" for line in body.splitlines()]
    return "\n".join(lines) + "\n"
