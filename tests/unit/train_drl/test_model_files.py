"""Files of policies and fusion baselines: what is edited, another run's, or does not fit together is refused, by name."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import forged

from canids_shared.contracts import tables
from canids_shared.contracts.detectors import DETECTORS, KEY, as_json
from canids_shared.contracts.model_file import header_of
from canids_shared.contracts.tables import STATES
from canids_shared.errors import CanidsError
from canids_train_drl import decide, dqn, fit_baselines
from canids_train_drl.agent.policy import Policy
from canids_train_drl.environment import states
from canids_train_drl.fusion_baselines.stored import FusionBaselines
from train_drl.test_dqn import call_of
from train_drl.test_states import synthetic, written

SIMPLE = ["fixed_weight", "hysteresis", "cusum", "logistic", "bandit"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy and fusion baselines, each in its run's folder."""
    folder = tmp_path_factory.mktemp("runs")
    splits = {"fuse": 1, "select": 2, "calibrate": 3}
    files = {name: written(folder / f"{name}.parquet", synthetic(seed, 2, 150)) for name, seed in splits.items()}
    for train, kind in ((dqn, "dqn"), (fit_baselines, "fusion_baselines")):
        options: dict[str, Any] = {"steps": 100, "evaluate_every": 50, "networks": {"small": [8]}}
        call = call_of(folder / f"{kind}_small_nokd", "small_nokd", files, fusion_baselines=SIMPLE, **options)
        train.main(call)
        shutil.copy(call.output["model"], folder / f"{kind}_small_nokd/model.safetensors")
    return folder


READERS: dict[str, Any] = {"dqn": Policy.load, "fusion_baselines": FusionBaselines.load}


