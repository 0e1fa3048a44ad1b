"""Speed of preprocessing: a simulated capture as CSV to frames and graphs, against only reading the CSV with polars.

    python bench/preprocess.py [--frames 10000000] [--folder DIR] [--output bench/results.json]

Every measurement runs in a separate process, on one core. Captures are written once into the folder and used again.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from common import figures, one_core, publish, result

from canids_preprocess import graphs, ingest
from canids_preprocess.formats import FORMATS
from canids_preprocess.simulate import Capture, record, write
from canids_shared.files import written_whole
from canids_shared.jobs.entry_point import Call
from canids_shared.planning.code_hash import code_hash

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


def beginning(parts: Iterator[Capture], frames: int) -> Iterator[Capture]:
    """The first `frames` frames of a capture that comes in parts."""
    for part in parts:
        kept = min(frames, len(part.frames))
        chosen = np.arange(kept)
        yield replace(
            part,
            frames=part.frames[chosen],
            received=part.received[chosen],
            logged=part.logged[chosen],
            attacked=part.attacked[chosen],
        )
        frames -= kept
        if not frames:
            return


def capture(folder: Path, frames: int, most: int) -> Path:
    """A CSV of the first `frames` frames of one long simulated drive, `most` at most; written once."""
    path = folder / f"simulated_{frames}.csv"
    if path.exists():
        return path
    print(f"writing {frames:,} frames", file=sys.stderr)
    if frames == most:
        write(beginning(record("compact", duration=float(frames), seed=1), frames), path)
    else:
        whole = capture(folder, most, most)
        with open(whole, "rb") as source, written_whole(path) as temporary, open(temporary, "wb") as part:
            part.writelines(islice(source, frames + 1))
    return path


def measure_read(path: Path) -> dict[str, float]:
    """Seconds in which polars reads the file."""
    begin = time.perf_counter()
    frames = len(pl.read_csv(path))
    return {"seconds": time.perf_counter() - begin, "frames": frames}


def measure_preprocess(path: Path, split: str = "test") -> dict[str, float]:
    """Seconds from opening the file to the closed graph store of a split, and the process's largest memory."""
    entry = {"name": "drive", "vehicle": "v", "format": "can-train-and-test", "attack": None, "content": "labelled"}
    reading = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}

    def whole(raw: Path, folder: Path) -> tuple[float, float]:
        table, rejects, store = (folder / n for n in ("frames.parquet", "rejects.parquet", "graphs.safetensors"))
        constants: dict[str, Any] = {"capture": {**entry, "attacked": []}}
        wildcards = {"dataset": "d", "split": split, "instance": ""}
        begin = time.perf_counter()
        ingest.main(
            Call(
                wildcards,
                reading,
                constants,
                {"output": table, "rejects": rejects},
                {"capture": [raw], "metadata": []},
                "",
            )
        )
        middle = time.perf_counter()
        graphs.main(Call(wildcards, GRAPHS, {}, {"output": store}, {"frames": [table]}, ""))
        return middle - begin, time.perf_counter() - middle

    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        with open(path, "rb") as stream, open(folder / "small.csv", "wb") as small:
            small.writelines(islice(stream, 40_000))
        whole(folder / "small.csv", folder)  # compiles the kernels, or loads them
        for made in (*folder.glob("*.parquet"), *folder.glob("*.safetensors")):
            made.unlink()  # as Snakemake does before a job; to replace a file takes longer
        reading_s, graphs_s = whole(path, folder)
    # Not `ru_maxrss`, which also counts the process that this one was forked from.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024
    return {"seconds": reading_s + graphs_s, "ingest": reading_s, "graphs": graphs_s, "peak_rss_mb": peak}


AS_TABLE = {
    "delimiter": ",",
    "skip": 1,
    "time": {"column": "timestamp"},
    "id": {"column": "arbitration_id"},
    "payload": {"column": "data_field"},
    "label": {"column": "attack", "attacked": ["1"], "normal": ["0"]},
}
"""The mapping by which a capture in can-train-and-test is read as any table is."""
BYTES = [f"byte_{n}" for n in range(8)]
SPELLINGS: dict[str, dict[str, Any]] = {
    "dates": {**AS_TABLE, "time": {"column": "timestamp", "form": "date"}},
    "decimals": {
        **AS_TABLE,
        "id": {"column": "arbitration_id", "base": 10},
        "payload": {"columns": BYTES, "base": 10},
    },
}
"""Mappings of tables that spell the same frames otherwise: a date and a time of day, or IDs and a column a byte in base 10."""


