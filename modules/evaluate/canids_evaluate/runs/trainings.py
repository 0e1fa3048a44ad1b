"""Trainings as cards and report read them: epochs of a `run.json`, and the cost of every run from its `benchmark.tsv`."""

import csv
from dataclasses import dataclass
from pathlib import Path

from canids_shared.contracts.training_run import TrainingRun
from canids_shared.contracts.whole import reading


@dataclass(frozen=True)
class Cost:
    """Time and peak memory of a run, from its `benchmark.tsv`; None where it was too short to be measured."""

    seconds: float | None
    peak_mb: float | None


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
        # Snakemake writes 0, `-` or `NA` for jobs that were too short to look at.
        seconds, peak_mb = (None if row[c] in ("-", "NA") else float(row[c]) for c in ("s", "max_rss"))
        return Cost(seconds or None, peak_mb or None)
