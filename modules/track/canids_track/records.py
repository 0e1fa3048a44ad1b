"""What a finished run's folder says, as MLflow takes it: params, metrics by step, tags, artefacts. Imports no MLflow.

A run is finished when its `benchmark.tsv` is there: Snakemake removes it before a job and has it written after.
"""

import csv
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from safetensors import SafetensorError, safe_open

from canids_shared.contracts.model_file import DETECTOR, POLICY
from canids_shared.contracts.stand_in_mark import is_marked
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of
from canids_shared.planning.pipeline import VARIANTS

LAYOUT = 1
"""Counts up when records of the same files become others, so that what MLflow holds is made anew."""
PIPELINE = "pipeline"
"""Name of the parent runs: all rules of one dataset and instance."""
PLAIN = "plain"
"""Tag `instance` of runs whose folder names none."""
SERVED = (DETECTOR, POLICY)
"""Contracts of model files that MLflow can load and apply; all others are artefacts."""
_LONGEST = 6000
"""Characters of a param that MLflow keeps."""
_INVALID = re.compile(r"[^A-Za-z0-9_\-. :/]")
_DAMAGE: tuple[type[Exception], ...] = (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration)
_DAMAGE += (yaml.YAMLError, SafetensorError, pl.exceptions.PolarsError)


