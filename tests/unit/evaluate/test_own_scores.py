"""Scores of anyone's detector, from Parquet files; and warnings of the data, by name."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from evaluate_data import CONFIG, call, episodes, write_split

from canids_evaluate import evaluate
from canids_evaluate.planning import own_scores_of, own_scores_of_folds
from canids_evaluate.standings import own_scores
from canids_evaluate.watch import drift
from canids_evaluate.watch.cautions import cautions
from canids_shared.contracts.detectors import DETECTORS
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError

SPLITS = ("calibrate", "left_out")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of two splits, and scores that find two thirds of the attacked windows of the second."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in SPLITS:
        table = write_split(Path(f"{name}.safetensors"), {f"{name}-dos": ("dos", episodes(300, 0.4, rng))}, rng)
        score = (
            pl.when((pl.col("label") == 1) & (pl.col("window") % 3 > 0)).then(5.0).otherwise(pl.col("window") % 7 / 7)
        )
        table.select("capture", "window", "t_start", score=score).write_parquet(f"{name}.parquet")


def evaluated(column: str = "score") -> dict[str, Any]:
    inputs = {
        "calibrate": ["calibrate.parquet"],
        "scenarios": ["left_out.parquet"],
        "graphs": [f"{s}.safetensors" for s in SPLITS],
    }
    paths = {name: [Path(p) for p in files] for name, files in inputs.items()}
    evaluate.main(call("out", paths, variant=None, own="mine", column=column, scenarios=["left_out"]))
    content: dict[str, Any] = json.loads(Path("out/metrics.json").read_text())
    return content


def test_scores_are_evaluated_like_those_of_a_detector() -> None:
    made = evaluated()
    assert made["variant"] is None
    values = made["scenarios"]["left_out"]["mine"]
    keys = GraphStore("left_out.safetensors").keys().filter(pl.col("label") == 1)
    assert values["recall"] == pytest.approx((keys["window"] % 3 > 0).mean())
    assert values["fpr"] == 0
    assert made["thresholds"]["mine"]["budget"] < 5


def test_the_scale_of_scores_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIG, "evidence", 3)
    before = evaluated()["scenarios"]["left_out"]["mine"]
    for name in SPLITS:  # all below 0, attacked windows at -10
        frame = pl.read_parquet(f"{name}.parquet").with_columns(score=8 * pl.col("score") - 50)
        frame.write_parquet(f"{name}.parquet")
    after = evaluated()["scenarios"]["left_out"]["mine"]
    assert before["recall"] > 0.5
    for metric in ("f1", "recall", "fpr", "auroc", "recall_at_1_per_hour"):
        assert after[metric] == pytest.approx(before[metric]), metric


def test_places_among_scores_of_calibrate_keep_their_order() -> None:
    calibrate = np.array([-3.0, 0, 0, 0, 2, 1e-9])
    score = np.array([-1e300, -50, -3.1, -3, -1, 0, 1e-10, 1e-9, 1, 2, 2 + 1e-9, 3, 1e9, 1.1e9, 1e300])
    placed = own_scores.ranked(score, calibrate)
    assert (np.diff(placed) > 0).all()
    assert placed.min() > 0
    assert placed.max() < 1
    assert own_scores.ranked(np.array([0.0]), calibrate) == pytest.approx(0.1 + 0.8 * 2.5 / 6)
    alone = own_scores.ranked(np.array([6.0, 7, 8]), np.full(9, 7.0))
    assert 0 < alone[0] < alone[1] == 0.5 < alone[2] < 1
    extreme = np.array([-1.0, 1]) * np.finfo(float).max
    assert np.isfinite(own_scores.ranked(extreme, extreme)).all()


def test_labels_in_the_file_are_not_read() -> None:
    before = evaluated()["scenarios"]
    path = Path("left_out.parquet")
    pl.read_parquet(path).with_columns(label=pl.lit(1), attack=pl.lit("other")).write_parquet(path)
    assert evaluated()["scenarios"] == before


def test_the_score_may_have_another_name_and_integer_type() -> None:
    for name in SPLITS:
        frame = pl.read_parquet(f"{name}.parquet")
        frame.select(pl.exclude("score"), trees_score=(7 * pl.col("score")).cast(pl.Int32)).write_parquet(
            f"{name}.parquet"
        )
    assert evaluated("trees_score")["scenarios"]["left_out"]["mine"]["fpr"] == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f.head(299), "left_out.parquet: 299 rows, and the graphs have 300 windows"),
        (
            lambda f: f.reverse(),
            r"row 0 is of window \(left_out-dos, 299, .*\), and the graphs have \(left_out-dos, 0, 0.0\) there",
        ),
        (lambda f: f.with_columns(t_start=pl.col("t_start") + 1), "row 0 is of window"),
        (
            lambda f: f.with_columns(score=pl.when(pl.col("window") == 7).then(np.nan).otherwise("score")),
            "row 7: column 'score' holds no",
        ),
        (lambda f: f.with_columns(score=pl.lit(None, pl.Float64)), "row 0: column 'score' holds no finite number"),
        (lambda f: f.drop("score"), "left_out.parquet: no column 'score', it has capture, window, t_start"),
        (lambda f: f.with_columns(score=pl.lit("high")), "left_out.parquet: not a whole table of scores"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: Callable[[pl.DataFrame], pl.DataFrame], complaint: str) -> None:
    path = Path("left_out.parquet")
    change(pl.read_parquet(path)).write_parquet(path)
    with pytest.raises(CanidsError, match=complaint):
        evaluated()


def test_a_damaged_file_is_refused() -> None:
    Path("left_out.parquet").write_bytes(Path("left_out.parquet").read_bytes()[:200])
    with pytest.raises(CanidsError, match=r"left_out\.parquet: not a whole table of scores; write it again"):
        evaluated()


def stage(folder: str, folds: list[str], name: str = "mine") -> Any:
    """A stage with folds whose seeds share graphs."""
    config = {"": {"own_scores": {name: {"folder": folder, "column": "score"}}, "ablations": {"no_x": "x"}}}
    graphs = {f: [f"<graphs>{f.partition('-seed')[0]}"] for f in folds}
    return SimpleNamespace(
        config={**config, **{fold: {} for fold in folds}},
        is_fold=lambda i: i in folds,
        has=lambda dataset, i: True,
        upstream=lambda pattern: lambda wildcards: graphs[wildcards.instance],
    )


def test_every_fold_has_scores_once_and_ablations_none() -> None:
    folds = ["@without-a", "@without-a-seed-1", "@without-a-no_x", "@without-a-no_x-seed-1", "@without-b"]
    wanted = own_scores_of_folds(stage("f", folds), "metrics.json")(SimpleNamespace(dataset="d"))
    assert wanted == [f"<leaderboard>/own_scores/mine{fold}/metrics.json" for fold in ("@without-a", "@without-b")]


def test_the_folder_may_name_dataset_and_fold_and_nothing_else() -> None:
    wildcards = SimpleNamespace(dataset="d", instance="@without-a", own="mine")
    files = own_scores_of(stage("mine/{dataset}{instance}", []), "calibrate", lambda w: ["left_out"])(wildcards)
    assert files == ["mine/d@without-a/calibrate.parquet", "mine/d@without-a/left_out.parquet"]
    with pytest.raises(CanidsError, match=r"own_scores.mine.folder: 'mine/\{split\}' may hold"):
        own_scores_of(stage("mine/{split}", []), "calibrate")(wildcards)


@pytest.mark.parametrize("name", ["fusion", "extra_trees", "cusum", DETECTORS[0].name])
def test_no_detector_of_another_has_the_name_of_a_method(name: str) -> None:
    with pytest.raises(CanidsError, match=f"own_scores.{name}: is the name of another method"):
        own_scores_of_folds(stage("f", [], name), "metrics.json")


class Changed(GraphStore):
    """A store with other arrays than its file."""

    def __init__(self, path: str, **arrays: np.ndarray) -> None:
        super().__init__(path)
        self.changed = arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.changed[name] if name in self.changed else super().__getitem__(name)


def test_training_is_read_once_for_all_scenarios(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, read = np.random.default_rng(1), []
    for name in ("fit", "calibrate", "one", "other"):
        write_split(Path(f"once_{name}.safetensors"), {name: ("dos", [0] * 20 + [1] * 10)}, rng)
    stores = {name: GraphStore(f"once_{name}.safetensors") for name in ("fit", "calibrate")}
    scenarios = {}
    for name in ("one", "other"):
        path = f"once_{name}.safetensors"
        scenarios[name] = Changed(path, x=np.asarray(GraphStore(path)["x"]) + 9)
    scenarios["strange"] = Changed("once_one.safetensors")
    scenarios["strange"].header["node_features"] = ["others"]
    made = drift.TrainingReference.__init__
    monkeypatch.setattr(drift.TrainingReference, "__init__", lambda *given: (read.append(1), made(*given))[1])
    said = cautions(stores, scenarios, {})
    assert len(read) == 1
    assert [line.partition(":")[0] for line in said] == [
        f"Attack-free traffic unlike training in `{name}`" for name in ("one", "other")
    ]


def test_warnings_are_by_name() -> None:
    rng = np.random.default_rng(1)
    vehicles = {"fit": ["kia", "van"], "calibrate": ["kia"], "fuse": ["kia"], "test": ["kia"]}
    stores = {}
    for name, of in vehicles.items():
        attacked = [0] * 30 if name == "fuse" else [0] * 20 + [1] * 10
        write_split(Path(f"w_{name}.safetensors"), {f"{name}-{v}": ("dos", attacked) for v in of}, rng)
        place = f"w_{name}.safetensors"
        moved = {"x": np.asarray(GraphStore(place)["x"]) + 9} if name == "test" else {}
        stores[name] = Changed(place, vehicle=np.repeat(np.arange(len(of)), 30), **moved)
        stores[name].header["vehicles"] = of
    unlike = stores["test"]
    training = {name: stores[name] for name in ("fit", "fuse", "calibrate")}
    said = cautions(training, {"test": unlike}, {"test": 1})
    assert said[0] == "No recorded attacked window in `fuse`: nor any other."
    assert said[1] == "No recorded window of van in `calibrate`: thresholds are set without that traffic."
    assert said[2] == "Fewer than 5 attack episodes in `test` (1): counts instead of intervals."
    assert said[3].startswith("Attack-free traffic unlike training in `test`: test-kia (")
    assert len(said) == 4
    # The same windows as auxiliary captures: nothing of them is recorded.
    for store in (stores["fuse"], stores["calibrate"]):
        store.header["auxiliary_captures"] = store.header["captures"]
    said = cautions(training, {}, {"test": 5})
    assert (
        said[0] == "No recorded attacked window in `calibrate`: what is learnt or chosen on it rests on simulated ones."
    )
    assert "Thresholds rest on simulated windows alone" in said[-1]
