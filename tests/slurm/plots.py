"""Disturbances of runs on Slurm: each plot starts a run, disturbs it, waits for its end, and returns the scheduler's records.

Plots run side by side, so each keeps to its nodes: n3 is switched off and preempted by `node_and_preemption` alone,
all others stay away from it.
"""

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from workflows import REPOSITORY

from canids_shared.planning.pipeline import merged
from slurm.cluster import ENDED, Cluster, Job
from slurm.daemons import until
from slurm.submitting import Run, profile, start, start_training, training_begun

SHORT, LONG = 60, 240
"""Epochs of a training: enough for a disturbance; enough for a time limit, which Slurm checks every 30 s."""
AWAY = {"slurm-exclude-failed-nodes": "n3"}


@dataclass(frozen=True)
class Story:
    """A run that ended, and its submissions in the scheduler's records."""

    run: Run
    jobs: list[Job]


def finished_story(run: Run, cluster: Cluster) -> Story:
    """Wait for the end of a run; its story."""
    run.finish()
    return Story(run, run.jobs(cluster))


def uninterrupted(cluster: Cluster, folder: Path, epochs: int = SHORT) -> Story:
    """The same training on this machine, undisturbed."""
    run = start_training(folder / "work", epochs)
    run.finish()
    return Story(run, [])


def uninterrupted_long(cluster: Cluster, folder: Path) -> Story:
    """The long one, undisturbed."""
    return uninterrupted(cluster, folder, LONG)


def memory(cluster: Cluster, folder: Path, first_mb: int = 300) -> Story:
    """A training that needs more memory than the profile gives it at first."""
    given = {"cpu": {"mem_mb": f"{first_mb} * 2 ** (attempt - 1)"}}
    return finished_story(
        start_training(folder / "work", SHORT, profile(folder / "profile", **AWAY, **{"set-resources": given})), cluster
    )


def cancelled(cluster: Cluster, folder: Path, delay: float = 0.0) -> Story:
    """Someone cancels the job of a training."""
    run = start_training(folder / "work", SHORT, profile(folder / "profile", **AWAY))
    training_begun(run)
    time.sleep(delay)
    cluster.call("scancel", *(str(job.id) for job in run.jobs(cluster)))
    return finished_story(run, cluster)


def node_fails(cluster: Cluster, folder: Path, delay: float = 0.0) -> Story:
    """The node of a training loses its power for a while."""
    run = start_training(folder / "work", SHORT, profile(folder / "profile", **_on_n3()))
    training_begun(run)
    time.sleep(delay)
    cluster.fail_node("n3")
    until(lambda: run.jobs(cluster)[-1].state != "RUNNING", "Slurm noticing the failure", 60)
    cluster.repair_node("n3")
    return finished_story(run, cluster)


