"""The main job on Slurm, in smoke size, and the scheduler's records of it."""

import re
from typing import Any

import pytest
from workflows import CACHED, EVALUATIONS, TRAININGS, VARIANTS

from slurm.cluster import Job

GPU_RULES = ("vgae", "gat", "dqn", "states")


def rules(jobs: list[Job]) -> list[str]:
    return [job.name.removeprefix("rule_").partition("_wildcards")[0] for job in jobs]


@pytest.mark.plot("main_job")
def test_main_job_runs_in_few_submissions(outcomes: dict[str, Any]) -> None:
    first, _, _ = outcomes["main_job"].result()
    assert {job.state for job in first.jobs} == {"COMPLETED"}
    assert set(TRAININGS) <= set(rules(first.jobs))
    (steps,) = re.findall(r"(\d+) of \1 steps \(100%\) done", first.run.output())
    assert len(first.jobs) <= 22
    assert int(steps) > 30
    results = (first.run.folder / "results/first/summary/results.md").read_text()
    assert all(variant in results for variant in VARIANTS)
    for name in (*TRAININGS, *EVALUATIONS):
        assert (first.run.folder / "experimentruns/first" / name / "benchmark.tsv").exists()


@pytest.mark.plot("main_job")
def test_rules_that_want_a_gpu_get_the_node_that_has_them(outcomes: dict[str, Any]) -> None:
    first, _, _ = outcomes["main_job"].result()
    on_gpu = [job for job in first.jobs if job.gpus]
    assert {job.node for job in on_gpu} == {"n1"}
    wanting = [name for name in rules(first.jobs) if name.startswith(GPU_RULES)]
    assert sorted(rules(on_gpu)) == sorted(wanting)
    assert len(wanting) >= len(TRAININGS) + 1
    assert len(on_gpu) < len(first.jobs)


@pytest.mark.plot("main_job")
def test_evaluations_of_a_dataset_are_one_submission(outcomes: dict[str, Any]) -> None:
    """One submission with the three evaluations, the tables and the report, also where nothing else is left to do."""
    first, again, _ = outcomes["main_job"].result()
    assert len([job for job in first.jobs if "evaluation" in job.name]) == 1
    evaluations = [job for job in again.jobs if job.id > first.jobs[-1].id]
    assert [("evaluation" in job.name, job.state) for job in evaluations] == [(True, "COMPLETED")]
    assert (again.run.folder / "results/first/summary/report.html").exists()


@pytest.mark.plot("main_job")
def test_another_pipeline_finds_the_files_in_the_cache(outcomes: dict[str, Any]) -> None:
    first, _, other = outcomes["main_job"].result()
    assert {job.state for job in other.jobs} == {"COMPLETED"}
    for path in ("captures/dos-compact.csv", "frames/dos-compact.parquet"):
        here, there = (story.run.folder / "results/first" / path for story in (other, first))
        assert here.is_symlink()
        assert here.resolve() == there.resolve(), "made again"
    assert set(CACHED) >= {"simulate", "ingest"}
    assert "from cache" in other.run.logs()
