"""Helpers of all measurements: a process on one core, a script in a process of its own, the file of results."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from canids_shared.files import write_text

THREADS = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def one_core() -> None:
    """Keep this process on one core."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})


def figures(script: str, *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    """The JSON that a script prints in its last line, run in a new process with one thread."""
    ran = subprocess.run(
        [python, script, *arguments], env={**os.environ, **THREADS}, check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def result(
    name: str,
    value: float,
    unit: str,
    against: str | None = None,
    ratio: float | None = None,
    *,
    most: float | None = None,
    least: float | None = None,
    note: str = "",
) -> dict[str, Any]:
    """One figure; `bench/README.md` explains its name in a line.

    Args:
        name: the figure's name; a part in braces, such as a number of frames, is `*` in the README.
        value: what was measured.
        unit: its unit.
        against: the peer that was measured in the same run.
        ratio: the figure as a multiple of the peer's.
        most: the largest value that is wanted.
        least: the smallest value that is wanted.
        note: what the number alone does not say.

    Raises `ValueError` for a figure that nothing is held against.
    """
    if against is None and most is None and least is None:
        raise ValueError(f"{name}: name a peer (against, ratio) or a limit (most, least)")
    wanted = {"most": most} if most is not None else {"least": least} if least is not None else {}
    return {"name": name, "value": value, "unit": unit, "against": against, "ratio": ratio, **wanted, "note": note}


def kept(row: dict[str, Any]) -> bool | None:
    """Whether a figure keeps its limit; None if it has none."""
    if "most" in row:
        return bool(row["value"] <= row["most"])
    return bool(row["value"] >= row["least"]) if "least" in row else None


def machine() -> str:
    """Cores, processor, memory, and the GPU if there is one."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = ""
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
        gpu = "".join(f", {name}" for name in names[:1])
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Python {platform.python_version()}{gpu}"


def publish(rows: list[dict[str, Any]], output: Path) -> None:
    """Print the figures, and merge them into the file of all measurements, each with the machine's name."""
    known = json.loads(output.read_text(encoding="utf-8")) if output.exists() else []
    new = {row["name"] for row in rows}
    rows = [{**row, "machine": machine()} for row in rows]
    merged = [*(row for row in known if row["name"] not in new), *rows]
    write_text(output, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} × {row['against']}"
        limit = {True: "kept", False: "MISSED", None: ""}[kept(row)]
        print(f"{row['name']:44} {row['value']:>16,.2f} {row['unit']:26} {limit:7} {ratio} {row['note']}".rstrip())
