"""Data of a model card: a training, the windows that it learnt from, and its evaluation."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from canids_evaluate.pages.rows import FUSION, Methods
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.errors import CanidsError

POLICY, SUPERVISED, UNSUPERVISED = "policy", "supervised", "unsupervised"
"""Roles of trainings."""


@dataclass(frozen=True)
class Split:
    """Labelled windows of a split of the training captures.

    Attributes:
        free, attacked: windows without and with an attack.
        vehicles, attacks: name → windows (of `attacks`, attacked ones).
        auxiliary: windows of simulated auxiliary captures.
        simulated_attacks: attacked windows of auxiliary captures, and of injected attacks.
        captures: names.
        graphs: description of the windows' graphs.
    """

    free: int
    attacked: int
    vehicles: dict[str, int]
    attacks: dict[str, int]
    auxiliary: int
    captures: list[str]
    graphs: str = ""
    simulated_attacks: int = 0

    @property
    def windows(self) -> int:
        """All labelled windows."""
        return self.free + self.attacked


def split_of(store: GraphStore, attack_free: bool = False) -> Split:
    """Count the labelled windows of a split, or with `attack_free` those without an attack."""
    header, y = store.header, np.asarray(store["y"])
    chosen = y == 0 if attack_free else y >= 0
    counts = store.counts(chosen)
    simulated = (y == 1) & chosen & (store.is_auxiliary | store.is_injected)
    return Split(
        free=int((y == 0).sum()),
        attacked=counts["attacked"],
        vehicles=dict(sorted(counts["vehicles"].items())),
        attacks=dict(sorted(counts["attacks"].items())),
        auxiliary=counts["auxiliary"],
        captures=counts["captures"],
        simulated_attacks=int(simulated.sum()),
        graphs=(
            f"graphs of windows of {header.get('window', 0):g} {header.get('window_unit', 'frames')}: "
            f"{len(header['node_features'])} features of nodes (arbitration IDs), {len(header['edge_features'])} of edges"
        ),
    )


def role_of(training: TrainingRun, names: Methods) -> str:
    """`POLICY`, `SUPERVISED` (some detector of the training learns from labels) or `UNSUPERVISED`.

    Raises `CanidsError` if the training has a detector that `names` lacks.
    """
    supervised = {detector.name: detector.supervised for detector in names.detectors}
    if unknown := [name for name in training.detectors if name not in supervised]:
        raise CanidsError(f"{training.name}: trained detector '{unknown[0]}', which the decisions do not declare")
    if not training.detectors:
        return POLICY
    return SUPERVISED if any(supervised[name] for name in training.detectors) else UNSUPERVISED


@dataclass(frozen=True)
class Subject:
    """The training that a card describes.

    Attributes:
        training: its record.
        policy: name of the run of the policy that fuses the variant's detectors.
        learnt, calibrate: the windows that it learnt from (`fit`, of an unsupervised detector the attack-free ones; for a policy
            `fuse`), and those that the thresholds were set on.
        metrics: content of the variant's `metrics.json`.
        names: labels of its methods.
        baselines: scenario → window baseline → its values.
        sources: capture → vehicle, attack, SHA-256 and rows of its raw file.
        simulated: captures of the dataset that the simulator made, auxiliary captures aside.
        warnings: what the data behind the evaluation warn of.
    """

    training: TrainingRun
    policy: str
    learnt: Split
    calibrate: Split
    metrics: dict[str, Any]
    names: Methods
    baselines: dict[str, dict[str, Any]]
    sources: dict[str, dict[str, Any]]
    simulated: list[str]
    warnings: list[str] = field(default_factory=list)

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return str(self.metrics["dataset"])

    @property
    def role(self) -> str:
        """Its role (`role_of`)."""
        return role_of(self.training, self.names)

    @property
    def is_policy(self) -> bool:
        """Whether it fuses detectors, instead of being one."""
        return self.role == POLICY

    @property
    def methods(self) -> dict[str, str]:
        """Its methods in `metrics.json` → the prefix of sentences about one of them; empty where there is only one method.

        A training may have several detectors; a policy that is not the fusion is evaluated as `dqn`, like a baseline.
        """
        if self.is_policy:
            return {"dqn" if "dqn" in self.metrics["thresholds"] else FUSION: ""}
        several = len(self.training.detectors) > 1
        return {name: f"{self.names.label(name)}: " if several else "" for name in self.training.detectors}

    def results(self, method: str) -> dict[str, dict[str, Any]]:
        """Scenario → values of a method."""
        return {name: results[method] for name, results in sorted(self.metrics["scenarios"].items())}

    @property
    def scenarios(self) -> dict[str, dict[str, Any]]:
        """Scenario → values of the first method, for the counts of windows and captures, which all methods share."""
        return self.results(next(iter(self.methods)))

    @property
    def teacher(self) -> str | None:
        """Name of the run that it was distilled from."""
        files = self.training.inputs.get("teacher")
        return files[0].split("/")[-2] if files else None

    def vehicles_in(self, scenario: str) -> list[str]:
        """Vehicles of a scenario; captures without known sources are left out."""
        captures = self.scenarios[scenario]["per_capture"]
        return sorted({str(self.sources[c]["vehicle"]) for c in captures if c in self.sources})


def same(name: str, names: dict[str, int]) -> bool:
    """Whether a vehicle or an attack is among `names`; captures from different sources spell names differently."""
    return name.casefold() in {n.casefold() for n in names}
