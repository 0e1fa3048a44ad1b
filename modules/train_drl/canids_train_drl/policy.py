"""The policy file: weights, scales and observation layout in one safetensors file (contract `policy/2`)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from canids_shared.contracts.model_file import POLICY, load_arrays, save_arrays
from canids_train_drl.environment import Actions
from canids_train_drl.networks import DuelingNetwork
from canids_train_drl.observation import Observer


@dataclass(frozen=True)
class Policy:
    """All that is needed to turn detector outputs into decisions.

    Attributes:
        network: the Q-network, on the CPU.
        hidden: widths of its hidden layers.
        observer: how it sees a window.
        actions: what it can do.
        config: the config that it was trained with, for the record.
    """

    network: DuelingNetwork
    hidden: list[int]
    observer: Observer
    actions: Actions
    config: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the file whole; the same policy gives the same bytes."""
        head = {
            "contract": POLICY,
            "hidden": self.hidden,
            "layout": self.observer.layout,
            "observer": self.observer.to_json(),
            "actions": asdict(self.actions),
            "config": self.config,
        }
        save_arrays(path, {name: w.detach().cpu().numpy() for name, w in self.network.state_dict().items()}, head)

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Read a policy; raises `CanidsError` naming the file if it is absent, cut off, or of another contract."""
        arrays, head = load_arrays(path, POLICY)
        actions = Actions(**head["actions"])
        network = DuelingNetwork(len(head["layout"]), head["hidden"], actions.count)
        network.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
        network.eval()
        observer = Observer.from_json(head["observer"])
        return cls(network, head["hidden"], observer, actions, head["config"])
