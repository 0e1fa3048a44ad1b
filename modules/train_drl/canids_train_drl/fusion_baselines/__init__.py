"""The fusions that the policy is compared with: fitted to the same windows, in the same worlds, under the same costs."""

from typing import Any


def names_of(config: dict[str, Any]) -> list[str]:
    """The fusion baselines to fit: those listed, and the one that decides, unless the policy does."""
    return list(dict.fromkeys(name for name in (*config["fusion_baselines"], config["fusion"]) if name != "dqn"))
