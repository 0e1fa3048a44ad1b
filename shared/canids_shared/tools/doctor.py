"""What is here, what is missing, and what to do: `make doctor`, or `python -m canids_shared.tools.doctor`.

Needs no package and no Python of a certain version. The exit status is 1 if something stops the main job, else 0.
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
LEAST_GB, ROOM_GB, LEAST_MEMORY_GB = 1.0, 5.0, 4.0
"""Free disk without which the main job stops (it writes some 130 MB), and with which captures of one's own fit too; memory of a training."""
DEFAULT_STORE = "sqlite:///experimentruns/mlflow.db"
ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        what: what was looked at.
        state: OK, warning or missing.
        text: what was found.
        mend: the command, or the words, that mend it.
        stops: whether the main job cannot run so.
    """

    what: str
    state: str
    text: str
    mend: str = ""
    stops: bool = False


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    """Whether this Python is new enough."""
    said = f"{'.'.join(map(str, version))} ({sys.executable})"
    if tuple(version[:2]) >= OLDEST:
        yield Finding("Python", OK, said)
    else:
        yield Finding("Python", MISSING, f"{said}; 3.11 or newer is needed", "make demo PYTHON=python3.11", True)


def packages(root: Path = ROOT) -> Iterator[Finding]:
    """Packages by what they are for, against the bounds of `pyproject.toml` and the versions of `constraints.txt`."""
    try:
        wanted = requirements.by_extra(root)
    except (ImportError, OSError) as error:
        yield Finding(
            "packages", WARNING, f"cannot say which are needed: {error}", "run it in a checkout, by Python 3.11"
        )
        return
    main = list({p.name: p for extra in MAIN for p in wanted[extra]}.values())
    if absent := [p for p in main if not p.fits]:
        said = ", ".join(f"{p.name}{p.bounds} ({p.installed or 'not installed'})" for p in absent)
        yield Finding("packages", MISSING, said, "make .venv/runtime", True)
    else:
        yield Finding("packages", OK, f"all {len(main)} that the main job needs")
    if other := [p for p in main if p.fits and p.locked and not requirements.within(str(p.installed), "==" + p.locked)]:
        said = ", ".join(f"{p.name} {p.installed} (tested: {p.locked})" for p in other)
        yield Finding(
            "versions", WARNING, said, ".venv/bin/pip install -c constraints.txt " + " ".join(p.name for p in other)
        )
    for extra, purpose in OPTIONAL.items():
        if lacking := [p.name for p in wanted[extra] if not p.fits]:
            mend = f".venv/bin/pip install -c constraints.txt -e '.[{extra}]'"
            yield Finding(f"extra {extra}", MISSING, f"{', '.join(lacking)}: only for {purpose}", mend)
        else:
            yield Finding(f"extra {extra}", OK, f"for {purpose}")


def gpu() -> Iterator[Finding]:
    """GPUs of the driver, and whether torch can use them."""
    tool = shutil.which("nvidia-smi")
    found = _lines([tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]) if tool else []
    if not found:
        yield Finding("GPU", OK, "none: trainings run on the CPU")
        return
    names = "; ".join(found)
    ask = "import torch; print(torch.cuda.is_available())"
    if _lines([sys.executable, "-c", ask]) == ["True"]:
        yield Finding("GPU", OK, names)
    else:
        mend = "install a build of torch for CUDA: make demo TORCH_INDEX=… names the index"
        yield Finding("GPU", WARNING, f"{names}, but torch cannot use it", mend)


def _lines(command: list[str]) -> list[str]:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ran.stdout.splitlines() if ran.returncode == 0 else []


def slurm() -> Iterator[Finding]:
    """Whether jobs can be submitted from here."""
    if shutil.which("sbatch") is None:
        yield Finding("Slurm", OK, "none here: workflows run on this machine")
    elif not (answer := _lines(["timeout", "10", "sinfo", "--noheader", "--format=%P %a"])):
        yield Finding(
            "Slurm", WARNING, "sbatch is here, and the controller does not answer", "sinfo, or ask who runs it"
        )
    else:
        yield Finding("Slurm", OK, f"partitions {', '.join(line.split()[0] for line in answer)}")


def _writable(folder: Path) -> str:
    """Why nothing can be written into a folder, which is made if need be; empty if it can."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        if not existing.is_dir():
            return f"{existing} is no folder"
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".doctor-"):
            return ""
    except OSError as error:
        return f"{existing}: {error.strerror}"


