"""Finished runs and captures as the pipeline score takes them, and the summary that its command prints."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_records import record

from canids_shared.contracts import config, manifest, training_run
from canids_shared.contracts.config import load_schema
from canids_shared.contracts.graph_store import writing
from canids_shared.contracts.model_file import DETECTOR as DETECTOR_CONTRACT
from canids_shared.contracts.model_file import save_arrays
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of
from canids_shared.scoring.__main__ import main
from canids_shared.scoring.captures import DATA_ROOT, scoring

HEADER: dict[str, Any] = {
    **{key: [] for key in ("node_features", "edge_features", "statistics", "attacks", "captures", "vehicles")},
    "sources": {},
    "window": 50,
    "stride": 25,
    "window_unit": "frames",
}
DETECTOR = {
    "contract": DETECTOR_CONTRACT,
    "kind": "GAT",
    "size": {"channels": 4, "heads": 1, "layers": 1, "dropout": 0.0, "feature_dropout": 0.0, "latent": 2},
    "node_features": ["share"],
    "edge_features": ["count"],
    **{"window": 50, "stride": 25, "window_unit": "frames"},
}


def write_run(name: str, header: dict[str, Any], spec: dict[str, Any] | None = None, **inputs: list[str]) -> Path:
    """A finished run of dataset `van`: its model, `config.yaml` and `run.json`."""
    folder = Path("experimentruns/van") / name
    kind, _, instance = name.partition("_small_kd")
    folder.mkdir(parents=True, exist_ok=True)
    save_arrays(folder / "model.safetensors", {}, header)
    digests = {key: [sha256_of(p) if Path(p).exists() else "" for p in paths] for key, paths in inputs.items()}
    config = {"spec": {"config": spec or {}}, "inputs": digests, "files": inputs, "python": "3.11"}
    training_run.write_config(folder / "config.yaml", config)
    run = record(kind, "small_kd", instance=instance, inputs=inputs, input_digests=digests)
    if kind != "fusion_baselines":
        training_run.write(folder / "run.json", run)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A finished run of seed 1, and a capture."""
    monkeypatch.chdir(tmp_path)
    Path("drive 1.log").write_text("(1.0) can0 123#00\n")
    with writing("fit.safetensors", HEADER, windows=0, nodes=0, edges=0):
        pass
    for kind in ("vgae", "gat"):
        write_run(f"{kind}_small_kd@seed-1", DETECTOR, graphs=["fit.safetensors", "select.safetensors"])
    write_run("fusion_baselines_small_kd@seed-1", {"contract": "x"}, {"fusion": "cusum"})
    states = "results/van/states/small_kd@seed-1/fuse.parquet"
    return str(write_run("dqn_small_kd@seed-1", {"contract": "x"}, fuse=[states]))


def test_a_run_and_a_capture_are_all_it_takes(run: str) -> None:
    job = scoring({"capture": "drive 1.log", "run": run})
    assert (job.dataset, job.run.variant) == ("drive-1", "small_kd")
    assert job.summary(None) == "results/scored/drive-1/by-van@seed-1/small_kd/score/summary.md"
    assert job.run.models["gat"] == "experimentruns/van/gat_small_kd@seed-1/model.safetensors"
    assert job.run.fit == ["fit.safetensors"]
    assert job.preprocess == {"window": 50, "stride": 25, "window_unit": "frames", "features": "relative"}
    assert job.train_drl == {"fusion": "cusum", "recalibrate": 0}
    captures = manifest.load(job.dataset, DATA_ROOT)
    assert [(c.name, c.role, c.content) for c in captures.values()] == [("drive-1", "score", "unlabelled")]
    assert captures["drive-1"].path == Path("drive 1.log").absolute()
    assert manifest.missing(captures, job.dataset) == []
    before = Path(DATA_ROOT, job.dataset, "manifest.yaml").stat().st_mtime_ns
    scoring({"capture": "drive 1.log", "run": run})
    assert Path(DATA_ROOT, job.dataset, "manifest.yaml").stat().st_mtime_ns == before


def test_the_unit_of_timestamps_reaches_the_manifest(run: str) -> None:
    job = scoring({"capture": "drive 1.log", "run": run, "timestamp_unit": "us", "name": "in-us"})
    assert manifest.load(job.dataset, DATA_ROOT)["drive-1"].timestamp_unit == "us"
    job = scoring({"capture": "drive 1.log", "run": run, "timestamp_unit": "minutes", "name": "other"})
    with pytest.raises(CanidsError, match="timestamp_unit: 'minutes' is not one of"):
        manifest.load(job.dataset, DATA_ROOT)


