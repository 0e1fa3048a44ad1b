"""Trainings as cards and report read them: `run.json` of each, and the cost of every run from its `benchmark.tsv`."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from canids_shared.contracts import training_run
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.contracts.whole import reading


@dataclass(frozen=True)
class Cost:
    """Time and peak memory of a run, from its `benchmark.tsv`; None where it was too short to be measured."""

    seconds: float | None
    peak_mb: float | None


def read_trainings(paths: Iterable[Path]) -> list[TrainingRun]:
    """Read `run.json` files; raises `CanidsError` naming the file that is absent, damaged, of another contract or a stand-in."""
    return [training_run.read(path) for path in paths]


def kinds(trainings: Iterable[TrainingRun]) -> dict[str, str]:
    """Kind → label of all trainings, in their order."""
    return {training.kind: training.label for training in trainings}


def rows_of_history(training: TrainingRun) -> int:
    """Epochs (detectors) or evaluations (policies) of a training."""
    return max(map(len, training.history.values()), default=0)


def read_cost(path: Path) -> Cost:
    """Read a `benchmark.tsv` of Snakemake: seconds, and peak resident memory in megabytes.

    Raises `CanidsError` naming the file if it is absent or damaged.
    """
    with (
        reading(path, "benchmark", csv.Error, again="delete it and run its rule again"),
        open(path, newline="", encoding="utf-8") as stream,
    ):
        row = next(csv.DictReader(stream, delimiter="\t"), {})
        return Cost(_positive(row["s"]), _positive(row["max_rss"]))


def _positive(text: str) -> float | None:
    """A measured number; Snakemake writes 0, `-` or `NA` for jobs too short to look at."""
    if text in ("-", "NA"):
        return None
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value or None
