"""What a model card is made from: a training, the data that it learnt from, and how it was judged."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from canids_evaluate.runs.trainings import Training
from canids_shared.contracts.graph_store import GraphStore

METHODS = {"vgae": "vgae", "gat": "gat"}
"""Kind of detector → method in `metrics.json`."""


@dataclass(frozen=True)
class Split:
    """What a split of the training captures holds.

    Attributes:
        free, attacked: labelled windows without and with an attack.
        vehicles, attacks: name → windows (of `attacks`, attacked ones).
        auxiliary_captures: how many windows are of simulated auxiliary_captures.
        captures: names.
    """

    free: int
    attacked: int
    vehicles: dict[str, int]
    attacks: dict[str, int]
    auxiliary_captures: int
    captures: list[str]

    @property
    def windows(self) -> int:
        """All labelled windows."""
        return self.free + self.attacked


def split_of(store: GraphStore, attack_free: bool = False) -> Split:
    """Count the labelled windows of a split, or with `attack_free` those without an attack."""
    head, y = store.header, np.asarray(store["y"])
    chosen = y == 0 if attack_free else y >= 0
    joined = np.array([name in head.get("auxiliary_captures", []) for name in head["captures"]], dtype=bool)

    def counts(names: list[str], index: np.ndarray) -> dict[str, int]:
        amount = np.bincount(index, minlength=len(names))
        return {name: int(n) for name, n in sorted(zip(names, amount, strict=True)) if name and n}

    return Split(
        free=int((y == 0).sum()),
        attacked=int((y[chosen] == 1).sum()),
        vehicles=counts(head["vehicles"], store["vehicle"][chosen]),
        attacks=counts(head["attacks"], store["attack"][chosen & (y == 1)]),
        auxiliary_captures=int(joined[store["capture"][chosen]].sum()),
        captures=list(head["captures"]),
    )


@dataclass(frozen=True)
class Subject:
    """Who a card is about.

    Attributes:
        training: the run.
        policy: the run of the policy that fuses the variant's detectors.
        weights: SHA-256 of its model file.
        learnt, calibrate: what it learnt from (`fit`, of a VGAE its attack-free windows; for a policy `fuse`), and what the thresholds were set on.
        metrics: content of the variant's `metrics.json`.
        baselines: scenario → baseline → its values.
        sources: capture → vehicle, attack, SHA-256 and rows of its raw file.
        simulated: captures of the dataset that the simulator made, auxiliary_captures aside.
    """

    training: Training
    policy: str
    weights: str
    learnt: Split
    calibrate: Split
    metrics: dict[str, Any]
    baselines: dict[str, dict[str, Any]]
    sources: dict[str, dict[str, Any]]
    simulated: list[str]

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return str(self.metrics["dataset"])

    @property
    def method(self) -> str:
        """Its name in `metrics.json`; a policy that is not the fusion is judged as `dqn`, like a baseline."""
        found = METHODS.get(self.training.kind)
        return found or ("dqn" if "dqn" in self.metrics["thresholds"] else "fusion")

    @property
    def scenarios(self) -> dict[str, dict[str, Any]]:
        """Scenario → its own values."""
        return {name: found[self.method] for name, found in sorted(self.metrics["scenarios"].items())}

    @property
    def teacher(self) -> str | None:
        """Name of the run that taught it."""
        files = self.training.config.get("files", {}).get("teacher") or []
        return str(files[0]).split("/")[-2] if files else None

    def vehicles_in(self, scenario: str) -> list[str]:
        """Vehicles of a scenario, as far as its captures' sources say."""
        captures = self.scenarios[scenario]["per_capture"]
        return sorted({str(self.sources[c]["vehicle"]) for c in captures if c in self.sources})


def same(name: str, names: dict[str, int]) -> bool:
    """Whether a vehicle or an attack is among those learnt from; captures from different sources spell names differently."""
    return name.casefold() in {n.casefold() for n in names}
