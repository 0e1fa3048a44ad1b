"""The folder of a training run: model, config, history, and the checkpoints from which it resumes."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from canids_shared import marks
from canids_shared.cli import Call
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json, sha256_of, write_text, written_whole

DETECTOR, POLICY, RIVALS = "detector/2", "policy/2", "rivals/1"
"""Contracts of `model.safetensors`: of a detector, of a policy, of its rivals."""
EXPORT = "export/1"
"""Contract of `export.json`: size and latency of a detector as ONNX."""
_CHECKPOINT = "checkpoint/1"
Arrays = dict[str, np.ndarray]


def save_arrays(path: str | Path, arrays: Arrays, header: dict[str, Any]) -> None:
    """Write a safetensors file whole; equal content gives equal bytes.

    The metadata is one key, `canids`, with sorted JSON: several keys would come out in random order.
    """
    # safetensors writes memory as it lies, and reads it back row by row.
    rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(rows, {"canids": canonical_json(header)}))


def load_arrays(path: str | Path, contract: str) -> tuple[Arrays, dict[str, Any]]:
    """Read a file of `save_arrays`; raises `CanidsError` naming it if it is absent, cut off, of another contract or a stand-in."""
    try:
        with safe_open(path, "numpy") as opened:
            header = json.loads(opened.metadata()["canids"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file") from None
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise CanidsError(f"{path}: not a whole model file; delete it and run again") from None
    if header.get("contract") != contract:
        raise CanidsError(f"{path}: contract {header.get('contract')}, not {contract}; delete it and run again")
    marks.refuse(path, header)
    return arrays, header


def identity(call: Call) -> dict[str, Any]:
    """All that decides the outcome of a training: spec (config, code, wildcards), inputs by content, Python."""
    inputs = {name: [sha256_of(p) for p in paths] for name, paths in call.inputs.items()}
    return {"spec": json.loads(call.spec), "inputs": inputs, "python": ".".join(map(str, sys.version_info[:2]))}


def write_config(path: str | Path, call: Call) -> None:
    """Write `config.yaml`: all that is needed to repeat the run."""
    files = {name: [str(p) for p in paths] for name, paths in call.inputs.items()}
    text = yaml.safe_dump({**identity(call), "files": files}, sort_keys=True, allow_unicode=True)
    write_text(path, text)


def write_history(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write `history.parquet`: one row an epoch (or evaluation)."""
    with written_whole(path) as temporary:
        pl.DataFrame(rows).write_parquet(temporary)


class Checkpoint:
    """The state of a training in `{run}/.checkpoint/{hash of config, data, code}/`.

    A matching one is resumed, others are ignored, all are removed on success. It is replaced whole, so a run killed at
    any moment goes on from the last state that was saved.

    Attributes:
        failed_batch: where a batch that stopped the training is kept; removed on success too.
    """

    def __init__(self, call: Call, run_folder: Path, **how: Any) -> None:
        """A checkpoint of this call; `how` is what else decides the bytes and is found out at run time, such as the device."""
        key = hashlib.sha256(canonical_json({**identity(call), "how": how}).encode()).hexdigest()[:16]
        self._all = run_folder / ".checkpoint"
        self.failed_batch = run_folder / "failed_batch.safetensors"
        self._path = self._all / key / "state.safetensors"

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Arrays and progress of a matching checkpoint, or None."""
        if not self._path.exists():
            return None
        arrays, header = load_arrays(self._path, _CHECKPOINT)
        return arrays, header["progress"]

    def save(self, arrays: Arrays, progress: dict[str, Any]) -> None:
        """Replace the checkpoint; `progress` must be JSON."""
        save_arrays(self._path, arrays, {"contract": _CHECKPOINT, "progress": progress})

    def remove(self) -> None:
        """Delete all checkpoints of the run: it has succeeded."""
        shutil.rmtree(self._all, ignore_errors=True)
        self.failed_batch.unlink(missing_ok=True)
