"""What every rule took over the size of its input, and what to ask for in the next run (rule `resources`).

python -m canids_evaluate.resources --spec '{"wildcards": {}, "config": {"resources": {…}}}'
    --table resources.parquet --figure resources.svg --markdown resources.md --profile profile/config.yaml
    --runs experimentruns --results results
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import yaml

from canids_evaluate.pages import resource_figure
from canids_evaluate.pages.tables import UNDEFINED, Table
from canids_evaluate.runs.fitting import Ask, Line, ask, upper_line
from canids_evaluate.runs.measured import MEASURED, measured
from canids_shared.contracts.tables import write
from canids_shared.files import write_text
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

MOST_MEMORY = 64_000
"""MB that no attempt asks to exceed, as in the rules."""
_STEP = 10
_HEAD = """\
# What the rules took on {datasets}, plus headroom: made by `make resources` from {jobs} jobs. It goes with any other profile:
#   snakemake --profile shared/profiles/local --workflow-profile results/resources/profile -s pipelines/…/Snakefile
# Sizes are of the rule's input in MiB. A job that is tried again asks for as much again.
"""


@dataclass(frozen=True)
class Suggestion:
    """What to ask for a rule; None where nothing was measured.

    Attributes:
        line: what its runs took at most, MB of memory.
        memory: MB.
        runtime: minutes.
        gpu: MB of GPU memory.
    """

    line: Line | None
    memory: Ask | None
    runtime: Ask | None
    gpu: Ask | None

    @property
    def resources(self) -> dict[str, str]:
        """Resource → expression, as `set-resources` takes them. `gpu_mem_mb` counts where a run is given some."""
        found = {"mem_mb": self.memory, "runtime": self.runtime, "gpu_mem_mb": self.gpu}
        return {name: asked.expression for name, asked in found.items() if asked}


def suggestion(jobs: pl.DataFrame, config: dict[str, Any]) -> Suggestion:
    """Fit one rule's jobs (rows of `measured`); `config` is `resources` of the schema."""

    def line(column: str) -> Line | None:
        rows = jobs.filter(pl.col(column).is_not_null())
        return upper_line(rows["input_mb"].to_list(), rows[column].to_list()) if len(rows) else None

    memory, seconds, gpu = line("memory_mb"), line("seconds"), line("gpu_mb")
    minutes = seconds and Line(seconds.a / 60, seconds.b / 60)
    room, overhead = config["headroom"], config["job_overhead_mb"]
    return Suggestion(
        memory,
        ask(memory, room, _STEP, overhead, MOST_MEMORY) if memory else None,
        ask(minutes, config["runtime_headroom"], extra=config["job_overhead_minutes"]) if minutes else None,
        ask(gpu, room, _STEP) if gpu else None,
    )


def suggestions(jobs: pl.DataFrame, config: dict[str, Any]) -> dict[str, Suggestion]:
    """Rule → suggestion."""
    return {str(rule): suggestion(rows, config) for (rule,), rows in jobs.group_by("rule", maintain_order=True)}


def ratios(jobs: pl.DataFrame, memory: Ask | None) -> list[float]:
    """Asked over needed memory of every job whose need and size are known."""
    known = jobs.filter(pl.col("memory_mb").is_not_null() & pl.col("input_mb").is_not_null())
    pairs = zip(known["input_mb"].to_list(), known["memory_mb"].to_list(), strict=True)
    return [memory.at(size) / need for size, need in pairs] if memory else []


def unseen(jobs: pl.DataFrame, config: dict[str, Any]) -> list[float]:
    """Asked over needed memory of one rule's jobs on each dataset, asked as the other datasets suggest; empty for one dataset."""
    found = []
    for dataset in jobs["dataset"].unique().sort().to_list():
        others = jobs.filter(pl.col("dataset") != dataset)
        if len(others):
            found += ratios(jobs.filter(pl.col("dataset") == dataset), suggestion(others, config).memory)
    return found


def overview(jobs: pl.DataFrame, found: dict[str, Suggestion], config: dict[str, Any]) -> Table:
    """A line a rule: what its jobs took, what is asked for the largest of them, and how the two compare."""
    header = ["Rule", "Jobs", "Datasets", "Input (MiB)", "Memory (MB)", "Asked / needed", "On a dataset left out"]
    header += ["Time (s)", "GPU (MB)", "mem_mb"]
    rows = []
    for rule, own in found.items():
        of = jobs.filter(pl.col("rule") == rule)
        cells = [_range(of["input_mb"].to_list(), 1), _range(of["memory_mb"].to_list(), 0)]
        cells += [_range(ratios(of, own.memory), 2), _range(unseen(of, config), 2)]
        cells += [_range(of["seconds"].to_list(), 1), _range(of["gpu_mb"].to_list(), 0)]
        asked = own.memory.expression if own.memory else UNDEFINED
        rows.append([rule, str(len(of)), str(of["dataset"].n_unique()), *cells, f"`{asked}`"])
    return Table(header, rows)


def _range(values: Sequence[float | None], digits: int) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return UNDEFINED
    low, high = f"{min(known):.{digits}f}", f"{max(known):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def profile(jobs: pl.DataFrame, found: dict[str, Suggestion]) -> str:
    """The fragment of a profile."""
    datasets = ", ".join(jobs["dataset"].unique().sort().to_list())
    content = {"set-resources": {rule: own.resources for rule, own in found.items() if own.resources}}
    return _HEAD.format(datasets=datasets, jobs=len(jobs)) + yaml.safe_dump(content, sort_keys=False, width=1000)


def main(call: Call) -> None:
    """Entry point."""
    (runs,), (results,) = call.inputs["runs"], call.inputs["results"]
    config = call.config["resources"]
    jobs = measured(runs, results)
    found = suggestions(jobs, config)
    write(call.output["table"], MEASURED, jobs, {})
    resource_figure.draw(call.output["figure"], jobs, found)
    write_text(call.output["markdown"], overview(jobs, found, config).markdown() + "\n")
    write_text(call.output["profile"], profile(jobs, found))


if __name__ == "__main__":
    entry_point.run(main, inputs=["runs", "results"], outputs=["table", "figure", "markdown", "profile"])
