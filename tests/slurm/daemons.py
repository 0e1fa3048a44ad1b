"""Configuration and start of the daemons of a Slurm: munge, slurmctld, a slurmd a node, and slurmdbd where accounts are kept."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ETC = Path("/etc/slurm")
LINKS = ("slurm.conf", "gres.conf")
NODES = ("n1", "n2", "n3")
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
AccountingStorageTRES=gres/gpu
# Snakemake writes a rule's name into the comment.
AccountingStoreFlags=job_comment"""
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


def until(true: Callable[[], object], what: str, seconds: float = 60.0, every: float = 0.25) -> None:
    """Wait until `true` holds; `TimeoutError` saying `what` was waited for."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


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


def start(root: Path, accounting: bool) -> None:
    """Start a Slurm in the empty folder `root`; returns when its nodes are idle, or raises `RuntimeError` with its logs."""
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
