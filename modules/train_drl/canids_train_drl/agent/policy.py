"""The policy file: weights, scales and observation layout in one safetensors file (contract `policy/5`)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from canids_shared.alarm_rule import AlarmRule
from canids_shared.contracts.model_file import POLICY, load_arrays, save_arrays
from canids_shared.contracts.whole import reading
from canids_shared.jobs.torch_state import built, to_arrays
from canids_train_drl.agent.double_dqn import DuelingNetwork
from canids_train_drl.environment.fusion_environment import Actions, AlarmState, Traffic
from canids_train_drl.environment.holding import UNHELD
from canids_train_drl.environment.observation import Observer
from canids_train_drl.environment.rollout import FusionOutput, greedy_step


@dataclass(frozen=True)
class Policy:
    """All that is needed to turn detector outputs into decisions.

    Attributes:
        network: the Q-network, on the CPU.
        hidden: widths of its hidden layers.
        observer: how it sees a window.
        actions: what it can do.
        config: the config that it was trained with, for the record.
        rule: what its alarms are held to.
    """

    network: DuelingNetwork
    hidden: list[int]
    observer: Observer
    actions: Actions
    config: dict[str, Any]
    rule: AlarmRule = field(default=UNHELD)

    def step(self, windows: Traffic, state: AlarmState | None) -> tuple[FusionOutput, AlarmState]:
        """Decide on the next windows (`rollout.Fusion`), before alarms are held to the rule; remembered are the alarms."""
        return greedy_step(self.network, self.actions, windows, state)

    def save(self, path: Path, identity: Mapping[str, str] | None = None) -> None:
        """Write the file whole; the same policy gives the same bytes. `identity` says which run it is of."""
        header = {
            **(identity or {}),
            "contract": POLICY,
            "hidden": self.hidden,
            "layout": self.observer.layout,
            "observer": self.observer.to_json(),
            "actions": asdict(self.actions),
            "config": self.config,
            "rule": self.rule.to_json(),
        }
        save_arrays(path, to_arrays(self.network.state_dict()), header)

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Read a policy; raises `CanidsError` naming the file if it is absent, cut off, or of another contract."""
        arrays, header = load_arrays(path, POLICY)
        with reading(path, "policy file", RuntimeError):
            actions, observer = Actions(**header["actions"]), Observer.from_json(header["observer"])
            if header["layout"] != observer.layout or actions.detectors != len(observer.detectors):
                raise ValueError("layout")
            width, hidden = len(observer.layout), header["hidden"]
            network = built(path, arrays, lambda: DuelingNetwork(width, hidden, actions.count))
            rule = AlarmRule.from_json(header["rule"])
        return cls(network.eval(), header["hidden"], observer, actions, header["config"], rule)
