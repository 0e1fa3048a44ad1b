"""The faults again and again, at random moments: the same bytes each time, nothing lost; no run is doubled in MLflow (make slurm-soak)."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from track_data import content, ingest

from slurm import plots
from slurm.cluster import Cluster
from slurm.submitting import RUN

REPETITIONS = range(int(os.environ.get("SOAK", "0")))


@pytest.fixture(scope="module")
def references(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """Epochs → the model of the undisturbed training."""
    models = {}
    for epochs in (plots.SHORT, plots.LONG):
        story = plots.uninterrupted(cluster, tmp_path_factory.mktemp("reference"), epochs)
        models[epochs] = (story.run.folder / RUN / "model.safetensors").read_bytes()
    return models


@pytest.mark.soak
@pytest.mark.parametrize("repetition", REPETITIONS)
def test_faults_at_random_moments_change_nothing(
    cluster: Cluster, references: dict[int, bytes], tmp_path: Path, repetition: int
) -> None:
    """One of each at a time, side by side; node failure and preemption one after the other, since both want n3."""
    delays = [plots.at_a_random_moment(5 * repetition + i) for i in range(5)]
    with ThreadPoolExecutor() as pool:
        stories = [
            pool.submit(plots.memory, cluster, tmp_path / "memory", 100 + int(50 * delays[0])),
            pool.submit(plots.cancelled, cluster, tmp_path / "cancelled", delays[1]),
            pool.submit(plots.node_fails, cluster, tmp_path / "node", delays[2]),
            pool.submit(plots.time_limit, cluster, tmp_path / "limit", delays[3]),
        ]
        stories[2].exception()
        stories.append(pool.submit(plots.preempted, cluster, tmp_path / "preempted", delays[4]))
    for future in stories:
        story = future.result()
        assert sum(job.restarts for job in story.jobs) + len(story.jobs) >= 2, "nothing happened to it"
        history = pl.read_parquet(story.run.folder / RUN / "history.parquet")
        length = len(history)
        assert history["epoch"].to_list() == list(range(1, length + 1))
        assert (story.run.folder / RUN / "model.safetensors").read_bytes() == references[length]
        uri = f"sqlite:///{story.run.folder}/mlflow.db"
        assert [ingest(story.run.folder, uri, "simulated") for _ in range(2)] == [{}, {}]
        (tracked,) = content(uri, "canids/simulated")["gat_large"]
        assert [step for step, _ in tracked["metrics"]["fit_loss"]] == list(range(1, length + 1))
        print(
            f"\n{repetition}: {story.run.folder.parent.name} same bytes after {[job.state for job in story.jobs]}",
            end="",
        )
