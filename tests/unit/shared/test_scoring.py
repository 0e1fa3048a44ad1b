"""What the pipeline score is told, and what it makes of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from canids_shared.contracts import config, manifest
from canids_shared.contracts.config import load_schema
from canids_shared.contracts.graph_store import writing
from canids_shared.contracts.model_file import save_arrays
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of
from canids_shared.scoring.captures import main, scoring

HEADER: dict[str, Any] = {
    **{key: [] for key in ("node_features", "edge_features", "statistics", "attacks", "captures", "vehicles")},
    "sources": {},
    "stride": 25,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A finished run of seed 1, and a capture."""
    monkeypatch.chdir(tmp_path)
    Path("drive 1.log").write_text("(1.0) can0 123#00\n")
    for kind in ("vgae", "gat", "dqn", "fusion_baselines"):
        head = {"contract": "detector/2", "node_features": ["share"], "window": 50, "window_unit": "frames"}
        folder = Path(f"experimentruns/van/{kind}_small_kd@seed-1")
        folder.mkdir(parents=True)
        save_arrays(folder / "model.safetensors", {}, head)
    with writing("fit.safetensors", HEADER, windows=0, nodes=0, edges=0):
        pass
    decided = {"spec": {"config": {"fusion": "cusum"}}}
    Path("experimentruns/van/fusion_baselines_small_kd@seed-1/config.yaml").write_text(yaml.safe_dump(decided))
    record = {
        "files": {"graphs": ["fit.safetensors", "select.safetensors"]},
        "inputs": {"graphs": [sha256_of("fit.safetensors"), "…"]},
    }
    Path("experimentruns/van/gat_small_kd@seed-1/config.yaml").write_text(yaml.safe_dump(record))
    return "experimentruns/van/dqn_small_kd@seed-1"


def test_a_run_and_a_capture_are_all_it_takes(run: str) -> None:
    job = scoring({"capture": "drive 1.log", "run": run})
    assert (job.dataset, job.variant) == ("drive-1", "small_kd")
    assert job.summary(None) == "results/scored/drive-1/by-van@seed-1/small_kd/score/summary.md"
    assert job.models["gat"] == "experimentruns/van/gat_small_kd@seed-1/model.safetensors"
    assert job.fit == ["fit.safetensors"]
    assert job.preprocess == {"window": 50, "stride": 25, "window_unit": "frames", "features": "relative"}
    assert job.train_drl == {"fusion": "cusum", "recalibrate": 0}
    captures = manifest.load(job.dataset, job.data_root)
    assert [(c.name, c.role, c.content) for c in captures.values()] == [("drive-1", "score", "unlabelled")]
    assert captures["drive-1"].path == Path("drive 1.log").absolute()
    assert manifest.missing(captures, job.dataset) == []
    before = Path(job.data_root, job.dataset, "manifest.yaml").stat().st_mtime_ns
    scoring({"capture": "drive 1.log", "run": run})
    assert Path(job.data_root, job.dataset, "manifest.yaml").stat().st_mtime_ns == before


def test_results_are_named_as_datasets_are(run: str) -> None:
    Path("trace.2024-05-01.log").touch()
    job = scoring({"capture": "trace.2024-05-01.log", "run": run})
    assert job.dataset == "trace-2024-05-01"
    schema = load_schema(Path(config.__file__).with_name("common.schema.yaml"))
    config.check({"datasets": [job.dataset]}, schema, "config")
    with pytest.raises(CanidsError, match=r"config: name '\.\./x' names a folder in results/scored: letters"):
        scoring({"capture": "drive 1.log", "run": run, "name": "../x"})
    assert [path.name for path in Path("results").rglob("*.yaml")] == ["manifest.yaml"]


def test_what_is_wrong_with_a_run_leaves_no_manifest(run: str) -> None:
    with pytest.raises(CanidsError, match="not the folder of a policy"):
        scoring({"capture": "drive 1.log", "run": "experimentruns/van"})
    assert not Path("results").exists()


def test_alarms_are_told_as_asked_for(run: str) -> None:
    job = scoring({"capture": "drive 1.log", "run": run, "explained_ids": 9, "episode_gap": 0})
    assert job.evaluate == {"explained_ids": 9, "episode_gap": 0}


