"""GPUs of one machine, shared out among the jobs of local runs: each job sees one device, its own.

The Snakemake that starts the jobs names the slots: one for each GPU, or as many as `--resources gpu=N` says, in turn over the GPUs.
A job locks the first free slot for this user and machine, so that two workflows at once do not share a device either. On a
cluster the scheduler assigns devices, and nothing happens here; neither without a GPU.
"""

import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from canids_shared.errors import CanidsError
from canids_shared.jobs.locks import release, try_lock

SLOTS = "CANIDS_GPU_SLOTS"
"""The environment variable with the devices of all slots, separated by commas."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_S = 1.0
log = logging.getLogger(__name__)


@cache
def _installed() -> list[str]:
    """UUIDs of the GPUs that the driver shows to this process, in its order."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    query = [tool, "--query-gpu=uuid", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.split() if answer.returncode == 0 else []


def devices() -> list[str]:
    """The GPUs that this process may use: those of `CUDA_VISIBLE_DEVICES` where it is set, else all; by UUID where known."""
    installed = _installed()
    chosen = os.environ.get(VISIBLE)
    if chosen is None:
        return installed
    visible: list[str] = []
    for name in filter(None, map(str.strip, chosen.split(","))):
        if name.isdigit() and int(name) < len(installed):
            visible.append(installed[int(name)])
        elif name.startswith(("GPU-", "MIG-")):
            visible.append(name)
        else:
            break  # CUDA ignores a device that does not exist, and all after it
    return visible


def share_out(workflow: Any) -> None:
    """Limit the resource `gpu` of a local workflow to the number of GPUs, unless the user did, and name the slots."""
    if workflow.remote_exec:
        os.environ.pop(SLOTS, None)
    # A Snakemake within a job is no main process, one that submits jobs has none here: neither has devices to share out.
    if not (workflow.is_main_process and workflow.local_exec and (visible := devices())):
        return
    if (limit := workflow.global_resources.get("gpu").value) is None:
        limit = len(visible)
        workflow.register_resource("gpu", limit)
    os.environ[SLOTS] = ",".join(visible[slot % len(visible)] for slot in range(int(limit)))


def _lock_folder() -> Path:
    """This user's folder for locks; its name can be guessed, so another user may have made it."""
    folder = Path(tempfile.gettempdir()) / f"canids-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid != os.getuid() or not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("it is not yours, or not yours to write")
    except OSError as error:
        raise CanidsError(
            f"{folder}: {error.strerror or error}; remove it, or set TMPDIR to a folder of yours"
        ) from None
    return folder


def _take(slots: list[str], folder: Path) -> tuple[str, Path, IO[str]] | None:
    """Device, lock and open lock file of the first free slot; None if all are taken."""
    # Several slots of one device are numbered: `GPU-a.0.lock`, `GPU-a.1.lock`.
    for slot, device in enumerate(slots):
        path = folder / f"{device}.{slots[:slot].count(device)}.lock"
        if (stream := try_lock(path)) is not None:
            return device, path, stream
    return None


@contextmanager
def claim(folder: Path | None = None) -> Iterator[None]:
    """Let CUDA see one device, which no other job of this user has on this machine; waits until one is free.

    Enter before CUDA starts. Does nothing where no slots are named.

    Args:
        folder: the folder for the locks, by default this user's in that for temporary files.

    Raises `CanidsError` if the folder is another user's.
    """
    slots = list(filter(None, os.environ.get(SLOTS, "").split(",")))
    if not slots:
        yield
        return
    folder = folder or _lock_folder()
    if (taken := _take(slots, folder)) is None:
        log.info("waiting for one of the devices %s", ", ".join(dict.fromkeys(slots)))
        while (taken := _take(slots, folder)) is None:
            time.sleep(POLL_S)
    device, path, stream = taken
    before = {name: os.environ.get(name) for name in (SLOTS, VISIBLE)}
    try:
        # Processes that this one starts share its device: they take none of their own.
        del os.environ[SLOTS]
        os.environ[VISIBLE] = device
        log.info("on %s", device)
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        release(path, stream)