def test_tables_and_channels_reach_the_manifest(run: str) -> None:
    mapping = {"delimiter": ",", "time": {"column": 1}, "id": {"column": 2}, "payload": {"column": 3}}
    entry = {"path": "x.csv", "vehicle": "van", "role": "train", "content": "attack-free", "format": "table"}
    Path("mapping.yaml").write_text(yaml.safe_dump(mapping))
    captures = {name: {**entry, "table": mapping} for name in ("a", "b")}
    Path("drafted.yaml").write_text(yaml.safe_dump({"contract": "manifest/1", "captures": captures}))
    for table in ("mapping.yaml", "drafted.yaml", mapping):
        manifest.load.cache_clear()
        job = scoring({"capture": "drive 1.log", "run": run, "table": table, "channel": 1})
        (capture,) = manifest.load(job.dataset, DATA_ROOT).values()
        assert (capture.format, capture.channel) == ("table", ("1",))
        assert capture.table == scoring_mapping(mapping)
    scoring({"capture": "drive 1.log", "run": run, "name": "every-bus"})
    assert manifest.load("every-bus", DATA_ROOT)["drive-1"].channel == "all"
    captures["b"]["table"] = {**mapping, "delimiter": ";"}
    Path("drafted.yaml").write_text(yaml.safe_dump({"contract": "manifest/1", "captures": captures}))
    with pytest.raises(
        CanidsError, match=r"drafted\.yaml: has several tables; write the one that is meant into a file"
    ):
        scoring({"capture": "drive 1.log", "run": run, "table": "drafted.yaml"})
    Path("mapping.yaml").write_text("delimiter: ','\n")
    with pytest.raises(CanidsError, match=r"mapping\.yaml: 'id' is a required property"):
        scoring({"capture": "drive 1.log", "run": run, "table": "mapping.yaml"})


def scoring_mapping(table: dict[str, Any]) -> dict[str, Any]:
    """The mapping with the schema's defaults."""
    time, number, payload = ({**table[key]} for key in ("time", "id", "payload"))
    return {
        **table,
        "skip": 0,
        "time": {**time, "form": "number"},
        "id": {**number, "base": 16},
        "payload": {**payload, "base": 16},
    }


def test_a_profile_reaches_the_graphs(run: str) -> None:
    profile = Path("car.safetensors")
    with pytest.raises(CanidsError, match=r"profile car\.safetensors: no such file; make enrol writes one"):
        scoring({"capture": "drive 1.log", "run": run, "profile": "car.safetensors"})
    profile.touch()
    job = scoring({"capture": "drive 1.log", "run": run, "profile": "car.safetensors"})
    assert job.preprocess["profile"] == "car.safetensors"


def test_results_are_named_as_datasets_are(run: str) -> None:
    Path("trace.2024-05-01.log").touch()
    job = scoring({"capture": "trace.2024-05-01.log", "run": run})
    assert job.dataset == "trace-2024-05-01"
    schema = load_schema(Path(config.__file__).with_name("common.schema.yaml"))
    config.check({"datasets": [job.dataset]}, schema, "config")
    with pytest.raises(CanidsError, match=r"config: name '\.\./x' is no folder of results/scored: letters"):
        scoring({"capture": "drive 1.log", "run": run, "name": "../x"})
    assert [path.name for path in Path("results").rglob("*.yaml")] == ["manifest.yaml"]


def test_what_is_wrong_with_a_run_leaves_no_manifest(run: str) -> None:
    with pytest.raises(CanidsError, match="not the folder of a policy"):
        scoring({"capture": "drive 1.log", "run": "experimentruns/van"})
    assert not Path("results").exists()


def test_alarms_are_reported_as_configured(run: str) -> None:
    job = scoring({"capture": "drive 1.log", "run": run, "explained_ids": 9, "episode_gap": 0})
    assert job.evaluate == {"explained_ids": 9, "episode_gap": 0}


def test_graphs_that_have_changed_are_not_those_of_the_training(run: str, caplog: pytest.LogCaptureFixture) -> None:
    with writing("fit.safetensors", {**HEADER, "stride": 10}, windows=0, nodes=0, edges=0):
        pass
    job = scoring({"capture": "drive 1.log", "run": run})
    assert (job.run.fit, job.preprocess["stride"]) == ([], 25)
    assert "its training graphs fit.safetensors have changed since the training" in caplog.text


