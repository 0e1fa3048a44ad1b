"""Model files and graph stores that no writer of this project would write, sealed with the digest of what they hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save
from xxhash import xxh3_128

from canids_shared.contracts.model_file import Arrays, _digests
from canids_shared.contracts.whole import digest_of
from canids_shared.files import canonical_json


def forged(
    source: Path, path: Path, header: dict[str, Any] | None = None, tensors: Arrays | None = None, without: str = ""
) -> Path:
    """A copy of a model file with other values in its header and other tensors, so that only a structural check can refuse it.

    Args:
        source, path: the file, and its copy.
        header: dotted key → value, such as `size.channels`; a value of `...` takes the key out.
        tensors: further or other tensors.
        without: name of a tensor to leave out.
    """
    with safe_open(source, "numpy") as opened:
        content = json.loads(opened.metadata()["canids"])
    for key, value in (header or {}).items():
        *above, last = key.split(".")
        place = content
        for name in above:
            place = place[int(name) if name.isdigit() else name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    arrays = {name: array for name, array in {**load_file(source), **(tensors or {})}.items() if name != without}
    content["digest"] = digest_of(content, _digests(arrays))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(arrays, {"canids": canonical_json(content)}))
    return path


def forged_store(source: Path, path: Path, header: dict[str, Any] | None = None, **tensors: np.ndarray) -> Path:
    """A copy of a graph store with other values in its header and other tensors."""
    with safe_open(source, "numpy") as opened:
        content = {**json.loads(opened.metadata()["canids"]), **(header or {})}
    arrays = {**load_file(source), **tensors}
    # The two rows of `edge_index` count as two arrays.
    ends = dict(zip(("edge_source", "edge_target"), arrays["edge_index"], strict=False))
    parts = {name: array for name, array in {**arrays, **ends}.items() if name != "edge_index"}
    digests = {name: xxh3_128(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in parts.items()}
    content["digest"] = digest_of(content, digests)
    path.write_bytes(save(arrays, {"canids": canonical_json(content)}))
    return path
