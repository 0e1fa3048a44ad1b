"""The queue with two hundred short jobs, and after Ctrl-C."""

from typing import Any

import pytest


@pytest.mark.plot("sweep")
def test_two_hundred_short_jobs_are_a_few_submissions(outcomes: dict[str, Any]) -> None:
    sweep = outcomes["sweep"].result()
    assert len(sweep.submitted) == 34  # six to a submission
    assert sum(sweep.targets) == 200
    assert max(sweep.targets) == 6


@pytest.mark.plot("sweep")
def test_ctrl_c_leaves_no_job_behind(outcomes: dict[str, Any]) -> None:
    sweep = outcomes["sweep"].result()
    assert sorted({job.state for job in sweep.submitted}) == ["PENDING", "RUNNING"]
    assert {job.state for job in sweep.afterwards} == {"CANCELLED"}
    assert {job.id for job in sweep.afterwards} == {job.id for job in sweep.submitted}
    assert sweep.run.process.returncode != 0
