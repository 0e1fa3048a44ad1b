"""Origin of results: code, packages, machine, seeds, data."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from canids_evaluate.pages.tables import UNDEFINED, Table
from canids_evaluate.runs.reading_log import commit, reading_behind, rule_of
from canids_evaluate.runs.trainings import rows_of_history
from canids_shared.contracts.training_run import TrainingRun

_PACKAGES = (
    "canids",
    "numpy",
    "polars",
    "pyarrow",
    "numba",
    "scikit-learn",
    "torch",
    "gymnasium",
    "matplotlib",
    "snakemake",
)


def code() -> str:
    """Version and commit of the code that runs now."""
    return f"canids {importlib.metadata.version('canids')}, {_revision(*commit())}"


def _revision(revision: str | None, dirty: bool | None) -> str:
    if revision is None:
        return "not run from a checkout"
    return f"commit {revision}" + (", with uncommitted changes" if dirty else "")


def evaluations(metrics: list[dict[str, Any]]) -> Table:
    """Code and seed of every evaluation, and time and commit of its reading of the test scenarios, where that is logged.

    Args:
        metrics: contents of `metrics.json`.
    """
    rows = []
    for content in metrics:
        name = rule_of(content) + content["instance"]
        line = reading_behind(content)
        read = (line["time"], _revision(line["commit"], line["dirty"])) if line else (UNDEFINED, UNDEFINED)
        rows.append([name, content["code"], str(content["seed"]), *read])
    return Table(["Evaluation", "Code", "Seed", "Read the test scenarios", "At"], rows, names=5)


def packages() -> Table:
    """Versions of the packages that shape results, in the environment that made the report."""
    rows = [["Python", platform.python_version()]]
    for package in _PACKAGES:
        try:
            rows.append([package, importlib.metadata.version(package)])
        except importlib.metadata.PackageNotFoundError:
            rows.append([package, "not in this stage's environment"])
    return Table(["Package", "Version"], rows, names=2)


def machine() -> str:
    """Processor, cores, memory and system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()} {platform.machine()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "unknown processor")


def vehicle_and_attack(source: dict[str, Any]) -> list[str]:
    """Vehicle and attack of a capture as cells of a table; of an injected attack also the recording that it was put into."""
    attack, host = source.get("attack"), source.get("host")
    made = f" ({'injected into' if attack else 'part of'} recording {host})" if host else ""
    return [str(source.get("vehicle", UNDEFINED)), f"{attack or UNDEFINED}{made}"]


def captures(sources: dict[str, dict[str, Any]]) -> Table:
    """Hash, vehicle, attack and rows of every capture (`sources` of the window baselines' `curves.json`)."""
    rows = [
        [name, *vehicle_and_attack(s), s["sha256"], str(s.get("rows_read", UNDEFINED))]
        for name, s in sorted(sources.items())
    ]
    return Table(["Capture", "Vehicle", "Attack", "SHA-256", "Rows"], rows, names=4)


def runs(trainings: list[TrainingRun]) -> Table:
    """Seed, code and size of every training."""
    rows = [[t.name, t.code, str(t.seed), f"{t.parameters:,}", str(rows_of_history(t))] for t in trainings]
    return Table(["Run", "Code", "Seed", "Parameters", "Rows of history"], rows, names=2)
