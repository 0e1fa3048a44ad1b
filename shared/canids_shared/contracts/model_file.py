"""Model files: arrays and one JSON header in safetensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from canids_shared.contracts.whole import AGAIN, check_contract, reading
from canids_shared.errors import CanidsError
from canids_shared.files import HEADER_KEY, canonical_json, written_whole

DETECTOR, POLICY, FUSION_BASELINES = "detector/2", "policy/3", "fusion_baselines/2"
"""Contracts of `model.safetensors`: of a detector, of a policy, of the fusion baselines beside it."""
EXPORT = "export/1"
"""Contract of `export.json`: size and latency of a detector as ONNX."""
Arrays = dict[str, np.ndarray]


def save_arrays(path: str | Path, arrays: Arrays, header: dict[str, Any]) -> None:
    """Write a safetensors file whole; equal content gives equal bytes.

    The metadata is one key, `canids`, with sorted JSON: several keys would come out in random order.
    """
    # safetensors writes memory as it lies, and reads it back row by row.
    rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(rows, {HEADER_KEY: canonical_json(header)}))


def header_of(path: str | Path) -> dict[str, Any]:
    """The header of a model file of any contract; raises `CanidsError` naming the file if it is absent or damaged."""
    with reading(path, "model file", SafetensorError), safe_open(path, "numpy") as opened:
        return dict(json.loads(opened.metadata()[HEADER_KEY]))


def load_arrays(path: str | Path, contract: str, *, finite: bool = True) -> tuple[Arrays, dict[str, Any]]:
    """Read a file that `save_arrays` wrote: arrays and header.

    Args:
        path: the file.
        contract: its contract.
        finite: whether NaN and infinity are errors; the batch that stopped a training may hold them.

    Raises `CanidsError` naming the file if it is absent, cut off, of another contract or a stand-in, or holds NaN or infinity:
    a network with one such weight would raise no alarm and say nothing.
    """
    with reading(path, "model file", SafetensorError), safe_open(path, "numpy") as opened:
        header = check_contract(path, json.loads(opened.metadata()[HEADER_KEY]), contract)
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for name, array in arrays.items():
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CanidsError(f"{path}: tensor '{name}' holds NaN or infinity; {AGAIN}")
    return arrays, header
