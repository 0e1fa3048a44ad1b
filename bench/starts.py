"""Seconds of every job before its work: the import of each entry point, and the three packages that take most of it.

    python bench/starts.py [--rounds 5] [--output bench/results.json]

User time of a new process that imports the module, the least of some rounds, all entry points in turn. An entry point is a
module that can be run (`python -m canids_…`).
"""

import argparse
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

from common import THREADS, publish, result

ROOT = Path(__file__).resolve().parents[1]
TORCH, OTHERS = 1.6, 0.6
_LINE = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \| +(\w+)", re.MULTILINE)


def entry_points() -> list[str]:
    """Names of all modules that can be run, in the modules and in what they share."""
    folders = [ROOT / "shared", *sorted(path.parent for path in ROOT.glob("modules/*/Snakefile"))]
    found = [
        path.relative_to(folder).with_suffix("").parts
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        if re.search(r"^if __name__ == ", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    return [".".join(parts) for parts in found if parts[-1] != "__main__"]


def user_seconds(module: str) -> float:
    """User time of a new process that imports a module."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", f"import {module}"], env={**os.environ, **THREADS}, check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def packages(module: str) -> Counter[str]:
    """Seconds that each package's own modules took in one import."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    printed = subprocess.run(command, env={**os.environ, **THREADS}, check=True, capture_output=True, text=True).stderr
    seconds: Counter[str] = Counter()
    for microseconds, package in _LINE.findall(printed):
        seconds[package] += int(microseconds) / 1e6  # type: ignore[assignment]
    return seconds


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results.json")
    options = parser.parse_args()
    modules = ["torch", *entry_points()]
    best = {module: min(user_seconds(module) for _ in range(options.rounds)) for module in modules}
    rows = []
    for module in modules:
        loaded = packages(module)
        most = TORCH if module == "torch" else OTHERS + (TORCH if "torch" in loaded else 0)
        heaviest = ", ".join(f"{name} {seconds:.2f}" for name, seconds in loaded.most_common(3))
        row = result(f"start_s_{module}", best[module], "s", "import torch", best[module] / best["torch"],
                     most=most, note=heaviest)  # fmt: skip
        rows.append(row)
    publish(rows, options.output)


if __name__ == "__main__":
    main()
