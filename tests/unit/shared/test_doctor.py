"""Findings of the doctor, one wrong condition at a time."""

import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from workflows import REPOSITORY

from canids_shared.tools import doctor, requirements
from canids_shared.tools.doctor import MISSING, OK, WARNING, Finding

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 10**12))


def named(findings: list[Finding], subject: str) -> Finding:
    return next(f for f in findings if f.subject == subject)


def test_the_whole_examination_of_a_healthy_place_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    findings = doctor.examine(tmp_path)
    assert not [f for f in findings if f.stops]
    assert {f.subject for f in findings} >= {
        "Python",
        "packages",
        "GPU",
        "Slurm",
        "disk",
        "file locks",
        "cache",
        "tracking",
    }
    assert all(f.remedy for f in findings if f.state != OK)
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


@pytest.mark.parametrize(("version", "stops"), [((3, 10, 14), True), ((3, 11, 0), False), ((4, 0, 0), False)])
def test_an_old_python_stops(version: tuple[int, ...], stops: bool) -> None:
    (found,) = doctor.python(version)
    assert found.stops == stops
    assert ("3.11 or newer" in found.text) == stops


def test_a_package_that_is_missing_too_old_or_untested_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def without(name: str) -> str:
        if name in ("torch", "snakemake-executor-plugin-slurm"):
            raise metadata.PackageNotFoundError(name)
        return {"polars": "1.0.1", "numpy": "2.0.9"}.get(name) or version(name)

    monkeypatch.setattr(metadata, "version", without)
    findings = list(doctor.packages())
    packages = named(findings, "packages")
    assert packages.stops
    assert "torch==2.13.0 (not installed)" in packages.text
    assert "polars>=2.0 (1.0.1)" in packages.text
    assert "numpy 2.0.9 (tested: " in named(findings, "versions").text
    assert named(findings, "versions").remedy == ".venv/bin/pip install -c constraints.txt numpy"
    slurm = named(findings, "extra slurm")
    assert (slurm.state, slurm.stops) == (MISSING, False)
    assert slurm.remedy == ".venv/bin/pip install -c constraints.txt -e '.[slurm]'"


def test_extras_are_unfolded_and_all_that_is_locked_is_known() -> None:
    extras = requirements.by_extra(REPOSITORY)
    assert {"torch", "torch-geometric", "pytest", "mlflow"} <= {p.name for p in extras["dev"]}
    assert "canids" not in {p.name for p in extras["dev"]}
    assert set(doctor.OPTIONAL) | set(doctor.MAIN) <= set(extras)
    assert all(p.locked for extra in doctor.MAIN for p in extras[extra])


@pytest.mark.parametrize(
    ("version", "bounds", "inside"),
    [
        ("9.27.1", ">=9.27,<10", True),
        ("10.0", ">=9.27,<10", False),
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13", "==2.13.0", True),
        ("2.9", ">=2.13", False),
        ("1.0", "", True),
        ("1.0", ">1.0", False),
        ("1.0", "<=1.0", True),
    ],
)
def test_versions_are_compared_by_number(version: str, bounds: str, inside: bool) -> None:
    assert requirements.within(version, bounds) == inside


def test_a_cache_that_is_named_and_absent_or_cannot_be_written_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path / "away"))
    (found,) = doctor.cache(tmp_path)
    assert found.stops
    assert found.remedy == f"mkdir -p {tmp_path}/away"
    (tmp_path / "file").touch()
    monkeypatch.delenv("SNAKEMAKE_OUTPUT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (found,) = doctor.cache(tmp_path)
    assert found.stops
    assert "no folder" in found.text
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    assert "made when needed" in next(iter(doctor.cache(tmp_path))).text


def test_a_cache_that_others_may_write_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o700)
    assert not named(list(doctor.cache(tmp_path)), "cache").stops
    (tmp_path / "cache").chmod(0o777)
    (found,) = doctor.cache(tmp_path)
    assert found.stops
    assert found.text == f"{tmp_path}/cache may be written by others (mode 777)"
    assert found.remedy.startswith(f"chmod 700 {tmp_path}/cache")


def test_a_cache_emptied_behind_its_links_stops(tmp_path: Path) -> None:
    (tmp_path / "results/d").mkdir(parents=True)
    (tmp_path / "results/d/graphs").symlink_to(tmp_path / "gone")
    links = named(list(doctor.cache(tmp_path)), "links")
    assert links.stops
    assert "results/d/graphs" in links.text
    assert links.remedy == "find results -xtype l -delete"


def test_a_folder_that_cannot_be_written_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:  # as a superuser may write everywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    (found,) = doctor.work_folder(tmp_path)
    assert found.stops
    assert "Permission denied" in found.text


@pytest.mark.parametrize(("free", "state", "stops"), [(5e8, MISSING, True), (3e9, WARNING, False), (9e9, OK, False)])
def test_too_little_disk(free: float, state: str, stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free))
    disk = named(list(doctor.work_folder(tmp_path)), "disk")
    assert (disk.state, disk.stops) == (state, stops)


def test_an_interrupted_workflow_gets_the_command_to_go_on(tmp_path: Path) -> None:
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    assert "workflow" not in {f.subject for f in doctor.work_folder(tmp_path)}
    (tmp_path / ".snakemake/locks/0.output.lock").touch()
    assert "--unlock" in named(list(doctor.work_folder(tmp_path)), "workflow").remedy


def test_little_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 1000000 kB\n")
    (found,) = doctor.memory(tmp_path / "meminfo")
    assert (found.state, found.text.partition(" ")[0]) == (WARNING, "1.0")
    assert not list(doctor.memory(tmp_path / "none"))


def test_gpu_and_slurm_that_do_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = {"nvidia-smi": "echo 'H100, 80 GB'", "sbatch": "true", "sinfo": "exit 1"}
    for name, does in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    (gpu,), (slurm,) = doctor.gpu(), doctor.slurm()
    assert (gpu.state, gpu.stops) == (WARNING, False)
    assert "H100, 80 GB, but torch cannot use it" in gpu.text
    assert slurm.state == WARNING
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'gpu* up'\n")
    assert next(doctor.slurm()).text == "partitions gpu*"


def test_a_store_that_cannot_be_reached_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = doctor.tracking(tmp_path)
    assert (found.state, found.text) == (OK, "sqlite:///experimentruns/mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert next(doctor.tracking(tmp_path)).state == OK
    (found,) = doctor.tracking(tmp_path)
    assert (found.state, found.stops) == (WARNING, False)


def test_it_runs_where_nothing_is_installed_and_leaves_with_1_if_the_main_job_cannot_run(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-m", "canids_shared.tools.doctor"]  # -S: no packages
    clean = {"PATH": str(tmp_path), "PYTHONPATH": str(REPOSITORY / "shared"), "HOME": str(tmp_path)}
    ran = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "snakemake>=9.27,<10 (not installed)" in ran.stdout
    assert "→ make .venv/runtime" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "The main job cannot run: packages"
