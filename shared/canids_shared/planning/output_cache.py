"""Snakemake's cache between workflows, with entries that are private or a group's, and checked before they are used.

Snakemake itself makes every entry writable for all, and takes whatever lies under the right name.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import snakemake.api  # first: the two import each other
import snakemake.workflow
from snakemake.caching.local import OutputFileCache
from snakemake.exceptions import WorkflowError
from snakemake.jobs import Job
from snakemake.logging import logger

from canids_shared import cache_entries
from canids_shared.cache_entries import ENTRY
from canids_shared.errors import CanidsError
from canids_shared.files import write_fault

_WHERE = "cache between workflows"
_LISTED = 3


class CheckedCache(OutputFileCache):  # type: ignore[misc]
    """A cache whose entries are what was made, by those who share it.

    Any other entry counts as absent: the rule runs, and what it makes takes the entry's place.
    """

    workflow: Any = None
    """The workflow that uses it; set by `install`."""

    def __init__(self) -> None:
        """Use the folder that `SNAKEMAKE_OUTPUT_CACHE` names; Snakemake makes the cache before it looks at results."""
        super().__init__()
        self._group = cache_entries.group_of(self.path)
        if self.workflow and self.workflow.is_main_process:
            # Only a run changes results: a graph of rules, for one, has nothing that would execute the workflow.
            check_links(self.path, remove=bool(self.workflow.executor_plugin) and not self.workflow.dryrun)

    async def _faults(self, job: Job, whole: bool) -> dict[Path, str]:
        entries = [entry for _, entry in await self.get_outputfiles_and_cachefiles(job)]
        faults = {entry: cache_entries.fault(entry, self._group, whole) for entry in entries}
        return {entry: why for entry, why in faults.items() if why}

    async def exists(self, job: Job) -> bool:
        """Whether all files of a job can be taken from here, as far as can be known without reading them."""
        return not await self._faults(job, whole=False)

    async def fetch(self, job: Job) -> None:
        """Link the files of a job; if one is absent or faulty, raise Snakemake's error for a miss."""
        faults = await self._faults(job, whole=True)
        if damaged := {entry: why for entry, why in faults.items() if entry.exists()}:
            logger.warning(f"{_WHERE}: {_listed(damaged)}: made again, and replaced")
        if faults:
            self.raise_cache_miss_exception(job)
        await super().fetch(job)

    async def store(self, job: Job) -> None:
        """Move the files of a job into the cache; raise `WorkflowError` naming file and file system if that fails."""
        try:
            files = await self.get_outputfiles_and_cachefiles(job)
            # First the digests: another workflow that met an entry without one would make it again.
            for output, entry in files:
                cache_entries.record(entry, output, self._group)
            await super().store(job)
            for _, entry in files:
                cache_entries.settle(entry)
        except (CanidsError, OSError) as error:
            raise WorkflowError(f"{_WHERE}: {write_fault(error, self.path) or error}") from None

    def set_permissions(self, entry: Path) -> None:
        """Called by Snakemake for each file on its way into the cache."""
        cache_entries.seal(entry, self._group)


def _listed(faults: dict[Path, str]) -> str:
    """The first of some entries with their faults, and the number of the others."""
    named = "; ".join(f"{entry} {why}" for entry, why in list(faults.items())[:_LISTED])
    return f"{named}; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else named


def _links(folder: Path, cache: Path) -> Iterator[tuple[Path, Path]]:
    """Links below `folder` to entries in `cache`, and to those of any cache that are gone, each with its target."""
    cache = cache.resolve()
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if not path.is_symlink():
                continue
            target = Path(place, os.readlink(path))
            if ENTRY.match(target.name) and (target.parent.resolve() == cache or not target.exists()):
                yield path, target


def check_links(cache: Path, remove: bool) -> None:
    """Remove links in results to entries of the cache that are gone or faulty, and say so in one line.

    Snakemake would stop at the former, and take the latter for results. Nothing that has not changed is read. Without `remove`
    they are only named.
    """
    group = cache_entries.group_of(cache)
    faults: dict[Path, str] = {}
    for link, entry in _links(Path("results"), cache):
        if entry in faults or (why := cache_entries.fault(entry, group, whole=False)):
            faults.setdefault(entry, why)
            if remove:
                link.unlink()
    if faults:
        then = "are made again" if remove else "will be made again"
        logger.warning(f"{_WHERE}: results linked to what cannot be used, and {then}: {_listed(faults)}")


def install(workflow: Any) -> None:
    """Let Snakemake use `CheckedCache` for a workflow; raises `CanidsError` if this Snakemake cannot."""
    # It has no setting for this: it makes the cache itself, by this name, once the Snakefile is read.
    if not hasattr(snakemake.workflow, "LocalOutputFileCache"):
        raise CanidsError(
            "cache between workflows: this Snakemake has another one; install a version of constraints.txt"
        )
    CheckedCache.workflow = workflow
    snakemake.workflow.LocalOutputFileCache = CheckedCache
