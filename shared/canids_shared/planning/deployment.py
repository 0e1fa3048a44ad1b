"""Snakemake's deployment as its command line sets it: conda environments, and the folder of the cache between workflows."""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from canids_shared.errors import CanidsError


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


def use_cache(workflow: Any) -> None:
    """Make the folder of the cache between workflows (`cache_folder`), where one is wanted.

    Raises `CanidsError` if the folder cannot be made or written; Snakemake would fail after the first job.
    """
    if workflow.workflow_settings.cache is None:
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise CanidsError(
            f"cache between workflows: {folder}: {error.strerror or error}; set SNAKEMAKE_OUTPUT_CACHE to a folder that "
            "you may write, or make this one writable for your group (chmod g+rwxs)"
        ) from error
    os.environ["SNAKEMAKE_OUTPUT_CACHE"] = str(folder)
