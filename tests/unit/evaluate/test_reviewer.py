"""What a reviewer would try on the evaluation: shuffled labels, swapped predictions, thresholds moved after the fact."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from evaluate_data import episodes, keys, write_decisions, write_split
from forging import forged_store

from canids_evaluate import evaluate, window_baselines
from canids_evaluate.judging import bounds, metrics, paired
from canids_evaluate.judging.evaluation import calibrated
from canids_evaluate.judging.scores import Scores
from canids_evaluate.judging.thresholds import implied_threshold, is_alarm
from canids_evaluate.judging.windows import mistakes, windows_of
from canids_evaluate.pages.rows import WINDOW_BASELINES
from canids_shared.contracts.detectors import DETECTORS, KEY, as_json
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.tables import DECISIONS, KEYS, read, write
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json
from canids_shared.jobs.entry_point import Call

CONFIG = {
    "seed": 0,
    "bootstrap": 60,
    "bootstrap_block": 5.0,
    "false_alarm_budget": 0.01,
    "evidence": 1,
    "episode_gap": 1.0,
    "trees": 10,
}
SPLITS = ("fit", "calibrate", "test")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Graph stores and decisions of two captures a split, with labels in episodes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in SPLITS:
        captures = {f"{name}-{a}": (a, episodes(300, 0.4, rng)) for a in ("dos", "fuzzing")}
        table = write_split(Path(f"{name}.safetensors"), captures, rng)
        write_decisions(Path(f"{name}.parquet"), table, 0.2, rng)
    return tmp_path


def call(output: str, inputs: dict[str, str], **constants: Any) -> Call:
    paths = {"metrics": Path(output, "metrics.json"), "curves": Path(output, "curves.json")}
    constants = {"scenarios": ["test"], "captures": [], "code": "0", **constants}
    given = {name: [Path(path)] for name, path in inputs.items()}
    return Call({"dataset": "d", "instance": ""}, CONFIG, constants, paths, given, "{}")


def evaluate_baselines() -> dict[str, Any]:
    names = {"fit": "fit.safetensors", "calibrate": "calibrate.safetensors", "scenarios": "test.safetensors"}
    window_baselines.main(call("window_baselines", names))
    content: dict[str, Any] = json.loads(Path("window_baselines/metrics.json").read_text())
    return content


def evaluate_decisions() -> dict[str, Any]:
    names = {"calibrate": "calibrate.parquet", "scenarios": "test.parquet"}
    names |= {
        "window_baselines": "window_baselines/metrics.json",
        "window_baseline_curves": "window_baselines/curves.json",
    }
    evaluate.main(call("large", names, variant="large"))
    content: dict[str, Any] = json.loads(Path("large/metrics.json").read_text())
    return content


def tamper(name: str, how: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Exchange the rows of the decisions on a split, and leave their metadata as they are."""
    frame, header = read(f"{name}.parquet", DECISIONS)
    how(frame).write_parquet(f"{name}.parquet", metadata={"canids": canonical_json(header)})


def change(name: str, how: Callable[[pl.DataFrame], pl.DataFrame], **metadata: Any) -> None:
    """Decide otherwise on a split."""
    frame, header = read(f"{name}.parquet", DECISIONS)
    write(f"{name}.parquet", DECISIONS, how(frame), {**header, **metadata})


