"""Snakemake's deployment as its command line sets it: conda environments, and the folder of the cache between workflows."""

import importlib.metadata
import json
import logging
import os
from pathlib import Path
from typing import Any

from canids_shared import cache_entries
from canids_shared.errors import CanidsError
from canids_shared.files import write_text


def uses_conda(workflow: Any) -> bool:
    """Whether Snakemake runs rules in their conda environments (`--software-deployment-method conda`)."""
    return any(method.name == "CONDA" for method in workflow.deployment_settings.deployment_method)


def checkout() -> Path:
    """The folder that holds `shared/` and `modules/`, where this canids lies in a checkout."""
    return Path(__file__).parents[3]


def source() -> str:
    """The argument of `pip install -e` for this canids in conda environments: its checkout, or its repository and commit.

    Raises `CanidsError` if it was installed from elsewhere.
    """
    if (checkout() / "pyproject.toml").exists():
        return str(checkout())
    origin = json.loads(importlib.metadata.distribution("canids").read_text("direct_url.json") or "{}")
    if vcs := origin.get("vcs_info"):
        return f"{vcs['vcs']}+{origin['url']}@{vcs['commit_id']}#egg=canids"
    raise CanidsError(
        "canids was installed from no checkout, and conda environments need one; set CANIDS_SOURCE to a checkout"
    )


def cache_folder() -> Path:
    """The folder of the cache between workflows: `$SNAKEMAKE_OUTPUT_CACHE`, or the user's own."""
    named = os.environ.get("SNAKEMAKE_OUTPUT_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "canids"


def cache_folder_fault(folder: Path) -> str:
    """Why others than this user and a group of theirs may put entries into a cache's folder; empty if they cannot."""
    group = cache_entries.group_of(folder)
    return cache_entries.distrust(folder.resolve(), group if group in {os.getegid(), *os.getgroups()} else None)


def _require_records() -> None:
    """Raise `CanidsError` if Snakemake cannot keep its records in the working directory."""
    probe = Path(".snakemake", f"canids-{os.getpid()}")
    try:
        write_text(probe, "a" * 4096)
    except CanidsError:
        # Snakemake's log lies there too: Python would print a traceback for every line that it cannot write.
        logging.raiseExceptions = False
        raise
    probe.unlink(missing_ok=True)


def use_cache(workflow: Any) -> None:
    """Make the folder of the cache between workflows (`cache_folder`) where one is wanted, and check what lies there.

    The folder is for this user alone, unless it is given to a group (`canids_shared.cache_entries`).

    Raises `CanidsError` if the folder cannot be made or written, in which case Snakemake would fail after the first job; if
    others may write it; or if Snakemake cannot write in the working directory, where it would end in tracebacks.
    """
    if workflow.is_main_process:
        _require_records()
    if workflow.workflow_settings.cache is None:
        return
    folder = cache_folder().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("no permission to write")
        why = cache_folder_fault(folder)
    except OSError as error:
        raise CanidsError(
            f"cache between workflows: {folder}: {error.strerror or error}; set SNAKEMAKE_OUTPUT_CACHE to a folder that "
            "you may write, or make this one writable for your group (chmod g+rwxs)"
        ) from error
    if why:
        raise CanidsError(
            f"cache between workflows: {folder} {why}, so it may hold what nobody here has made; set SNAKEMAKE_OUTPUT_CACHE "
            "to a folder of your own (chmod 700), or of a group (chgrp GROUP, chmod 2770)"
        )
    os.environ["SNAKEMAKE_OUTPUT_CACHE"] = str(folder)
    from canids_shared.planning import output_cache  # noqa: PLC0415 (imports Snakemake, which the doctor may lack)

    output_cache.install(workflow)
