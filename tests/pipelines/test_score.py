"""A finished run applied to a capture (`test_kd_fusion.yml` runs it after the main job)."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from canids_evaluate.watch.alarm_tracker import schema
from canids_shared.contracts.detectors import DETECTORS
from canids_shared.contracts.tables import DECISIONS, read

pytestmark = pytest.mark.workflow("kd_fusion")


def test_a_capture_is_decided_on_as_in_the_main_job(workflow_dir: Path) -> None:
    scored = read(workflow_dir / "results/scored/test-dos-van/by-smoke/decisions/small_kd/score.parquet", DECISIONS)[0]
    judged = read(workflow_dir / "results/smoke/decisions/small_kd/test_known_attack.parquet", DECISIONS)[0]
    # The vehicle is not known, and the manifest names no attack.
    assert_frame_equal(scored.drop("vehicle", "attack"), judged.drop("vehicle", "attack"))


def test_alarms_are_those_of_the_decisions(workflow_dir: Path) -> None:
    folder = workflow_dir / "results/scored/test-dos-van/by-smoke/small_kd/score"
    alarms = pl.read_parquet(folder / "alarms.parquet")
    decided = read(workflow_dir / "results/scored/test-dos-van/by-smoke/decisions/small_kd/score.parquet", DECISIONS)[0]
    assert alarms.schema == pl.Schema(schema(DETECTORS))
    assert alarms["windows"].sum() == decided["alarm"].sum()
    assert len(pl.read_csv(folder / "alarms.csv")) == len(alarms)
    words = (folder / "summary.md").read_text()
    assert f"**test-dos-van**: {len(decided):,} windows" in words
    assert f"{decided['label'].sum():,} windows are attacked" in words
    assert "Overall" in words, "the training graphs of the run are there"


def test_a_log_that_is_followed_is_decided_on_as_the_finished_one(workflow_dir: Path) -> None:
    scored = read(workflow_dir / "results/scored/test-dos-van/by-smoke/decisions/small_kd/score.parquet", DECISIONS)[0]
    followed = pl.read_csv(workflow_dir / "results/followed/windows.csv")
    exact = ["window", "t_start", "t_end", "alarm", "action"]
    assert_frame_equal(followed.select(exact), scored.select(exact), check_dtypes=False, check_exact=True)
    scores = ["vgae_score", "gat_score", "fusion_score"]
    assert_frame_equal(followed.select(scores), scored.select(scores), check_dtypes=False, rel_tol=0, abs_tol=1e-6)
    folder = workflow_dir / "results/scored/test-dos-van/by-smoke/small_kd/score"
    # A log that is followed has no labels.
    alarms = [
        pl.read_csv(f).drop("attacked") for f in (folder / "alarms.csv", workflow_dir / "results/followed/alarms.csv")
    ]
    assert_frame_equal(*alarms, rel_tol=0, abs_tol=1e-6)


def test_each_bus_of_a_log_is_scored_as_a_log_of_its_own(workflow_dir: Path) -> None:
    scored = workflow_dir / "results/scored/two_buses/by-smoke"
    both = read(scored / "decisions/small_kd/score.parquet", DECISIONS)[0]
    assert both["capture"].unique().sort().to_list() == ["two_buses.can0", "two_buses.can1"]
    unnamed = ("capture", "vehicle", "label", "attack")
    for bus, scenario in (("can0", "known"), ("can1", "unknown")):
        judged = read(workflow_dir / f"results/smoke/decisions/small_kd/test_{scenario}_attack.parquet", DECISIONS)[0]
        own = both.filter(capture=f"two_buses.{bus}")
        assert_frame_equal(own.drop(unnamed), judged.drop(unnamed))
        assert own["label"].null_count() == len(own) == len(judged)
    alarms = pl.read_parquet(scored / "small_kd/score/alarms.parquet")
    assert dict(alarms.group_by("capture").agg(pl.col("windows").sum()).iter_rows()) == dict(
        both.group_by("capture").agg(pl.col("alarm").sum()).filter(pl.col("alarm") > 0).iter_rows()
    )
    words = (scored / "small_kd/score/summary.md").read_text()
    for bus in ("can0", "can1"):
        assert f"**two_buses.{bus}**: {(both['capture'] == f'two_buses.{bus}').sum():,} windows" in words
