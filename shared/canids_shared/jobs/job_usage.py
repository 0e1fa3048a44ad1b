"""Time, memory and input size of a job: the last line of its log, which `canids_shared.jobs.entry_point.run` writes.

Snakemake's `benchmark.tsv` has neither input size nor GPU memory, samples memory instead of reading its peak, and is forbidden for
cached rules. A log is no output, so times in it leave cached files the same to the byte.

| key | content |
|---|---|
| `entry`, `wildcards`, `code` | entry point, and wildcards and hash of its code from the rule's params |
| `start_seconds` | time from the process's start to the call of the entry point: interpreter and imports; null where unknown |
| `seconds` | time since the entry point was called |
| `memory_mb` | peak resident memory, 10⁶ bytes; null where unknown |
| `gpu_mb` | peak of what torch reserved on the GPU, 10⁶ bytes; null without one |
| `input_mb` | size of the files read, 2²⁰ bytes, as Snakemake's `input.size_mb` |
| `threads` | threads that the job computes with |
"""

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json

_MARK = "resources: "
_TAIL = 1 << 16
_KEYS = {"entry", "wildcards", "code", "start_seconds", "seconds", "memory_mb", "gpu_mb", "input_mb", "threads"}


def peak_memory() -> int | None:
    """Largest resident memory of this process so far, bytes; None without `/proc`."""
    # `ru_maxrss` would include the process that this one was forked from.
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def peak_gpu_memory() -> int | None:
    """Most that torch reserved on the GPU so far, bytes; None if this process did not use one."""
    torch = sys.modules.get("torch")  # a process that used a GPU has imported it
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_reserved())


def since_start() -> float | None:
    """Seconds since this process began, on a clock of hundredths; None without `/proc`."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return None
    # The command's name, in brackets, may hold blanks; the 22nd field is the 20th after it (proc(5)).
    ticks = int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def line(inputs: Iterable[Path], seconds: float, **job: Any) -> str:
    """The line for the log; `job` is `entry`, `wildcards`, `code`, `start_seconds` and `threads`."""
    memory, gpu = peak_memory(), peak_gpu_memory()
    usage = {
        "seconds": round(seconds, 3),
        "memory_mb": None if memory is None else round(memory / 1e6, 1),
        "gpu_mb": None if gpu is None else round(gpu / 1e6, 1),
        "input_mb": sum(path.stat().st_size for path in inputs if path.is_file()) / 2**20,
        **job,
    }
    return _MARK + canonical_json(usage)


def read(log: Path) -> dict[str, Any] | None:
    """The line of a log, or None if there is none (the job failed, or its log is older than this line).

    Raises `CanidsError` naming the file if the line is damaged.
    """
    with open(log, "rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL))
        lines = stream.read().decode("utf-8", errors="replace").splitlines()
    text = next((text for text in reversed(lines) if text.startswith(_MARK)), None)
    if text is None:
        return None
    try:
        usage: dict[str, Any] = json.loads(text.removeprefix(_MARK))
    except ValueError:
        usage = {}
    if not isinstance(usage, dict) or usage.keys() | {"start_seconds"} != _KEYS:
        raise CanidsError(f"{log}: the line '{_MARK}…' is damaged; delete it and run the job again")
    return {"start_seconds": None, **usage}
