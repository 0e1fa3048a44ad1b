"""What a model card warns of follows from the data."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.iocontainers import Wildcards  # type: ignore[import-untyped]
from training_records import record
from workflows import check_card

from canids_evaluate import cards, planning
from canids_evaluate.judging.metrics import METRICS
from canids_evaluate.pages.card_data import Split, Subject
from canids_evaluate.pages.card_limits import limits
from canids_evaluate.pages.provenance import vehicle_and_attack
from canids_evaluate.pages.rows import Methods, hosts_of
from canids_evaluate.pages.tables import THRESHOLDS
from canids_shared.contracts.detectors import DETECTORS, Detector
from canids_shared.planning.pipeline import section
from canids_shared.planning.stage import Stage

COUNTS = {"n_windows": 200, "n_attacked": 80, "n_episodes": 40, "delay_floor_s": 0.1}


def values(recall: float | None = 1.0, **changes: Any) -> dict[str, Any]:
    metric_values: dict[str, Any] = {
        **dict.fromkeys(METRICS, 0.99),
        "recall": recall,
        "fpr": 0.001,
        "episodes_found": 1.0,
        **COUNTS,
        **changes,
    }
    return {
        **metric_values,
        "intervals": {key: [0.9, 1.0] for key in METRICS},
        "f1_optimal": {"f1": 0.99},
        "per_attack": {},
        "per_capture": {},
    }


def evaluated(attacks: dict[str, float], captures: list[str], **changes: Any) -> dict[str, Any]:
    result = values(**changes)
    result["per_attack"] = {a: values(recall) for a, recall in attacks.items()}
    result["per_capture"] = {c: values() for c in captures}
    return result


def subject(scenario: dict[str, Any], kind: str = "gat", **changes: Any) -> Subject:
    detectors = changes.pop("detectors", DETECTORS)
    training = record(
        kind,
        detectors=changes.pop("trained", [] if kind == "dqn" else [kind]),
        seed=3,
        code="c0de",
        config={"seed": 3, kind: {"large": {"heads": 4}, "small": {"heads": 2}}},
        inputs={"teacher": []},
        parameters=1234,
        best=1,
        history={"epoch": [1, 2]},
        select={"auroc": 0.98765},
        latency={"median_ms": 1.5, "device": "cpu"},
        sizes={"model": 2048},
    )
    config_of_metrics = {"false_alarm_budget": 0.005, "bootstrap": 20, "bootstrap_block": 5.0}
    methods = {m: {"budget": 0.5, "f1": 0.4} for m in (d.name for d in detectors)} | {
        "fusion": {"budget": None, "f1": 0.3}
    }
    methods |= changes.pop("fusion_baselines", {})
    metrics = {"dataset": "d", "instance": "", "config": config_of_metrics, "thresholds": methods}
    metrics["scenarios"] = {"test_a": dict.fromkeys(methods, scenario)}
    learnt = Split(60, 40, {"van": 100}, {"DoS": 40}, 0, ["c"])
    sources = {
        c: {"vehicle": v, "attack": "dos", "sha256": "ab" * 32, "rows_read": 9}
        for c, v in (("c", "van"), ("bus", "bus"))
    }
    given: dict[str, Any] = {"learnt": learnt, "baselines": {}, "sources": sources, "simulated": [], **changes}
    names = Methods(tuple(detectors))
    return Subject(training, "dqn_large", calibrate=learnt, metrics=metrics, names=names, **given)


def test_a_card_is_a_model_card_of_the_hub() -> None:
    scenario = evaluated({"DoS": 0.5}, ["c"])
    text = cards.card(subject(scenario))
    check_card(text, "d/gat_large", {"test_a": scenario})
    assert "a score above 0.5, with which the vehicles in `calibrate` (60 attack-free windows) keep" in text
    assert "| 0.9900 [0.900, 1.000] |" in text
    assert yaml.safe_load(text.split("---\n")[1])["pipeline_tag"] == "graph-ml"
    for line in ("- On `select`: auroc 0.9877", "- Size: heads 4", "- Inference: 1.50 ms a window on cpu"):
        assert line in text


def test_what_is_undefined_is_left_out_of_the_head_and_shown_as_such() -> None:
    scenario = evaluated({}, ["c"], f1=None, recall=None, n_attacked=0)
    text = cards.card(subject(scenario))
    check_card(text, "d/gat_large", {"test_a": scenario})
    assert "No attacked windows in `test_a`" in text


@pytest.mark.parametrize(
    ("scenario", "changes", "expected"),
    [
        (evaluated({"dos": 1.0}, ["c"]), {}, "Every vehicle that it was evaluated on (van) is one that it learnt from"),
        (evaluated({"dos": 1.0}, ["bus"]), {}, "Evaluated on vehicles that it never learnt from: bus."),
        (evaluated({"replay": 1.0}, ["c"]), {}, "never learnt from: replay in `test_a` (recall 1.000)."),
        (evaluated({"replay": 1.0}, ["c"]), {}, "Learnt from attacks that no test scenario holds: DoS."),
        (
            evaluated({"dos": 0.89}, ["c"]),
            {},
            "Finds less than 90% of the attacked windows of: dos in `test_a` (recall 0.890)",
        ),
        (evaluated({"dos": 1.0}, ["c"], episodes_found=0.9), {}, "Misses whole attack episodes: 4 of 40 in `test_a`."),
        (
            evaluated({"dos": 1.0}, ["c"], fpr=0.02),
            {},
            "more attack-free windows than the budget of 0.50%: 2.00% in `test_a`",
        ),
        (evaluated({"dos": 1.0}, ["c"]), {}, THRESHOLDS),
        (
            evaluated({"dos": 1.0}, ["c"]),
            {"simulated": ["c"]},
            "Every capture that it was evaluated on comes from a simulator",
        ),
        (
            evaluated({"dos": 1.0}, ["c"]),
            {"baselines": {"test_a": {"extra_trees": values(f1=0.995)}}},
            "Extra Trees (0.9950)",
        ),
        (
            evaluated({"dos": 1.0}, ["c"]),
            {"learnt": Split(60, 40, {"van": 100}, {"dos": 40}, 75, ["c"])},
            "75% of the windows that it learnt from (75 of 100) are of simulated auxiliary captures",
        ),
        (
            evaluated({"dos": 1.0}, ["c"]),
            {"learnt": Split(60, 40, {"van": 100}, {"dos": 40}, 75, ["c"], simulated_attacks=40)},
            "Every attack that it learnt from was simulated",
        ),
        (
            evaluated({"dos": 1.0}, ["drive-dos"]),
            {"sources": {"drive-dos": {"vehicle": "van", "attack": "dos", "sha256": "ab" * 32, "host": "drive"}}},
            "Evaluated on attacks that were injected into recordings (`drive-dos` into `drive`)",
        ),
    ],
)
def test_limits_are_what_the_data_say(scenario: dict[str, Any], changes: dict[str, Any], expected: str) -> None:
    assert any(expected in sentence for sentence in limits(subject(scenario, **changes)))


def test_warnings_of_the_data_are_limits() -> None:
    made = subject(evaluated({"DoS": 0.5}, ["c"]), warnings=["No recorded window of van in `calibrate`."])
    assert "- No recorded window of van in `calibrate`." in cards.card(made)


def test_nothing_is_said_that_the_data_do_not_say() -> None:
    result = limits(subject(evaluated({"dos": 1.0}, ["c"])))
    assert [s.split(" ")[0] for s in result] == ["Every", "One", "Its"]  # known vehicles, one seed, the threshold


def test_a_policy_is_judged_as_the_fusion_unless_something_else_is() -> None:
    assert subject(evaluated({}, []), "dqn").methods == {"fusion": ""}
    assert subject(evaluated({}, []), "dqn", fusion_baselines={"dqn": {"budget": None, "f1": 0.2}}).methods == {
        "dqn": ""
    }
    assert "its own alarms, no threshold" in cards.card(subject(evaluated({"dos": 1.0}, ["c"]), "dqn"))


def test_a_training_of_several_detectors_has_one_card_with_all_of_them() -> None:
    trio = [Detector(n, n.upper(), f"{n}_error", supervised=n == "forest") for n in ("forest", "pca", "rate")]
    text = cards.card(
        subject(evaluated({"dos": 0.5}, ["c"]), "detector", detectors=trio, trained=[d.name for d in trio])
    )
    front = yaml.safe_load(text.split("---\n")[1])
    assert len(front["model-index"][0]["results"]) == 3
    for detector in trio:
        assert f"As {detector.label} in `metrics.json`:" in text
        assert f"- {detector.label}: Finds less than 90%" in text
        assert f"- {detector.label}: Operating point of the results below" in text
    assert "supervised: attacked window or not; unsupervised" in text
    assert text.count("| Scenario | Capture |") == 1


def test_trainings_and_cards_that_there_cannot_be_are_not_asked_for(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANIDS_EVALUATE_PYTHON", "")
    path = Path("data/free/manifest.yaml")
    path.parent.mkdir(parents=True)
    entry = {"path": "a.log", "vehicle": "van", "role": "train", "content": "attack-free"}
    path.write_text(yaml.safe_dump({"contract": "manifest/1", "captures": {"a": entry}}))
    schema = Path(__file__).parents[3] / "modules/evaluate/config.schema.yaml"
    wildcards = Wildcards(fromdict={"dataset": "free", "instance": ""})
    kinds = {}
    for joining in ("none", "simulated_fleet"):
        config = {"datasets": ["free"], "preprocess": {"auxiliary_captures": joining}}
        stage = Stage("evaluate", section(config, "evaluate"), schema)
        runs = [file.split("/")[1] for file in planning.trainings(stage, "run.json")(wildcards)]
        assert sorted(runs) == sorted(planning.card_names(stage))
        kinds[joining] = {run.split("_")[0] for run in runs}
    assert kinds == {"none": {"vgae"}, "simulated_fleet": {"vgae", "gat", "dqn"}}


def test_captures_with_a_host_say_what_was_done_with_it() -> None:
    sources = {"d": {"vehicle": "van", "attack": "dos", "host": "drive"}, "f": {"vehicle": "van", "host": "drive"}}
    assert vehicle_and_attack(sources["d"]) == ["van", "dos (injected into recording drive)"]
    assert vehicle_and_attack(sources["f"]) == ["van", "– (part of recording drive)"]
    assert hosts_of(["d", "f", "x"], sources) == "`d` into `drive`"
