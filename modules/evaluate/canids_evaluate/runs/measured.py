"""What jobs took: `benchmark.tsv` of every run, and what jobs say of themselves in their logs, as one table.

Runs (`experimentruns/{dataset}/{run}/`) have both. Cached rules cannot have a benchmark, and other rules whose outputs
lie in `results/` have none: of these the log alone is read. Both folders are taken as the ports' defaults have them, for all datasets.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from canids_evaluate.runs.trainings import read_cost
from canids_shared.contracts.tables import Table
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json
from canids_shared.jobs import job_usage
from canids_shared.planning.pipeline import STAGES

MEASURED = Table(
    "resources/1",
    {
        "dataset": pl.String,
        "rule": pl.String,
        "instance": pl.String,
        "wildcards": pl.String,
        "seconds": pl.Float64,
        "memory_mb": pl.Float64,
        "gpu_mb": pl.Float64,
        "input_mb": pl.Float64,
        "threads": pl.Int32,
        "code": pl.String,
        "log": pl.String,
    },
    nullable=frozenset({"seconds", "memory_mb", "gpu_mb", "input_mb", "threads", "code"}),
)
"""A row a job. Memory in 10⁶ bytes, as Snakemake's `mem_mb`; input in 2²⁰ bytes, as its `input.size_mb`; unknown is null."""
_RULES = {"decide": "decisions", "learn": "fusion_baselines"}
"""Entry point → rule, where their names differ."""
_PACKAGES = [f"canids_{stage}" for stage in STAGES]
_BY_VARIANT = ("fusion_baselines",)
"""Rules whose wildcard `variant` stands in the name of the run's folder."""
_MIB = 2**20 / 1e6


def measured(runs: Path, results: Path) -> pl.DataFrame:
    """Every job that left a measurement, ordered by rule, dataset and log.

    Args:
        runs: folder of `{dataset}/{run}/benchmark.tsv`.
        results: folder of `{dataset}/…`, with logs beside the results.

    Raises `CanidsError` naming a file that is damaged, or both folders if nothing is found in them.
    """
    rows = [*_runs(runs), *_logs(results)]
    if not rows:
        raise CanidsError(
            f"{runs}, {results}: no benchmark.tsv and no log that says what a job took; run a pipeline first"
        )
    return pl.DataFrame(rows, schema=MEASURED.columns).sort("rule", "dataset", "log")


def _runs(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*/*/benchmark.tsv")):
        run = path.parent
        log = run / "log.txt"
        said = (job_usage.read(log) if log.is_file() else None) or {}
        if said and not _is_a_stages(said):
            continue
        cost = read_cost(path)
        name, _, instance = run.name.partition("@")
        rule = next((r for r in _BY_VARIANT if name.startswith(f"{r}_")), name)
        # Snakemake looks at memory twice a second, so it may miss a peak that the job itself knows.
        memory = [m for m in (cost.peak_mb and cost.peak_mb * _MIB, said.get("memory_mb")) if m]
        yield {
            **_facts(said),
            "dataset": run.parent.name,
            "rule": rule,
            "instance": instance and f"@{instance}",
            "seconds": cost.seconds or said.get("seconds"),
            "memory_mb": max(memory, default=None),
            "log": log.as_posix(),
        }


def _logs(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted([*folder.rglob("*.log"), *folder.rglob("log.txt")]):
        said = job_usage.read(path)
        # What no dataset was named for, such as this rule itself, is no job of a pipeline.
        if said is None or "dataset" not in said["wildcards"] or not _is_a_stages(said):
            continue
        entry = said["entry"].rpartition(".")[2]
        yield {
            **_facts(said),
            "dataset": said["wildcards"]["dataset"],
            "rule": _RULES.get(entry, entry),
            "instance": said["wildcards"].get("instance", ""),
            "seconds": said["seconds"],
            "memory_mb": said["memory_mb"],
            "log": path.as_posix(),
        }


def _is_a_stages(said: dict[str, Any]) -> bool:
    """Whether a job ran code of the four stages; which rule calls that of other packages, nobody knows here."""
    return said["entry"].partition(".")[0] in _PACKAGES


def _facts(said: dict[str, Any]) -> dict[str, Any]:
    return {
        "wildcards": canonical_json(said.get("wildcards", {})),
        **{key: said.get(key) for key in ("gpu_mb", "input_mb", "threads", "code")},
    }
