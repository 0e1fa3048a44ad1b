"""Finished runs as MLflow takes them: params, metrics by step, tags, artefacts. Imports no MLflow.

A run is finished when its `benchmark.tsv` is there: Snakemake removes it before a job and writes it after the job. Numbers and
options come from `run.json` of a training, `metrics.json` of an evaluation and `benchmark.tsv`; all other files are artefacts.
Only the fusion baselines, which have no `run.json`, have their options from `config.yaml`.
"""

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from canids_shared.contracts import training_run
from canids_shared.contracts.evaluation import METRICS_CONTRACT, read_evaluation
from canids_shared.contracts.model_file import DETECTOR, POLICY, header_of
from canids_shared.contracts.stand_in_mark import is_marked
from canids_shared.contracts.whole import reading
from canids_shared.files import sha256_of
from canids_shared.planning.pipeline import VARIANTS

LAYOUT = 3
"""Counts up when records of the same files change, so that MLflow gets them again."""
PIPELINE = "pipeline"
"""Name of the parent runs: all rules of one dataset and instance."""
PLAIN = "plain"
"""Tag `instance` of runs whose folder names none."""
SERVED = (DETECTOR, POLICY)
"""Contracts of model files that MLflow can load and apply; all others are artefacts."""
RECORD = "run.json"
_LONGEST = 6000
"""Characters of a param that MLflow keeps."""
_INVALID = re.compile(r"[^A-Za-z0-9_\-. :/]")


@dataclass(frozen=True)
class Places:
    """Folders of a dataset's runs, and of files that rules write elsewhere; `{instance}` follows the last two.

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
        """The places that belong to a folder of runs by default, where no pathvar was set."""
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

    def files(self, folder: Path) -> list[Path]:
        """All files of a run, in its folder and elsewhere."""
        rule, at, name = folder.name.partition("@")
        inside = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        return [*inside, *(p for p in self.products(rule, at + name) if p.exists())]


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        key: `{dataset}/{run}`, its identity wherever it is tracked.
        parent: key of the pipeline run that it belongs to.
        run: name of its folder, such as `gat_large@seed-1`.
        params, tags: texts by name.
        metrics: name, value, and step (the epoch or training step; 0 for what is measured once).
        files: artefacts.
        model: the trained model, if it is of a kind that MLflow can serve.
        digest: hash of the content of all its files.
        began, made: start and end of the run, milliseconds since 1970, by the time of `benchmark.tsv`.
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
    """Params, tags and metrics while the files of a run are read."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int]] = field(default_factory=list)
    undefined: list[str] = field(default_factory=list)

    def add_params(self, values: dict[str, Any]) -> None:
        """Keep options as text, nested ones under names joined by dots."""
        for name, value in flattened(values).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            self.params[_INVALID.sub("_", name)] = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

    def add_metric(self, name: str, value: Any, step: int = 0) -> None:
        """Keep a number; the name of one that is null, NaN or infinite goes to a tag: MLflow has no such values."""
        name = _INVALID.sub("_", name)
        if value is None or not math.isfinite(value):
            self.undefined.append(f"{name} at {step}" if step else name)
        else:
            self.metrics.append((name, float(value), step))


