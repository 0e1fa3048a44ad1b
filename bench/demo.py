"""The demonstration as a new user runs it: its jobs, and its time against the work in them.

    python bench/demo.py [--preset smoke] [--data FOLDER] [--output bench/results.json]

`make demo` without the installation, in an empty folder and with an empty cache, on all cores. A job's work is the time
that its log names, which begins when everything is imported. With `--data`, the folder that holds hcrl_sa/, the jobs of the
main job on these captures are counted too.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import publish, result

from canids_shared.jobs import job_usage

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile", str(ROOT / "shared/profiles/local")]
MAIN_JOB = ["--snakefile", str(ROOT / "pipelines/kd_fusion/Snakefile")]


def ran(folder: Path, *arguments: str) -> tuple[float, int]:
    """Seconds that the main job took in a folder, and the number of its jobs."""
    (folder / "cache").mkdir(exist_ok=True)
    environment = {**os.environ, "SNAKEMAKE_OUTPUT_CACHE": str(folder / "cache")}
    command = [*SNAKEMAKE, *MAIN_JOB, "--directory", str(folder), *arguments]
    begin = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    counted = re.search(r"^total\s+(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    if done.returncode or counted is None:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return seconds, int(counted[1])


def work(folder: Path) -> float:
    """Core seconds of all jobs of a run, from the last lines of their logs."""
    logs = (path for pattern in ("*.txt", "*.log") for top in ("results", "experimentruns")
            for path in (folder / top).rglob(pattern))  # fmt: skip
    usages = [usage for log in logs if (usage := job_usage.read(log))]
    return float(sum(usage["seconds"] * usage["threads"] for usage in usages))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", help="of the modules: smoke, for a look at the chain alone")
    parser.add_argument("--data", type=Path, help="the folder that holds hcrl_sa/")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results.json")
    options = parser.parse_args()
    preset = ["--config", f"preset={options.preset}"] if options.preset else []
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        seconds, jobs = ran(Path(name), *preset)
        worked = work(Path(name)) / cores
        if options.data:
            data = [f"data_root={options.data.absolute()}"]
            real = str(ROOT / "pipelines/kd_fusion/hcrl_sa.yaml")
            counted = ran(Path(name), "--dry-run", "--quiet", "rules", "--configfile", real, "--config", *data)[1]
            rows.append(result("hcrl_sa_jobs", counted, "jobs", most=70))
    rows += [
        result("demo_jobs", jobs, "jobs", most=45),
        result("demo_run_s", seconds, f"s on {cores} cores", "demo_work_s", seconds / worked),
        result("demo_work_s", worked, f"s on {cores} cores", "demo_run_s", worked / seconds),
        result("demo_run_vs_work", seconds / worked, "ratio", "demo_work_s", seconds / worked, most=1.25),
    ]
    publish(rows, options.output)


if __name__ == "__main__":
    main()
