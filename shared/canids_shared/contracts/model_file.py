"""Model files: arrays and one JSON header in safetensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from canids_shared.contracts import stand_in_mark
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json, written_whole

DETECTOR, POLICY, FUSION_BASELINES = "detector/2", "policy/3", "fusion_baselines/2"
"""Contracts of `model.safetensors`: of a detector, of a policy, of its fusion_baselines."""
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
    stand_in_mark.refuse(path, header)
    return arrays, header
