"""The detectors of `examples/own_detector`: what they learn, and what they refuse."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from captures import call
from evaluate_data import episodes, write_split
from sklearn.ensemble import ExtraTreesClassifier

from canids_shared.contracts import training_run
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.tables import STATES, read
from canids_shared.errors import CanidsError
from own_detector import model, states
from own_detector.train import Size, main, train

SIZE = Size(components=2, hidden=8, trees=10, depth=6, iterations=200, seed=0)


@pytest.fixture
def fit(tmp_path: Path) -> Path:
    """Graphs of 300 windows, a third attacked."""
    rng = np.random.default_rng(0)
    write_split(tmp_path / "fit.safetensors", {"a": ("dos", episodes(300, 0.3, rng))}, rng)
    return tmp_path / "fit.safetensors"


def trained(folder: Path, fit: Path, variant: str, *teacher: Path) -> Path:
    """The model file of a variant, made as the rule makes it."""
    sizes = {k: {"large": v, "small": v // 2} for k, v in asdict(SIZE).items() if k not in ("seed", "iterations")}
    config = {**sizes, "seed": SIZE.seed, "iterations": SIZE.iterations}
    wildcards = {"dataset": "demo", "variant": variant, "instance": ""}
    run = folder / f"detector_{variant}"
    run.mkdir(exist_ok=True)
    output = {"model": run / "model.safetensors", "config": run / "config.yaml", "run": run / "run.json"}
    inputs = {"graphs": [fit], "teacher": list(teacher)}
    main(call(wildcards, config, output, inputs, variant=variant, code="c"))
    return output["model"]


def test_models_are_repeatable_and_kept_as_arrays(tmp_path: Path, fit: Path) -> None:
    large = trained(tmp_path, fit, "large")
    before = large.read_bytes()
    assert trained(tmp_path, fit, "large").read_bytes() == before
    store = GraphStore(fit)
    loaded, made = model.load(large, store), train(store, SIZE)
    for name, values in made.outputs(np.array(store["statistics"])).items():
        np.testing.assert_array_equal(loaded.outputs(np.array(store["statistics"]))[name], values)


def test_the_unsupervised_detector_learns_nothing_from_attacked_windows(fit: Path) -> None:
    store = GraphStore(fit)
    before = train(store, SIZE)
    statistics = np.array(store["statistics"])
    statistics[store["y"] == 1] = 1e3
    store.arrays["statistics"] = statistics
    after = train(store, SIZE)
    for name in ("centre", "spread", "components"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert not np.array_equal(before.weights, after.weights)


def test_a_taught_student_is_closer_to_its_teacher(fit: Path) -> None:
    store = GraphStore(fit)
    values = np.array(store["statistics"])
    teacher = train(store, SIZE)
    small = replace(SIZE, hidden=4, iterations=400)

    def distance(student: model.Models) -> float:
        own, others = (np.clip(d.outputs(values)["perceptron_logit"], -10, 10) for d in (student, teacher))
        return float(np.abs(own - others).mean())

    assert distance(train(store, small, teacher)) < distance(train(store, small))


def test_trees_as_arrays_decide_as_the_library_does(fit: Path) -> None:
    store = GraphStore(fit)
    values, label = np.array(store["statistics"]), np.array(store["y"])
    models = train(store, SIZE)
    z = model.standardised(values, models.centre, models.spread)
    options = {"n_estimators": SIZE.trees, "max_depth": SIZE.depth, "random_state": SIZE.seed}
    forest = ExtraTreesClassifier(**options).fit(z, label)
    attacked = forest.predict_proba(z)[:, 1]
    expected = np.log((attacked + 1e-3) / (1 - attacked + 1e-3))
    np.testing.assert_allclose(models.outputs(values)["trees_logit"], expected, rtol=1e-5, atol=1e-5)


def test_the_record_of_a_training_names_its_detectors(tmp_path: Path, fit: Path) -> None:
    run = training_run.read(trained(tmp_path, fit, "large").with_name("run.json"))
    assert run.name == "detector_large"
    assert run.detectors == ["perceptron", "trees", "pca"]
    assert run.data["fit"]["windows"] == 300
    assert run.parameters > 100


def test_states_are_by_the_contract(tmp_path: Path, fit: Path) -> None:
    large = trained(tmp_path, fit, "large")
    small = trained(tmp_path, fit, "small_kd", large)
    wildcards = {"dataset": "demo", "split": "fit", "variant": "small_kd", "instance": ""}
    output = tmp_path / "states.parquet"
    states.main(call(wildcards, {}, output, {"graphs": [fit], "model": [small]}))
    frame, head = read(output, STATES)
    assert {**head, **wildcards} == {**head, "instance": ""}
    expected = model.load(small, GraphStore(fit)).outputs(np.array(GraphStore(fit)["statistics"]))
    assert {d.score for d in model.DETECTORS} <= expected.keys() < set(frame.columns)
    for name, values in expected.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), values)
    means = frame.group_by("label").agg(pl.col("trees_logit").mean()).sort("label")["trees_logit"]
    assert means[1] - means[0] > 1


def test_what_cannot_be_learnt_or_applied_is_named(tmp_path: Path, fit: Path) -> None:
    large = trained(tmp_path, fit, "large")
    store = GraphStore(fit)
    store.header["statistics"] = [*store.header["statistics"][1:], "other"]
    with pytest.raises(CanidsError, match=r"model\.safetensors: trained on other statistics than .*fit"):
        model.load(large, store)
    store.arrays["y"] = np.zeros(len(store), np.int8)
    with pytest.raises(CanidsError, match=r"fit\.safetensors: 300 attack-free and 0 attacked windows are too few"):
        train(store, SIZE)