def test_shuffled_labels_bring_every_method_to_chance() -> None:
    rng = np.random.default_rng(1)
    for name in SPLITS:  # graphs as they are, labels of other windows
        table, _ = read(f"{name}.parquet", DECISIONS)
        captures = {f"{name}-{a}": (a, rng.permutation(episodes(300, 0.4, rng)).tolist()) for a in ("dos", "fuzzing")}
        fresh = write_split(Path("shuffled.safetensors"), captures, rng)
        other, path = GraphStore("shuffled.safetensors"), Path(f"{name}.safetensors")
        forged_store(path, path, **{tensor: np.array(other[tensor]) for tensor in ("y", "attack", "n_attacked")})
        write(
            f"{name}.parquet",
            DECISIONS,
            table.with_columns(fresh["label"], fresh["attack"]),
            {"split": name, KEY: as_json(DETECTORS)},
        )
    results = evaluate_baselines()["scenarios"]["test"] | evaluate_decisions()["scenarios"]["test"]
    assert len(results) == 5 + len(WINDOW_BASELINES)
    prevalence = results["always_attack"]["precision"]
    for method, values in results.items():
        assert values["auroc"] == pytest.approx(0.5, abs=0.1), method
        assert values["pr_auc"] == pytest.approx(prevalence, abs=0.1), method
        assert values["mcc"] is None or abs(values["mcc"]) < 0.15, method
        assert values["f1"] <= results["always_attack"]["f1"] + 0.02, method


def test_swapped_captures_are_noticed() -> None:
    evaluate_baselines()
    other = {"test-dos": "test-fuzzing", "test-fuzzing": "test-dos"}
    change("test", lambda f: f.with_columns(pl.col("capture").replace(other)))
    with pytest.raises(CanidsError, match=r"test\.parquet: other windows .* of capture test-dos, test-fuzzing than in"):
        evaluate_decisions()


def _predictions_swapped(frame: pl.DataFrame) -> pl.DataFrame:
    """All that was decided on the two captures, exchanged; which windows there are stays."""
    other = pl.concat([frame.filter(pl.col("capture") == c) for c in frame["capture"].unique().sort(descending=True)])
    assert frame["capture"].unique(maintain_order=True).to_list() == ["test-dos", "test-fuzzing"]
    return frame.with_columns(other.select(pl.exclude(list(KEYS))))


@pytest.mark.parametrize(
    "how",
    [
        _predictions_swapped,
        lambda f: f.with_columns(fusion_score=pl.col("fusion_score").sqrt()),
        lambda f: f.head(-1),
        lambda f: f.with_columns(label=pl.when(pl.col("window") == 3).then(None).otherwise("label").cast(pl.UInt8)),
    ],
    ids=["swapped", "scores", "row", "label"],
)
def test_decisions_that_are_not_those_that_were_made_are_noticed(
    how: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    evaluate_baselines()
    tamper("test", lambda f: f)
    evaluate_decisions()
    tamper("test", how)
    with pytest.raises(CanidsError, match=r"^test\.parquet: the rows of 'test-\w+' are not those that were made"):
        evaluate_decisions()


def test_swapped_scenarios_are_noticed() -> None:
    evaluate_baselines()
    change("test", lambda f: f, split="another_test")
    with pytest.raises(CanidsError, match=r"test\.parquet: is of split 'another_test', not 'test'"):
        evaluate_decisions()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("policy", "q"),
        ("fusion_baselines", "r"),
        ("fusion", "cusum"),
        ("false_alarm_budget", 0.05),
    ],
)
def test_decisions_made_otherwise_than_on_calibrate_are_noticed(key: str, value: object) -> None:
    evaluate_baselines()
    change("test", lambda f: f, **{key: value})
    with pytest.raises(CanidsError, match=rf"test\.parquet: decided by another {key} than calibrate\.parquet"):
        evaluate_decisions()


def test_scenarios_are_recalibrated_alike_and_splits_of_training_are_not() -> None:
    change("test", lambda f: f, recalibrate=60)
    frame, header = read("test.parquet", DECISIONS)
    write("other.parquet", DECISIONS, frame, {**header, "split": "other"})
    scenarios = [(split, Path(f"{split}.parquet")) for split in ("test", "other")]
    evaluate.refuse_mixture(Path("calibrate.parquet"), scenarios, CONFIG["false_alarm_budget"])
    change("other", lambda f: f, recalibrate=30)
    with pytest.raises(CanidsError, match=r"^other\.parquet: decided by another recalibrate than test\.parquet"):
        evaluate.refuse_mixture(Path("calibrate.parquet"), scenarios, CONFIG["false_alarm_budget"])


