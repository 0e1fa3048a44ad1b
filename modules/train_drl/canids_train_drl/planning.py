"""Choices of the Snakefile that follow from the datasets: which splits one job decides on."""

from collections.abc import Callable
from typing import Any

from canids_shared.contracts.manifest import ENROLMENT
from canids_shared.planning.split_sets import SplitSet, split_sets
from canids_shared.planning.stage import Stage


def decision_sets(stage: Stage) -> list[SplitSet]:
    """Splits whose decisions one job makes: what an evaluation reads (`calibrate`, the scenarios, the enrolment), and the rest."""

    def evaluated(dataset: str, instance: str) -> list[str]:
        thresholds = [split for split in stage.training_splits(dataset) if split == "calibrate"]
        return [*thresholds, *stage.scenarios(dataset, instance), *stage.enrolment(dataset, instance)]

    def others(dataset: str, instance: str) -> list[str]:
        return [s for s in stage.training_splits(dataset) if s not in evaluated(dataset, instance)]

    return [
        *split_sets(stage, "decisions", evaluated),
        *split_sets(stage, "training_decisions", others),
    ]


def enrolment_of(part: SplitSet) -> Callable[[Any], list[str]]:
    """Input function's splits: `ENROLMENT`, where the job decides on it or on scenarios with enrolled vehicles."""
    return lambda wildcards: [split for split in part.splits if split == ENROLMENT]