def cache(work: Path) -> Iterator[Finding]:
    """The cache between workflows, and links into it that lead nowhere."""
    named = os.environ.get("SNAKEMAKE_OUTPUT_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "canids"
    if named and not folder.is_dir():
        yield Finding(
            "cache", MISSING, f"$SNAKEMAKE_OUTPUT_CACHE names {folder}, which is no folder", f"mkdir -p {folder}", True
        )
        return
    if why := _writable(folder):
        yield Finding("cache", MISSING, why, "export SNAKEMAKE_OUTPUT_CACHE=FOLDER that you may write to", True)
        return
    yield Finding("cache", OK, str(folder) if folder.exists() else f"{folder} (made when needed)")
    yield from _room("disk of the cache", folder)
    results = work / "results"
    lost = [p for p in results.rglob("*") if p.is_symlink() and not p.exists()] if results.exists() else []
    if lost:
        said = f"{len(lost)} results are links to files that are gone, such as {lost[0].relative_to(work)}"
        yield Finding("links", MISSING, said, "find results -xtype l -delete", True)


def _room(what: str, folder: Path) -> Iterator[Finding]:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < LEAST_GB:
        yield Finding(
            what, MISSING, f"{free:.1f} GB free, {LEAST_GB:g} GB needed", f"make room: du -sh {existing}/*", True
        )
    elif free < ROOM_GB:
        yield Finding(what, WARNING, f"{free:.1f} GB free: little for captures of your own", f"du -sh {existing}/*")
    else:
        yield Finding(what, OK, f"{free:.0f} GB free")


def work_folder(work: Path) -> Iterator[Finding]:
    """Whether results can be written, locks hold, and no workflow was cut off here."""
    for name in ("results", "experimentruns", ".snakemake"):
        if why := _writable(work / name):
            yield Finding(
                name, MISSING, why, f"ls -ld {work / name}; chown or chmod it, or work in another folder", True
            )
            return
    yield from _room("disk", work)
    with tempfile.TemporaryFile(dir=work) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Finding("file locks", OK, f"hold in {work}")
        except OSError as error:
            yield Finding(
                "file locks", WARNING, f"{error.strerror}: nothing keeps two workflows apart", "let one run at a time"
            )
    locks = work / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        said = "the folder is locked: Snakemake runs here, or was killed"
        yield Finding(
            "workflow", WARNING, said, "if none runs: .venv/bin/snakemake --unlock -s pipelines/kd_fusion/Snakefile"
        )


def memory(table: Path = Path("/proc/meminfo")) -> Iterator[Finding]:
    """Memory for a training; says nothing where the system does not."""
    rows = dict(line.split(":") for line in table.read_text().splitlines()) if table.exists() else {}
    if "MemAvailable" in rows:
        free = int(rows["MemAvailable"].split()[0]) * 1024 / 1e9
        state, mend = (OK, "") if free >= LEAST_MEMORY_GB else (WARNING, "end other programs, or run with -c1")
        yield Finding("memory", state, f"{free:.1f} GB available on {os.cpu_count()} cores", mend)


def tracking(work: Path) -> Iterator[Finding]:
    """Whether the store of tracked runs can be reached; no run depends on it."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    address = urlsplit(uri)
    if address.scheme == "sqlite":
        path = work / address.path[1:]  # three slashes: relative, four: absolute
        why = _writable(path.parent) or ("" if not path.exists() or os.access(path, os.W_OK) else f"{path}: read only")
        yield Finding("tracking", WARNING if why else OK, why or uri, "export MLFLOW_TRACKING_URI=…" if why else "")
    elif address.scheme in ("http", "https"):
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), timeout=3).close()
            yield Finding("tracking", OK, uri)
        except OSError as error:
            yield Finding(
                "tracking",
                WARNING,
                f"{address.hostname} does not answer: {error}",
                "runs are kept in files; track them later",
            )
    else:
        yield Finding("tracking", OK, uri)


def examine(work: Path) -> list[Finding]:
    """All findings for work in this folder."""
    parts = (python(), packages(), gpu(), slurm(), memory(), work_folder(work), cache(work), tracking(work))
    return [finding for part in parts for finding in part]


def main() -> None:
    """Entry point."""
    findings = examine(Path.cwd())
    for f in findings:
        print(f"{f.state:8} {f.what:18} {f.text}" + (f"\n{'':8} {'':18} → {f.mend}" if f.mend else ""))
    stopping = [f.what for f in findings if f.stops]
    print("\n" + (f"The main job cannot run: {', '.join(stopping)}" if stopping else "The main job can run: make demo"))
    sys.exit(bool(stopping))


if __name__ == "__main__":
    main()
