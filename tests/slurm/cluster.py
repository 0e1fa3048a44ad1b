"""A Slurm of three virtual nodes on this machine, for tests: two fake V100 on n1, a partition that preempts, real daemons.

    python tests/slurm/cluster.py stop    # what a killed test run left behind

Everything lies in one folder but two links in /etc/slurm (Snakemake's jobs drop SLURM_CONF); the links tell a later
`stop` where that folder is.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ETC = Path("/etc/slurm")
LINKS = ("slurm.conf", "gres.conf")
MARK = "canids-slurm-"
NODES = ("n1", "n2", "n3")
STOP_ORDER = (*(f"slurmd-{node}" for node in NODES), "slurmctld", "slurmdbd", "mariadbd", "munged")
"""Daemons by their pid files."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE"}
GONE = (ProcessLookupError, subprocess.SubprocessError, TimeoutError)
"""What ending something that has just ended by itself may raise."""
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "munged")
PORT = 17817
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its credential is over: two minutes by default.
AuthInfo=socket={root}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
# No cgroups: a machine for tests seldom lets one make them. Memory is watched every second instead.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# Short times; jobs stay in the records for as long as a test runs.
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,defer_batch
KillWait=5
MinJobAge=7200
SlurmdTimeout=20
MessageTimeout=20
MaxJobCount=5000
MaxArraySize=1001
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobCompType=jobcomp/filetxt
JobCompLoc={root}/log/completed.txt
{accounting}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=4 RealMemory=32000 Gres=gpu:v100:2 Weight=10
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=4 RealMemory=32000
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={n3} CPUs=4 RealMemory=32000
PartitionName=batch Nodes=n1,n2,n3 Default=YES MaxTime=1440 DefaultTime=10 PriorityTier=1 GraceTime=20
PartitionName=cpu Nodes=n2,n3 MaxTime=1440 DefaultTime=10 PriorityTier=1
PartitionName=gpu Nodes=n1 MaxTime=1440 DefaultTime=10 PriorityTier=1
PartitionName=closed Nodes=n1,n2,n3 State=DOWN
PartitionName=urgent Nodes=n1,n2,n3 MaxTime=1440 DefaultTime=10 PriorityTier=10 PreemptMode=off
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={root}/munge/socket
AccountingStorageTRES=gres/gpu"""
DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""


def missing() -> str | None:
    """Why no Slurm can run here, if none can."""
    if os.geteuid() != 0:
        return "a Slurm for tests needs root: it starts munge, slurmctld and three slurmd"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)} (make slurm-test installs them)" if absent else None


def until(true: Callable[[], object], what: str, seconds: float = 60.0, every: float = 0.25) -> None:
    """Wait until `true` holds; `TimeoutError` saying `what` was waited for."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A daemon whose parent does not wait for it stays a zombie.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@dataclass(frozen=True)
class Job:
    """What `scontrol show job` says of a submission (it keeps those that ended)."""

    id: int
    state: str
    fields: dict[str, str]

    @property
    def name(self) -> str:
        """`rule_gat_large_wildcards_…` or `group_…`, as Snakemake's executor says in the comment."""
        return self.fields.get("Comment", "")

    @property
    def memory_mb(self) -> int:
        """Memory that was asked for."""
        found = re.search(r"mem=(\d+)([MG])", self.fields["TRES"])
        assert found
        return int(found[1]) * {"M": 1, "G": 1024}[found[2]]

    @property
    def gpus(self) -> int:
        """GPUs that it asked for and, as it ran, was given."""
        found = re.search(r"gres:gpu(?::\w*[a-z]\w*)?:(\d+)", str(self.fields))
        return int(found[1]) if found else 0

    @property
    def node(self) -> str:
        """Where it ran."""
        return self.fields["NodeList"]

    @property
    def restarts(self) -> int:
        """How often Slurm queued it again by itself."""
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
        found = []
        for line in self.call("scontrol", "-o", "show", "jobs").splitlines():
            fields = dict(re.findall(r"([A-Z][\w:/]*)=(\S*)", line))
            if "JobId" in fields and name in fields.get("Comment", ""):
                found.append(Job(int(fields["JobId"]), fields["JobState"], fields))
        return sorted(found, key=lambda job: job.id)

    def active(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self.jobs() if job.state not in ENDED]

    def fail_node(self, node: str) -> None:
        """Cut the node's power: its daemon and all that it started die at once; Slurm is told that it is down."""
        pid = int((self.root / "run" / f"slurmd-{node}.pid").read_text())
        steps = [p for p, line in _processes() if "slurmstepd" in line and f"spool/{node}" in _places(p)]
        victims = [pid, *steps, *_descendants(steps)]
        for victim in victims:
            with suppress(*GONE):
                os.kill(victim, signal.SIGKILL)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=power")

    def repair_node(self, node: str) -> None:
        """Power on again."""
        subprocess.run(["slurmd", "-N", node], check=True)
        self.call("scontrol", "update", f"nodename={node}", "state=resume")

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
        for pid, line in _processes():
            if "slurmstepd" in line and str(self.root) in _places(pid):
                for victim in [pid, *_descendants([pid])]:
                    with suppress(*GONE):
                        os.kill(victim, signal.SIGKILL)
        for link in LINKS:
            if (ETC / link).is_symlink() and (ETC / link).readlink().is_relative_to(self.root):
                (ETC / link).unlink()
        shutil.rmtree(self.root, ignore_errors=True)


