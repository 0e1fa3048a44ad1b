"""Record of a training for its readers: `run.json` in the run folder (contract `run/2`, `run.schema.yaml`).

Cards, report, sweeps, resources and tracking declare this one file as their input, and read nothing else of the folder that
they did not declare.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from canids_shared.contracts import tables
from canids_shared.contracts.stand_in_mark import MARK
from canids_shared.contracts.whole import DIGEST, check_contract, check_digest, read_json, reading, sealed, write_json
from canids_shared.contracts.yaml_file import BoundedLoader
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of, write_text

CONTRACT, CONFIG = "run/2", "run_config/1"
HISTORY = tables.Table("history/1", {}, any_numbers=True)


@dataclass(frozen=True)
class TrainingRun:
    """A finished training; `run.schema.yaml` describes every field."""

    kind: str
    label: str
    detectors: list[str]
    variant: str
    scale: str
    dataset: str
    instance: str
    seed: int
    code: str
    config: dict[str, Any]
    inputs: dict[str, list[str]]
    input_digests: dict[str, list[str]]
    parameters: int
    best: int
    history: dict[str, list[float | None]]
    select: dict[str, Any]
    data: dict[str, Any]
    latency: dict[str, Any]
    sizes: dict[str, int]
    digests: dict[str, str]

    @property
    def name(self) -> str:
        """Name of the run's folder, such as `gat_large@seed-1`."""
        return f"{self.kind}_{self.variant}{self.instance}"


def history_columns(rows: Sequence[Mapping[str, Any]], leave_out: Sequence[str] = ()) -> dict[str, list[float | None]]:
    """Numeric columns of a history (one row for each epoch) for `TrainingRun.history`; NaN and infinity become null.

    Args:
        leave_out: columns with times and memory, which differ from one repetition to the next.
    """
    names = [name for name in rows[0] if name not in leave_out] if rows else []
    return {name: [_finite(row.get(name)) for row in rows] for name in names}


def _finite(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def write(path: str | Path, run: TrainingRun) -> None:
    """Check and write a `run.json`, whole."""
    write_json(path, CONTRACT, asdict(run))


def read(path: str | Path) -> TrainingRun:
    """Read a `run.json`.

    Raises `CanidsError` naming the file, and the key, if it is absent, damaged, edited, of another contract, a stand-in, or of another
    run than the folder that it lies in; and naming the model file beside it, where one lies there that this run has not trained.
    """
    folder = Path(path).parent
    again = f"delete the folder {folder} and train again"
    content = read_json(path, CONTRACT, "record of a training", again)
    run = TrainingRun(**{field.name: content[field.name] for field in fields(TrainingRun)})
    if Path(path).resolve().parent.name != run.name:
        raise CanidsError(f"{path}: is the record of {run.name}; {again}")
    model = folder / "model.safetensors"
    if not content.get(MARK) and "model" in run.digests and model.exists() and sha256_of(model) != run.digests["model"]:
        raise CanidsError(f"{model}: is not the model that {path} is the record of; {again}")
    return run


def write_config(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a run's `config.yaml`, whole, with its digest."""
    # A list that occurs twice occurs as two lists here, and so as no alias in YAML.
    write_text(path, yaml.safe_dump(sealed(path, content, CONFIG), sort_keys=True, allow_unicode=True))


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a run's `config.yaml`, without contract and digest.

    Raises `CanidsError` naming the file, and the key, if it is absent, damaged, edited or of another contract.
    """
    again = f"delete the folder {Path(path).parent} and train again"
    with reading(path, "config of a run", yaml.YAMLError, again=again):
        content = yaml.load(Path(path).read_text(encoding="utf-8"), BoundedLoader)
        check_contract(path, content, CONFIG, again)
        check_digest(path, content, again=again)
    return {key: value for key, value in content.items() if key not in ("contract", DIGEST)}


def write_history(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write `history.parquet`, a row for each epoch (or evaluation)."""
    tables.write(path, HISTORY, pl.DataFrame(rows), {})


def read_history(path: str | Path) -> pl.DataFrame:
    """Read `history.parquet`; its first column is the epoch or step.

    Raises `CanidsError` naming the file if it is absent, damaged, edited, of another contract, or has a column that holds no numbers.
    """
    return tables.read(path, HISTORY)[0]
