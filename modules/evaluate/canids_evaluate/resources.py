"""Time and memory of every rule on every dataset, and a profile that requests as much for the next run (rule `resources`).

python -m canids_evaluate.resources --spec '{"wildcards": {}, "config": {"resources": {…}}}'
    --table resources.parquet --markdown resources.md --profile profile/config.yaml
    --runs experimentruns --results results

A rule requests the most that any of its jobs on the dataset took, plus headroom; on a dataset without a job, the most of all datasets.
"""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl
import yaml

from canids_evaluate.pages.tables import UNDEFINED, Table
from canids_evaluate.runs.measured import MEASURED, measured
from canids_shared.contracts.tables import write
from canids_shared.files import write_text
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

MOST_MEMORY = 64_000
"""MB that no attempt requests more than, as in the rules."""
_STEP = 10
_COLUMNS = {"input_mb": 1, "memory_mb": 0, "seconds": 1, "gpu_mb": 0}
"""Column → digits in the table."""
_REQUESTED = ("mem_mb", "runtime", "gpu_mem_mb")
_HEAD = """\
# What the rules took on {datasets}, plus headroom: made by `make resources` from {jobs} jobs. It goes with any other profile:
#   snakemake --profile shared/profiles/local --workflow-profile results/resources/profile -s pipelines/…/Snakefile
# A further attempt requests as much again.
"""
Requests = dict[str, dict[str, int]]
"""Resource (`mem_mb`, `runtime` in minutes, `gpu_mem_mb`) → dataset → request at the first attempt."""


def requests(jobs: pl.DataFrame, config: dict[str, Any]) -> Requests:
    """What to request for one rule, from its jobs (rows of `measured`); `config` is `resources` of the schema.

    A resource that no job measured is left out. `gpu_mem_mb` takes effect where a run has some to share.
    """
    headroom, overhead = 1 + config["headroom"], config["job_overhead_mb"]
    # Resource → measured column, factor on it, amount added, and the multiple to which the request is rounded up.
    factors = {
        "mem_mb": ("memory_mb", headroom, overhead, _STEP),
        "runtime": ("seconds", (1 + config["runtime_headroom"]) / 60, config["job_overhead_minutes"], 1),
        "gpu_mem_mb": ("gpu_mb", headroom, 0, _STEP),
    }
    asked: Requests = {}
    for resource, (column, factor, extra, step) in factors.items():
        largest = jobs.group_by("dataset").agg(pl.col(column).max()).drop_nulls().sort("dataset").rows()
        if largest:
            asked[resource] = {d: max(step, math.ceil((most * factor + extra) / step) * step) for d, most in largest}
    return asked


def expression(by_dataset: dict[str, int], most: int | None = None) -> str:
    """A request as a profile has it: a Python expression over `wildcards` and `attempt`, at most `most`."""
    largest = max(by_dataset.values())
    other = {dataset: value for dataset, value in by_dataset.items() if value != largest}
    value = f"{other}.get(wildcards.get('dataset'), {largest})" if other else f"{largest}"
    return f"{value} * attempt" if most is None else f"min({value} * attempt, {most})"


def expressions(asked: Requests) -> dict[str, str]:
    """Resource → expression, as `set-resources` takes them."""
    return {name: expression(value, MOST_MEMORY if name == "mem_mb" else None) for name, value in asked.items()}


def by_rule(jobs: pl.DataFrame, config: dict[str, Any]) -> dict[str, Requests]:
    """Rule → requests."""
    return {str(rule): requests(rows, config) for (rule,), rows in jobs.group_by("rule", maintain_order=True)}


def overview(jobs: pl.DataFrame, asked: dict[str, Requests]) -> Table:
    """A row per rule and dataset: what its jobs took, and what is requested."""
    header = ["Rule", "Dataset", "Jobs", "Input (MiB)", "Memory (MB)", "Time (s)", "GPU (MB)"]
    rows = []
    for (rule, dataset), group in jobs.group_by("rule", "dataset", maintain_order=True):
        cells = [_range(group[c].to_list(), n) for c, n in _COLUMNS.items()]
        requested = [asked[str(rule)].get(name, {}).get(str(dataset)) for name in _REQUESTED]
        texts = [UNDEFINED if value is None else str(value) for value in requested]
        rows.append([str(rule), str(dataset), str(len(group)), *cells, *texts])
    return Table([*header, *_REQUESTED], rows, names=2)


def _range(values: Sequence[float | None], digits: int) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return UNDEFINED
    low, high = f"{min(known):.{digits}f}", f"{max(known):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def profile(jobs: pl.DataFrame, asked: dict[str, Requests]) -> str:
    """The fragment of a profile."""
    datasets = ", ".join(jobs["dataset"].unique().sort().to_list())
    content = {"set-resources": {rule: expressions(requested) for rule, requested in asked.items() if requested}}
    return _HEAD.format(datasets=datasets, jobs=len(jobs)) + yaml.safe_dump(content, sort_keys=False, width=1000)


def main(call: Call) -> None:
    """Entry point."""
    (runs,), (results,) = call.inputs["runs"], call.inputs["results"]
    jobs = measured(runs, results)
    asked = by_rule(jobs, call.config["resources"])
    write(call.output["table"], MEASURED, jobs, {})
    write_text(call.output["markdown"], overview(jobs, asked).markdown() + "\n")
    write_text(call.output["profile"], profile(jobs, asked))


if __name__ == "__main__":
    entry_point.run(main, inputs=["runs", "results"], outputs=["table", "markdown", "profile"])
