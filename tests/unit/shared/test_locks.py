"""Locks of run folders, and GPUs shared out by slots."""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from canids_shared.errors import CanidsError
from canids_shared.jobs import devices, locks

HOLD = """
import sys, time
from pathlib import Path
from canids_shared.jobs.locks import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_run_folder_is_locked_until_its_process_ends_whatever_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "WAIT_S", 0.0)
    caplog.set_level(logging.INFO)
    process = holding(tmp_path / "run")
    try:
        with (
            pytest.raises(CanidsError, match=f"run: process {process.pid} on .+ still works on this run"),
            locks.locked_folder(tmp_path / "run"),
        ):
            pass
        monkeypatch.setattr(locks, "WAIT_S", 60.0)
        threading.Timer(0.3, process.kill).start()
        with locks.locked_folder(tmp_path / "run"):
            assert process.wait() == -signal.SIGKILL
            assert f"process {os.getpid()} on" in locks.holder_of(tmp_path / "run" / ".lock")
    finally:
        process.kill()
    assert f"waiting for process {process.pid}" in caplog.text
    assert not list((tmp_path / "run").iterdir()), "nothing is left"


def test_a_lock_file_removed_between_opening_and_locking_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock, removed = tmp_path / "lock", locks.fcntl.flock, []

    def removing_once(*args: Any) -> None:
        if not removed:
            removed.append(path.unlink())
        flock(*args)

    monkeypatch.setattr(locks.fcntl, "flock", removing_once)
    stream = locks.try_lock(path)
    assert stream is not None
    assert os.path.samestat(os.fstat(stream.fileno()), path.stat())
    assert locks.try_lock(path) is None
    locks.release(path, stream)


def test_a_link_is_no_lock_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        locks.try_lock(tmp_path / "lock")
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_lock_that_a_dead_machine_left_on_a_file_server_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".lock").write_bytes(b"process 7 on gone\xff")
    monkeypatch.setattr(locks, "WAIT_S", 0.0)
    monkeypatch.setattr(locks, "try_lock", lambda path: None)
    with (
        pytest.raises(
            CanidsError, match=rf"process 7 on gone. still works.* delete {tmp_path}/\.lock if that machine is down"
        ),
        locks.locked_folder(tmp_path),
    ):
        pass


def test_a_file_system_without_locks_is_said_and_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with locks.locked_folder(tmp_path):
        pass
    assert "no locks on this file system (No locks available)" in caplog.text


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_installed", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    monkeypatch.setenv(devices.SLOTS, "")


class Workflow:
    """What `share_out` asks of Snakemake's workflow."""

    def __init__(self, limit: int | None = None, remote: bool = False, local: bool = True) -> None:
        self.remote_exec, self.is_main_process, self.local_exec = remote, not remote, local
        self.global_resources = {"gpu": SimpleNamespace(value=limit)}

    def register_resource(self, name: str, value: int) -> None:
        self.global_resources[name] = SimpleNamespace(value=value)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-a", "GPU-b"]),
        ("1", ["GPU-b"]),
        ("GPU-b,0", ["GPU-b", "GPU-a"]),
        ("MIG-c", ["MIG-c"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["GPU-a"]),
    ],
)
def test_devices_are_those_that_cuda_would_see(
    two: None, visible: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv(devices.VISIBLE, visible)
    assert devices.devices() == expected


@pytest.mark.parametrize(
    ("workflow", "slots", "limit"),
    [
        (Workflow(), "GPU-a,GPU-b", 2),
        (Workflow(limit=3), "GPU-a,GPU-b,GPU-a", 3),
        (Workflow(limit=1), "GPU-a", 1),
        (Workflow(local=False), "", None),
        (Workflow(remote=True), None, None),
    ],
)
def test_a_local_workflow_runs_as_many_gpu_jobs_as_there_are_slots(
    two: None, workflow: Workflow, slots: str | None, limit: int | None
) -> None:
    devices.share_out(workflow)
    devices.share_out(workflow)  # the second module of a pipeline
    assert os.environ.get(devices.SLOTS) == slots
    assert workflow.global_resources["gpu"].value == limit


def test_without_a_gpu_nothing_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "_installed", list)
    monkeypatch.delenv(devices.SLOTS, raising=False)
    before, workflow = dict(os.environ), Workflow()
    devices.share_out(workflow)
    with devices.claim(tmp_path):
        assert dict(os.environ) == before
    assert workflow.global_resources["gpu"].value is None
    assert not list(tmp_path.iterdir())


def test_each_job_has_its_own_device_and_waits_for_one(
    two: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices.share_out(Workflow())
    slots = os.environ[devices.SLOTS].split(",")
    monkeypatch.setattr(devices, "POLL_S", 0.01)
    seen, inside, most = [], [], []

    def job() -> None:
        while (taken := devices._take(slots, tmp_path)) is None:
            devices.time.sleep(0.01)
        device, path, stream = taken
        inside.append(device)
        most.append(sorted(inside))
        devices.time.sleep(0.05)
        inside.remove(device)
        seen.append(device)
        locks.release(path, stream)

    jobs = [threading.Thread(target=job) for _ in range(5)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert len(seen) == 5
    assert set(seen) == {"GPU-a", "GPU-b"}
    assert all(len(set(now)) == len(now) for now in most), "never two jobs on one device"
    assert not list(tmp_path.iterdir())


def test_a_claim_sets_what_cuda_sees_and_puts_it_back(
    two: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "POLL_S", 0.01)
    devices.share_out(Workflow(limit=4))
    with devices.claim(tmp_path):
        assert os.environ[devices.VISIBLE] == "GPU-a"
        assert devices.SLOTS not in os.environ, "what it starts shares its device"
        os.environ[devices.SLOTS] = "GPU-a,GPU-b"  # another job
        with devices.claim(tmp_path):
            assert os.environ[devices.VISIBLE] == "GPU-b"
    assert devices.VISIBLE not in os.environ
    assert not list(tmp_path.iterdir())


def test_locks_of_devices_lie_in_a_folder_of_this_user_alone(
    two: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    devices.share_out(Workflow())
    folder = tmp_path / f"canids-{os.getuid()}"
    with devices.claim():
        assert folder.stat().st_mode & 0o777 == 0o700
        assert list(folder.iterdir())
    mine = os.getuid()
    monkeypatch.setattr(devices.os, "getuid", lambda: mine + 1)
    folder.rename(tmp_path / f"canids-{mine + 1}")
    with pytest.raises(CanidsError, match=rf"canids-{mine + 1}: it is not yours.*set TMPDIR"), devices.claim():
        pass