def test_training_graphs_that_are_gone_are_no_hindrance(run: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("fit.safetensors").unlink()
    job = scoring({"capture": "drive 1.log", "run": run, "recalibrate": 30, "on_bad_rows": "quarantine"})
    assert job.run.fit == []
    assert "its training graphs fit.safetensors are absent" in caplog.text
    assert (job.preprocess["stride"], job.preprocess["on_bad_rows"]) == (25, "quarantine")
    assert job.train_drl["recalibrate"] == 30


def test_a_policy_of_its_own_decides_on_detectors_that_it_shares(run: str) -> None:
    states = "results/van/states/small_kd@seed-1/fuse.parquet"
    other = write_run("dqn_small_kd@dear", {"contract": "x"}, fuse=[states])
    write_run("fusion_baselines_small_kd@dear", {"contract": "x"})
    job = scoring({"capture": "drive 1.log", "run": str(other)})
    assert job.run.models["dqn"] == f"{other}/model.safetensors"
    assert job.run.models["vgae"] == "experimentruns/van/vgae_small_kd@seed-1/model.safetensors"
    assert (job.run.by, job.run.fusion) == ("van@dear", "dqn")


def test_another_pipeline_names_the_runs_of_its_detectors(run: str) -> None:
    with pytest.raises(CanidsError, match=r"no experimentruns/van/detector_small_kd@seed-1/model\.safetensors"):
        scoring({"capture": "drive 1.log", "run": run}, detector_runs=("detector",))
    model = write_run("detector_small_kd@seed-1", {"contract": "own/1"}, graphs=["fit.safetensors"])
    job = scoring({"capture": "drive 1.log", "run": run}, detector_runs=("detector",))
    assert list(job.run.models) == ["detector", "dqn", "fusion_baselines"]
    assert job.run.models["detector"] == f"{model}/model.safetensors"
    assert (job.run.fit, job.preprocess["window"]) == (["fit.safetensors"], 50), "by the graphs that it was trained on"


def test_published_features_cannot_be_explained(run: str) -> None:
    write_run("gat_small_kd@seed-1", {**DETECTOR, "node_features": ["can_id"]}, graphs=["fit.safetensors"])
    with pytest.raises(CanidsError, match="features: published; only runs with features: relative"):
        scoring({"capture": "drive 1.log", "run": run})


def test_a_detector_that_does_not_say_how_its_graphs_are_made_is_named(run: str) -> None:
    header = {key: value for key, value in DETECTOR.items() if key not in ("stride", "window_unit")}
    write_run("gat_small_kd@seed-1", {**header, "contract": "own_detector/1"})
    with pytest.raises(CanidsError, match=r"gat_small_kd@seed-1/model\.safetensors: .* stride and window_unit"):
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


def test_the_command_explains_itself_and_names_what_is_wrong(run: str) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "canids_shared.scoring", *arguments]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    shown = command("--help")
    assert shown.returncode == 0
    assert "CAPTURE RUN [KEY=VALUE …]" in shown.stdout
    assert "episode_gap=…" in shown.stdout
    wrong = command("nowhere.log", run)
    assert (wrong.returncode, wrong.stderr) == (1, "error: capture nowhere.log: no such file\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capture": "nowhere.log"}, "capture nowhere.log: no such file"),
        ({"run": "experimentruns/van/eval_large"}, "not the folder of a policy"),
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


def test_the_model_of_another_run_scores_nothing(run: str) -> None:
    write_run("gat_small_kd@seed-1", {**DETECTOR, "run": "gat_small_nokd@seed-1"})
    wanted = (
        r"model\.safetensors: is of run 'gat_small_nokd@seed-1', not 'gat_small_kd@seed-1'; delete it and run again"
    )
    with pytest.raises(CanidsError, match=wanted):
        scoring({"capture": "drive 1.log", "run": run})


def test_a_config_that_is_a_list_decides_nothing(run: str) -> None:
    (Path(run).parent / "fusion_baselines_small_kd@seed-1/config.yaml").write_text("- a\n- list\n")
    with pytest.raises(CanidsError, match=r"config\.yaml: no header of contract run_config/\d; delete the folder"):
        scoring({"capture": "drive 1.log", "run": run})


def test_a_detector_without_a_policy_is_scored_with_by_itself(run: str) -> None:
    observer = {"detectors": [{"name": "vgae"}]}
    write_run("fusion_baselines_small_kd@alone", {"contract": "x", "observer": observer}, {"fusion": "dqn"})
    folder = write_run("vgae_small_kd@alone", DETECTOR, graphs=["fit.safetensors", "select.safetensors"])
    job = scoring({"capture": "drive 1.log", "run": str(folder)})
    assert job.run.detectors == {"vgae": "experimentruns/van/vgae_small_kd@alone/model.safetensors"}
    assert (job.run.models["gat"], job.run.models["dqn"], job.run.policy) == ([], [], None)
    assert job.train_drl["fusion"] == "fixed_weight"
    assert job.summary(None) == "results/scored/drive-1/by-van@alone/small_kd/score/summary.md"
    # One that a policy fuses with others has no threshold of its own.
    two = {"detectors": [{"name": "gat"}, {"name": "vgae"}]}
    write_run("fusion_baselines_small_kd@seed-1", {"contract": "x", "observer": two})
    wanted = "vgae_small_kd@seed-1: its detector has no threshold of its own; score with the policy, RUN=.*dqn_small_kd@seed-1"
    with pytest.raises(CanidsError, match=wanted):
        scoring({"capture": "drive 1.log", "run": "experimentruns/van/vgae_small_kd@seed-1"})
