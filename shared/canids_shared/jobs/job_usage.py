"""What a job took, by its own account: the last line of its log, which `canids_shared.jobs.entry_point.run` writes.

Snakemake's `benchmark.tsv` knows neither input size nor GPU memory, samples memory instead of asking for its peak, and
is forbidden to cached rules. A log is no output, so times in it leave cached files the same to the byte.

| key | content |
|---|---|
| `entry`, `wildcards`, `code` | what ran, as the rule's params say |
| `seconds` | time since the entry point was called |
| `memory_mb` | peak resident memory, 10⁶ bytes; null where the system does not tell |
| `gpu_mb` | peak of what torch reserved on the GPU, 10⁶ bytes; null without one |
| `input_mb` | size of the files read, 2²⁰ bytes, as Snakemake's `input.size_mb` |
| `threads` | threads that the job was told to compute with |
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json

_MARK = "resources: "
_TAIL = 1 << 16
_KEYS = {"entry", "wildcards", "code", "seconds", "memory_mb", "gpu_mb", "input_mb", "threads"}


def peak_memory() -> int | None:
    """Largest resident memory of this process so far, bytes; None where `/proc` does not say."""
    # Not `ru_maxrss`, which also counts the process that this one was forked from.
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def peak_gpu_memory() -> int | None:
    """Most that torch reserved on the GPU so far, bytes; None if this process did not use one."""
    torch = sys.modules.get("torch")  # only who has imported it can have used a GPU
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_reserved())


def line(inputs: Iterable[Path], seconds: float, **said: Any) -> str:
    """The line for the log; `said` is `entry`, `wildcards`, `code` and `threads`."""
    memory, gpu = peak_memory(), peak_gpu_memory()
    found = {
        "seconds": round(seconds, 3),
        "memory_mb": None if memory is None else round(memory / 1e6, 1),
        "gpu_mb": None if gpu is None else round(gpu / 1e6, 1),
        "input_mb": sum(path.stat().st_size for path in inputs if path.is_file()) / 2**20,
        **said,
    }
    return _MARK + canonical_json(found)


def read(log: Path) -> dict[str, Any] | None:
    """What a log says of its job, or None if it says nothing (a job that failed, or wrote its log before this existed).

    Raises `CanidsError` naming the file if the line is damaged.
    """
    with open(log, "rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL))
        lines = stream.read().decode("utf-8", errors="replace").splitlines()
    said = next((text for text in reversed(lines) if text.startswith(_MARK)), None)
    if said is None:
        return None
    try:
        found: dict[str, Any] = json.loads(said.removeprefix(_MARK))
    except ValueError:
        found = {}
    if not isinstance(found, dict) or found.keys() != _KEYS:
        raise CanidsError(f"{log}: the line '{_MARK}…' is damaged; delete it and run again what it is the log of")
    return found
