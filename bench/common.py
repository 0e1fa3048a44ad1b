"""Helpers of all measurements: a process on one core, a script in a process of its own, the file of results."""

import json
import os
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
    name: str, value: float, unit: str, against: str | None = None, ratio: float | None = None
) -> dict[str, Any]:
    """One line of the results."""
    return {"name": name, "value": value, "unit": unit, "against": against, "ratio": ratio}


def publish(rows: list[dict[str, Any]], output: Path) -> None:
    """Print the results, and merge them into the file of all measurements."""
    known = json.loads(output.read_text(encoding="utf-8")) if output.exists() else []
    new = {row["name"] for row in rows}
    write_text(output, json.dumps([*(row for row in known if row["name"] not in new), *rows], indent=1) + "\n")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} × {row['against']}"
        print(f"{row['name']:38} {row['value']:>14,.1f} {row['unit']:26} {ratio}")
