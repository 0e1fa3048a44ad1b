"""What trainings left behind, as the report needs it: size, learning curve, config, time and memory."""

import csv
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from canids_shared.contracts.model_file import DETECTOR, EXPORT, POLICY, load_arrays
from canids_shared.errors import CanidsError
from canids_shared.jobs import latency

KINDS = {"vgae": "VGAE", "gat": "GAT", "dqn": "DQN"}
_KINDS_OF_VALUES = {dict: "mapping", str: "text", int: "whole number"}
_CONTRACTS = {"vgae": DETECTOR, "gat": DETECTOR, "dqn": POLICY}


@dataclass(frozen=True)
class Cost:
    """What a run took, from its `benchmark.tsv`; None where it was too short to be measured."""

    seconds: float | None
    peak_mb: float | None


@dataclass(frozen=True)
class Export:
    """A detector as ONNX, from the `export.json` beside it (contract `export/1`).

    Attributes:
        bytes: size of the file.
        largest_difference: from torch, of any output.
        onnxruntime_ms, torch_ms: inference latency on one core, milliseconds a window.
    """

    bytes: int
    largest_difference: float
    onnxruntime_ms: float
    torch_ms: float


@dataclass(frozen=True)
class Training:
    """One finished training.

    Attributes:
        run: name of its folder, such as `gat_large@seed-1`.
        kind: `vgae`, `gat` or `dqn`.
        parameters: numbers that were learnt.
        history: a row an epoch (detectors) or evaluation (policy).
        config: its `config.yaml`.
        latency_ms: inference latency, milliseconds a window.
        device: where that was measured.
        cost: what it took.
        header: what its model file says beside the weights.
        export: what is known of it as ONNX, where it was exported.
    """

    run: str
    kind: str
    variant: str
    parameters: int
    history: pl.DataFrame
    config: dict[str, Any]
    latency_ms: float
    device: str
    cost: Cost
    header: dict[str, Any]
    export: Export | None = None

    @property
    def seed(self) -> int:
        """The seed that it was trained with."""
        return int(self.config["spec"]["config"]["seed"])

    @property
    def code(self) -> str:
        """Hash of the code that it was trained by."""
        return str(self.config["spec"]["code"])


def read_history(path: Path) -> pl.DataFrame:
    """Read a `history.parquet`; raises `CanidsError` naming the file if it is damaged."""
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file; {again(path)}") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CanidsError(f"{path}: damaged: {' '.join(str(error).split())}; {again(path)}") from None


def again(path: Path) -> str:
    """What makes a file of a run anew: a plan that looks at `benchmark.tsv` does not miss the others."""
    return f"delete the folder {path.parent} and train again"


def read_config(path: Path) -> dict[str, Any]:
    """Read the `config.yaml` of a training; raises `CanidsError` naming file, and key, if something in it is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file; {again(path)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise CanidsError(f"{path}: damaged: {' '.join(str(error).split())}; {again(path)}") from None
    for key, kind in (("spec", dict), ("spec.code", str), ("spec.config", dict), ("spec.config.seed", int)):
        found = content
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, kind):
            raise CanidsError(f"{path}: {key} is missing or no {_KINDS_OF_VALUES[kind]}; {again(path)}")
    return dict(content)


def read_training(folder: Path) -> Training:
    """Read a run's folder; raises `CanidsError` naming the file that is absent, damaged or of another contract."""
    run, model = folder.name, folder / "model.safetensors"
    kind, _, variant = run.partition("@")[0].partition("_")
    try:
        arrays, header = load_arrays(model, _CONTRACTS[kind])
    except CanidsError as error:
        raise CanidsError(f"{str(error).partition('; ')[0]}; {again(model)}") from None
    parameters = int(header.get("parameters") or sum(a.size for a in arrays.values()))
    return Training(
        run,
        kind,
        variant,
        parameters,
        read_history(folder / "history.parquet"),
        read_config(folder / "config.yaml"),
        *latency.read(folder / "latency.json"),
        read_cost(folder / "benchmark.tsv"),
        header,
        read_export(folder / "export.json"),
    )


def read_export(path: Path) -> Export | None:
    """Read an `export.json`; None if there is none. Raises `CanidsError` naming the file if it is damaged or of another contract."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["contract"] != EXPORT:
            raise CanidsError(f"{path}: contract {content['contract']}, not {EXPORT}; export again")
        return Export(**{field.name: content[field.name] for field in fields(Export)})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise CanidsError(f"{path}: damaged; delete it and export again") from None


def read_cost(path: Path) -> Cost:
    """Read a `benchmark.tsv` of Snakemake: seconds, and peak resident memory in megabytes.

    Raises `CanidsError` naming the file if it is absent or damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            row = next(csv.DictReader(stream, delimiter="\t"))
            return Cost(_positive(row["s"]), _positive(row["max_rss"]))
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file; run again what it is the benchmark of") from None
    except (ValueError, TypeError, KeyError, StopIteration, csv.Error):
        raise CanidsError(f"{path}: damaged; delete it and run again what it is the benchmark of") from None


def _positive(text: str) -> float | None:
    """A measured number; Snakemake writes 0, `-` or `NA` for jobs too short to look at."""
    if text in ("-", "NA"):
        return None
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value or None