def flattened(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; an empty mapping, like a list, is a value."""
    out: dict[str, Any] = {}
    for key, item in value.items():
        out |= flattened(item, f"{prefix}{key}.") if isinstance(item, dict) and item else {f"{prefix}{key}": item}
    return out


def _training(path: Path, content: _Content) -> None:
    """`run.json`: options under the names that they have in the schema, digests and paths of the inputs, latency."""
    run = training_run.read(path)
    content.add_params({**run.config, "scale": run.scale, "inputs": run.input_digests, "files": run.inputs})
    content.tags |= {"seed": str(run.seed), "code": run.code, "latency_device": run.latency["device"]}
    content.add_metric("latency/median_ms", run.latency["median_ms"])


def _history(path: Path, content: _Content) -> None:
    """`history.parquet`, which has times and memory too: its first column, the epoch or step, is the step of all others."""
    table = training_run.read_history(path)
    steps = table.columns[0]
    for name in table.columns[1:]:
        for step, value in zip(table[steps], table[name], strict=True):
            content.add_metric(name, value, step)


def _fitted(path: Path, content: _Content) -> None:
    """`config.yaml` of the fusion baselines: options under the names that they have in the schema, then all the rest."""
    config = training_run.read_config(path)
    spec = {key: value for key, value in config.pop("spec").items() if key != "wildcards"}
    options = spec.pop("config")
    content.add_params({**options, **spec, **config})
    content.tags |= {"seed": str(options["seed"]), "code": spec["code"]}


def _evaluation(path: Path, content: _Content) -> None:
    """`metrics.json`: numbers of every scenario and method, and thresholds; what is nested deeper stays in the file."""
    report = read_evaluation(path, METRICS_CONTRACT)
    for scenario, methods in report["scenarios"].items():
        for method, values in methods.items():
            for name, value in values.items():
                if not isinstance(value, dict):
                    content.add_metric(f"{scenario}/{method}/{name}", value)
    for method, values in report["thresholds"].items():
        for name in ("budget", "f1"):
            content.add_metric(f"thresholds/{method}/{name}", values[name])
    content.add_params(report["config"])
    content.tags |= {"seed": str(report["seed"]), "code": report["code"]}


def _benchmark(path: Path, content: _Content) -> None:
    """`benchmark.tsv` of Snakemake, which writes `-` or `NA` for what it could not measure in so short a time."""
    with open(path, newline="", encoding="utf-8") as stream:
        row, *_ = csv.DictReader(stream, delimiter="\t")
    for name, text in row.items():
        if name != "h:m:s":
            content.add_metric(f"benchmark/{name}", None if text in ("-", "NA") else float(text))


_READERS: dict[str, Callable[[Path, _Content], None]] = {
    RECORD: _training,
    "history.parquet": _history,
    "config.yaml": _fitted,
    "metrics.json": _evaluation,
    "benchmark.tsv": _benchmark,
}


def is_stand_in(folder: Path, places: Places) -> bool:
    """Whether a file of a run is marked as a stand-in (`canids_shared.contracts.stand_in_mark`)."""
    return any(map(is_marked, places.files(folder)))


def read(folder: Path, places: Places) -> Record:
    """The record of a finished run.

    Raises `CanidsError` naming the file that is damaged, or that was removed meanwhile because the run is being repeated.
    """
    rule, at, name = folder.name.partition("@")
    files = places.files(folder)
    readers = dict(_READERS)
    if any(path.name == RECORD for path in files):
        del readers["config.yaml"]  # the options stand in the record
    # The digest is over all files, by name and content: what has not changed is not written again.
    content, model = _Content(), None
    digest = hashlib.sha256(f"layout {LAYOUT}\n".encode())
    for path in files:
        with reading(path, "file of a finished run", yaml.YAMLError, pl.exceptions.PolarsError, csv.Error):
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
            if path.name in readers:
                readers[path.name](path, content)
            if path.name == "model.safetensors" and header_of(path)["contract"] in SERVED:
                model = path
    variant = next((v for v in VARIANTS if rule.endswith(f"_{v}")), None)
    tags = {"dataset": places.dataset, "run": folder.name, "rule": rule, "instance": name or PLAIN, **content.tags}
    tags |= {"variant": variant} if variant else {}
    tags |= {"undefined": ", ".join(content.undefined)[:_LONGEST]} if content.undefined else {}
    # Snakemake writes benchmark.tsv last, so its time is the run's end.
    made = folder.joinpath("benchmark.tsv").stat().st_mtime_ns // 1_000_000
    seconds = next((value for key, value, _ in content.metrics if key == "benchmark/s"), 0.0)
    return Record(
        key=f"{places.dataset}/{folder.name}",
        parent=f"{places.dataset}/{PIPELINE}{at}{name}",
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
