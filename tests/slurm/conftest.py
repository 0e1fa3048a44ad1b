"""One Slurm for all tests of this folder (another where a test needs accounting), and runs side by side."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from slurm import plots, submitting
from slurm.cluster import Cluster, missing, running

# Snakemake and what its jobs call; jobs inherit the environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where no Slurm can run; run the soak only on request."""
    reason = missing()
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.slow)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif item.get_closest_marker("soak") and "SOAK" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="repetitions: make slurm-soak"))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The Slurm; with accounting if its parameter says so."""
    with running(accounting=getattr(request, "param", "") == "accounting") as slurm:
        yield slurm


@pytest.fixture(scope="session")
def outcomes(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, "Future[Any]"]]:
    """Plot → its outcome, for every plot that a test of this session names by `@pytest.mark.plot`.

    They mostly wait, so all of them run at once.
    """
    names = {mark.args[0] for item in request.session.items for mark in item.iter_markers("plot")}
    with ThreadPoolExecutor(max_workers=len(plots.PLOTS)) as pool:
        yield {name: pool.submit(plots.PLOTS[name], cluster, tmp_path_factory.mktemp(name)) for name in sorted(names)}
        submitting.kill()
