"""What a variant's policy and its fusion baselines have in common: config, widths, and the fixed weights that set a threshold."""

from dataclasses import dataclass
from typing import Any

from canids_shared.jobs.entry_point import Call
from canids_train_drl.environment.fusion_data import FusionData
from canids_train_drl.environment.fusion_environment import Actions
from canids_train_drl.environment.threshold_search import ThresholdSearch, Weights


@dataclass(frozen=True)
class FusionSetup:
    """The conditions under which a policy and its fusion baselines are trained and compared.

    Attributes:
        config: the module's config.
        hidden: widths of the hidden layers, the variant's.
        weights, threshold: the best fixed weights of the detectors, and the threshold of their mixture.
    """

    config: dict[str, Any]
    hidden: list[int]
    weights: Weights
    threshold: float

    @classmethod
    def of(cls, call: Call, data: FusionData) -> "FusionSetup":
        """The setup of a call's variant."""
        config = call.config
        hidden = config["networks"][call.scale]
        return cls(config, hidden, *ThresholdSearch(data, config["false_alarm_budget"]).fixed_weight())

    @property
    def actions(self) -> Actions:
        """What can be done in the environment."""
        return Actions(self.config["action_set"], self.threshold, len(self.weights))
