"""Records of finished runs: params, metrics by step, tags, artefacts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from track_data import (
    METRICS,
    UNEVEN,
    finish,
    places,
    write_evaluation,
    write_fusion_baselines,
    write_runs,
    write_training,
)

from canids_shared.contracts.config import check, load_schema
from canids_shared.contracts.evaluation import METRICS_CONTRACT
from canids_shared.contracts.model_file import save_arrays
from canids_shared.contracts.stand_in_mark import mark
from canids_shared.contracts.whole import write_json
from canids_shared.errors import CanidsError
from canids_shared.planning.stage import Stage
from canids_track.planning import attempting, refuse_credentials
from canids_track.records import finished, flattened, is_stand_in, read
from canids_track.tracking import Options

ROOT = Path(__file__).parents[3]
trees = st.recursive(
    st.integers() | st.text() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in flat.items():
        at, parts = out, name.split(".")
        for part in parts[:-1]:
            at = at.setdefault(part, {})
        at[parts[-1]] = value
    return out


@given(st.dictionaries(st.text("abc", min_size=1), trees, max_size=3))
def test_flattening_loses_nothing(tree: dict[str, Any]) -> None:
    assert nested(flattened(tree)) == tree


def test_a_training_with_its_options_and_epochs(tmp_path: Path) -> None:
    where = write_runs(tmp_path, "@seed-1")
    record = read(where.runs / "pca_large@seed-1", where)
    assert (record.key, record.parent) == ("demo/pca_large@seed-1", "demo/pipeline@seed-1")
    assert record.params["gat.large.heads"] == "4"
    assert record.params["networks"] == "[64, 64]"
    assert record.params["inputs.graphs"] == '["a", "b"]'
    assert record.params["files.graphs"] == '["fit", "select"]'
    tags = {
        "dataset": "demo",
        "run": "pca_large@seed-1",
        "rule": "pca_large",
        "instance": "seed-1",
    }
    assert record.tags.items() >= {**tags, "variant": "large", "seed": "1", "code": "0123456789abcdef"}.items()
    assert [m for m in record.metrics if m[0] == "fit_loss"] == [("fit_loss", UNEVEN, 1), ("fit_loss", UNEVEN / 2, 2)]
    assert ("latency/median_ms", 1.25, 0) in record.metrics
    assert ("benchmark/s", 12.5, 0) in record.metrics
    assert "epoch" not in {name for name, _, _ in record.metrics}
    assert record.tags["undefined"] == "benchmark/io_in, peak_gpu_mb at 1, peak_gpu_mb at 2"
    assert (record.began, record.made) == (1_000_000 - 12_500, 1_000_000)
    assert record.model is None
    assert "model.safetensors" in {p.name for p in record.files}


def test_fusion_baselines_with_their_options(tmp_path: Path) -> None:
    where = places(tmp_path)
    write_fusion_baselines(where.runs / "fusion_baselines_large")
    record = read(where.runs / "fusion_baselines_large", where)
    assert record.params.items() >= {"fusion": "dqn", "reward.flap": "0.1", "inputs.fuse": '["a"]'}.items()
    assert record.tags.items() >= {"variant": "large", "seed": "1", "code": "0123456789abcdef"}.items()


def test_metrics_are_exact_and_what_is_undefined_is_named(tmp_path: Path) -> None:
    where = write_runs(tmp_path, "")
    record = read(where.runs / "eval_small_kd", where)
    metrics = {name: value for name, value, _ in record.metrics}
    for method, values in METRICS["scenarios"]["test_dos"].items():  # type: ignore[index]
        for name in ("f1", "mcc", "n_windows"):
            assert metrics.get(f"test_dos/{method}/{name}") == values[name]
    assert metrics["thresholds/fusion/f1"] == 2 / 3
    assert {"test_dos/fusion/mcc", "thresholds/fusion/budget"} <= set(record.tags["undefined"].split(", "))
    assert (record.tags["instance"], record.tags["variant"], record.tags["seed"]) == ("plain", "small_kd", "3")


def test_what_rules_leave_elsewhere_belongs_to_their_run(tmp_path: Path) -> None:
    where = places(tmp_path)
    for run in ("window_baselines", "window_baselines@x", "report"):
        (where.runs / run).mkdir(parents=True)
        finish(where.runs / run)
    (tmp_path / "results/demo/window_baselines@x").mkdir(parents=True)
    (tmp_path / "results/demo/summary").mkdir()
    metrics = {**METRICS, "variant": None, "instance": "@x"}
    write_json(tmp_path / "results/demo/window_baselines@x/metrics.json", METRICS_CONTRACT, metrics)
    (tmp_path / "results/demo/summary/report.html").write_text("<html>")
    plain, other, report = (read(where.runs / r, where) for r in ("window_baselines", "window_baselines@x", "report"))
    assert "test_dos/vgae/f1" not in {m[0] for m in plain.metrics}
    assert ("test_dos/vgae/f1", 1 / 3, 0) in other.metrics
    assert [p.name for p in report.files] == ["benchmark.tsv", "report.html"]


def test_only_what_is_finished_counts_and_content_makes_the_digest(tmp_path: Path) -> None:
    where = write_runs(tmp_path, "", "@b")
    (where.runs / "eval_small_kd/benchmark.tsv").unlink()
    (where.runs / "pca_large@b/.checkpoint").mkdir()
    assert [p.name for p in finished(where.runs)] == ["eval_small_kd@b", "pca_large"]
    before = read(where.runs / "pca_large", where)
    finish(where.runs / "pca_large", made=5_000)
    assert read(where.runs / "pca_large", where).digest == before.digest
    (where.runs / "pca_large/log.txt").write_text("done again\n")
    assert read(where.runs / "pca_large", where).digest != before.digest


@pytest.mark.parametrize(
    ("run", "file"),
    [
        ("eval_small_kd", "metrics.json"),
        ("pca_large", "model.safetensors"),
        ("pca_large", "config.yaml"),
    ],
)
def test_a_run_with_a_marked_file_is_none(run: str, file: str, tmp_path: Path) -> None:
    where = write_runs(tmp_path, "")
    assert not is_stand_in(where.runs / run, where)
    mark(where.runs / run / file)
    assert is_stand_in(where.runs / run, where)


@pytest.mark.parametrize(
    ("run", "file"), [("cards", "summary/cards/gat_large.md"), ("window_baselines", "window_baselines/metrics.json")]
)
def test_so_is_one_whose_marked_file_lies_elsewhere(run: str, file: str, tmp_path: Path) -> None:
    where = places(tmp_path)
    (where.runs / run).mkdir(parents=True)
    finish(where.runs / run)
    product = tmp_path / "results/demo" / file
    product.parent.mkdir(parents=True)
    if product.suffix == ".json":
        write_json(product, METRICS_CONTRACT, {**METRICS, "variant": None})
    else:
        product.write_text("# Card\n")
    assert read(where.runs / run, where).files[-1] == product
    assert not is_stand_in(where.runs / run, where)
    mark(product)
    assert is_stand_in(where.runs / run, where)


@pytest.mark.parametrize("uri", ["https://alice:secret@mlflow.example", "https://alice@mlflow.example/path"])
def test_credentials_in_the_config_are_refused_and_not_repeated(uri: str) -> None:
    schema = ROOT / "modules/track/config.schema.yaml"
    with pytest.raises(CanidsError, match="MLFLOW_TRACKING_USERNAME") as refused:
        refuse_credentials(Stage("tracking", {"uri": uri}, schema, package="canids_track"))
    assert "alice" not in str(refused.value)
    for plain in ({}, {"uri": "https://mlflow.example/@alice"}, {"uri": "sqlite:///runs/a@b.db"}):
        refuse_credentials(Stage("tracking", plain, schema, package="canids_track"))


@pytest.mark.parametrize("name", ["run.json", "benchmark.tsv", "model.safetensors"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    where = places(tmp_path)
    write_training(where.runs / "gat_large")
    (where.runs / "gat_large" / name).write_text("{")
    with pytest.raises(CanidsError, match=f"gat_large/{name}: not a whole "):
        read(where.runs / "gat_large", where)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (str(UNEVEN), "NaN", "not a whole result of an evaluation"),
        (str(UNEVEN), "1.2345", "1.2345 is greater than the maximum of 1"),
        (str(UNEVEN), "0.9999", "was changed since it was written"),
        ('"small_kd"', '"large"', "was changed since it was written"),
    ],
)
def test_an_edited_evaluation_is_not_tracked(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    where = places(tmp_path)
    write_evaluation(where.runs / "eval_small_kd")
    path = where.runs / "eval_small_kd/metrics.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CanidsError, match=rf"eval_small_kd/metrics\.json: .*{re.escape(complaint)}"):
        read(where.runs / "eval_small_kd", where)


def test_another_runs_evaluation_is_not_tracked(tmp_path: Path) -> None:
    where = write_runs(tmp_path, "", "@b")
    path = where.runs / "eval_small_kd/metrics.json"
    path.write_bytes((where.runs / "eval_small_kd@b/metrics.json").read_bytes())
    with pytest.raises(CanidsError, match=r"eval_small_kd/metrics\.json: is of instance '@b', not ''"):
        read(where.runs / "eval_small_kd", where)


def test_another_runs_model_is_not_tracked(tmp_path: Path) -> None:
    run = places(tmp_path).runs / "gat_large"
    write_training(run)
    save_arrays(run / "model.safetensors", {}, {"contract": "pca/1", "run": "gat_small_nokd"})
    with pytest.raises(CanidsError, match=r"model\.safetensors: is of run 'gat_small_nokd', not 'gat_large'"):
        read(run, places(tmp_path))


def test_a_receipt_that_owes_something_asks_for_another_attempt(tmp_path: Path) -> None:
    receipt = tmp_path / "elsewhere" / "receipt.json"
    receipt.parent.mkdir()
    spec = attempting(lambda wildcards, output: json.dumps({"wildcards": wildcards}))

    def asked(job: dict[str, str]) -> int:
        said = json.loads(spec(job, [receipt]))
        assert said["wildcards"] == job
        return int(said["attempt"])

    job = {"dataset": "demo", "instance": "@x"}
    assert asked(job) == 1
    for number, pending, then in ((1, {}, 1), (1, {"demo/gat_large": "away"}, 2), (2, {}, 2)):
        receipt.write_text(json.dumps({"attempt": number, "pending": pending}))
        assert asked(job) == then
    receipt.write_text("{")
    assert asked(job) == 1


def test_by_hand_the_defaults_are_those_of_the_schema() -> None:
    assert check({}, load_schema(ROOT / "modules/track/config.schema.yaml"), "tracking") == vars(Options())
    assert yaml.safe_load((ROOT / "modules/track/config.schema.yaml").read_text())["additionalProperties"] is False
