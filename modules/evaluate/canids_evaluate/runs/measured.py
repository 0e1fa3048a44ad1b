"""Time, memory and input size of every job: `benchmark.tsv` of the runs, and the last line of the logs, as one table.

Runs (`experimentruns/{dataset}/{run}/`) have both. Cached rules cannot have a benchmark, and other rules with outputs in `results/` have
none: there the log is the only source. Both folders are where the ports' defaults put them, for all datasets.
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

_MEASURES = dict.fromkeys(("seconds", "start_seconds", "work_seconds", "memory_mb", "gpu_mb", "input_mb"), pl.Float64)
_USAGE: dict[str, Any] = {**_MEASURES, "threads": pl.Int32, "code": pl.String}
MEASURED = Table(
    "resources/2",
    {
        **dict.fromkeys(("dataset", "rule", "instance", "wildcards"), pl.String),
        "stage": pl.String,
        **_USAGE,
        "log": pl.String,
    },
    nullable=frozenset({*_USAGE, "stage"}),
)
"""A row per job. `start_seconds` are those in which the interpreter started and modules were imported, `work_seconds` those after; where
there is a benchmark `seconds` are both and more, else the work. `stage` is null without a log. Memory in 10⁶ bytes, as Snakemake's `mem_mb`; input in 2²⁰ bytes, as its `input.size_mb`; unknown is null."""
_RULES = {"decide": "decisions", "simulated": "simulate"}
"""Entry point → rule, where their names differ."""
_PACKAGES = [f"canids_{stage}" for stage in STAGES]
_BY_VARIANT = ("fusion_baselines",)
"""Rules whose wildcard `variant` is part of the run folder's name."""
_MIB = 2**20 / 1e6


def measured(runs: Path, results: Path, dataset: str = "*") -> pl.DataFrame:
    """Every job that left a measurement, of all datasets or of one, ordered by rule, dataset and log.

    Args:
        runs: folder of `{dataset}/{run}/benchmark.tsv`.
        results: folder of `{dataset}/…`, with logs beside the results.

    Raises `CanidsError` naming a file that is damaged, or, of all datasets, both folders if they hold no measurement.
    """
    rows = [*_runs(runs, dataset), *_logs(results if dataset == "*" else results / dataset)]
    if not rows and dataset == "*":
        raise CanidsError(f"{runs}, {results}: no benchmark.tsv and no log of a finished job; run a pipeline first")
    return pl.DataFrame(rows, schema=MEASURED.columns).sort("rule", "dataset", "log")


def time_by_rule(jobs: pl.DataFrame) -> pl.DataFrame:
    """Of jobs (`measured`): `stage`, `rule`, number of `jobs`, seconds of `start` and of `work` together; stages in their order, longest rule first.

    A run whose log does not say its start took as long for it as its benchmark is longer than its work. Jobs without a log are left out.
    """
    order = {stage: place for place, stage in enumerate(STAGES)}
    known = jobs.filter(pl.col("work_seconds").is_not_null())
    rest = (pl.col("seconds") - pl.col("work_seconds")).clip(lower_bound=0)
    start = pl.coalesce("start_seconds", rest)
    summed = known.group_by("stage", "rule").agg(jobs=pl.len(), start=start.sum(), work=pl.col("work_seconds").sum())
    place = pl.col("stage").replace_strict(order, default=len(order))
    longest = pl.col("start") + pl.col("work")
    return summed.sort([place, longest, "rule"], descending=[False, True, False])


def _runs(folder: Path, dataset: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(f"{dataset}/*/benchmark.tsv")):
        run, log = path.parent, path.with_name("log.txt")
        usage = (job_usage.read(log) if log.is_file() else None) or {}
        if usage and not _of_a_stage(usage):
            continue
        cost = read_cost(path)
        name, _, instance = run.name.partition("@")
        # A run's folder is named like its rule, but for rules with a wildcard in that name.
        rule = next((rule for rule in _BY_VARIANT if name.startswith(f"{rule}_")), name)
        # Snakemake samples memory twice a second and may miss a peak, which the job's log has.
        memory = [m for m in (cost.peak_mb and cost.peak_mb * _MIB, usage.get("memory_mb")) if m]
        benchmark = {"seconds": cost.seconds or usage.get("seconds"), "memory_mb": max(memory, default=None)}
        yield _row(
            log,
            {**usage, "work_seconds": usage.get("seconds"), **benchmark},
            run.parent.name,
            rule,
            instance and f"@{instance}",
        )


def _logs(folder: Path) -> Iterator[dict[str, Any]]:
    for log in sorted([*folder.rglob("*.log"), *folder.rglob("log.txt")]):
        usage = job_usage.read(log)
        # Jobs without a dataset, such as the rule `resources` itself, are not planned from a profile's numbers.
        if usage is None or "dataset" not in usage["wildcards"] or not _of_a_stage(usage):
            continue
        entry, wildcards = usage["entry"].rpartition(".")[2], usage["wildcards"]
        yield _row(
            log,
            {**usage, "work_seconds": usage["seconds"]},
            wildcards["dataset"],
            _RULES.get(entry, entry),
            wildcards.get("instance", ""),
        )


def _of_a_stage(usage: dict[str, Any]) -> bool:
    """Whether a job ran code of the four stages; the rules of other packages are not known here."""
    return usage["entry"].partition(".")[0] in _PACKAGES


def _row(log: Path, usage: dict[str, Any], dataset: str, rule: str, instance: str) -> dict[str, Any]:
    names = {"dataset": dataset, "rule": rule, "instance": instance, "log": log.as_posix()}
    stage = usage["entry"].partition(".")[0].removeprefix("canids_") if "entry" in usage else None
    measures = {key: usage.get(key) for key in _USAGE}
    return {**names, "wildcards": canonical_json(usage.get("wildcards", {})), "stage": stage, **measures}