def _alive_pid(root: Path, daemon: str) -> int | None:
    file = root / "run" / f"{daemon}.pid"
    if not file.exists() or not (text := file.read_text().strip()):
        return None
    return int(text) if _alive(int(text)) else None


def _processes() -> Iterator[tuple[int, str]]:
    """Every process with its command line."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


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
    for pid, _ in _processes():
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(pid)
    found, waiting = [], list(pids)
    while waiting:
        waiting += (new := children.get(waiting.pop(), []))
        found += new
    return found


def leftovers() -> Cluster | None:
    """A Slurm that a killed test run left behind."""
    link = ETC / LINKS[0]
    if link.is_symlink() and link.readlink().parent.name.startswith(MARK):
        return Cluster(link.readlink().parent)
    return None


def _daemon(*command: str, log: Path, **variables: str) -> None:
    """Start a program that puts itself into the background."""
    with log.open("a") as out:
        done = subprocess.run(
            command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{command[0]} does not start: {log.read_text()[-2000:]}")


def _answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _start_database(root: Path) -> None:
    data, socket_file, log = root / "database", root / "run" / "mariadbd.socket", root / "log" / "mariadbd.log"
    install = ("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db")
    _daemon(*install, "--auth-root-authentication-method=normal", log=log)
    command = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket_file}"]
    command += [f"--pid-file={root / 'run' / 'mariadbd.pid'}", "--skip-networking", "--innodb-buffer-pool-size=32M"]
    command += ["--innodb-log-file-size=32M", "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0"]
    with log.open("a") as out:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    until(lambda: _answers("mariadb-admin", "--no-defaults", f"--socket={socket_file}", "ping"), "mariadb", 60)
    (root / "slurmdbd.conf").chmod(0o600)
    log = root / "log" / "slurmdbd.log"
    _daemon("slurmdbd", log=log, MYSQL_UNIX_PORT=str(socket_file), SLURM_CONF=str(root / "slurm.conf"))
    until(lambda: _answers("sacctmgr", "-n", "-i", "list", "cluster"), "slurmdbd", 60)
    for words in (("cluster", "test"), ("account", "research"), ("user", "root", "account=research")):
        subprocess.run(["sacctmgr", "-i", "-Q", "add", *words], check=True, capture_output=True, timeout=60)


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
        _start(root, accounting)
        yield cluster
    finally:
        cluster.stop()


def _start(root: Path, accounting: bool) -> None:
    root.chmod(0o755)
    for folder in ("munge", "run", "log", "state", *(f"spool/{node}" for node in NODES)):
        (root / folder).mkdir(parents=True, mode=0o755)
    key = root / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    ports = {"port": PORT, "dbd": PORT + 1, **{node: PORT + 2 + i for i, node in enumerate(NODES)}}
    names = {"root": root, "host": socket.gethostname().partition(".")[0], **ports}
    stored = ACCOUNTING.format(**names) if accounting else "AccountingStorageType=accounting_storage/none"
    (root / "slurm.conf").write_text(CONFIGURATION.format(accounting=stored, **names))
    (root / "slurmdbd.conf").write_text(DATABASE.format(**names))
    gpus = [root / f"v100-{number}" for number in (0, 1)]
    for gpu in gpus:
        gpu.touch()
    (root / "gres.conf").write_text("".join(f"NodeName=n1 Name=gpu Type=v100 File={gpu}\n" for gpu in gpus))
    ETC.mkdir(exist_ok=True)
    for link in LINKS:
        (ETC / link).symlink_to(root / link)
    munge = ("munged", f"--key-file={key}", f"--socket={root}/munge/socket", f"--seed-file={root}/munge/seed")
    files = (f"--pid-file={root}/run/munged.pid", f"--log-file={root}/log/munged.log", "--num-threads=2")
    _daemon(*munge, *files, log=root / "log" / "munged.log")
    if accounting:
        _start_database(root)
    _daemon("slurmctld", "-c", log=root / "log" / "slurmctld.log")
    for node in NODES:
        _daemon("slurmd", "-N", node, log=root / "log" / f"slurmd-{node}.log")
    idle = ("sinfo", "--noheader", "--Node", "--states=idle", "--partition=batch", "--format=%N")

    def all_idle() -> bool:
        done = subprocess.run(idle, capture_output=True, text=True, check=False, timeout=60)
        return sorted(done.stdout.split()) == list(NODES)

    try:
        until(all_idle, "three idle nodes", 60)
    except TimeoutError as error:
        logs = [line for log in (root / "log").glob("slurm*.log") for line in log.read_text().splitlines()[-5:]]
        raise RuntimeError("\n".join(["Slurm does not start:", *logs])) from error


if __name__ == "__main__":
    if sys.argv[1:] != ["stop"]:
        sys.exit(__doc__)
    if (left := leftovers()) is not None:
        left.stop()
