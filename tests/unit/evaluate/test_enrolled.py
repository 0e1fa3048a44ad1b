"""Scenarios judged a second time with their vehicles enrolled: thresholds of their own, baselines fitted to their own traffic."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from evaluate_data import CONFIG, call, keys, stores, write_split
from forging import forged_store

from canids_evaluate import window_baselines
from canids_evaluate.judging.evaluation import calibrated
from canids_evaluate.judging.own_traffic import METHODS, OwnTraffic
from canids_evaluate.judging.scores import Scores
from canids_shared.alarm_rule import AlarmRule, guarantee
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import ENROLMENT
from canids_shared.errors import CanidsError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scores(
    name: str, level: float, labels: list[int], vehicle: str, rules: dict[str, AlarmRule] | None = None
) -> Scores:
    """Scores of a detector around `level`, .3 higher in attacked windows; of a fusion with alarms of its own the same."""
    table = keys(labels, name, vehicle=[vehicle] * len(labels))
    noise = np.random.default_rng(len(labels)).random(len(labels)) * 0.1
    score = level + noise + 0.3 * np.array(labels)
    return Scores(
        Path(name), table, {"gat": score, "fusion": score}, {"fusion": score > level + 0.2}, rules=rules or {}
    )


def test_an_enrolled_vehicle_is_judged_by_its_own_threshold(caplog: pytest.LogCaptureFixture) -> None:
    evaluation = calibrated({**CONFIG, "bootstrap": 5}, scores("calibrate", 0.1, [0] * 300 + [1] * 50, "van"))
    own = {"fusion": AlarmRule(0.3, {"new": 0.62})}
    evaluation.enrol(scores("enrolment", 0.5, [0] * 120, "new", own))
    unknown = scores("other", 0.5, [0] * 20, "not enrolled", own)
    test = scores("test", 0.5, [0] * 150 + [1] * 50 + [0] * 150, "new", own)
    zero_shot = {"fusion": AlarmRule(0.3)}
    evaluation.add("left_out", scores("test", 0.5, [0] * 150 + [1] * 50 + [0] * 150, "new", zero_shot))
    both = Scores(
        test.path,
        pl.concat([test.keys, unknown.keys]),
        {m: np.concatenate([s, unknown.score[m]]) for m, s in test.score.items()},
        {m: np.concatenate([a, unknown.alarm[m]]) for m, a in test.alarm.items()},
        rules=own,
    )
    with caplog.at_level(logging.WARNING):
        evaluation.add("left_out_enrolled", both)
    assert "not judged with enrolment: not enrolled has none, or too little" in caplog.text
    usual, enrolled = (evaluation.scenarios[s]["gat"] for s in ("left_out", "left_out_enrolled"))
    assert usual["fpr"] == 1, "the threshold of the van, as of the only vehicle that is known"
    assert enrolled["recall"] == 1
    assert enrolled["fpr"] <= guarantee(120, 0.01) * 2
    assert enrolled["n_windows"] == usual["n_windows"] == 350, "the other vehicle is left out"
    assert usual["f1_optimal"]["f1"] is not None
    assert set(enrolled["f1_optimal"].values()) == {None}, "the best threshold on calibrate is on another scale"
    point = evaluation.points["gat"].as_json()
    assert point["enrolled"].keys() == {"new"}
    assert point["vehicles"].keys() == {"van"}
    assert point["budget"] < 0.2 < point["enrolled"]["new"] == pytest.approx(0.6, abs=0.01)
    assert evaluation.points["fusion"].as_json()["enrolled"] == {"new": 0.62}
    assert evaluation.enrolment == {"new": {"blocks": 120, "guarantee": guarantee(120, 0.01)}}


def test_what_cannot_be_judged_so_is_refused() -> None:
    evaluation = calibrated({**CONFIG, "bootstrap": 5}, scores("calibrate", 0.1, [0] * 100, "van"))
    with pytest.raises(
        CanidsError, match="enrolment: an attacked window, and vehicles are enrolled by attack-free ones"
    ):
        evaluation.enrol(scores("enrolment", 0.5, [0] * 20 + [1], "new"))
    # Alarms that are not held to the rule that their file states.
    with pytest.raises(CanidsError, match="test: 'fusion' alarms below the threshold that its alarms are held to"):
        evaluation.add("left_out", scores("test", 0.5, [0] * 20 + [1] * 5, "new", {"fusion": AlarmRule(0.99)}))


def test_a_vehicle_with_too_little_traffic_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    evaluation = calibrated({**CONFIG, "bootstrap": 5}, scores("calibrate", 0.1, [0] * 100, "van"))
    with caplog.at_level(logging.WARNING):
        evaluation.enrol(scores("enrolment", 0.5, [0] * 49, "short"))
        evaluation.add("left_out_enrolled", scores("test", 0.5, [0] * 20 + [1] * 5, "short"))
    assert (
        "enrolment: short is enrolled by 49 windows, too few to learn from (50 at least), and left out" in caplog.text
    )
    assert "test: not judged with enrolment: short has none, or too little" in caplog.text
    assert evaluation.enrolment == evaluation.points["gat"].enrolled == {}
    values = evaluation.scenarios["left_out_enrolled"]["gat"]
    assert (values["n_windows"], values["fpr"], values["recall"]) == (0, None, None)


def test_a_method_without_a_threshold_for_an_enrolled_vehicle_says_so(caplog: pytest.LogCaptureFixture) -> None:
    evaluation = calibrated({**CONFIG, "bootstrap": 5}, scores("calibrate", 0.1, [0] * 100, "van"))
    enrolment = scores("enrolment", 0.5, [0] * 60, "new")
    enrolment.score["gat"] = np.full(60, np.nan)
    evaluation.enrol(enrolment)
    with caplog.at_level(logging.WARNING):
        evaluation.add("left_out_enrolled", scores("test", 0.5, [0] * 20 + [1] * 5, "new"))
    assert "test: 'gat' has no threshold of its own for new, and alarms there as on a vehicle never met" in caplog.text
    assert "'fusion' has no threshold" not in caplog.text, "has alarms of its own, which no rule is known of"


def test_a_detector_without_a_vote_does_not_alarm_and_keeps_its_ranking() -> None:
    evaluation = calibrated({**CONFIG, "bootstrap": 5}, scores("calibrate", 0.1, [0] * 100, "van"))
    for unlike in (False, True):
        test = scores("test", 0.5, [0] * 50 + [1] * 50, "new")
        test.unlike = {"gat": np.full(100, unlike)}
        evaluation.add(f"s{unlike}", test)
    vote, none = (evaluation.scenarios[f"s{unlike}"]["gat"] for unlike in (False, True))
    assert (vote["fpr"], none["fpr"], none["recall"]) == (1, 0, 0)
    assert vote["auroc"] == none["auroc"] == 1


def test_no_window_is_scored_by_a_model_that_has_seen_it() -> None:
    rng = np.random.default_rng(0)
    write_split(Path("plain.safetensors"), {"a": ("dos", [0] * 200)}, rng)
    varied = rng.normal(size=(200, 3)).astype(np.float32)
    forged_store(Path("plain.safetensors"), Path("enrolment.safetensors"), statistics=varied)
    store = GraphStore("enrolment.safetensors")
    own = OwnTraffic.learn(store, trees=10, seed=0)
    assert own.halves.tolist() == [False] * 100 + [True] * 100
    # Windows of the first half become strange: only the model of the second half judges them, and it stays as it was.
    statistics = np.array(store["statistics"])
    statistics[:100] += 40
    forged_store(Path("enrolment.safetensors"), Path("strange.safetensors"), statistics=statistics)
    strange = OwnTraffic.learn(GraphStore("strange.safetensors"), trees=10, seed=0)
    usual, other = (o.scores(o.store, "isolation_forest") for o in (own, strange))
    assert other[:100].min() > usual[:100].max()
    # Of another file a window has the mean of both models' scores.
    again = GraphStore("enrolment.safetensors")
    first, second = own.models["van"]["node_pca"]
    rows = np.ones(200, dtype=bool)
    np.testing.assert_allclose(own.scores(again, "node_pca"), (first(again, rows) + second(again, rows)) / 2)
    write_split(Path("few.safetensors"), {"a": ("dos", [0] * 30)}, rng)
    few = GraphStore("few.safetensors")
    assert not OwnTraffic.learn(few, trees=10, seed=0).scores(few, "node_pca").any(), "left out, not refused"


def test_every_capture_is_halved() -> None:
    rng, lengths = np.random.default_rng(0), {"drive": 61, "other bus": 31, "short": 1, "shorter": 1}
    write_split(Path("enrolment.safetensors"), {c: ("dos", [0] * n) for c, n in lengths.items()}, rng)
    own = OwnTraffic.learn(GraphStore("enrolment.safetensors"), trees=5, seed=0)
    assert own.halves.tolist() == [False] * 30 + [True] * 31 + [False] * 16 + [True] * 15 + [True, False]


def test_window_baselines_in_both_regimes() -> None:
    inputs, rng = stores(["left_out"]), np.random.default_rng(1)
    write_split(Path("plain.safetensors"), {"own": ("dos", [0] * 120)}, rng)
    others = rng.normal(scale=40, size=(120, 3)).astype(np.float32)
    forged_store(
        Path("plain.safetensors"), Path(f"graphs/{ENROLMENT}.safetensors"), {"split": ENROLMENT}, statistics=others
    )
    inputs["enrolment"] = [Path(f"graphs/{ENROLMENT}.safetensors")]
    twice = Path("graphs/left_out_enrolled.safetensors")
    twice.write_bytes(inputs["scenarios"][0].read_bytes())
    forged_store(twice, twice, {"split": "left_out_enrolled"})
    inputs["scenarios"].append(twice)
    window_baselines.main(call("a", inputs, scenarios=["left_out", "left_out_enrolled"]))
    content: dict[str, Any] = json.loads(Path("a/metrics.json").read_text())
    usual, enrolled = (content["scenarios"][s] for s in ("left_out", "left_out_enrolled"))
    assert usual.keys() == enrolled.keys()
    for method in METHODS:
        assert content["thresholds"][method]["enrolled"].keys() == {"van"}
    assert enrolled["isolation_forest"]["auroc"] != usual["isolation_forest"]["auroc"], "another model"
    assert enrolled["extra_trees"]["auroc"] == usual["extra_trees"]["auroc"], "the same model"
    assert content["enrolment"]["van"]["blocks"] == 120