def preempted(cluster: Cluster, folder: Path, delay: float = 0.0) -> Story:
    """A job of a partition with priority wants the whole node of a training."""
    run = start_training(folder / "work", SHORT, profile(folder / "profile", **_on_n3()))
    training_begun(run)
    time.sleep(delay)
    subprocess.run(
        ["sbatch", "--partition=urgent", "--nodelist=n3", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return finished_story(run, cluster)


def node_then_preemption(cluster: Cluster, folder: Path) -> tuple[Story, Story]:
    """Both happen to n3, one after the other."""
    return node_fails(cluster, folder / "node"), preempted(cluster, folder / "preemption")


def time_limit(cluster: Cluster, folder: Path, delay: float = 0.0) -> Story:
    """The time limit of a training's job is shortened: less is left than the profile's warning takes."""
    run = start_training(folder / "work", LONG, profile(folder / "profile", **AWAY))
    training_begun(run)
    time.sleep(delay)
    (job,) = run.jobs(cluster)
    hours, minutes, seconds = (int(part) for part in job.fields["RunTime"].split(":"))
    # One to two minutes are left; Slurm looks at limits every 30 s.
    limit = (hours * 3600 + minutes * 60 + seconds) // 60 + 2
    cluster.call("scontrol", "update", f"jobid={job.id}", f"timelimit={limit}")
    return finished_story(run, cluster)


@dataclass(frozen=True)
class Sweep:
    """A run of two hundred jobs that was interrupted: submissions before and after, and how many jobs were in each."""

    run: Run
    submitted: list[Job]
    targets: list[int]
    afterwards: list[Job]


def sweep(cluster: Cluster, folder: Path) -> Sweep:
    """Two hundred short jobs; Ctrl-C once all are submitted and some run."""
    grouped = profile(folder / "profile", **AWAY)
    run = start(folder / "work", "tests/slurm/workflows/sweep.smk", profile=grouped)

    def all_are_known() -> bool:
        assert run.process.poll() is None, run.output()[-6000:]
        jobs = run.jobs(cluster)
        return len(jobs) >= 34 and any(job.state == "RUNNING" for job in jobs)

    until(all_are_known, "two hundred jobs in the queue", 300)
    submitted = run.jobs(cluster)
    scripts = [cluster.call("scontrol", "write", "batch_script", str(job.id), "-") for job in submitted]
    targets = [len(set(re.findall(r"(?:states|decisions):point=(\d+)", script))) for script in scripts]
    run.interrupt()
    run.process.wait(120)
    until(lambda: all(job.state in ENDED for job in run.jobs(cluster)), "end of the jobs", 30)
    return Sweep(run, submitted, targets, run.jobs(cluster))


def main_job(cluster: Cluster, folder: Path) -> tuple[Story, Story, Story]:
    """The main job with a dataset; its evaluation again; and another pipeline with the same captures."""
    work = folder / "work"
    manifest = yaml.safe_load((REPOSITORY / "tests/data/smoke/manifest.yaml").read_text())
    # One scenario is enough: every job starts Snakemake twice.
    del manifest["captures"]["test-spoofing-compact"], manifest["captures"]["fuzzing-van"]
    (work / "data/first").mkdir(parents=True)
    (work / "data/first/manifest.yaml").write_text(yaml.safe_dump(manifest))
    smoke = yaml.safe_load((REPOSITORY / "tests/smoke.yaml").read_text())
    anything = {"accelerator": "auto"}
    # Fusion baselines are learnt where jobs are of no interest, in tests/pipelines.
    policies = {**anything, "fusion_baselines": ["fixed_weight", "cusum"]}
    smoke = merged(smoke, {"data_root": "data", "train_gnn": anything, "train_drl": policies})
    main = "pipelines/kd_fusion/Snakefile"
    four = profile(folder / "profile", **AWAY, jobs=4)

    def finished(datasets: list[str], *arguments: str) -> Story:
        (work / "config.yaml").write_text(yaml.safe_dump({**smoke, "datasets": datasets}))
        return finished_story(start(work, main, "--configfile", "config.yaml", *arguments, profile=four), cluster)

    first = finished(["first"])
    for kind in ("results", "experimentruns"):
        for made in (*(work / kind / "first").glob("eval_*"), *(work / kind / "first").glob("summary")):
            shutil.rmtree(made)
    again = finished(["first"], "--rerun-triggers", "mtime")
    alone = {"preset": smoke["preset"], "datasets": ["first"], "data_root": "data"}
    elsewhere = folder / "elsewhere"
    shutil.copytree(work / "data", elsewhere / "data")
    (elsewhere / "config.yaml").write_text(yaml.safe_dump(alone))
    hits = profile(folder / "hits", **AWAY, **{"slurm-keep-successful-logs": True})
    target = ("results/first/frames/dos-compact.parquet", "--configfile", "config.yaml")
    cache = str(work / "cache")
    other = start(elsewhere, "modules/preprocess/Snakefile", *target, profile=hits, SNAKEMAKE_OUTPUT_CACHE=cache)
    return first, again, finished_story(other, cluster)


def _on_n3() -> dict[str, Any]:
    return {"default-resources": {"slurm_extra": "'--signal=TERM@120 --nodelist=n3'"}}


def at_a_random_moment(seed: int) -> float:
    """Seconds after the first checkpoint; a training has some more in front of it."""
    return random.Random(seed).uniform(0.0, 4.0)


PLOTS: dict[str, Callable[[Cluster, Path], Any]] = {
    plot.__name__: plot
    for plot in (
        uninterrupted,
        uninterrupted_long,
        memory,
        cancelled,
        node_then_preemption,
        time_limit,
        sweep,
        main_job,
    )
}
