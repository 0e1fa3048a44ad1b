"""The fusions that the policy is compared with: fitted to the same windows, in the same worlds, under the same costs."""

from typing import Any

THRESHOLD = "fixed_weight"
"""What decides where there was no attack to learn from: detectors above a threshold that the false-alarm budget sets."""


def names_of(config: dict[str, Any], attacks: bool = True) -> list[str]:
    """The fusion baselines to fit: those listed, and the one that decides, unless the policy does; without attacks `THRESHOLD`."""
    if not attacks:
        return [THRESHOLD]
    return list(dict.fromkeys(name for name in (*config["fusion_baselines"], config["fusion"]) if name != "dqn"))
