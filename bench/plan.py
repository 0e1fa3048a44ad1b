"""Seconds before work begins: planning thousands of jobs, and rerunning a finished run, which has nothing left to do.

    python bench/plan.py [--folder bench/data/plan] [--output bench/results.json]

Planning is a dry run of the main job with as many seeds as make 5,000 jobs, in an empty folder. The finished run is the
main job in the tests' smoke preset, made once in the folder and reused while the code is unchanged; the measured command is
that of `make demo`. Each figure is the median of three runs, with Snakemake's start, on one core.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml
from common import one_core, publish, result

ROOT = Path(__file__).parents[1]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "pipelines/kd_fusion/Snakefile")]
LOCAL = ["--profile", str(ROOT / "shared/profiles/local")]
JOBS, ROUNDS = 5000, 3


def ran(folder: Path, *arguments: str) -> tuple[float, str]:
    """Seconds that Snakemake took in this folder, and its output."""
    environment = {**os.environ, "SNAKEMAKE_OUTPUT_CACHE": str(folder / "cache")}
    (folder / "cache").mkdir(exist_ok=True)
    begin = time.perf_counter()
    command = [*SNAKEMAKE, "--directory", str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return seconds, done.stdout + done.stderr


def plan(folder: Path, seeds: int, *options: str) -> tuple[float, str]:
    """Seconds of a dry run with so many seeds, and its output."""
    config = folder / "seeds.yaml"
    instances = {f"seed-{n}": {"train_gnn": {"seed": n}, "train_drl": {"seed": n}} for n in range(1, seeds + 1)}
    config.write_text(yaml.safe_dump({"instances": instances}), encoding="utf-8")
    return ran(folder, "--dry-run", "--configfile", str(config), "--quiet", *options)


def jobs(folder: Path, seeds: int) -> int:
    """Number of jobs with so many seeds."""
    printed = plan(folder, seeds, "rules")[1]
    total = re.search(r"^total\s+(\d+)$", printed, re.MULTILINE)
    if total is None:
        sys.exit(f"no number of jobs in:\n{printed}")
    return int(total[1])


def planning() -> tuple[float, int]:
    """Median seconds of planning at least `JOBS` jobs, and their number."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, each = jobs(folder, 1), jobs(folder, 2) - jobs(folder, 1)
        more = -(-(JOBS - first) // each)
        seconds = median(plan(folder, 1 + more)[0] for _ in range(ROUNDS))
    return seconds, first + more * each


def nothing_to_do(folder: Path) -> float:
    """Median seconds of running the finished main job again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tests").unlink(missing_ok=True)
    (folder / "tests").symlink_to(ROOT / "tests")
    again = [*LOCAL, "--configfile", str(ROOT / "tests/smoke.yaml")]
    ran(folder, *again)
    rounds = [ran(folder, *again) for _ in range(ROUNDS)]
    if not all("Nothing to be done" in printed for _, printed in rounds):
        sys.exit(f"there was something left to do:\n{rounds[-1][1]}")
    return median(seconds for seconds, _ in rounds)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "bench/data/plan")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results.json")
    options = parser.parse_args()
    nothing_to_do(options.folder.absolute())  # may have to be made first, on all cores
    one_core()
    seconds, count = planning()
    finished = nothing_to_do(options.folder.absolute())
    publish(
        [
            result("plan_5000_jobs_s", seconds, f"s for {count} jobs", most=15),
            result("noop_rerun_s", finished, "s", most=5),
        ],
        options.output,
    )


if __name__ == "__main__":
    main()