def refused(kind: str, path: Path) -> str:
    with pytest.raises(CanidsError) as caught:
        READERS[kind](path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def source(runs: Path, kind: str) -> Path:
    return runs / f"{kind}_small_nokd/model.safetensors"


def test_headers_say_which_run_they_are_of(runs: Path) -> None:
    for kind in READERS:
        header = header_of(source(runs, kind))
        assert (header["run"], header["variant"], header["instance"]) == (f"{kind}_small_nokd", "small_nokd", "")


NOT_WHOLE = "not a whole"
BREACHES: list[tuple[str, dict[str, Any], str]] = [
    ("dqn", {"header": {"hidden": ...}}, "'hidden' is a required property"),
    ("dqn", {"header": {"hidden": 5}}, "hidden: 5 is not of type 'array'"),
    ("dqn", {"header": {"hidden": [10**9]}}, "hidden.0: 1000000000 is greater than the maximum of 16384"),
    ("dqn", {"header": {"hidden": [9]}}, "tensor 'advantage.weight' is float32"),
    ("dqn", {"header": {"layout": ["a"]}}, NOT_WHOLE),
    ("dqn", {"header": {"actions.kind": "other"}}, "actions.kind: 'other' is not one of"),
    ("dqn", {"header": {"actions.detectors": 3}}, NOT_WHOLE),
    ("dqn", {"header": {"observer.raw": 1}}, "observer.raw: 1 is not of type 'boolean'"),
    ("dqn", {"header": {"observer.recent": 10**9}}, "observer.recent: 1000000000 is greater than the maximum"),
    ("dqn", {"header": {"observer.centre": ["a"]}}, "observer.centre: is no list of numbers"),
    ("dqn", {"header": {"observer.centre": [0.0]}}, NOT_WHOLE),
    ("dqn", {"header": {"observer.scales": []}}, NOT_WHOLE),
    ("dqn", {"header": {"observer.scales.0.slope": -1}}, "observer.scales.0.slope: -1 is less than or equal to"),
    ("dqn", {"header": {"observer.scales.0.knots": [2.0, 1.0]}}, NOT_WHOLE),
    ("dqn", {"header": {"observer.scales.0.levels": [-2.0]}}, "observer.scales.0.levels: is no list of numbers"),
    ("dqn", {"header": {"observer.detectors": [{"name": "gat"}]}}, NOT_WHOLE),
    ("dqn", {"header": {"observer.usual": [0.0]}}, NOT_WHOLE),
    ("dqn", {"header": {"rule": ...}}, "'rule' is a required property"),
    ("dqn", {"header": {"rule.evidence": [3, 2]}}, NOT_WHOLE),
    ("fusion_baselines", {"header": {"fusion_baselines.cusum.rule": ...}}, NOT_WHOLE),
    ("dqn", {"without": "value.bias"}, "tensor 'value.bias' is missing"),
    ("dqn", {"tensors": {"more": np.zeros(1, np.float32)}}, "tensor 'more' is unknown"),
    ("dqn", {"tensors": {"value.bias": np.full(1, np.inf, np.float32)}}, "tensor 'value.bias' holds NaN or infinity"),
    ("fusion_baselines", {"header": {"false_alarm_budget": 7}}, "false_alarm_budget: 7 is greater than or equal to"),
    (
        "fusion_baselines",
        {"header": {"fusion_baselines.cusum.kind": "Eval"}},
        "fusion_baselines.cusum.kind: 'Eval' is not",
    ),
    (
        "fusion_baselines",
        {"header": {"fusion_baselines.cusum.drift": "0"}},
        "fusion_baselines.cusum.drift: '0' is not of",
    ),
    ("fusion_baselines", {"header": {"fusion_baselines.cusum.drift": ...}}, NOT_WHOLE),
    ("fusion_baselines", {"header": {"fusion_baselines.cusum.weights": [1.0]}}, NOT_WHOLE),
    (
        "fusion_baselines",
        {"header": {"fusion_baselines.bandit.layers": 10**6}},
        "fusion_baselines.bandit.layers: 1000000",
    ),
    ("fusion_baselines", {"header": {"fusion_baselines.bandit.layers": 2}}, "tensor 'bandit.1.bias' is missing"),
    ("fusion_baselines", {"without": "logistic.0.bias"}, "tensor 'logistic.0.bias' is missing"),
    (
        "fusion_baselines",
        {"tensors": {"logistic.0.bias": np.zeros(2, np.float32)}},
        "tensor 'logistic.0.bias' is float32",
    ),
    ("fusion_baselines", {"tensors": {"more": np.zeros(1, np.float32)}}, "tensor 'more' is unknown"),
]


@pytest.mark.parametrize(("kind", "change", "complaint"), BREACHES)
def test_what_breaks_the_contract_is_named(
    runs: Path, tmp_path: Path, kind: str, change: dict[str, Any], complaint: str
) -> None:
    said = refused(kind, forged(source(runs, kind), tmp_path / "m", **change))
    assert said.startswith(complaint)
    assert len(said) < 400


@pytest.mark.parametrize("kind", READERS)
def test_what_others_wrote_by_the_contract_is_read_and_an_edited_threshold_is_not(
    runs: Path, tmp_path: Path, kind: str
) -> None:
    READERS[kind](forged(source(runs, kind), tmp_path / "m"))
    content = source(runs, kind).read_bytes()
    assert content.count(rb"\"fast\":3.0") == 1
    (tmp_path / "m").write_bytes(content.replace(rb"\"fast\":3.0", rb"\"fast\":4.0"))
    assert refused(kind, tmp_path / "m").startswith("was changed since it was written")


def test_models_of_another_run_decide_nothing(runs: Path, tmp_path: Path) -> None:
    baselines = source(runs, "fusion_baselines")
    wrong = tmp_path / "dqn_large/model.safetensors"
    wrong.parent.mkdir()
    shutil.copy(source(runs, "dqn"), wrong)
    with pytest.raises(CanidsError, match=r"dqn_large/model\.safetensors: is of run 'dqn_small_nokd', not 'dqn_large'"):
        decide.load(wrong, baselines)
    other = forged(source(runs, "dqn"), tmp_path / "copy/model.safetensors", {"instance": "@seed-1"})
    with pytest.raises(CanidsError, match=r"model\.safetensors: is of another instance than .*copy/model"):
        decide.load(other, baselines)


def test_states_of_another_split_or_variant_are_not_learnt_from(runs: Path) -> None:
    path = runs / "small_kd/fuse.parquet"
    made_for = {"dataset": "a", "split": "fuse", "variant": "small_kd"}
    tables.write(path, STATES, synthetic(1, 2, 150), {KEY: as_json(DETECTORS), **made_for})
    assert len(states.read(path, **made_for)) == 300
    for key in made_for:
        with pytest.raises(
            CanidsError, match=rf"fuse\.parquet: is of {key} '.*', not 'other'; delete it and run again"
        ):
            states.read(path, **{**made_for, key: "other"})
    copy = shutil.copy(path, runs / "fuse.parquet")
    folder = runs / "states/large@seed-1"
    folder.mkdir(parents=True)
    with pytest.raises(CanidsError, match=r"large@seed-1/fuse\.parquet: is of variant 'small_kd', not 'large'"):
        states.read(Path(shutil.copy(copy, folder)))
    # A copy may lie in a folder of any name.
    (runs / "kia_large").mkdir()
    assert len(states.read(Path(shutil.copy(copy, runs / "kia_large")))) == 300
