"""Folds found in the manifests: which vehicles and attacks can be left out, and of which datasets."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError
from canids_shared.planning import folds
from canids_shared.planning.pipeline import attacks_learnt, known_to_folds, section, targets
from canids_shared.planning.split_sets import split_sets
from canids_shared.planning.stage import Stage

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "modules/preprocess/config.schema.yaml"


def write(dataset: str, *captures: tuple[str, str | None], test: str = "tram") -> None:
    """A dataset of training captures (vehicle, attack or none) and one test capture."""
    entries: dict[str, Any] = {
        f"{vehicle}-{attack}-{n}": {
            "format": "simulated",
            "vehicle": vehicle,
            "role": "train",
            "content": "labelled" if attack else "attack-free",
            **({"attack": attack} if attack else {}),
            "simulation": {"duration": 9},
        }
        for n, (vehicle, attack) in enumerate(captures)
    }
    entries["test"] = {**next(iter(entries.values())), "vehicle": test, "role": "test_x"}
    path = Path("data", dataset, "manifest.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"contract": "manifest/1", "captures": entries}, sort_keys=False))


def config(*datasets: str, **section: Any) -> dict[str, Any]:
    return {"datasets": list(datasets), "data_root": "data", "folds": {"leave_out": "vehicles", **section}}


def test_every_attacked_vehicle_of_the_training_captures_is_a_fold(
    workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("a", ("kia", "dos"), ("sonata", None), ("spark", "fuzzing"), ("kia", "fuzzing"))
    with caplog.at_level(logging.WARNING):
        joined = folds.joined(config("a"))
    assert joined["instances"] == {
        "without-kia": {"preprocess": {"leave_out": {"vehicles": ["kia"]}}},
        "without-spark": {"preprocess": {"leave_out": {"vehicles": ["spark"]}}},
    }
    assert "folds" not in joined
    assert [r.getMessage() for r in caplog.records] == [
        "dataset 'a': sonata is recorded without attacks only: no fold leaves it out"
    ]


def test_folds_of_attacks_with_seeds_and_overrides(workplace: Path) -> None:
    write("a", ("kia", "DoS"), ("kia", "gear-spoofing"), ("kia", None))
    overrides = {"train_drl": {"seed": 4, "fusion_baselines": ["cusum"]}}
    joined = folds.joined(
        config("a", leave_out="attacks", prefix="f-", seeds=2, seeded=["train_drl"], overrides=overrides)
    )
    assert list(joined["instances"]) == [
        "f-without-DoS",
        "f-without-DoS-seed-5",
        "f-without-gear-spoofing",
        "f-without-gear-spoofing-seed-5",
    ]
    assert joined["instances"]["f-without-gear-spoofing-seed-5"] == {
        "preprocess": {"leave_out": {"attacks": ["gear-spoofing"]}},
        "train_drl": {"seed": 5, "fusion_baselines": ["cusum"]},
    }
    detectors = section(joined, "train_gnn")["instances"]
    assert list(detectors) == ["f-without-DoS", "f-without-gear-spoofing"], "seeds of the policy share the detectors"


def test_folds_of_every_kind_their_seeds_then_their_ablations(workplace: Path) -> None:
    write("a", ("kia", "DoS"), ("kia", "DoS"), ("c", "rpm"), ("c", "speed"), ("c", None), ("c", None), ("kia", "drift"))
    overrides: dict[str, Any] = {"train_gnn": {"gat": {"exposure": {"rate": 0}}}}
    ablations = {"no_exposure": {"without": "outlier exposure", "overrides": overrides}}
    joined = folds.joined(
        config("a", leave_out=["vehicles", "attacks", "known"], seeds=2, ablations=ablations, overrides={"train_gnn": {"seed": 3}})
    )  # fmt: skip
    left_out = {n: o["preprocess"]["leave_out"] for n, o in joined["instances"].items() if "seed" not in n}
    assert left_out == {
        "without-kia": {"vehicles": ["kia"]},
        "without-c": {"vehicles": ["c"]},
        "without-DoS": {"attacks": ["DoS"]},
        # Both are spoofing: to leave one of them out would leave the kind in.
        "without-rpm-and-speed": {"attacks": ["rpm", "speed"]},
        "without-drift": {"attacks": ["drift"]},
        "known": {"captures": ["kia-DoS-1", "c-None-5"]},
        "without-kia-no_exposure": {"vehicles": ["kia"]},
        "without-c-no_exposure": {"vehicles": ["c"]},
    }
    assert joined["instances"]["without-c-no_exposure-seed-4"] == {
        "train_gnn": {"seed": 4, "gat": {"exposure": {"rate": 0}}},
        "train_drl": {"seed": 4},
        "preprocess": {"leave_out": {"vehicles": ["c"]}},
    }
    assert joined["ablations"] == {"no_exposure": "outlier exposure"}
    # An ablation of the GAT shares the fold's graphs.
    section_of = section(joined, "train_gnn")
    assert section_of["ports"]["graphs"]["without-kia-no_exposure-seed-4"] == "without-kia"
    write("b", ("kia", "DoS"), ("kia", "DoS"))
    with pytest.raises(
        CanidsError, match=r"^folds.leave_out: 'known' is of one dataset; the manifest of one can include"
    ):
        folds.joined(config("a", "b", leave_out="known"))


def test_of_several_kinds_of_folds_a_dataset_has_those_that_it_can(
    workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("a", ("kia", "DoS"), ("spark", "DoS"))
    everything = ["vehicles", "attacks", "known"]
    assert list(folds.joined(config("a", leave_out=everything))["instances"]) == ["without-kia", "without-spark"]
    assert caplog.messages == [
        "dataset 'a': to leave one out, its training captures need two attacks; they have only DoS: no such fold",
        "dataset 'a': no vehicle has two training captures of the same attack, or without: no such fold",
    ]
    with pytest.raises(CanidsError, match=r"no vehicle has two training captures of the same attack, or without$"):
        folds.joined(config("a", leave_out=["attacks", "known"]))


def test_instances_with_other_splits_have_rules_of_their_own(workplace: Path) -> None:
    """Where vehicles are enrolled, folds differ in their scenarios: a fold of attacks has no attack-free capture to enrol by."""
    write("a", ("kia", "DoS"), ("kia", None), ("spark", "fuzzing"), test="tram")
    given = {**folds.joined(config("a", leave_out=["vehicles", "attacks"])), "enrolment": 5}
    stage = Stage("preprocess", section(given, "preprocess"), SCHEMA)
    assert stage.scenarios("a", "@without-kia") == ["left_out", "left_out_enrolled"]
    assert stage.scenarios("a", "@without-DoS") == ["left_out"]
    sets = split_sets(stage, "decisions", stage.scenarios)
    assert [(s.rule, s.splits, s.instance) for s in sets] == [
        ("decisions", ["test_x"], "()?"),
        ("decisions_of_a_folds", ["left_out", "left_out_enrolled"], r"(@without\-kia)"),
        ("decisions_of_a_folds_too", ["left_out"], r"(@without\-spark|@without\-DoS|@without\-fuzzing)"),
    ]


def test_a_fold_is_named_after_the_seed_that_all_its_seeded_stages_get(workplace: Path) -> None:
    write("a", ("kia", "DoS"), ("spark", "DoS"))
    joined = folds.joined({**config("a", seeds=3), "train_gnn": {"seed": 5}})["instances"]
    both = {name: (joined[name]["train_gnn"], joined[name]["train_drl"]) for name in joined if "kia-seed" in name}
    assert both == {f"without-kia-seed-{n}": ({"seed": n}, {"seed": n}) for n in (6, 7)}


def test_kinds_of_intervals_are_attacks_of_folds(workplace: Path) -> None:
    write("a", ("kia", "dos"), ("kia", None))
    path = Path("data/a/manifest.yaml")
    content = yaml.safe_load(path.read_text())
    mixed = {"path": "m.csv", "vehicle": "kia", "role": "train", "content": "labelled", "attack": "attack"}
    content["captures"]["m"] = {**mixed, "attacked": [[1, 2, "dos"], [3, 4, "fuzzing"]]}
    path.write_text(yaml.safe_dump(content))
    manifest.load.cache_clear()
    captures = manifest.load("a", "data")
    assert captures["m"].attacks == ("dos", "fuzzing")
    assert known_to_folds(captures)["attacks"] == ["dos", "fuzzing"]
    # What is left has no attack, for the capture of both kinds goes as a whole.
    learnt = {"auxiliary_captures": "none", "leave_out": {"attacks": ["dos"]}}
    assert attacks_learnt(captures, learnt) == ""
    assert attacks_learnt(captures, {**learnt, "leave_out": {"attacks": ["fuzzing"]}}) == "simulated"
    # An attack of no known kind leaves out those of auxiliary captures too.
    weird = {"auxiliary_captures": "simulated_fleet", "leave_out": {"attacks": ["weird"]}}
    assert attacks_learnt({"m": replace(captures["m"], attack="weird", attacked=())}, weird) == ""


def test_a_fold_belongs_to_the_datasets_that_have_what_it_leaves_out(workplace: Path) -> None:
    write("a", ("kia", "dos"), ("spark", "dos"))
    write("b", ("kia", "dos"), ("sonata", "dos"), test="spark")
    stage = Stage("preprocess", section(folds.joined(config("a", "b")), "preprocess"), SCHEMA)
    assert {d: [i for i in stage.config if i and stage.has(d, i)] for d in ("a", "b")} == {
        "a": ["@without-kia", "@without-spark"],
        "b": ["@without-kia", "@without-sonata"],
    }
    made = stage.targets("{dataset}{instance}/{split}")
    assert "b@without-kia/left_out" in made
    assert "b/test_x" in made
    assert not [t for t in made if t.startswith(("a@without-sonata", "b@without-spark"))]
    of_pipeline = targets(folds.joined(config("a", "b")), "{dataset}{instance}", "summary/{dataset}{instance}")
    instances = ["a", "a@without-kia", "a@without-spark", "b", "b@without-kia", "b@without-sonata"]
    assert of_pipeline == [path for i in instances for path in (i, f"summary/{i}")]


def test_a_fold_that_leaves_nothing_out_is_refused(workplace: Path) -> None:
    write("a", ("kia", "DoS"), ("spark", None))
    write("b", ("kia", "fuzzing"))
    instances = {"without-dos": {"preprocess": {"leave_out": {"attacks": ["dos"]}}}}
    given = {"datasets": ["a", "b"], "data_root": "data", "instances": instances}
    with pytest.raises(CanidsError) as caught:
        Stage("preprocess", section(given, "preprocess"), SCHEMA)
    assert str(caught.value) == (
        "instances.without-dos: no training capture has what leave_out names, {'attacks': ['dos']}; "
        "they have {'a': {'attacks': ['DoS']}, 'b': {'attacks': ['fuzzing']}}"
    )


@pytest.mark.parametrize(
    ("captures", "change", "complaint"),
    [
        ([("kia", "dos"), ("kia", None)], {}, r"^dataset 'a': to leave one out, its training captures need two vehicles; they have only kia$"),
        ([("kia", None), ("spark", None)], {}, r"^dataset 'a': to leave one out, its training captures need two vehicles"),
        ([("kia", "dos"), ("spark", None)], {"leave_out": "attacks"}, "need two attacks; they have only dos$"),
        ([("kia", "dos"), ("spark", "dos")], {"leave_out": "cars"}, r"^folds\.leave_out: 'cars' is not one of"),
        ([("kia", "dos"), ("spark", "dos")], {"leave_out": ["vehicles", "cars"]}, r"^folds\.leave_out\.1: 'cars' is not one of"),
        ([("kia", "dos"), ("kia", "DoS")], {"leave_out": "attacks"}, "need two attacks; they have only dos, DoS$"),
        ([("kia", "dos"), ("spark", "dos")], {"leave_out": "known"}, r"^dataset 'a': no vehicle has two training captures of the same attack, or without"),
        ([("kia", "dos"), ("spark", "dos")], {"seed": 1}, r"^unknown key 'folds\.seed'; did you mean 'seeds'\?"),
    ],
)  # fmt: skip
def test_what_cannot_be_left_out_is_said(
    workplace: Path, captures: list[tuple[str, str | None]], change: dict[str, Any], complaint: str
) -> None:
    write("a", *captures)
    with pytest.raises(CanidsError, match=complaint):
        folds.joined(config("a", **change))


def test_a_fold_replaces_no_instance(workplace: Path) -> None:
    write("a", ("kia", "dos"), ("spark", "dos"))
    declared: dict[str, Any] = {"instances": {"without-spark": {}, "seed-1": {}}}
    with pytest.raises(CanidsError, match=r"^folds: 'without-spark' is an instance already; set folds\.prefix"):
        folds.joined({**config("a"), **declared})
    joined = folds.joined({**config("a", prefix="f-"), **declared})["instances"]
    assert list(joined) == ["without-spark", "seed-1", "f-without-kia", "f-without-spark"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"datasets": [["simulated"]]}, r"config\.datasets\.0: \['simulated'\] is not of type 'string'"),
        ({"datasets": 3}, "config.datasets: 3 is not of type 'array'"),
        ({"data_root": 1.5}, "config.data_root: 1.5 is not of type 'string'"),
    ],
)
def test_data_that_is_none_is_named(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CanidsError, match=complaint):
        folds.joined({"folds": {"leave_out": "vehicles"}, **data})


def test_a_pipeline_without_folds_says_so() -> None:
    with pytest.raises(CanidsError, match="config: folds is missing"):
        folds.joined({"datasets": ["simulated"]})


def test_what_cannot_be_learnt_without_attacks_is_said_and_left_out(
    workplace: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANIDS_PREPROCESS_PYTHON", "")

    def said(config: dict[str, Any]) -> list[str]:
        caplog.clear()
        assert targets({"data_root": "data", **config}, "{dataset}{instance}")
        return [message.split(",")[0].split(": all")[0] for message in caplog.messages]

    def has_attacks(config: dict[str, Any], instance: str = "") -> bool:
        stage = Stage("preprocess", section({"data_root": "data", **config}, "preprocess"), SCHEMA)
        return stage.has_attacks(config["datasets"][0], instance)

    write("a", ("kia", None), ("spark", None))
    assert said({"datasets": ["a"]}) == ["dataset 'a': no attack to learn from"]
    assert not has_attacks({"datasets": ["a"]})
    # Beside recorded captures simulated ones join, unless the config refuses them.
    write("b", ("kia", None))
    path = Path("data/b/manifest.yaml")
    entries = yaml.safe_load(path.read_text())
    for entry in entries["captures"].values():
        del entry["simulation"]
        entry |= {"format": "candump", "path": "a.log"}
    path.write_text(yaml.safe_dump(entries))
    assert said({"datasets": ["b"]}) == ["dataset 'b': no recorded attack to learn from"]
    assert has_attacks({"datasets": ["b"]})
    alone: dict[str, Any] = {"datasets": ["b"], "preprocess": {"auxiliary_captures": "none"}}
    assert said(alone) == ["dataset 'b': no attack to learn from"]
    assert not has_attacks(alone)
    # A fold may leave out all there are, and no other instance is affected.
    write("c", ("kia", "dos"), ("spark", None))
    fold = {"without-kia": {"preprocess": {"leave_out": {"vehicles": ["kia"]}}}}
    assert said({"datasets": ["c"], "instances": fold}) == ["dataset 'c' @without-kia: no attack to learn from"]
    assert has_attacks({"datasets": ["c"], "instances": fold})
    assert not has_attacks({"datasets": ["c"], "instances": fold}, "@without-kia")
