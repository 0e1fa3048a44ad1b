"""Vehicles never met and enrolled ones: scales and thresholds of their own, detectors without a vote, alarms held to the budget."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from canids_shared.alarm_rule import AlarmRule, Evidence, guarantee
from canids_shared.contracts import tables
from canids_shared.contracts.manifest import ENROLMENT
from canids_shared.contracts.tables import DECISIONS
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_train_drl import decide, fit_baselines
from canids_train_drl.environment import unlike
from canids_train_drl.environment.fusion_data import FusionData, as_recorded
from canids_train_drl.environment.states import read
from canids_train_drl.fusion_baselines.stored import FusionBaselines
from canids_train_drl.fusion_baselines.thresholds import Combined
from train_drl.test_dqn import CPU, call_of, states_of
from train_drl.test_states import loaded, synthetic, written

NAMES = ["fixed_weight", "max", "mean", "noisy_or", "hysteresis"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return states_of(tmp_path_factory.mktemp("inputs"), 400)


@pytest.fixture(scope="module")
def model(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    call = call_of(tmp_path_factory.mktemp("beside"), "small_nokd", files, fusion_baselines=NAMES, evidence=3)
    fit_baselines.main(call)
    return call.output["model"]


def of(vehicle: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(vehicle=pl.lit(vehicle), capture=pl.col("capture") + f"-{vehicle}")


def decided(tmp_path: Path, model: Path, split: str, frame: pl.DataFrame, enrolment: pl.DataFrame) -> tuple[Any, Any]:
    output, config = tmp_path / f"{split}.decisions", {"torch_threads": 1, "fusion": "dqn", "recalibrate": 0}
    inputs = {"states": [written(tmp_path / f"{split}.parquet", frame)], "model": [], "fusion_baselines": [model]}
    inputs["enrolment"] = [written(tmp_path / f"{ENROLMENT}.parquet", enrolment)]
    decide.main(entry_point.Call({"split": split}, config, {}, {"output": output}, inputs, "{}"))
    return tables.read(output, DECISIONS)


def test_an_enrolled_vehicle_has_scales_and_thresholds_of_its_own(model: Path, tmp_path: Path) -> None:
    # A vehicle on which every detector's scores are far above those of the training vehicles.
    shift = [pl.col("gat_logit") + 9, pl.col("vgae_error") + 30]
    enrolment = of("new", synthetic(5, 1, 1200, ())).with_columns(shift)
    frame = pl.concat(
        [of("new", synthetic(6, 2, 400, ("known", "a"))).with_columns(shift), of("other", synthetic(7, 1, 300))]
    )
    mixed = pl.concat([frame[:400], frame[800:], frame[400:800]])  # the vehicle's captures are not side by side
    enrolled, header = decided(tmp_path, model, "left_out_enrolled", mixed, enrolment)
    usual, _ = decided(tmp_path, model, "left_out", mixed, enrolment)
    assert enrolled["capture"].equals(mixed["capture"])
    new, attacked = (enrolled["vehicle"] == "new").to_numpy(), enrolled["label"].to_numpy() == 1
    assert enrolled.filter(~new).equals(usual.filter(~new)), "what is not enrolled is decided on as never met"
    alarm = enrolled["alarm"].to_numpy()
    assert alarm[new & attacked].mean() > 0.9
    assert alarm[new & ~attacked].mean() <= 2 * guarantee(60, 0.005)
    rules = {name: AlarmRule.from_json(rule) for name, rule in header["rules"].items()}
    assert rules.keys() == {"fusion", *NAMES[1:]}
    own, odds = rules["fusion"].vehicles["new"], header["even_odds_of_vehicles"]
    assert odds["new"]["gat"] < odds["other"]["gat"], "logit 0 is not surprising on the vehicle"
    assert "new" not in FusionBaselines.load(model).rules["fixed_weight"].vehicles
    # On the windows that it is enrolled by, at most a block of sixty is alarmed by the threshold that they set.
    seen, _ = decided(tmp_path, model, ENROLMENT, enrolment, enrolment)
    assert (seen["fusion_score"].to_numpy() > own).mean() <= guarantee(60, 0.005)


def test_what_no_vehicle_can_be_enrolled_by_is_named(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = synthetic(5, 1, 60, ())
    with caplog.at_level(logging.WARNING):
        few, _ = decided(tmp_path, model, "left_out_enrolled", frame, frame[:49])
    assert "enrolment.parquet: compact is enrolled by 49 windows, too few to learn from (50 at least)" in caplog.text
    usual, _ = decided(tmp_path, model, "left_out", frame, frame)
    assert few.equals(usual), "decided on as never met"
    assert not decided(tmp_path, model, ENROLMENT, frame[:0], frame[:0])[0].height
    attacked = frame.with_columns(label=pl.lit(1, pl.UInt8), attack=pl.lit("dos"))
    with pytest.raises(CanidsError, match=r"enrolment\.parquet: compact has windows labelled as attacked"):
        decided(tmp_path, model, "left_out_enrolled", frame, attacked)


def test_a_detector_that_finds_the_bus_unlike_training_has_no_vote(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    baselines = FusionBaselines.load(model)
    frame = synthetic(8, 2, 400, ("b",))
    strange = frame.with_columns(gat_logit=pl.col("gat_logit") + 40)
    with caplog.at_level(logging.WARNING):
        result, _ = decided(tmp_path, model, "left_out", strange, frame)
    assert "capture-0: gat finds" in caplog.text
    late = np.tile(np.arange(400) >= unlike.FEWEST, 2)
    assert (result["unlike_gat"].to_numpy()[late] == 1).all()
    assert not result["unlike_vgae"].sum()
    # The other detector decides; the score of the one without a vote stays as it is.
    attacked, alarm = frame["label"].to_numpy() == 1, result["alarm"].to_numpy()
    assert alarm[late & ~attacked].mean() < 0.05
    assert (result["baseline_max_alarm"].to_numpy() == 1)[late & attacked].mean() > 0.5
    scores = baselines.observer.scores(read(tmp_path / "left_out.parquet").values)
    np.testing.assert_array_equal(result["gat_score"].to_numpy(), scores[:, 0])
    # An attack that comes and goes is none, nor is one in the blocks of training, which may begin with it.
    usual, _ = decided(tmp_path, model, "left_out", frame, frame)
    assert not usual["unlike_vgae"].sum()
    assert not decided(tmp_path, model, "select", strange, frame)[0]["unlike_gat"].sum()


def test_likeness_goes_on_from_window_to_window(model: Path, tmp_path: Path) -> None:
    observer = FusionBaselines.load(model).observer
    split = loaded(tmp_path, synthetic(8, 1, 200, ("b",)).with_columns(gat_logit=pl.col("gat_logit") + 40))
    flags, voting = unlike.over(observer, split.values, split.segments)
    state: unlike.Likeness | None = None
    for begin, end in ((0, 1), (1, 3), (3, 90), (90, 200)):
        part, outputs, state = unlike.step(observer, split.values[begin:end], state)
        np.testing.assert_array_equal(part, flags[begin:end])
        np.testing.assert_array_equal(outputs, voting[begin:end])
    assert flags[:, 0].sum() == 200 - unlike.FEWEST + 1


def test_combinations_by_hand_and_every_fusion_is_held_to_the_budget(files: dict[str, Path], model: Path) -> None:
    baselines, calibrate = FusionBaselines.load(model), read(files["calibrate"])
    windows = as_recorded(calibrate, baselines.observer)
    gat, vgae = windows.scores[0].numpy().T
    for how, expected in (
        ("max", np.maximum(gat, vgae)),
        ("mean", (gat + vgae) / 2),
        ("noisy_or", gat + vgae - gat * vgae),
    ):
        output, _ = Combined(how, 0.5).step(windows, None)
        np.testing.assert_allclose(output.score, expected, atol=1e-6)
        np.testing.assert_array_equal(output.alarm, output.score > 0.5)
    with pytest.raises(ValueError, match="how"):
        Combined("sum", 0.5)
    decisions = decide.decide(baselines, baselines.fusions, calibrate, "mean", baselines.rules)
    free = calibrate.labels == 0
    for name in NAMES:
        column = "alarm" if name == "mean" else f"baseline_{name}_alarm"
        assert (decisions[column].cast(pl.Float32).to_numpy() > 0)[free].mean() <= 0.005, name


def test_a_fusion_that_alarms_too_often_is_held_back(files: dict[str, Path], model: Path) -> None:
    baselines, calibrate = FusionBaselines.load(model), read(files["calibrate"])
    config = call_of(model.parent, "small_nokd", {}, evidence=3).config
    data = FusionData.read({n: [p] for n, p in files.items()}, config, CPU)
    careless = {"max": Combined("max", 0.1)}
    free = calibrate.labels == 0
    assert careless["max"].step(data.calibrate, None)[0].alarm[free].mean() > 0.05
    rule = fit_baselines.rule_of(careless["max"], baselines.observer, calibrate, config)
    decisions = decide.decide(baselines, careless, calibrate, "max", {"max": rule})
    alarm = decisions["alarm"].to_numpy()
    # Each block of a second counts the same, also one of which few windows are attack-free.
    assert alarm[free].mean() <= 1.1 * config["false_alarm_budget"]
    assert alarm[~free].mean() > 0.8
    # Two of three windows: a single one is no alarm.
    of_three = decide.decide(baselines, careless, calibrate, "max", {"max": AlarmRule(0.5, {}, Evidence(2, 3))})
    single = decide.decide(baselines, careless, calibrate, "max", {"max": AlarmRule(0.5)})
    begins = np.flatnonzero(np.diff(single["alarm"].to_numpy().astype(int)) == 1) + 1
    assert len(begins)
    earlier = single["alarm"].to_numpy()
    assert not of_three["alarm"].to_numpy()[[b for b in begins if not earlier[max(b - 2, 0) : b].any()]].any()