def test_graphs_made_since_are_not_those_that_were_learnt_from(run: str, caplog: pytest.LogCaptureFixture) -> None:
    with writing("fit.safetensors", {**HEADER, "stride": 10}, windows=0, nodes=0, edges=0):
        pass
    job = scoring({"capture": "drive 1.log", "run": run})
    assert (job.fit, job.preprocess["stride"]) == ([], 50)
    assert "its training graphs fit.safetensors are not those that it has learnt from" in caplog.text
    assert "does not tell its stride; windows are taken one after the other" in caplog.text
    caplog.clear()
    head = {"contract": "detector/2", "node_features": ["share"], "window": 50, "stride": 25, "window_unit": "frames"}
    save_arrays(Path("experimentruns/van/gat_small_kd@seed-1/model.safetensors"), {}, head)
    assert scoring({"capture": "drive 1.log", "run": run}).preprocess["stride"] == 25
    assert "stride" not in caplog.text


def test_training_graphs_that_are_gone_are_no_hindrance(run: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("fit.safetensors").unlink()
    job = scoring({"capture": "drive 1.log", "run": run, "recalibrate": 30, "on_bad_rows": "quarantine"})
    assert job.fit == []
    assert "its training graphs fit.safetensors are not here" in caplog.text
    assert (job.preprocess["stride"], job.preprocess["on_bad_rows"]) == (50, "quarantine")
    assert job.train_drl["recalibrate"] == 30


def test_a_policy_of_its_own_decides_on_detectors_that_it_shares(run: str) -> None:
    other = Path("experimentruns/van/dqn_small_kd@dear")
    for kind in ("dqn", "fusion_baselines"):
        folder = other.with_name(f"{kind}_small_kd@dear")
        folder.mkdir()
        save_arrays(folder / "model.safetensors", {}, {"contract": "x"})
    files = {"files": {"fuse": ["results/van/states/small_kd@seed-1/fuse.parquet"]}}
    (other / "config.yaml").write_text(yaml.safe_dump(files))
    job = scoring({"capture": "drive 1.log", "run": str(other)})
    assert job.models["dqn"] == f"{other}/model.safetensors"
    assert job.models["vgae"] == "experimentruns/van/vgae_small_kd@seed-1/model.safetensors"
    assert job.by == "van@dear"


def test_published_features_cannot_be_explained(run: str) -> None:
    head = {"contract": "detector/2", "node_features": ["can_id"], "window": 50, "window_unit": "frames"}
    save_arrays(Path("experimentruns/van/gat_small_kd@seed-1/model.safetensors"), {}, head)
    with pytest.raises(CanidsError, match="features: published; only runs with features: relative"):
        scoring({"capture": "drive 1.log", "run": run})


def test_the_command_prints_the_summary_where_there_is_one(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scoring", "drive 1.log", run, "name=mine", "-n", "--cores", "4"])
    main()
    assert capsys.readouterr().out == ""
    summary = Path("results/scored/mine/by-van@seed-1/small_kd/score/summary.md")
    summary.parent.mkdir(parents=True)
    summary.write_text("# What was found\n")
    main()
    assert capsys.readouterr().out == "# What was found\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capture": "nowhere.log"}, "capture nowhere.log: no such file"),
        ({"run": "experimentruns/van/gat_large"}, "not the folder of a policy"),
        (
            {"run": "experimentruns/van/dqn_large"},
            "no experimentruns/van/dqn_large/model.safetensors; has the run finished?",
        ),
        ({"captur": "x"}, "unknown key 'captur'; known keys: capture, run"),
        ({"capture": ["drive 1.log", "drive 1.log"]}, "another one is called drive-1 too"),
    ],
)
def test_what_is_wrong_is_named(run: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CanidsError, match=message):
        scoring({"capture": "drive 1.log", "run": run, **change})


@pytest.mark.parametrize("key", ["capture", "run"])
def test_what_is_missing_is_said_when_something_is_asked_for(run: str, key: str) -> None:
    job = scoring({"capture": "drive 1.log", "run": run, key: ""})
    with pytest.raises(CanidsError, match=f"config: {key} is missing"):
        job.summary(None)


def test_other_datasets_still_need_training_captures(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    entry = {"path": "a.log", "vehicle": "v", "role": "test_a", "content": "unlabelled"}
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"contract": "manifest/1", "captures": {"a": entry}}))
    with pytest.raises(CanidsError, match="at least one capture with role 'train'"):
        manifest.load("d", tmp_path)