def spelt(path: Path, spelling: str) -> Path:
    """The frames of a capture in one of the `SPELLINGS`; written once, beside it."""
    made = path.with_name(f"{path.stem}_{spelling}.csv")
    if made.exists():
        return made
    frames = pl.read_csv(path, schema_overrides={"arbitration_id": pl.String, "data_field": pl.String})
    if spelling == "dates":
        moment = (1e6 * pl.col("timestamp")).round().cast(pl.Int64).cast(pl.Datetime("us"))
        frames = frames.with_columns(moment.dt.strftime("%Y-%m-%d %H:%M:%S%.6f").alias("timestamp"))
    else:
        data = pl.col("data_field").fill_null("")
        columns = (data.str.slice(2 * n, 2).str.to_integer(base=16, strict=False).alias(c) for n, c in enumerate(BYTES))
        number = pl.col("arbitration_id").str.to_integer(base=16)
        frames = frames.select("timestamp", number, *columns, "attack")
    with written_whole(made) as temporary:
        frames.write_csv(temporary)
    return made


def measure_format(path: Path, name: str, table: dict[str, Any] = AS_TABLE) -> dict[str, float]:
    """Seconds of processor time in which a format's reader makes frames of the file."""
    entry = {"content": "unlabelled", "table": table}
    next(FORMATS[name].read(path, entry))  # compiles the loop, or loads it
    begin = time.process_time()
    frames = sum(len(batch.frames) for batch in FORMATS[name].read(path, entry))
    return {"seconds": time.process_time() - begin, "frames": frames}


MEASUREMENTS: dict[str, Callable[[Path], dict[str, float]]] = {
    "read": measure_read,
    "table": partial(measure_format, name="table"),
    **{spelling: partial(measure_format, name="table", table=table) for spelling, table in SPELLINGS.items()},
    "can-train-and-test": partial(measure_format, name="can-train-and-test"),
    "preprocess": measure_preprocess,
    "preprocess_fit": partial(measure_preprocess, split="fit"),
}
ROUNDS = 3
READ = "polars.read_csv of the same file"


def measured(name: str, path: Path) -> dict[str, float]:
    """The figures of one measurement, made in a new process on one core."""
    return figures(__file__, "--measure", name, "--capture", str(path))


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
        one_core()
        gc.freeze()  # as `canids_shared.jobs.entry_point.run` does
        print(json.dumps(MEASUREMENTS[options.measure](options.capture)))
        return
    # The folder is for captures of this version of the simulator.
    options.folder /= f"preprocess_{code_hash('canids_preprocess.simulate', sys.executable)[:8]}"
    options.folder.mkdir(parents=True, exist_ok=True)
    most = 2 * options.frames
    path = capture(options.folder, options.frames, most)
    measured("read", path)  # the file is in the page cache from here on
    pairs = [(measured("read", path)["seconds"], measured("preprocess", path)["seconds"]) for _ in range(ROUNDS)]
    read, seconds = (median(times) for times in zip(*pairs, strict=True))
    ratio = seconds / read
    rows = [
        result("preprocess_frames_per_s", options.frames / seconds, "frames/s", READ, 1 / ratio, least=2.5e6),
        result("preprocess_vs_read_csv", ratio, "ratio", READ, ratio, most=3.0),
    ]
    both = [(measured("table", path), measured("can-train-and-test", path)) for _ in range(ROUNDS)]
    table, built_in = (min(made["seconds"] for made in times) for times in zip(*both, strict=True))
    rows.append(
        result(
            "table_ns_per_frame", 1e9 * table / options.frames, "ns", "can-train-and-test's reader", table / built_in
        )
    )
    tenth = capture(options.folder, options.frames // 10, most)
    for spelling in SPELLINGS:
        written = spelt(tenth, spelling)
        both = [(measured(spelling, written), measured("can-train-and-test", tenth)) for _ in range(ROUNDS)]
        table, built_in = (min(made["seconds"] for made in times) for times in zip(*both, strict=True))
        cost = 1e9 * table / (options.frames // 10)
        peer = "can-train-and-test's reader"
        rows.append(result(f"table_ns_per_frame_{spelling}", cost, "ns", peer, table / built_in))
    whole = capture(options.folder, most, most)
    peak = max(measured(kind, whole)["peak_rss_mb"] for kind in ("preprocess", "preprocess_fit"))
    rows.append(result("preprocess_peak_rss_mb", peak, f"MiB at {most:,} frames", most=2048))
    costs = {}
    for share in (0.1, 0.4, 1.6):
        count = int(share * options.frames)
        costs[count] = 1e9 * measured("preprocess", capture(options.folder, count, most))["seconds"] / count
        base = costs[min(costs)]
        rows.append(
            result(
                f"preprocess_ns_per_frame_{count}", costs[count], "ns", f"{min(costs):,} frames", costs[count] / base
            )
        )
    publish(rows, options.output)


if __name__ == "__main__":
    main()
