"""What is done to runs on Slurm: each plot starts a run, disturbs it, waits for its end, and tells what the scheduler recorded.

Plots run side by side, so each keeps to its nodes: n3 is switched off and preempted by `node_and_preemption` alone,
all others stay away from it.
"""

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm.cluster import Cluster, Job, until
from slurm.submitting import Run, profile, start_training, training_begun

SHORT, LONG = 60, 150
"""Epochs of a training: enough to be disturbed; more than fit before a time limit."""
AWAY = {"slurm-exclude-failed-nodes": "n3"}


@dataclass(frozen=True)
class Story:
    """A run that ended, and its submissions in the scheduler's records."""

    run: Run
    jobs: list[Job]


def told(run: Run, cluster: Cluster) -> Story:
    """Wait for the end of a run."""
    run.finish()
    return Story(run, run.jobs(cluster))


def uninterrupted(cluster: Cluster, folder: Path, epochs: int = SHORT) -> Story:
    """The same training on this machine, left alone."""
    run = start_training(folder / "work", epochs)
    run.finish()
    return Story(run, [])


def uninterrupted_long(cluster: Cluster, folder: Path) -> Story:
    """The long one, left alone."""
    return uninterrupted(cluster, folder, LONG)


def memory(cluster: Cluster, folder: Path, first_mb: int = 300) -> Story:
    """A training that needs more than the profile gives it at first."""
    given = {"cpu": {"mem_mb": f"{first_mb} * 2 ** (attempt - 1)"}}
    return told(
        start_training(folder / "work", SHORT, profile(folder / "profile", **AWAY, **{"set-resources": given})), cluster
    )


def cancelled(cluster: Cluster, folder: Path, delay: float = 0.0) -> Story:
    """Someone cancels the job of a training."""
    run = start_training(folder / "work", SHORT, profile(folder / "profile", **AWAY))
    training_begun(run)
    time.sleep(delay)
    cluster.call("scancel", *(str(job.id) for job in run.jobs(cluster)))
    return told(run, cluster)


def node_fails(cluster: Cluster, folder: Path, delay: float = 0.0) -> Story:
    """The node of a training loses its power for a while."""
    run = start_training(folder / "work", SHORT, profile(folder / "profile", **_on_n3()))
    training_begun(run)
    time.sleep(delay)
    cluster.fail_node("n3")
    until(lambda: run.jobs(cluster)[-1].state != "RUNNING", "Slurm noticing the failure", 60)
    cluster.repair_node("n3")
    return told(run, cluster)


def preempted(cluster: Cluster, folder: Path, delay: float = 0.0) -> Story:
    """A job of a partition that goes first wants the whole node of a training."""
    run = start_training(folder / "work", SHORT, profile(folder / "profile", **_on_n3()))
    training_begun(run)
    time.sleep(delay)
    subprocess.run(
        ["sbatch", "--partition=urgent", "--nodelist=n3", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return told(run, cluster)


def node_then_preemption(cluster: Cluster, folder: Path) -> tuple[Story, Story]:
    """Both happen to n3, one after the other."""
    return node_fails(cluster, folder / "node"), preempted(cluster, folder / "preemption")


def time_limit(cluster: Cluster, folder: Path, warning: int = 35) -> Story:
    """A training that takes longer than its job may: one minute is the shortest limit that there is."""
    limited = {
        "retries": 20,
        "set-resources": {"cpu": {"runtime": 1}},
        "default-resources": {"slurm_extra": f"'--signal=TERM@{warning}'"},
    }
    return told(start_training(folder / "work", LONG, profile(folder / "profile", **AWAY, **limited)), cluster)


def _on_n3() -> dict[str, Any]:
    return {"default-resources": {"slurm_extra": "'--signal=TERM@120 --nodelist=n3'"}}


def at_a_random_moment(seed: int) -> float:
    """Seconds after the first checkpoint; a training has some more in front of it."""
    return random.Random(seed).uniform(0.0, 4.0)


PLOTS: dict[str, Callable[[Cluster, Path], Any]] = {
    plot.__name__: plot
    for plot in (uninterrupted, uninterrupted_long, memory, cancelled, node_then_preemption, time_limit)
}
