"""Check this machine for the main job, with a remedy for each problem: `make doctor`, `python -m canids_shared.tools.doctor`.

Needs no package and no Python of a certain version. The exit status is 1 if a problem stops the main job, else 0.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from canids_shared.planning.deployment import cache_folder, cache_folder_fault
from canids_shared.tools import requirements

OK, WARNING, MISSING = "OK", "warning", "missing"
OLDEST = (3, 11)
MAIN = ("", "preprocess", "train-gnn", "train-drl", "evaluate", "track", "progress")
"""Extras that `make demo` needs."""
OPTIONAL = {
    "notebook": "the analysis notebook",
    "onnx": "the student as ONNX",
    "slurm": "clusters",
    "dev": "make test, make lint",
}
LEAST_GB, AMPLE_GB, LEAST_MEMORY_GB = 1.0, 5.0, 4.0
"""Free disk that the main job needs (it writes some 130 MB), and that captures of one's own need beside it; memory of a training."""
DEFAULT_STORE = "sqlite:///experimentruns/mlflow.db"
ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Finding:
    """One line of the answer.

    Attributes:
        subject: what was checked.
        state: OK, warning or missing.
        text: the result.
        remedy: a command or an instruction.
        stops: whether the problem stops the main job.
    """

    subject: str
    state: str
    text: str
    remedy: str = ""
    stops: bool = False


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    """Whether this Python is new enough."""
    text = f"{'.'.join(map(str, version))} ({sys.executable})"
    if tuple(version[:2]) >= OLDEST:
        yield Finding("Python", OK, text)
    else:
        yield Finding("Python", MISSING, f"{text}; 3.11 or newer is needed", "make demo PYTHON=python3.11", True)


def packages(root: Path = ROOT) -> Iterator[Finding]:
    """Packages of each extra, against the bounds of `pyproject.toml` and the versions of `constraints.txt`."""
    try:
        wanted = requirements.by_extra(root)
    except (ImportError, OSError) as error:
        remedy = "run it in a checkout, by Python 3.11"
        yield Finding("packages", WARNING, f"the needed packages are unknown: {error}", remedy)
        return
    main = list({p.name: p for extra in MAIN for p in wanted[extra]}.values())
    if absent := [p for p in main if not p.fits]:
        text = ", ".join(f"{p.name}{p.bounds} ({p.installed or 'not installed'})" for p in absent)
        yield Finding("packages", MISSING, text, "make .venv/runtime", True)
    else:
        yield Finding("packages", OK, f"all {len(main)} that the main job needs")
    install = ".venv/bin/pip install -c constraints.txt"
    if other := [p for p in main if p.fits and p.locked and not requirements.within(str(p.installed), "==" + p.locked)]:
        text = ", ".join(f"{p.name} {p.installed} (tested: {p.locked})" for p in other)
        yield Finding("versions", WARNING, text, f"{install} {' '.join(p.name for p in other)}")
    for extra, purpose in OPTIONAL.items():
        if lacking := [p.name for p in wanted[extra] if not p.fits]:
            text = f"{', '.join(lacking)}: only for {purpose}"
            yield Finding(f"extra {extra}", MISSING, text, f"{install} -e '.[{extra}]'")
        else:
            yield Finding(f"extra {extra}", OK, f"for {purpose}")


def gpu() -> Iterator[Finding]:
    """GPUs of the driver, and whether torch can use them."""
    tool = shutil.which("nvidia-smi")
    names = "; ".join(_lines([tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]) if tool else [])
    if not names:
        yield Finding("GPU", OK, "none: trainings run on the CPU")
    elif _lines([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]) == ["True"]:
        yield Finding("GPU", OK, names)
    else:
        remedy = "install a build of torch for CUDA: make demo TORCH_INDEX=… names the index"
        yield Finding("GPU", WARNING, f"{names}, but torch cannot use it", remedy)


def _lines(command: list[str]) -> list[str]:
    """Lines that a command prints; none if it fails."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ran.stdout.splitlines() if ran.returncode == 0 else []


def slurm() -> Iterator[Finding]:
    """Whether jobs can be submitted from this machine."""
    if shutil.which("sbatch") is None:
        yield Finding("Slurm", OK, "none here: workflows run on this machine")
    elif partitions := _lines(["timeout", "10", "sinfo", "--noheader", "--format=%P %a"]):
        yield Finding("Slurm", OK, f"partitions {', '.join(line.split()[0] for line in partitions)}")
    else:
        text = "sbatch is installed, but the controller does not answer"
        yield Finding("Slurm", WARNING, text, "sinfo, or ask the administrator")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest folder above it that exists."""
    return next(p for p in (folder, *folder.parents) if p.exists())


def _write_problem(folder: Path) -> str:
    """Why a folder, or the one in which it would be made, cannot be written; empty if it can."""
    existing = _existing(folder)
    try:
        if not existing.is_dir():
            return f"{existing} is no folder"
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".doctor-"):
            return ""
    except OSError as error:
        return f"{existing}: {error.strerror}"


