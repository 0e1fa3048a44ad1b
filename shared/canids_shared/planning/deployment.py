"""Where rules run and keep their files, as Snakemake was told: conda environments, and the folder of the cache between workflows."""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from canids_shared.errors import CanidsError


def uses_conda(workflow: Any) -> bool:
    """Whether Snakemake was told to run rules in their conda environments (`--software-deployment-method conda`)."""
    return any(method.name == "CONDA" for method in workflow.deployment_settings.deployment_method)


def source() -> str:
    """What `pip install -e` takes for the canids that runs here, in conda environments: its checkout, or its commit.

    Raises `CanidsError` if it was installed from elsewhere.
    """
    checkout = Path(__file__).parents[3]
    if (checkout / "pyproject.toml").exists():
        return str(checkout)
    told = json.loads(importlib.metadata.distribution("canids").read_text("direct_url.json") or "{}")
    if vcs := told.get("vcs_info"):
        return f"{vcs['vcs']}+{told['url']}@{vcs['commit_id']}#egg=canids"
    raise CanidsError("conda environments need to know where canids comes from; set CANIDS_SOURCE to a checkout of it")


def use_cache(workflow: Any) -> None:
    """Where caching between workflows is asked for, see to its folder: `$SNAKEMAKE_OUTPUT_CACHE`, or one of the user's own.

    Raises `CanidsError` if the folder cannot be made or written; Snakemake would find out when the first job is done.
    """
    if workflow.workflow_settings.cache is None:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("SNAKEMAKE_OUTPUT_CACHE") or Path(home) / "canids")
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
