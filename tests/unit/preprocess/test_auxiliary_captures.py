"""Simulated auxiliary captures of recorded training captures: whom they join, and where they must not count."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from captures import GRAPHS, call, frames, write_frames
from evaluate_data import write_split, write_store

from canids_evaluate import window_baselines
from canids_evaluate.judging import id_rate
from canids_evaluate.judging.evaluation import calibrated
from canids_preprocess import graphs, planning
from canids_preprocess.simulation.vehicle import design
from canids_shared.contracts import manifest
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import LEFT_OUT
from canids_shared.errors import CanidsError
from canids_shared.planning.stage import Stage

SCHEMA = Path(__file__).parents[3] / "modules/preprocess/config.schema.yaml"
FLEET = "simulated_fleet"


def stage(**config: Any) -> Stage:
    """A recorded dataset, and one whose training captures are simulated, each with a recorded test scenario."""
    recorded = {"path": "a.csv", "format": "candump", "vehicle": "kia", "role": "train", "content": "attack-free"}
    other = {"format": "simulated", "vehicle": "van", "content": "attack-free", "simulation": {"duration": 9}}
    for name, captures in (
        ("real", {"a": recorded, "t": {**recorded, "role": "test"}}),
        ("made", {"s": {**other, "role": "train"}, "t": {**recorded, "role": "test"}}),
    ):
        folder = Path("data") / name
        folder.mkdir(parents=True)
        (folder / "manifest.yaml").write_text(yaml.safe_dump({"contract": "manifest/1", "captures": captures}))
    left = {"captures": ["a", "s"]}
    instances = {"alone": {"auxiliary_captures": "none"}, "left": {"leave_out": left}}
    given = {"datasets": ["real", "made"], "data_root": "data", "instances": instances, "folds": {"left": left}}
    return Stage("preprocess", {**given, **config}, SCHEMA)


def of_training(made: Stage, dataset: str, instance: str = "") -> list[str]:
    wildcards = SimpleNamespace(dataset=dataset, instance=instance)
    joining = planning.auxiliary_frames(made, "results/{dataset}/frames")(wildcards)
    return [*planning.training_frames(made)(wildcards), *joining]


def of_scenario(made: Stage, split: str, instance: str = "") -> list[str]:
    return planning.frames_of_scenario(made)(SimpleNamespace(dataset="real", split=split, instance=instance))


def test_auxiliary_captures_join_the_training_captures_of_what_was_recorded(workplace: Path) -> None:
    made, fleet = stage(), list(manifest.auxiliary_captures(FLEET))
    assert len(fleet) >= 20
    assert of_training(made, "real") == ["<frames>/a.parquet", *(f"results/{FLEET}/frames/{c}.parquet" for c in fleet)]
    assert of_training(made, "real", "@alone") == ["<frames>/a.parquet"]
    assert of_training(made, "made") == ["<frames>/s.parquet"]
    assert of_scenario(made, "test") == ["<frames>/t.parquet"]
    assert of_scenario(made, LEFT_OUT, "@left") == ["<frames>/a.parquet"]
    assert {name: set(captures) for name, captures in made.captures.items()} == {"real": {"a", "t"}, "made": {"s", "t"}}


def test_they_are_one_dataset_for_all_that_they_join(workplace: Path) -> None:
    made = stage()
    shutil.copytree("data/real", "data/also_real")
    both = Stage("preprocess", {"datasets": ["real", "also_real"], "data_root": "data"}, SCHEMA)
    (job,) = planning.simulated_captures(both)
    assert (job.dataset, [c.name for c in job.captures]) == (FLEET, list(manifest.auxiliary_captures(FLEET)))
    own, shared = planning.simulated_captures(made)
    assert [own.rule, shared.rule] == ["simulate", f"simulate_{FLEET}_train"]
    assert (own.dataset, own.role, [c.name for c in own.captures]) == ("made", "train", ["s"])
    assert shared.each == job.each, "hence one entry in the cache"
    assert list(own.outputs("c", "f").values()) == ["c/s.csv", "f/s.parquet", "f/rejects/s.parquet"]
    shutil.move("data/also_real", f"data/{FLEET}")
    with pytest.raises(CanidsError, match=f"dataset '{FLEET}': auxiliary captures have this name"):
        planning.simulated_captures(Stage("preprocess", {"datasets": ["real", FLEET], "data_root": "data"}, SCHEMA))


@pytest.mark.parametrize(("split", "instance"), [("tset", ""), (LEFT_OUT, ""), ("test", "@left")])
def test_a_split_that_an_instance_does_not_have_is_refused(workplace: Path, split: str, instance: str) -> None:
    scenario = LEFT_OUT if instance else "test"
    with pytest.raises(CanidsError) as caught:
        of_scenario(stage(), split, instance)
    assert str(caught.value) == (
        f"real{instance} has no split or scenario '{split}'; it has fit, select, fuse, calibrate, {scenario}"
    )


def test_the_fleet_is_varied_and_can_be_simulated() -> None:
    fleet = manifest.auxiliary_captures(FLEET).values()
    vehicles = {c.vehicle for c in fleet}
    assert len(vehicles) >= 10
    ids = [frozenset(m.can_id for m in design(name).messages) for name in vehicles]
    assert len(set(ids)) == len(ids), "no two alike"
    assert {c.attack for c in fleet} == {None, "dos", "jamming", "fuzzing", "spoofing", "replay"}
    assert all(c.role == "train" and c.path is None for c in fleet)
    with pytest.raises(CanidsError, match="no built-in manifest 'herd'"):
        manifest.auxiliary_captures("herd")


def capture(folder: Path, name: str, attack: str | None, **metadata: Any) -> Path:
    rng = np.random.default_rng(len(name))
    label = np.zeros(2000, dtype=int)
    if attack:
        for start in range(150, 2000, 200):
            label[start : start + 30] = 1
    table = frames(np.arange(2000) * 0.02, rng.integers(0, 8, 2000), label=label, attack=attack or "dos")
    content = "labelled" if attack else "attack-free"
    return write_frames(folder / f"{name}.parquet", table, attack=attack, content=content, **metadata)


def test_a_fold_without_an_attack_has_no_auxiliary_captures_with_it_and_none_in_its_scenario(tmp_path: Path) -> None:
    recorded = [capture(tmp_path, "kia-DoS", "DoS"), capture(tmp_path, "kia-fuzzing", "fuzzing")]
    fleet = [capture(tmp_path, "dos", "dos"), capture(tmp_path, "replay", "replay")]
    paths = {"frames": recorded, "auxiliary": fleet}
    config = {**GRAPHS, "leave_out": {"attacks": ["DoS"]}}
    headers = {}
    for split in ("fit", LEFT_OUT):
        wildcards = {"dataset": "d", "split": split, "instance": "@left"}
        output = tmp_path / f"{split}.safetensors"
        chosen = paths if split == "fit" else {"frames": recorded}
        graphs.main(call(wildcards, config, output, chosen, auxiliary="fleet"))
        headers[split] = GraphStore(output).header
    assert headers["fit"]["captures"] == ["fleet.replay", "kia-fuzzing"]
    assert headers["fit"]["auxiliary_captures"] == ["fleet.replay"]
    assert headers[LEFT_OUT]["captures"] == ["kia-DoS"]
    assert headers[LEFT_OUT]["auxiliary_captures"] == []
    wildcards = {"dataset": "d", "split": "fit", "instance": "@left"}
    nothing = {**GRAPHS, "leave_out": {"attacks": ["DoS", "fuzzing"]}}
    with pytest.raises(CanidsError, match="leave_out leaves no capture for split 'fit'"):
        graphs.main(call(wildcards, nothing, tmp_path / "x", paths, auxiliary="fleet"))
    wrong = {**GRAPHS, "leave_out": {"attacks": ["replay"]}}
    with pytest.raises(CanidsError, match="have no attack 'replay'; they have DoS, fuzzing"):
        graphs.main(call(wildcards, wrong, tmp_path / "x", paths, auxiliary="fleet"))


def test_a_vehicle_of_the_fleet_is_not_the_recorded_one_of_the_same_name(tmp_path: Path) -> None:
    recorded = capture(tmp_path, "own", None, vehicle="van")
    fleet = capture(tmp_path, "free", None, vehicle="van")
    wildcards = {"dataset": "d", "split": "fit", "instance": ""}
    paths = {"frames": [recorded], "auxiliary": [fleet]}
    graphs.main(call(wildcards, GRAPHS, tmp_path / "g", paths, auxiliary="fleet"))
    store = GraphStore(tmp_path / "g")
    keys = store.keys()
    assert set(keys.select("capture", "vehicle").unique().rows()) == {("own", "van"), ("fleet.free", "fleet.van")}
    assert store.header["sources"]["fleet.free"]["vehicle"] == "fleet.van"
    assert keys["vehicle"].eq("fleet.van").to_numpy().tolist() == store.is_auxiliary.tolist()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Flooding", {"fuzzing", "spoofing", "replay"}),
        ("Fuzzy", {"dos", "jamming", "spoofing", "replay"}),
        ("rpm-spoofing", {"dos", "jamming", "fuzzing", "replay"}),
        ("malfunction", {"dos", "jamming", "fuzzing", "replay"}),
        ("mystery", set()),
    ],
)
def test_a_left_out_attack_takes_its_simulated_relatives_along(tmp_path: Path, name: str, kept: set[str]) -> None:
    kinds = ["dos", "jamming", "fuzzing", "spoofing", "replay"]
    recorded = [capture(tmp_path, "kia", name), capture(tmp_path, "kia-free", None)]
    fleet = [*(capture(tmp_path, kind, kind) for kind in kinds), capture(tmp_path, "free", None)]
    config = {**GRAPHS, "leave_out": {"attacks": [name]}}
    wildcards = {"dataset": "d", "split": "fit", "instance": "@left"}
    paths = {"frames": recorded, "auxiliary": fleet}
    graphs.main(call(wildcards, config, tmp_path / "g", paths, auxiliary="fleet"))
    assert set(GraphStore(tmp_path / "g").header["captures"]) == {
        "kia-free",
        "fleet.free",
        *(f"fleet.{k}" for k in kept),
    }


def test_the_rule_of_ids_and_rates_knows_nothing_of_auxiliary_captures(workplace: Path) -> None:
    captures = {"own": ("dos", [0] * 60 + [1] * 20), "fleet.a": ("dos", [0] * 60 + [1] * 20)}
    for name, auxiliary_captures in (("with", ["fleet.a"]), ("without", [])):
        members = captures if auxiliary_captures else {"own": captures["own"]}
        write_split(Path(f"{name}.safetensors"), members, np.random.default_rng(0), auxiliary_captures)
    both, alone = GraphStore("with.safetensors"), GraphStore("without.safetensors")
    assert both.is_auxiliary.tolist() == [False] * 80 + [True] * 80
    rules = [id_rate.learn(store) for store in (both, alone)]
    assert np.array_equal(rules[0].ids, rules[1].ids)
    assert np.array_equal(rules[0].highest, rules[1].highest)
    config = {"false_alarm_budget": 0.05, "evidence": 1, "bootstrap": 5, "seed": 0}
    judged = []
    for store in (both, alone):
        scorers = window_baselines.learn(store, trees=5, seed=0)
        assert np.isnan(scorers["id_rate"](both)[80:]).all()
        judged.append(calibrated(config, window_baselines.scores_of(store, scorers)).points)
    assert judged[0]["id_rate"] == judged[1]["id_rate"]
    assert judged[0]["isolation_forest"] != judged[1]["isolation_forest"]
    write_store(Path("test.safetensors"), [{1: 5}], [0])
    assert np.isfinite(window_baselines.learn(both, 5, 0)["id_rate"](GraphStore("test.safetensors"))).all()