@dataclass(frozen=True)
class Places:
    """Where the runs of a dataset lie, and what rules leave elsewhere; `{instance}` follows the last two.

    Attributes:
        dataset: its name.
        runs: `experimentruns/{dataset}`.
        window_baselines: `results/{dataset}/window_baselines`, which holds the metrics of the run `window_baselines`.
        summary: `results/{dataset}/summary`, which holds tables, report and cards.
    """

    dataset: str
    runs: Path
    window_baselines: Path
    summary: Path

    @classmethod
    def of(cls, runs: Path) -> "Places":
        """Where everything of a dataset lies, by the folder of its runs, if nobody set other pathvars."""
        results = runs.parent.parent / "results" / runs.name
        return cls(runs.name, runs, results / "window_baselines", results / "summary")

    def products(self, rule: str, instance: str) -> list[Path]:
        """Files that a rule leaves outside its run's folder."""
        baselines, summary = (p.with_name(p.name + instance) for p in (self.window_baselines, self.summary))
        return {
            "window_baselines": [baselines / "metrics.json", baselines / "curves.json"],
            "summary": [summary / "results.md", summary / "results.csv"],
            "report": [summary / "report.html"],
            "cards": sorted(summary.glob("cards/*.md")),
        }.get(rule, [])


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        key: `{dataset}/{run}`, its identity wherever it is tracked.
        parent: key of the pipeline run that it belongs to.
        run: name of its folder, such as `gat_large@seed-1`.
        params, tags: texts by name.
        metrics: name, value, and step (the epoch; 0 for what is measured once).
        files: artefacts.
        model: the trained model, if it is of a kind that MLflow can serve.
        digest: hash of the content of all its files.
        began, made: when it ran, milliseconds since 1970, by the time of `benchmark.tsv`.
    """

    key: str
    parent: str
    run: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[tuple[str, float, int]]
    files: list[Path]
    model: Path | None
    digest: str
    began: int
    made: int


@dataclass
class _Content:
    """What has been read of a run so far."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int]] = field(default_factory=list)
    undefined: list[str] = field(default_factory=list)

    def param(self, name: str, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        self.params[_INVALID.sub("_", name)] = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

    def metric(self, name: str, value: Any, step: int = 0) -> None:
        """Keep a number; what is null, or no finite number, is named instead: MLflow has no place for it."""
        name = _INVALID.sub("_", name)
        if value is None or not math.isfinite(value):
            self.undefined.append(f"{name} at {step}" if step else name)
        else:
            self.metrics.append((name, float(value), step))


def header_of(model: Path) -> dict[str, Any]:
    """What a model file says of itself (`canids_shared.jobs.model_file.save_arrays`), of whatever contract."""
    with safe_open(model, "numpy") as opened:
        header: dict[str, Any] = json.loads(opened.metadata()["canids"])
    return header


def flattened(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; an empty mapping, like a list, is a value."""
    out: dict[str, Any] = {}
    for key, item in value.items():
        out |= flattened(item, f"{prefix}{key}.") if isinstance(item, dict) and item else {f"{prefix}{key}": item}
    return out


def _config(path: Path, content: _Content) -> None:
    """`config.yaml` of a training: options under the names that they have in the schema, then all the rest."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec = dict(config.pop("spec"))
    spec.pop("wildcards")
    options = spec.pop("config")
    for name, value in {**flattened(options), **flattened(spec), **flattened(config)}.items():
        content.param(name, value)
    content.tags |= {"seed": str(options["seed"]), "code": spec["code"]}


def _history(path: Path, content: _Content) -> None:
    """`history.parquet`: its first column, the epoch or step, is the step of all others."""
    table = pl.read_parquet(path)
    steps = table.columns[0]
    for name in table.columns[1:]:
        for step, value in zip(table[steps], table[name], strict=True):
            content.metric(name, value, step)


def _metrics(path: Path, content: _Content) -> None:
    """`metrics.json`: numbers of every scenario and method, and thresholds; what is nested deeper stays in the file."""
    report = json.loads(path.read_text(encoding="utf-8"))
    for scenario, methods in report["scenarios"].items():
        for method, values in methods.items():
            for name, value in values.items():
                if not isinstance(value, dict):
                    content.metric(f"{scenario}/{method}/{name}", value)
    for method, values in report["thresholds"].items():
        for name, value in values.items():
            content.metric(f"thresholds/{method}/{name}", value)
    for name, value in flattened(report["config"]).items():
        content.param(name, value)
    content.tags |= {"seed": str(report["seed"]), "code": report["code"]}


def _latency(path: Path, content: _Content) -> None:
    measured = json.loads(path.read_text(encoding="utf-8"))
    content.metric("latency/median_ms", measured["median_ms"])
    content.tags["latency_device"] = measured["device"]


def _benchmark(path: Path, content: _Content) -> None:
    """`benchmark.tsv` of Snakemake, which writes `-` or `NA` for what was too short to be looked at."""
    with open(path, newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream, delimiter="\t"))
    for name, text in row.items():
        if name != "h:m:s":
            content.metric(f"benchmark/{name}", None if text in ("-", "NA") else float(text))


_READERS = {
    "config.yaml": _config,
    "history.parquet": _history,
    "metrics.json": _metrics,
    "latency.json": _latency,
    "benchmark.tsv": _benchmark,
}


def _files(folder: Path, places: Places) -> list[Path]:
    """All files of a run, in its folder and elsewhere."""
    rule, at, name = folder.name.partition("@")
    own = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return [*own, *(p for p in places.products(rule, at + name) if p.exists())]


def is_stand_in(folder: Path, places: Places) -> bool:
    """Whether a run is none: a file of it is marked as a stand-in (`canids_shared.contracts.stand_in_mark`)."""
    return any(map(is_marked, _files(folder, places)))


def read(folder: Path, places: Places) -> Record:
    """The record of a finished run.

    Raises `CanidsError` naming the file that is damaged, or that went while it was read: the run is being made again.
    """
    rule, _, name = folder.name.partition("@")
    instance = name and f"@{name}"
    files = _files(folder, places)
    content = _Content()
    model = None
    digest = hashlib.sha256(f"layout {LAYOUT}\n".encode())
    for path in files:
        try:
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
            if reader := _READERS.get(path.name):
                reader(path, content)
            if path.name == "model.safetensors" and header_of(path)["contract"] in SERVED:
                model = path
        except _DAMAGE as error:
            what = " ".join(str(error).split()) or type(error).__name__
            raise CanidsError(f"{path}: cannot be read ({what}); delete it and run again") from None
    variant = next((v for v in VARIANTS if rule.endswith(f"_{v}")), None)
    tags = {"dataset": places.dataset, "run": folder.name, "rule": rule, "instance": name or PLAIN, **content.tags}
    tags |= {"variant": variant} if variant else {}
    tags |= {"undefined": ", ".join(content.undefined)[:_LONGEST]} if content.undefined else {}
    made = folder.joinpath("benchmark.tsv").stat().st_mtime_ns // 1_000_000
    seconds = next((value for key, value, _ in content.metrics if key == "benchmark/s"), 0.0)
    return Record(
        key=f"{places.dataset}/{folder.name}",
        parent=f"{places.dataset}/{PIPELINE}{instance}",
        run=folder.name,
        params=content.params,
        tags=tags,
        metrics=content.metrics,
        files=[p for p in files if p != model],
        model=model,
        digest=digest.hexdigest(),
        began=made - round(1000 * seconds),
        made=made,
    )


def finished(runs: Path) -> list[Path]:
    """Folders of the finished runs of a dataset."""
    return sorted(p.parent for p in runs.glob("*/benchmark.tsv") if not (p.parent / ".checkpoint").exists())
