"""Seconds before work begins: planning thousands of jobs, and rerunning a finished run, which has nothing left to do.

    python bench/plan.py [--folder bench/data/plan] [--output bench/results.json]

Planning is a dry run of the main job with as many seeds as make 5,000 jobs, in an empty folder; the peer is a dry run of a
workflow of one rule with as many jobs and inputs, in turn with it. The finished run is the main job in the tests' smoke preset,
made once in the folder and reused while the code is unchanged; the measured command is that of `make demo`. Each figure is
the processor time of Snakemake from its start, the least of three runs.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from common import one_core, publish, result

ROOT = Path(__file__).parents[1]
SNAKEMAKE, MAIN_JOB = [sys.executable, "-m", "snakemake"], ROOT / "pipelines/kd_fusion/Snakefile"
LOCAL = ["--profile", str(ROOT / "shared/profiles/local")]
JOBS, ROUNDS = 5000, 3


def ran(folder: Path, snakefile: Path, *arguments: str) -> tuple[float, str]:
    """Processor seconds that Snakemake took in this folder, and its output."""
    environment = {**os.environ, "SNAKEMAKE_OUTPUT_CACHE": str(folder / "cache")}
    (folder / "cache").mkdir(exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*SNAKEMAKE, "--snakefile", str(snakefile), "--directory", str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout + done.stderr


def plan(folder: Path, seeds: int, *options: str) -> tuple[float, str]:
    """Seconds of a dry run with so many seeds, and its output."""
    config = folder / "seeds.yaml"
    instances = {f"seed-{n}": {"train_gnn": {"seed": n}, "train_drl": {"seed": n}} for n in range(1, seeds + 1)}
    config.write_text(yaml.safe_dump({"instances": instances}), encoding="utf-8")
    return ran(folder, MAIN_JOB, "--dry-run", "--configfile", str(config), *options)


def size(folder: Path, seeds: int) -> np.ndarray:
    """Number of jobs with so many seeds, and of their inputs."""
    printed = plan(folder, seeds)[1]
    total = re.search(r"^total\s+(\d+)$", printed, re.MULTILINE)
    if total is None:
        sys.exit(f"no number of jobs in:\n{printed}")
    return np.array(
        [int(total[1]), sum(len(row.split(", ")) for row in re.findall(r"^ +input: (.+)$", printed, re.MULTILINE))]
    )


PEER = """WIDTH = 100


def before(wildcards):
    layer, n = int(wildcards.layer), int(wildcards.n)
    inputs = {inputs} // 100 + (n % 100 < {inputs} % 100)
    return [f"layer/{{layer - 1}}/{{(n + k) % WIDTH}}.txt" for k in range(inputs)] if layer else []


rule all:
    input:
        [f"layer/{{n // WIDTH}}/{{n % WIDTH}}.txt" for n in range({jobs} - 1)],


rule one:
    input:
        before,
    output:
        "layer/{{layer}}/{{n}}.txt",
    log:
        "layer/{{layer}}/{{n}}.log",
    shell:
        "cat {{input}} > {{output}} 2> {{log}}"
"""
"""Jobs in layers; each reads files of the layer before its own. `inputs` is the mean of their number, in hundredths."""


def planning() -> tuple[float, float, int]:
    """Least seconds of planning at least `JOBS` jobs, those of the peer, and the number of jobs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = size(folder, 1)
        each = size(folder, 2) - first
        seeds = 1 - int(-(JOBS - first[0]) // each[0])
        jobs, inputs = first + (seeds - 1) * each
        peer = folder / "peer/Snakefile"
        peer.parent.mkdir()
        peer.write_text(PEER.format(jobs=jobs, inputs=100 * (inputs - jobs) // jobs), encoding="utf-8")
        pairs = [
            (plan(folder, seeds, "--quiet")[0], ran(peer.parent, peer, "--dry-run", "--quiet")[0])
            for _ in range(ROUNDS)
        ]
    ours, theirs = (min(seconds) for seconds in zip(*pairs, strict=True))
    return ours, theirs, int(jobs)


def nothing_to_do(folder: Path) -> float:
    """Least seconds of running the finished main job again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tests").unlink(missing_ok=True)
    (folder / "tests").symlink_to(ROOT / "tests")
    again = [*LOCAL, "--configfile", str(ROOT / "tests/smoke.yaml")]
    ran(folder, MAIN_JOB, *again)
    rounds = [ran(folder, MAIN_JOB, *again) for _ in range(ROUNDS)]
    if not all("Nothing to be done" in printed for _, printed in rounds):
        sys.exit(f"there was something left to do:\n{rounds[-1][1]}")
    return min(seconds for seconds, _ in rounds)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "bench/data/plan")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results.json")
    options = parser.parse_args()
    nothing_to_do(options.folder.absolute())  # may have to be made first, on all cores
    one_core()
    seconds, peer, count = planning()
    finished = nothing_to_do(options.folder.absolute())
    one_rule = f"a Snakefile of one rule, {count} jobs"
    publish(
        [
            result("plan_5000_jobs_s", seconds, f"s for {count} jobs", one_rule, seconds / peer),
            result("plan_5000_vs_snakemake", seconds / peer, "ratio", one_rule, seconds / peer, most=1.5),
            result("noop_rerun_s", finished, "s", most=5),
        ],
        options.output,
    )


if __name__ == "__main__":
    main()
