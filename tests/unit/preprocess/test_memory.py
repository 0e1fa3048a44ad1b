"""Captures far larger than the memory at hand stream through: what a job holds does not grow with the capture."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

JOB = """
import json, re, sys
from pathlib import Path
from captures import GRAPHS, call
from canids_preprocess import graphs, ingest

folder, split = Path(sys.argv[1]), sys.argv[2]
entry = {"name": "a", "vehicle": "v", "format": "auto", "attack": "dos", "content": "labelled", "attacked": []}
reading = {"timestamp_tolerance": 0.0005, "on_bad_rows": "quarantine"}
outputs = {"output": folder / "a.parquet", "rejects": folder / "r.parquet"}
ingest.main(call({"dataset": "d"}, reading, outputs, {"capture": [folder / "a.csv"], "metadata": []}, capture=entry))
config = {**GRAPHS, "window": 100, "stride": 100, "restarts": {"every": 10.0, "length": 1.0}}
wildcards = {"dataset": "d", "split": split, "instance": ""}
graphs.main(call(wildcards, config, folder / "g", {"frames": [folder / "a.parquet"]}))
store = (folder / "g").stat().st_size
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps({"peak": peak / 1024, "store": store / 2**20}))
"""
"""Reads a capture and builds the graphs of a split; prints its largest memory and the size of the store, MiB.

The kernel's own account, since `ru_maxrss` also counts the process that this one was forked from.
"""


def write_capture(path: Path, frames: int) -> None:
    """A capture of many frames, with an attack in each quarter."""
    rng = np.random.default_rng(0)
    row = np.arange(frames)
    drive = pl.DataFrame(
        {
            "timestamp": 1.6e9 + row / 2000,
            "arbitration_id": rng.choice([f"{i:03X}" for i in range(16, 56)], frames),
            "data_field": rng.choice([f"{i:016X}" for i in rng.integers(0, 2**62, 50)], frames),
            "attack": ((row * 8 // frames) % 2) * (row % 3 == 0),
        }
    )
    drive.write_csv(path, float_precision=6)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "fit"])
def test_memory_does_not_grow_with_the_capture(tmp_path: Path, split: str) -> None:
    measured = []
    for frames in (400_000, 3_200_000):
        write_capture(tmp_path / "a.csv", frames)
        command = [sys.executable, "-c", JOB, str(tmp_path), split]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
        measured.append(json.loads(done.stdout))
    small, large = measured
    file = (tmp_path / "a.csv").stat().st_size / 2**20
    assert file > 100
    assert large["store"] > 50
    assert large["peak"] - small["peak"] < 30