def cache(work: Path) -> Iterator[Finding]:
    """The cache between workflows, and links in `results/` to files that are gone from it."""
    folder = cache_folder()
    if os.environ.get("SNAKEMAKE_OUTPUT_CACHE") and not folder.is_dir():
        text = f"$SNAKEMAKE_OUTPUT_CACHE names {folder}, which is no folder"
        yield Finding("cache", MISSING, text, f"mkdir -p {folder}", True)
        return
    if problem := _write_problem(folder):
        yield Finding("cache", MISSING, problem, "export SNAKEMAKE_OUTPUT_CACHE=FOLDER that you may write to", True)
        return
    if folder.exists() and (problem := cache_folder_fault(folder)):
        yield Finding("cache", MISSING, f"{folder} {problem}", f"chmod 700 {folder}; for a group, chmod 2770", True)
        return
    yield Finding("cache", OK, str(folder) if folder.exists() else f"{folder} (made when needed)")
    yield from _disk("disk of the cache", folder)
    results = work / "results"
    broken = [p for p in results.rglob("*") if p.is_symlink() and not p.exists()] if results.exists() else []
    if broken:
        text = f"{len(broken)} results are links to files that are gone, such as {broken[0].relative_to(work)}"
        yield Finding("links", MISSING, text, "find results -xtype l -delete", True)


def _disk(subject: str, folder: Path) -> Iterator[Finding]:
    """Free space on the disk of a folder."""
    existing = _existing(folder)
    free = shutil.disk_usage(existing).free / 1e9
    if free < LEAST_GB:
        text = f"{free:.1f} GB free, {LEAST_GB:g} GB needed"
        yield Finding(subject, MISSING, text, f"delete files: du -sh {existing}/*", True)
    elif free < AMPLE_GB:
        yield Finding(subject, WARNING, f"{free:.1f} GB free: little for captures of your own", f"du -sh {existing}/*")
    else:
        yield Finding(subject, OK, f"{free:.0f} GB free")


def work_folder(work: Path) -> Iterator[Finding]:
    """Whether results can be written, file locks work, and no workflow was interrupted here."""
    for name in ("results", "experimentruns", ".snakemake"):
        if problem := _write_problem(work / name):
            remedy = f"ls -ld {work / name}; chown or chmod it, or work in another folder"
            yield Finding(name, MISSING, problem, remedy, True)
            return
    yield from _disk("disk", work)
    with tempfile.TemporaryFile(dir=work) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Finding("file locks", OK, f"work in {work}")
        except OSError as error:
            text = f"{error.strerror}: two workflows at once would not notice each other"
            yield Finding("file locks", WARNING, text, "run one at a time")
    locks = work / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        remedy = "if none runs: .venv/bin/snakemake --unlock -s pipelines/kd_fusion/Snakefile"
        yield Finding("workflow", WARNING, "the folder is locked: Snakemake runs here, or was killed", remedy)


def memory(table: Path = Path("/proc/meminfo")) -> Iterator[Finding]:
    """Memory for a training; no finding where the system does not report it."""
    rows = dict(line.split(":") for line in table.read_text().splitlines()) if table.exists() else {}
    if "MemAvailable" in rows:
        free = int(rows["MemAvailable"].split()[0]) * 1024 / 1e9
        state, remedy = (OK, "") if free >= LEAST_MEMORY_GB else (WARNING, "end other programs, or run with -c1")
        yield Finding("memory", state, f"{free:.1f} GB available on {os.cpu_count()} cores", remedy)


def tracking(work: Path) -> Iterator[Finding]:
    """Whether the store of tracked runs can be reached; no run depends on it."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    address = urlsplit(uri)
    problem, remedy = "", ""
    if address.scheme == "sqlite":
        path = work / address.path[1:]  # three slashes: relative, four: absolute
        problem, remedy = _write_problem(path.parent), "export MLFLOW_TRACKING_URI=…"
        if not problem and path.exists() and not os.access(path, os.W_OK):
            problem = f"{path}: read only"
    elif address.scheme in ("http", "https"):
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), timeout=3).close()
        except OSError as error:
            problem, remedy = f"{address.hostname} does not answer: {error}", "runs stay in files; track them later"
    yield Finding("tracking", WARNING, problem, remedy) if problem else Finding("tracking", OK, uri)


def examine(work: Path) -> list[Finding]:
    """All findings for work in this folder."""
    parts = (python(), packages(), gpu(), slurm(), memory(), work_folder(work), cache(work), tracking(work))
    return [finding for part in parts for finding in part]


def main() -> None:
    """Entry point."""
    findings = examine(Path.cwd())
    for f in findings:
        print(f"{f.state:8} {f.subject:18} {f.text}" + (f"\n{'':8} {'':18} → {f.remedy}" if f.remedy else ""))
    stopping = [f.subject for f in findings if f.stops]
    print("\n" + (f"The main job cannot run: {', '.join(stopping)}" if stopping else "The main job can run: make demo"))
    sys.exit(bool(stopping))


if __name__ == "__main__":
    main()
