"""Model files: arrays and one JSON header in safetensors, with a digest of both and the run that made them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from canids_shared.contracts.whole import (
    AGAIN,
    check_contract,
    check_digest,
    check_identity,
    parse_json,
    reading,
    sealed,
)
from canids_shared.errors import CanidsError
from canids_shared.files import HEADER_KEY, canonical_json, written_whole

DETECTOR, POLICY, FUSION_BASELINES = "detector/3", "policy/5", "fusion_baselines/4"
"""Contracts of `model.safetensors`: of a detector, of a policy, of the fusion baselines beside it. Their headers have schemas."""
EXPORT = "export/1"
"""Contract of `export.json`: size and latency of a detector as ONNX."""
Arrays = dict[str, np.ndarray]


def save_arrays(path: str | Path, arrays: Arrays, header: dict[str, Any]) -> None:
    """Write a safetensors file whole, with its digest in the header; equal content gives equal bytes.

    The metadata is one key, `canids`, with sorted JSON: several keys would come out in random order.

    Raises `CanidsError` naming the key if the header breaks the schema of its contract.
    """
    # safetensors writes memory as it lies, and reads it back row by row.
    rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    made = sealed(path, header, str(header.get("contract")), _digests(rows))
    with written_whole(path) as temporary:
        temporary.write_bytes(save(rows, {HEADER_KEY: canonical_json(made)}))


def _digests(arrays: Arrays) -> dict[str, str]:
    """Name, type and shape of every array → SHA-256 of its values."""
    return {f"{name} {a.dtype} {a.shape}": hashlib.sha256(a.tobytes()).hexdigest() for name, a in arrays.items()}


def header_of(path: str | Path) -> dict[str, Any]:
    """The header of a model file of any contract.

    Raises `CanidsError` naming the file if it is absent or damaged, its header breaks its contract, or it lies in the folder of
    another run.
    """
    with reading(path, "model file", SafetensorError), safe_open(path, "numpy") as opened:
        header = parse_json(opened.metadata()[HEADER_KEY])
        check_contract(path, header, str(header["contract"]))
        check_identity(path, header)
        return dict(header)


def load_arrays(path: str | Path, contract: str, *, finite: bool = True) -> tuple[Arrays, dict[str, Any]]:
    """Read a file that `save_arrays` wrote: arrays and header.

    Args:
        path: the file.
        contract: its contract.
        finite: whether NaN and infinity are errors; the batch that stopped a training may hold them.

    Raises `CanidsError` naming the file if it is absent, cut off, edited, of another contract or a stand-in, lies in the folder of
    another run, or holds NaN or infinity: a network with one such weight would raise no alarm and say nothing.
    """
    with reading(path, "model file", SafetensorError), safe_open(path, "numpy") as opened:
        header = check_contract(path, parse_json(opened.metadata()[HEADER_KEY]), contract)
        check_identity(path, header)
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        check_digest(path, header, _digests(arrays))
    for name, array in arrays.items():
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CanidsError(f"{path}: tensor '{name}' holds NaN or infinity; {AGAIN}")
    return arrays, header


def check_arrays(path: str | Path, arrays: Arrays, expected: Mapping[str, tuple[str, Sequence[int]]]) -> None:
    """Raise `CanidsError` naming the tensor that is missing, unknown, or of another type or shape than `expected`."""
    for name in sorted(arrays.keys() | expected.keys()):
        if name not in arrays or name not in expected:
            problem = "is missing" if name in expected else "is unknown"
            raise CanidsError(f"{path}: tensor '{name}' {problem}; {AGAIN}")
        kind, shape = expected[name]
        array = arrays[name]
        if (str(array.dtype), array.shape) != (kind, tuple(shape)):
            raise CanidsError(
                f"{path}: tensor '{name}' is {array.dtype} {list(array.shape)}, not {kind} {list(shape)}; {AGAIN}"
            )


def refuse_mixture(*paths: Path) -> None:
    """Raise `CanidsError` naming both files if two models are of different datasets, variants or instances."""
    first, *others = map(header_of, paths)
    for path, header in zip(paths[1:], others, strict=True):
        if other := [key for key in ("dataset", "variant", "instance") if header.get(key) != first.get(key)]:
            raise CanidsError(f"{path}: is of another {other[0]} than {paths[0]}; take both from one training")
