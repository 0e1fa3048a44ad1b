from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from canids_shared.contracts import tables
from canids_shared.contracts.detectors import VGAE
from canids_shared.contracts.manifest import SPLITS
from canids_shared.contracts.tables import DECISIONS, KEYS
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_train_drl import decide, dqn, fit_baselines
from canids_train_drl.agent.policy import Policy
from canids_train_drl.environment.states import States, by, read
from canids_train_drl.fusion_baselines.stored import FusionBaselines
from train_drl.test_dqn import call_of
from train_drl.test_states import loaded, synthetic, written

SIMPLE = ["fixed_weight", "hysteresis", "cusum"]
FUSION_BASELINES = {f"baseline_{name}_{what}" for name in SIMPLE for what in ("score", "alarm")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    files = {
        s: written(folder / f"{s}.parquet", synthetic(n, 2, 150)) for n, s in enumerate(("fuse", "select", "calibrate"))
    }
    call = call_of(folder / "run", "small_nokd", files, steps=100, evaluate_every=50)
    dqn.main(call)
    return call.output["model"]


@pytest.fixture(scope="module")
def beside(model: Path) -> Path:
    folder = model.parent.parent
    files = {s: folder / f"{s}.parquet" for s in ("fuse", "select", "calibrate")}
    call = call_of(folder / "fusion_baselines", "small_nokd", files, fusion_baselines=SIMPLE)
    fit_baselines.main(call)
    return call.output["model"]


def decided(model: Path, beside: Path, split: States, fusion: str = "dqn") -> pl.DataFrame:
    policy, baselines = decide.load(model, beside)
    return decide.decide(policy, baselines.fusions, split, fusion, decide.rules_of(policy, baselines))


def test_decisions_follow_the_contract(model: Path, beside: Path, tmp_path: Path) -> None:
    frame = synthetic(5, 2, 100, ("unknown",)).with_columns(label=pl.lit(None, dtype=pl.UInt8))
    wildcards = {"dataset": "simulated", "variant": "small_nokd", "instance": "", "split": "test"}
    output = tmp_path / "decisions.parquet"
    inputs = {"states": [written(tmp_path / "test.parquet", frame)], "model": [model], "fusion_baselines": [beside]}
    decide.main(
        entry_point.Call(
            wildcards, {"torch_threads": 1, "fusion": "dqn", "recalibrate": 0}, {}, {"output": output}, inputs, "{}"
        )
    )
    decisions, metadata = tables.read(output, DECISIONS)
    assert metadata["split"] == "test"
    assert metadata["digests"] == tables.digests(decisions)
    assert metadata["false_alarm_budget"] == 0.01
    logit = frame["gat_logit"].to_numpy()
    above = decisions["gat_score"].to_numpy() > metadata["even_odds"]["gat"]
    assert 0 < above.sum() < len(above)
    np.testing.assert_array_equal(above, logit > 0)
    assert decisions.select(list(KEYS)).equals(frame.select(list(KEYS)))
    assert set(decisions.columns) - DECISIONS.columns.keys() == FUSION_BASELINES | {
        *("gat_score", "vgae_score", "unlike_gat", "unlike_vgae", "q_chosen", "q_other")
    }
    assert (decisions["q_chosen"] >= decisions["q_other"]).all()
    scores = decisions.select("vgae_score", "gat_score", "fusion_score", *FUSION_BASELINES).to_numpy()
    assert scores.min() >= 0
    assert scores.max() <= 1
    above = decisions["baseline_hysteresis_score"].to_numpy() > 0.5
    np.testing.assert_array_equal(above, decisions["baseline_hysteresis_alarm"].to_numpy() == 1)


def test_decisions_do_not_look_ahead_nor_across_captures(model: Path, beside: Path, tmp_path: Path) -> None:
    frame = synthetic(6, 2, 80)
    whole = decided(model, beside, loaded(tmp_path, frame))
    cut = decided(model, beside, loaded(tmp_path, frame[:40]))
    alone = decided(model, beside, loaded(tmp_path, frame[80:]))
    for part, rows in ((cut, slice(0, 40)), (alone, slice(80, 160))):
        for name in ("fusion_score", "baseline_hysteresis_score"):
            np.testing.assert_allclose(part[name].to_numpy(), whole[name].to_numpy()[rows], atol=1e-6)
        assert part["alarm"].to_list() == whole["alarm"].to_list()[rows]


@pytest.mark.parametrize("rows", [0, 1])
def test_capture_of_one_window_and_split_of_none(model: Path, beside: Path, tmp_path: Path, rows: int) -> None:
    decisions = decided(model, beside, loaded(tmp_path, synthetic(7, 1, 20)[:rows]))
    assert len(decisions) == rows


def test_other_columns_are_refused(model: Path, beside: Path, tmp_path: Path) -> None:
    frame = synthetic(8, 1, 20)
    for other in (frame.drop("vgae_kl"), frame.with_columns(gat_new=pl.lit(0, dtype=pl.Float32))):
        with pytest.raises(CanidsError, match=r"states\.parquet: other detector outputs .*(vgae_kl|gat_new)"):
            decided(model, beside, loaded(tmp_path, other))


def test_cut_off_policy_is_named(model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model.read_bytes()[:-10])
    with pytest.raises(CanidsError, match=r"cut\.safetensors.*delete it"):
        Policy.load(cut)


def test_another_fusion_decides_and_the_policy_is_a_baseline(model: Path, beside: Path, tmp_path: Path) -> None:
    split = loaded(tmp_path, synthetic(6, 2, 80))
    usual, other = decided(model, beside, split), decided(model, beside, split, "cusum")
    assert other["alarm"].cast(pl.Float32).equals(usual["baseline_cusum_alarm"], check_names=False)
    assert other["fusion_score"].equals(usual["baseline_cusum_score"], check_names=False)
    assert other["baseline_dqn_alarm"].equals(usual["alarm"].cast(pl.Float32), check_names=False)
    assert "baseline_cusum_alarm" not in other.columns
    assert (other["action"] == other["alarm"].cast(pl.Int16)).all()


def test_fusion_baselines_of_other_detectors_are_refused(model: Path, beside: Path, tmp_path: Path) -> None:
    folder = model.parent.parent
    files = {
        s: written(tmp_path / f"{s}.parquet", synthetic(n + 20, 2, 150))
        for n, s in enumerate(("fuse", "select", "calibrate"))
    }
    call = call_of(tmp_path / "other", "small_nokd", files, fusion_baselines=["fixed_weight"])
    fit_baselines.main(call)
    inputs = {"states": [folder / "select.parquet"], "model": [model], "fusion_baselines": [call.output["model"]]}
    wrong = entry_point.Call(
        {}, {"torch_threads": 1, "fusion": "dqn", "recalibrate": 0}, {}, {"output": tmp_path / "d"}, inputs, "{}"
    )
    with pytest.raises(CanidsError, match="learnt from other detectors than the policy"):
        decide.main(wrong)


def test_scales_are_fitted_to_the_first_seconds(model: Path, beside: Path, tmp_path: Path) -> None:
    policy, fusion_baselines = Policy.load(model), FusionBaselines.load(beside).fusions
    frame = synthetic(6, 2, 300, drift=0.0).with_columns(label=pl.lit(None, dtype=pl.UInt8))
    shifted = frame.with_columns(pl.col("gat_logit") + 30, pl.col("vgae_error") + 30)
    usual, other = loaded(tmp_path, frame, "a"), loaded(tmp_path, shifted, "b")
    seconds = float(frame["t_end"][60] - frame["t_start"][0])
    again = [
        [(decide.recalibrated(policy, part, seconds), part) for part in by("capture", s).values()]
        for s in (usual, other)
    ]
    # Beyond the shift, both vehicles look the same.
    scores = [
        np.concatenate([decide.decide(p, fusion_baselines, s)["gat_score"].to_numpy() for p, s in parts])
        for parts in again
    ]
    np.testing.assert_allclose(*scores, atol=2e-3)
    assert (decide.decide(policy, fusion_baselines, other)["gat_score"].to_numpy() > 0.5).mean() > 0.9
    with pytest.raises(CanidsError, match=r"b\.parquet: capture-0 has 1 windows in its first .* too few"):
        decide.recalibrated(
            policy, by("capture", other)["capture-0"], float(frame["t_end"][0] - frame["t_start"][0]) + 1e-6
        )
    attacked = loaded(tmp_path, synthetic(6, 2, 300), "c")
    with pytest.raises(CanidsError, match="hold windows labelled as attacked"):
        decide.recalibrated(policy, by("capture", attacked)["capture-0"], 1e9)


def test_splits_of_the_training_captures_keep_the_scales(model: Path, beside: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "attacked.parquet", synthetic(6, 2, 300))
    config = {"torch_threads": 1, "fusion": "dqn", "recalibrate": 1e9}

    def decide_on(split: str) -> pl.DataFrame:
        inputs = {"states": [path], "model": [model], "fusion_baselines": [beside]}
        output = tmp_path / f"{split}.parquet"
        decide.main(entry_point.Call({"split": split}, config, {}, {"output": output}, inputs, "{}"))
        decisions, metadata = tables.read(output, DECISIONS)
        assert metadata["recalibrate"] == 0
        return decisions

    for split in SPLITS:
        assert decide_on(split).equals(decided(model, beside, read(path)))
    with pytest.raises(CanidsError, match="hold windows labelled as attacked"):
        decide_on("test")


def test_without_attacks_a_threshold_within_the_budget_decides(tmp_path: Path) -> None:
    def vgae_alone(seed: int, count: int) -> pl.DataFrame:
        frame = synthetic(seed, 2, count, ())
        return frame.drop([name for name in frame.columns if name.startswith("gat_")])

    splits = ("fuse", "select", "calibrate")
    files = {s: written(tmp_path / f"{s}.parquet", vgae_alone(n, 400), (VGAE,)) for n, s in enumerate(splits)}
    call = call_of(tmp_path / "run", "small_nokd", files, false_alarm_budget=0.01)
    fit_baselines.main(replace(call, constants={**call.constants, "attacks": False}))
    alone, baselines = decide.load(None, call.output["model"])
    assert alone == baselines
    assert list(baselines.fusions) == ["fixed_weight"]
    calibrate = read(files["calibrate"])
    decisions = decide.decide(alone, baselines.fusions, calibrate, "fixed_weight", baselines.rules)
    assert 0 < decisions["alarm"].mean() <= 0.02
    loud = replace(calibrate, values=calibrate.values + 50)
    assert (
        decide.decide(alone, baselines.fusions, loud, "fixed_weight", baselines.rules, all_vote=True)["alarm"].mean()
        > 0.99
    )
    evidence = baselines.rules["fixed_weight"].evidence
    of_windows = evidence.over(decisions["vgae_score"].to_numpy(), calibrate.segments)
    assert np.array_equal(decisions["fusion_score"], of_windows)
    assert not {"q_chosen", "gat_score"} & set(decisions.columns)
    # The rule does the same without a policy, whatever the config names as fusion.
    output = tmp_path / "decisions.parquet"
    inputs = {"states": [files["calibrate"]], "model": [], "fusion_baselines": [call.output["model"]]}
    wildcards = {"dataset": "simulated", "variant": "small_nokd", "instance": "", "split": "calibrate"}
    config = {"torch_threads": 1, "fusion": "dqn", "recalibrate": 0}
    decide.main(entry_point.Call(wildcards, config, {}, {"output": output}, inputs, "{}"))
    ruled, metadata = tables.read(output, DECISIONS)
    assert ruled.equals(decisions.select(ruled.columns))
    assert (metadata["fusion"], "policy" in metadata) == ("fixed_weight", False)
