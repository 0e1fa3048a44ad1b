"""Snakemake with a profile of this repository, in a folder of its own, its jobs on the test's Slurm."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from unit import gnn_data
from workflows import REPOSITORY

from canids_shared.planning.pipeline import merged
from slurm.cluster import Cluster, Job
from slurm.daemons import until

QUICK = {"latency-wait": 10, "slurm-init-seconds-before-status-checks": 2}
"""Changes of every profile in tests: the file system shows files at once, the queue may be queried often."""
RUN = "experimentruns/simulated/gat_large"
"""The training that is disturbed."""
_started: list[subprocess.Popen[bytes]] = []


def profile(folder: Path, base: str = "slurm", **changes: Any) -> Path:
    """A profile of `shared/profiles` with some entries changed, as a folder."""
    entries = yaml.safe_load((REPOSITORY / "shared" / "profiles" / base / "config.yaml").read_text())
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(merged(merged(entries, QUICK), changes), sort_keys=False))
    return folder


@dataclass(frozen=True)
class Run:
    """A Snakemake that was started; its jobs are those whose working directory is its folder."""

    folder: Path
    process: subprocess.Popen[bytes]
    printed: Path

    def output(self) -> str:
        """Its output so far."""
        return self.printed.read_text(errors="replace")

    def jobs(self, cluster: Cluster, name: str = "") -> list[Job]:
        """Its submissions so far, oldest first."""
        return [job for job in cluster.jobs(name) if Path(job.fields["WorkDir"]) == self.folder]

    def finish(self, seconds: float = 1800) -> None:
        """Wait for its end; `AssertionError` with its output unless it succeeded."""
        code = self.process.wait(seconds)
        assert code == 0, self.output()[-6000:]

    def interrupt(self) -> None:
        """Interrupt it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def logs(self) -> str:
        """Logs of its submissions: those of failed ones are kept."""
        files = sorted(
            (self.folder / ".snakemake" / "slurm_logs").rglob("*.log"), key=lambda file: file.stat().st_mtime
        )
        return "\n".join(file.read_text(errors="replace") for file in files)


def start(folder: Path, snakefile: str, *arguments: str, profile: Path | None = None, **variables: str) -> Run:
    """Start Snakemake in `folder`: with a profile on Slurm, without one on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    place = ["--profile", str(profile)] if profile else ["--cores", "1"]
    command = [sys.executable, "-m", "snakemake", *place, "-s", str(REPOSITORY / snakefile), *arguments]
    (folder / "cache").mkdir(exist_ok=True)
    environment = {**os.environ, "SNAKEMAKE_OUTPUT_CACHE": str(folder / "cache"), **variables}
    printed = folder / f"output-{len(_started)}.txt"
    with printed.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    _started.append(process)
    return Run(folder, process, printed)


def kill() -> None:
    """End every Snakemake that still runs: a test failed while others went on."""
    for process in _started:
        if process.poll() is None:
            process.kill()


def start_training(folder: Path, epochs: int, profile: Path | None = None) -> Run:
    """Start the training of one detector on a few drawn graphs: `epochs` epochs of 25 steps."""
    graphs, rng = folder / "results/simulated/graphs", np.random.default_rng(0)
    graphs.mkdir(parents=True)
    for split, pairs in (("fit", 200), ("select", 20)):
        gnn_data.write(graphs / f"{split}.safetensors", [0, 1] * pairs, rng)
    small = {"channels": 4, "heads": 2, "layers": 2}
    gat = {"large": small, "epochs": epochs, "patience": epochs, "batch": 16}
    (folder / "config.yaml").write_text(yaml.safe_dump({"accelerator": "cpu", "gat": gat}))
    target = f"{RUN}/model.safetensors"
    return start(folder, "modules/train_gnn/Snakefile", target, "--configfile", "config.yaml", profile=profile)


def training_begun(run: Run, seconds: float = 300) -> None:
    """Wait until the first epoch of the training is over: it saved a checkpoint, and epochs are left."""

    def begun() -> bool:
        assert run.process.poll() is None, run.output()[-6000:]
        return any((run.folder / RUN / ".checkpoint").glob("*/*"))

    until(begun, "first checkpoint", seconds, every=0.1)
