"""Record of a training for its readers: `run.json` in the run folder (contract `run/1`, `run.schema.yaml`).

Cards, report, sweeps, resources and tracking declare this one file as their input, and read nothing else of the folder that
they did not declare.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from canids_shared.contracts.config import check, load_schema
from canids_shared.contracts.whole import read_json
from canids_shared.errors import CanidsError
from canids_shared.files import write_json

CONTRACT = "run/1"
_SCHEMA = Path(__file__).with_name("run.schema.yaml")


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
    write_json(path, _checked({"contract": CONTRACT, **asdict(run)}, path))


def read(path: str | Path) -> TrainingRun:
    """Read a `run.json`.

    Raises `CanidsError` naming the file, and the key, if it is absent, damaged, of another contract, a stand-in, or of another
    run than the folder that it lies in.
    """
    again = f"delete the folder {Path(path).parent} and train again"
    content = _checked(read_json(path, CONTRACT, "record of a training", again), path)
    run = TrainingRun(**{key: value for key, value in content.items() if key not in ("contract", "stand_in")})
    if Path(path).resolve().parent.name != run.name:
        raise CanidsError(f"{path}: is the record of {run.name}; {again}")
    return run


def _checked(content: dict[str, Any], path: str | Path) -> dict[str, Any]:
    checked: dict[str, Any] = check(content, load_schema(_SCHEMA), where=str(path))
    return checked