def test_detectors_and_fusion_baselines_keep_to_one_budget() -> None:
    evaluate_baselines()
    for split in ("calibrate", "test"):
        change(split, lambda f: f, false_alarm_budget=CONFIG["false_alarm_budget"])
    evaluate_decisions()
    for split in ("calibrate", "test"):
        change(split, lambda f: f, false_alarm_budget=0.005)
    with pytest.raises(
        CanidsError, match=r"false_alarm_budget 0\.005, and evaluate\.false_alarm_budget is 0\.01; set both"
    ):
        evaluate_decisions()


@pytest.mark.parametrize(
    ("method", "score", "alarm"),
    [("fusion", "fusion_score", "alarm"), ("hysteresis", "baseline_hysteresis_score", "baseline_hysteresis_alarm")],
)
def test_a_threshold_changed_after_calibration_is_noticed(method: str, score: str, alarm: str) -> None:
    evaluate_baselines()
    evaluate_decisions()
    kind = pl.Boolean if alarm == "alarm" else pl.Float32
    change("test", lambda f: f.with_columns((pl.col(score) > 0.2).cast(kind).alias(alarm)))
    with pytest.raises(CanidsError, match=rf"test\.parquet: '{method}' alarms by another threshold than in calibrate"):
        evaluate_decisions()


def test_thresholds_that_calibrate_leaves_open_are_compared_between_scenarios() -> None:
    score = np.linspace(0, 1, 21)
    free = keys([0] * 21)

    def scores(path: str, level: float, only: np.ndarray) -> Scores:
        return Scores(Path(path), free.filter(only), {"fusion": score[only]}, {"fusion": score[only] > level})

    evaluation = calibrated(CONFIG, scores("calibrate", 0.5, (score < 0.3) | (score > 0.7)))
    evaluation.add("one", scores("one", 0.5, score < 2))
    with pytest.raises(CanidsError, match="two: 'fusion' alarms by another threshold than in calibrate or one"):
        evaluation.add("two", scores("two", 0.62, score < 2))


def test_alarms_that_are_not_the_actions_are_noticed() -> None:
    evaluate_baselines()
    # Of the threshold nothing is left to be seen: alarms as the labels have it.
    change("test", lambda f: f.with_columns(alarm=pl.col("label") == 1))
    with pytest.raises(
        CanidsError, match=r"test\.parquet: alarms are not the policy's actions, as they are in calibrate"
    ):
        evaluate_decisions()


def test_scores_and_alarms_of_two_captures_are_noticed_only_where_the_actions_stay() -> None:
    evaluate_baselines()
    swapped = ["vgae_score", "gat_score", "fusion_score", "alarm"]

    def exchange(columns: list[str]) -> Callable[[pl.DataFrame], pl.DataFrame]:
        return lambda f: f.with_columns(pl.concat([f[300:], f[:300]])[c] for c in columns)

    change("test", exchange(swapped))
    with pytest.raises(CanidsError, match="alarms are not the policy's actions"):
        evaluate_decisions()
    change("test", exchange(["action"]))
    evaluate_decisions()  # as README.md says: nothing ties a score to its window


def test_thresholds_follow_from_calibrate_alone() -> None:
    evaluate_baselines()
    before = evaluate_decisions()["thresholds"]
    change("test", lambda f: f.with_columns(gat_score=pl.lit(0.5, pl.Float32)))
    assert evaluate_decisions()["thresholds"] == before
    change("calibrate", lambda f: f.with_columns(gat_score=(pl.col("gat_score") / 2).cast(pl.Float32)))
    changed = evaluate_decisions()["thresholds"]
    assert changed["gat"] != before["gat"]
    assert changed["vgae"] == before["vgae"]


def test_implied_threshold_by_hand() -> None:
    score = np.array([0.1, 0.4, 0.6, 0.9])
    assert implied_threshold(np.array([False, False, True, True]), score) == (0.4, 0.6)
    assert implied_threshold(np.array([False, True, False, True]), score) is None
    assert implied_threshold(np.ones(4, dtype=bool), score) == (-np.inf, 0.1)


