"""GPUs of one machine, shared out among the jobs of local runs: each job sees its own device and no other.

The Snakemake that starts the jobs names the slots, one a GPU, or as many as `--resources gpu=N` says, in turn over the GPUs. A job
takes the first that is free by a lock of this user and machine, so two workflows at once do not meet on a device
either. On a cluster its scheduler does all this, and nothing happens here; without a GPU neither.
"""

import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

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
    found: list[str] = []
    for name in filter(None, map(str.strip, chosen.split(","))):
        if name.isdigit() and int(name) < len(installed):
            found.append(installed[int(name)])
        elif name.startswith(("GPU-", "MIG-")):
            found.append(name)
        else:
            break  # as CUDA does: what follows a device that does not exist is not seen
    return found


def share_out(workflow: Any) -> None:
    """Limit the resource `gpu` of a workflow that runs here to the GPUs there are, unless the user did, and name the slots."""
    if workflow.remote_exec:
        os.environ.pop(SLOTS, None)
    if not (workflow.is_main_process and workflow.local_exec and (found := devices())):
        return
    if (limit := workflow.global_resources.get("gpu").value) is None:
        limit = len(found)
        workflow.register_resource("gpu", limit)
    os.environ[SLOTS] = ",".join(found[slot % len(found)] for slot in range(int(limit)))


def _own_folder() -> Path:
    """This user's folder for locks; its name is known to all, so another user may have made it."""
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


def _take(slots: list[str], count: int, folder: Path, held: ExitStack) -> list[str]:
    """Devices of the first `count` free slots on different devices, locked within `held`; fewer if not all can be had."""
    taken: list[str] = []
    for slot, device in enumerate(slots):
        if len(taken) == count:
            break
        if device in taken:
            continue
        path = folder / f"{device}.{slots[:slot].count(device)}.lock"
        if (stream := try_lock(path)) is not None:
            held.callback(release, path, stream)
            taken.append(device)
    return taken


@contextmanager
def own(count: int, folder: Path | None = None) -> Iterator[None]:
    """Let CUDA see `count` devices that no other job of this user has here; waits until they are free.

    Enter before CUDA starts. Does nothing where no slots are named, or for none.

    Args:
        folder: where the locks lie, by default in this user's folder for temporary files.

    Raises:
        CanidsError: there are not that many devices, or the folder is another user's.
    """
    slots = list(filter(None, os.environ.get(SLOTS, "").split(",")))
    if not slots or not count:
        yield
        return
    if count > len(set(slots)):
        raise CanidsError(f"devices: {count} GPUs are wanted, and this machine has {len(set(slots))}; lower 'devices'")
    folder = folder or _own_folder()
    before = {name: os.environ.get(name) for name in (SLOTS, VISIBLE)}
    waited = False
    while True:
        with ExitStack() as held:
            taken = _take(slots, count, folder, held)
            if len(taken) == count:
                # Processes that this one starts share its devices: they take none of their own.
                del os.environ[SLOTS]
                os.environ[VISIBLE] = ",".join(taken)
                log.info("on %s", os.environ[VISIBLE])
                try:
                    yield
                finally:
                    for name, value in before.items():
                        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
                return
        if not waited:
            log.info("waiting for %d of the devices %s", count, ", ".join(dict.fromkeys(slots)))
            waited = True
        time.sleep(POLL_S)
