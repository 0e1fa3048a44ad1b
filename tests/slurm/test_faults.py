"""Trainings that run out of memory or time, are cancelled, preempted or lose their node end with the bytes of undisturbed ones."""

import re
from typing import Any

import polars as pl
import pytest

from slurm.plots import LONG, SHORT, Story
from slurm.submitting import RUN


def result(story: Story) -> bytes:
    return (story.run.folder / RUN / "model.safetensors").read_bytes()


def epochs(story: Story) -> list[int]:
    """Of the history; each once if nothing was lost or done twice."""
    return pl.read_parquet(story.run.folder / RUN / "history.parquet")["epoch"].to_list()


def resumed_after(story: Story) -> int:
    """The epoch after which the last attempt went on."""
    resumed = re.findall(r"resumed after epoch (\d+)", (story.run.folder / RUN / "log.txt").read_text())
    assert resumed, "the last attempt began at the first epoch"
    return int(resumed[-1])


def assert_same(story: Story, reference: Story, length: int) -> None:
    assert result(story) == result(reference)
    assert epochs(story) == epochs(reference) == list(range(1, length + 1))
    assert not list((story.run.folder / RUN / ".checkpoint").glob("*")), "a checkpoint was left behind"


@pytest.mark.plot("uninterrupted")
@pytest.mark.plot("memory")
def test_a_training_over_its_memory_comes_back_with_twice_as_much(outcomes: dict[str, Any]) -> None:
    story = outcomes["memory"].result()
    first, second = story.jobs
    assert (first.state, second.state) == ("FAILED", "COMPLETED")
    assert second.id > first.id
    assert (first.memory_mb, second.memory_mb) == (300, 600)
    assert "exceeded memory limit" in story.run.logs()
    assert result(story) == result(outcomes["uninterrupted"].result())


@pytest.mark.plot("uninterrupted")
@pytest.mark.plot("cancelled")
def test_a_cancelled_training_is_submitted_again_and_goes_on(outcomes: dict[str, Any]) -> None:
    story = outcomes["cancelled"].result()
    first, second = story.jobs
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    assert 0 < resumed_after(story) < SHORT
    assert_same(story, outcomes["uninterrupted"].result(), SHORT)


@pytest.mark.plot("uninterrupted")
@pytest.mark.plot("node_then_preemption")
def test_a_training_whose_node_fails_is_queued_again_and_goes_on(outcomes: dict[str, Any]) -> None:
    story, _ = outcomes["node_then_preemption"].result()
    (job,) = story.jobs
    assert (job.state, job.restarts) == ("COMPLETED", 1)
    assert 0 < resumed_after(story) < SHORT
    assert_same(story, outcomes["uninterrupted"].result(), SHORT)


@pytest.mark.plot("uninterrupted")
@pytest.mark.plot("node_then_preemption")
def test_a_preempted_training_goes_on_afterwards(outcomes: dict[str, Any]) -> None:
    _, story = outcomes["node_then_preemption"].result()
    first, second = story.jobs
    # It left before Slurm had to stop it, so Snakemake submits it again.
    assert (first.state, second.state) in [("FAILED", "COMPLETED"), ("PREEMPTED", "COMPLETED")]
    assert first.fields["PreemptTime"] != "None"
    assert 0 < resumed_after(story) < SHORT
    assert_same(story, outcomes["uninterrupted"].result(), SHORT)


@pytest.mark.plot("uninterrupted_long")
@pytest.mark.plot("time_limit")
def test_a_training_that_reaches_its_time_limit_saves_itself_and_finishes(outcomes: dict[str, Any]) -> None:
    story = outcomes["time_limit"].result()
    first, second = story.jobs
    assert (first.state, second.state) == ("FAILED", "COMPLETED")
    # It was warned and left by itself; Slurm had not to end it (TIMEOUT).
    assert "00:00:00" < first.fields["RunTime"] < first.fields["TimeLimit"]
    assert first.fields["TimeLimit"] < second.fields["TimeLimit"] == "01:00:00"
    assert 0 < resumed_after(story) < LONG
    assert_same(story, outcomes["uninterrupted_long"].result(), LONG)