def test_actions_that_are_alarms_by_hand() -> None:
    alarm = np.array([False, True])
    assert is_alarm(np.array([0, 1]), alarm)
    assert not is_alarm(np.array([0, 3]), alarm)
    assert not is_alarm(np.array([0, 0]), np.zeros(2, dtype=bool))
    assert not is_alarm(None, alarm)


def test_differences_are_paired_over_resamples() -> None:
    baseline = evaluate_baselines()["scenarios"]["test"]
    results = evaluate_decisions()["scenarios"]["test"]
    minus = results["fusion"]["minus"]
    assert minus.keys() == {"gat", "vgae", "fixed_weight", "hysteresis", *baseline}
    for method, values in {**baseline, **{m: v for m, v in results.items() if m != "fusion"}}.items():
        for metric in ("f1", "auroc"):
            one = minus[method][metric]
            assert one["difference"] == pytest.approx(results["fusion"][metric] - values[metric])
            assert one["interval"][0] <= one["difference"] + 0.02
            assert one["interval"][1] >= one["difference"] - 0.02


def test_a_paired_interval_by_hand() -> None:
    table = keys(([0] * 8 + [1] * 4) * 5)
    windows = windows_of(table, 1.0, 4.0)
    rng = np.random.default_rng(2)
    scores = [windows.attacked + level * rng.normal(size=len(windows)) for level in (0.6, 0.8)]
    weights = metrics.resamples(windows, 80, 0, "s")
    replicates = [metrics.replicates(windows, s > 0.5, s, weights) for s in scores]
    values = [
        {
            **metrics.evaluate(windows, s > 0.5, s),
            "intervals": bounds.intervals(windows, metrics.evaluate(windows, s > 0.5, s), r),
        }
        for s, r in zip(scores, replicates, strict=True)
    ]
    results = paired.differences(values[0], values[1], *map(paired.stored, replicates))
    for metric in ("f1", "auroc"):
        expected = np.quantile(replicates[0][metric] - replicates[1][metric], [0.025, 0.975])
        assert results[metric]["interval"] == pytest.approx(expected, abs=1e-5)
    same = paired.differences(values[0], values[0], *[paired.stored(replicates[0])] * 2)
    assert same == {m: {"difference": 0, "interval": [0, 0]} for m in ("f1", "auroc")}


def test_fingerprints_see_every_key() -> None:
    table = pl.concat([keys([0, 1, None], "a"), keys([1, 1], "b")])
    results = paired.fingerprints(table)
    assert results.keys() == {"a", "b"}
    for column, value in (("label", 1), ("attack", "x"), ("t_end", 9.0), ("window", 7), ("vehicle", "bus")):
        changed = table.with_columns(pl.lit(value, table.schema[column]).alias(column))
        assert paired.fingerprints(changed)["a"] != results["a"], column


def test_mistakes_by_hand() -> None:
    table = pl.concat([keys([0, 0, 1, 1, 1, 0], "a"), keys([0, 0], "b")])
    alarm = np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=bool)
    results = mistakes(table, alarm)
    assert results.rows() == [
        ("a", "false alarm", "", 0.0, 2.0, 2),
        ("a", "missed", "dos", 3.0, 5.0, 2),
        ("b", "false alarm", "", 1.0, 2.0, 1),
    ]
    assert len(mistakes(table, table["label"].to_numpy() == 1)) == 0


def test_a_budget_is_no_reason_to_alarm_on_what_the_detector_holds_for_attack_free() -> None:
    evaluate_baselines()
    granted = evaluate_decisions()["thresholds"]["gat"]["budget"]
    for even, threshold in ((granted / 2, granted), ((granted + 1) / 2, (granted + 1) / 2)):
        change("calibrate", lambda f: f, even_odds={"gat": even})
        results = evaluate_decisions()["thresholds"]
        assert results["gat"]["budget"] == threshold
        assert results["vgae"]["budget"] < (granted + 1) / 2  # of an anomaly score, no odds are known
