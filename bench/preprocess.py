"""Speed of preprocessing: a simulated capture as CSV to frames and graphs, against only reading the CSV with polars.

    python bench/preprocess.py [--frames 10000000] [--folder DIR] [--output bench/results.json]

Every measurement runs in a process of its own, on one core. Captures are written once into the folder and used again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess import graphs, ingest
from canids_preprocess.simulate import simulate_csv
from canids_shared.cli import Call

THREADS = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
BLOCKS = {"shares": {"fit": 0.5, "select": 0.125, "fuse": 0.25, "calibrate": 0.125}, "repeats": 1, "gap": 2.0}
GRAPHS = {
    "window": 100,
    "stride": 100,
    "window_unit": "frames",
    "features": "relative",
    "blocks": BLOCKS,
    "restarts": {"every": 10.0, "length": 1.0},
    "leave_out": {},
}


def capture(folder: Path, frames: int) -> Path:
    """A CSV of exactly `frames` simulated frames: the beginning of a long drive, made once."""
    path = folder / f"simulated_{frames}.csv"
    if not path.exists():
        print(f"simulating {frames:,} frames", file=sys.stderr)
        simulate_csv(path, vehicle="hatchback", frames=frames, seed=1)
    return path


def measure_read(path: Path) -> dict[str, float]:
    """Seconds in which polars reads the file."""
    begin = time.perf_counter()
    frames = len(pl.read_csv(path))
    return {"seconds": time.perf_counter() - begin, "frames": frames}


def measure_preprocess(path: Path) -> dict[str, float]:
    """Seconds from opening the file to the closed graph store, and the process's largest memory."""
    entry = {"name": "drive", "vehicle": "v", "format": "can-train-and-test", "attack": None, "content": "labelled"}
    reading = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}

    def whole(raw: Path, folder: Path) -> tuple[float, float]:
        table, rejects, store = (folder / n for n in ("frames.parquet", "rejects.parquet", "graphs.safetensors"))
        of, wildcards = {"capture": {**entry, "attacked": []}}, {"dataset": "d", "split": "test", "instance": ""}
        begin = time.perf_counter()
        ingest.main(
            Call(wildcards, reading, of, {"output": table, "rejects": rejects}, {"capture": [raw], "metadata": []}, "")
        )
        middle = time.perf_counter()
        graphs.main(Call(wildcards, GRAPHS, {}, {"output": store}, {"frames": [table]}, ""))
        return middle - begin, time.perf_counter() - middle

    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        with open(path, "rb") as stream, open(folder / "small.csv", "wb") as small:
            small.writelines(line for _, line in zip(range(1000), stream, strict=False))
        whole(folder / "small.csv", folder)  # compiles the kernels, or loads them
        reading_s, graphs_s = whole(path, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": reading_s + graphs_s, "ingest": reading_s, "graphs": graphs_s, "peak_rss_mb": peak}


MEASUREMENTS = {"read": measure_read, "preprocess": measure_preprocess}


def measured(name: str, path: Path) -> dict[str, float]:
    """The figures of one measurement, made in a new process on one core."""
    command = [sys.executable, __file__, "--measure", name, "--capture", str(path)]
    text = subprocess.run(command, env={**os.environ, **THREADS}, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(text))


def result(
    name: str, value: float, unit: str, against: str | None = None, ratio: float | None = None
) -> dict[str, Any]:
    """One line of the results."""
    return {"name": name, "value": value, "unit": unit, "against": against, "ratio": ratio}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path("bench/data"))
    parser.add_argument("--output", type=Path, default=Path("bench/results.json"))
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    parser.add_argument("--capture", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
        print(json.dumps(MEASUREMENTS[options.measure](options.capture)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    path = capture(options.folder, options.frames)
    read, own = measured("read", path), measured("preprocess", path)
    ratio = own["seconds"] / read["seconds"]
    rows = [
        result("preprocess_frames_per_s", options.frames / own["seconds"], "frames/s"),
        result("preprocess_vs_read_csv", ratio, "ratio", "polars.read_csv of the same file", ratio),
    ]
    double = 2 * options.frames
    peak = measured("preprocess", capture(options.folder, double))["peak_rss_mb"]
    rows.append(result("preprocess_peak_rss_mb", peak, f"MiB at {double:,} frames"))
    costs = {}
    for share in (0.1, 0.4, 1.6):
        count = int(share * options.frames)
        costs[count] = 1e9 * measured("preprocess", capture(options.folder, count))["seconds"] / count
        base = costs[min(costs)]
        rows.append(
            result(
                f"preprocess_ns_per_frame_{count}", costs[count], "ns", f"{min(costs):,} frames", costs[count] / base
            )
        )
    options.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} × {row['against']}"
        print(f"{row['name']:38} {row['value']:>14,.1f} {row['unit']:26} {ratio}")


if __name__ == "__main__":
    main()
