"""On what terms a variant's policy and its fusion_baselines compete: config, widths, and the fixed weight that sets thresholds."""

from dataclasses import dataclass
from typing import Any

from canids_shared.jobs.entry_point import Call
from canids_train_drl.environment import Actions
from canids_train_drl.fusion_baselines.thresholds import best_weight
from canids_train_drl.prepared import Prepared


@dataclass(frozen=True)
class Terms:
    """What the policy and its fusion_baselines have in common.

    Attributes:
        config: the module's config.
        hidden: widths of the hidden layers, the variant's.
        weight, threshold: the best fixed weight and its threshold.
    """

    config: dict[str, Any]
    hidden: list[int]
    weight: float
    threshold: float

    @classmethod
    def of(cls, call: Call, prepared: Prepared) -> "Terms":
        """The terms of a call's variant."""
        size = "large" if call.constants["variant"] == "large" else "small"
        return cls(
            call.config,
            call.config["networks"][size],
            *best_weight(prepared, call.config["false_alarm_budget"]),
        )

    @property
    def actions(self) -> Actions:
        """What can be done in the environment."""
        return Actions(self.config["action_set"], self.threshold)
