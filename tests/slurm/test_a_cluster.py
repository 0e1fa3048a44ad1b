"""The tests' Slurm leaves nothing behind; these come first, while no other one runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.cluster import Cluster, processes, running
from slurm.daemons import ETC, LINKS, until

SLEEP = "sleep 31536000"
"""A job that can be found among the processes of the machine."""


def assert_gone(root: Path) -> None:
    assert not root.exists()
    assert not [link for link in LINKS if os.path.lexists(ETC / link)]
    lines = [line for _, line in processes()]
    assert not [line for line in lines if str(root) in line or line.strip() == SLEEP]


def with_a_job(slurm: Cluster) -> None:
    slurm.call("sbatch", "--output=/dev/null", f"--wrap={SLEEP}")
    slurm.call("sbatch", "--output=/dev/null", f"--wrap=setsid {SLEEP} & exit")  # one that Slurm loses sight of
    until(lambda: len([line for _, line in processes() if line.strip() == SLEEP]) == 2, "two running jobs")


def test_nothing_is_left_behind_after_a_failure() -> None:
    roots = []

    def fail() -> None:
        with running() as slurm:
            roots.append(slurm.root)
            with_a_job(slurm)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert_gone(*roots)


def test_what_a_killed_test_run_left_behind_can_be_stopped() -> None:
    script = "from slurm import cluster, test_a_cluster as t\nwith cluster.running() as c: t.with_a_job(c); print(c.root, flush=True); input()"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        root = Path(killed.stdout.readline().strip())
        killed.kill()
    assert root.exists()
    subprocess.run([sys.executable, "-m", "slurm.cluster", "stop"], env=environment, check=True)
    assert_gone(root)
