"""A Slurm of three virtual nodes on this machine, for tests: two fake V100 on n1, a partition that preempts, real daemons.

    PYTHONPATH=tests python -m slurm.cluster stop    # stops what a killed test run left

Everything lies in one folder but two links in /etc/slurm (Snakemake's jobs drop SLURM_CONF); the links tell a later
`stop` where that folder is.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from slurm.daemons import ETC, LINKS, NODES, start, until

MARK = "canids-slurm-"
MARKED = "CANIDS_TEST_SLURM"
"""Environment variable of every process that is started while a Slurm runs: its folder."""
STOP_ORDER = (*(f"slurmd-{node}" for node in NODES), "slurmctld", "slurmdbd", "mariadbd", "munged")
"""Daemons by their pid files."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE"}
GONE = (ProcessLookupError, subprocess.SubprocessError, TimeoutError)
"""Exceptions of ending a process that has just ended by itself."""
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "munged")


def missing() -> str | None:
    """The reason why no Slurm can run here; None where one can."""
    if os.geteuid() != 0:
        return "a Slurm for tests needs root: it starts munge, slurmctld and three slurmd"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)} (make slurm-test installs them)" if absent else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A daemon whose parent does not wait for it stays a zombie.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@dataclass(frozen=True)
class Job:
    """A submission as `scontrol show job` shows it, also after its end."""

    id: int
    state: str
    fields: dict[str, str]

    @property
    def name(self) -> str:
        """`rule_gat_large_wildcards_…` or `group_…`, as Snakemake's executor says in the comment."""
        return self.fields.get("Comment", "")

    @property
    def memory_mb(self) -> int:
        """Requested memory."""
        memory = re.search(r"mem=(\d+)([MG])", self.fields["TRES"])
        assert memory
        return int(memory[1]) * {"M": 1, "G": 1024}[memory[2]]

    @property
    def gpus(self) -> int:
        """GPUs that it requested, or, once it ran, got."""
        count = re.search(r"gres:gpu(?::\w*[a-z]\w*)?:(\d+)", str(self.fields))
        return int(count[1]) if count else 0

    @property
    def node(self) -> str:
        """The node on which it ran."""
        return self.fields["NodeList"]

    @property
    def restarts(self) -> int:
        """Number of times that Slurm queued it again by itself."""
        return int(self.fields["Restarts"])


class Cluster:
    """The running Slurm; made by `running`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def call(self, *command: str) -> str:
        """Output of a Slurm command; commands would wait for long where slurmctld does not answer."""
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def jobs(self, name: str = "") -> list[Job]:
        """Submissions so far whose name contains `name`, oldest first."""
        jobs = []
        for line in self.call("scontrol", "-o", "show", "jobs").splitlines():
            fields = dict(re.findall(r"([A-Z][\w:/]*)=(\S*)", line))
            if "JobId" in fields and name in fields.get("Comment", ""):
                jobs.append(Job(int(fields["JobId"]), fields["JobState"], fields))
        return sorted(jobs, key=lambda job: job.id)

    def active(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self.jobs() if job.state not in ENDED]

    def fail_node(self, node: str) -> None:
        """Cut the node's power: its daemon and all its processes die at once; Slurm sees a node that is down."""
        pid = int((self.root / "run" / f"slurmd-{node}.pid").read_text())
        steps = [p for p, line in processes() if "slurmstepd" in line and f"spool/{node}" in _places(p)]
        victims = [pid, *steps, *_descendants(steps)]
        for victim in victims:
            with suppress(*GONE):
                os.kill(victim, signal.SIGKILL)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=power")

    def repair_node(self, node: str) -> None:
        """Power on again."""
        subprocess.run(["slurmd", "-N", node], check=True)

        def up() -> bool:
            with suppress(*GONE):  # refused where the node has come back by itself
                self.call("scontrol", "update", f"nodename={node}", "state=resume")
            return "down" not in self.call("sinfo", "--noheader", f"--nodes={node}", "--format=%t")

        until(up, f"{node} to be back")

    def stop(self) -> None:
        """End jobs and daemons, by their pid files; remove links and files."""
        if _alive_pid(self.root, "slurmctld") is not None:
            with suppress(*GONE):
                self.call("scancel", "--full", "--user=root")
                self.call("scancel", "--user=root", "--signal=KILL", "--full")
                until(lambda: not self.active(), "end of all jobs", 20)
        for daemon in STOP_ORDER:
            if (pid := _alive_pid(self.root, daemon)) is None:
                continue
            os.kill(pid, signal.SIGTERM)
            try:
                until(lambda pid=pid: not _alive(pid), f"end of {daemon}", 15, every=0.05)  # type: ignore[misc]
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
        # Slurm loses sight of processes whose parent died; all that jobs and tests started carries this mark.
        mark = f"{MARKED}={self.root}\0".encode()
        for pid, line in processes():
            if mark in _environment(pid) or ("slurmstepd" in line and str(self.root) in _places(pid)):
                with suppress(*GONE):
                    os.kill(pid, signal.SIGKILL)
        for link in LINKS:
            if (ETC / link).is_symlink() and (ETC / link).readlink().is_relative_to(self.root):
                (ETC / link).unlink()
        shutil.rmtree(self.root, ignore_errors=True)


def _alive_pid(root: Path, daemon: str) -> int | None:
    file = root / "run" / f"{daemon}.pid"
    if not file.exists() or not (text := file.read_text().strip()):
        return None
    return int(text) if _alive(int(text)) else None


def processes() -> Iterator[tuple[int, str]]:
    """Every process with its command line."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


def _environment(pid: int) -> bytes:
    """Variables with which a process was started."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _places(pid: int) -> str:
    """What a process has open, as text: a step's daemon has its node's spool folder or log open."""
    names = []
    for file in (*Path(f"/proc/{pid}/fd").glob("*"), Path(f"/proc/{pid}/cwd")):
        try:
            names.append(str(file.readlink()))
        except OSError:
            continue
    return "\n".join(names)


def _descendants(pids: Sequence[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, _ in processes():
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(pid)
    below, waiting = [], list(pids)
    while waiting:
        waiting += (new := children.get(waiting.pop(), []))
        below += new
    return below


def leftovers() -> Cluster | None:
    """The Slurm of a test run that was killed, if there is one."""
    link = ETC / LINKS[0]
    if link.is_symlink() and link.readlink().parent.name.startswith(MARK):
        return Cluster(link.readlink().parent)
    return None


@contextmanager
def running(accounting: bool = False) -> Iterator[Cluster]:
    """A Slurm with three idle nodes; gone afterwards, whatever happens.

    Raises `RuntimeError` where another Slurm is configured.
    """
    if left := leftovers():
        left.stop()
    if present := [link for link in LINKS if (ETC / link).exists()]:
        raise RuntimeError(f"/etc/slurm/{present[0]} exists: this machine has a Slurm of its own")
    root = Path(tempfile.mkdtemp(prefix=MARK))
    cluster = Cluster(root)
    try:
        start(root, accounting)
        os.environ[MARKED] = str(root)
        yield cluster
    finally:
        os.environ.pop(MARKED, None)
        cluster.stop()


if __name__ == "__main__":
    if sys.argv[1:] != ["stop"]:
        sys.exit(__doc__)
    if (left := leftovers()) is not None:
        left.stop()
