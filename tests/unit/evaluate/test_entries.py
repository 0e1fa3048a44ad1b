"""The entry points on small synthetic decisions and graph stores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from evaluate_data import (
    CONFIG,
    LOG,
    SCENARIOS,
    UNLABELLED,
    call,
    decisions,
    evaluated_baselines,
    keys,
    stores,
    summarised,
    write_decisions,
    write_store,
)

from canids_evaluate import evaluate, summary, window_baselines
from canids_evaluate.judging import id_rate
from canids_evaluate.judging.windows import of_own_blocks
from canids_evaluate.pages import provenance
from canids_evaluate.pages.rows import WINDOW_BASELINES
from canids_evaluate.runs import reading_log
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import JUDGED, LEFT_OUT
from canids_shared.contracts.whole import write_json
from canids_shared.errors import CanidsError
from canids_shared.jobs import locks
from canids_shared.jobs.entry_point import Call


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def logged() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def test_evaluate_writes_the_contract_twice_the_same() -> None:
    inputs = decisions("large", 0.3)
    evaluate.main(call("a", inputs, variant="large"))
    evaluate.main(call("b", inputs, variant="large"))
    for name in ("metrics.json", "curves.json"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    content = json.loads(Path("a/metrics.json").read_text())
    assert (content["contract"], content["dataset"], content["variant"], content["seed"]) == (
        "metrics/6",
        "d",
        "large",
        0,
    )
    assert (content["code"], content["config"]) == ("0123456789abcdef", CONFIG)
    methods = {"gat", "vgae", "fusion", "fixed_weight", "hysteresis"}
    assert content["scenarios"].keys() == set(SCENARIOS)
    assert content["scenarios"]["test_known"].keys() == content["thresholds"].keys() == methods
    gat = content["scenarios"]["test_known"]["gat"]
    assert gat["per_attack"].keys() == {"dos", "fuzzing"}
    assert sum(v["n_attacked"] for v in gat["per_attack"].values()) == gat["n_attacked"]
    assert sum(v["n_windows"] for v in gat["per_capture"].values()) == gat["n_windows"] == 400
    assert gat["f1_optimal"]["threshold"] == content["thresholds"]["gat"]["f1"]
    assert content["thresholds"]["fusion"]["budget"] is None


def test_budget_holds_on_calibrate_and_fusion_takes_its_own_alarms() -> None:
    inputs = decisions("large", 0.4, ["calibrate"])
    evaluate.main(call("a", inputs, variant="large", scenarios=["calibrate"]))
    content = json.loads(Path("a/metrics.json").read_text())["scenarios"]["calibrate"]
    assert content["gat"]["fpr"] <= 0.01
    table = pl.read_parquet(inputs["calibrate"][0])
    hit = table["label"].to_numpy() == 1
    assert content["fusion"]["recall"] == pytest.approx(table["alarm"].to_numpy()[hit].mean())
    assert content["gat"]["f1_optimal"]["f1"] >= content["gat"]["f1"]


def test_calibrate_without_attack_free_windows_is_refused() -> None:
    inputs = decisions("large", 0.3)
    write_decisions(inputs["calibrate"][0], keys([1, 1]), 0.1, np.random.default_rng(0))
    with pytest.raises(CanidsError, match=r"calibrate\.parquet: no attack-free window"):
        evaluate.main(call("a", inputs, variant="large"))


def test_unlabelled_scenario_gives_nulls_and_the_page_says_so() -> None:
    inputs = decisions("large", 0.3, [UNLABELLED])
    evaluate.main(call("a", inputs, variant="large", scenarios=[UNLABELLED]))
    fusion = json.loads(Path("a/metrics.json").read_text())["scenarios"][UNLABELLED]["fusion"]
    assert (fusion["f1"], fusion["n_windows"], fusion["intervals"]["f1"]) == (None, 0, None)
    metrics, curves = (
        [Path("a", name), Path("window_baselines", UNLABELLED, name)] for name in ("metrics.json", "curves.json")
    )
    summarised("s", metrics=metrics, curves=curves)
    assert "None of its windows is labelled, so there is nothing to evaluate here." in Path("s/results.md").read_text()


def test_test_scenarios_are_logged_and_folds_are_not() -> None:
    evaluate.main(call("a", decisions("large", 0.3), variant="large"))
    (line,) = logged()
    assert (line["rule"], line["scenarios"], line["dataset"]) == ("eval_large", SCENARIOS, "d")
    assert line.keys() == {"time", "commit", "dirty", "code", "dataset", "rule", "instance", "scenarios"}
    evaluate.main(call("a", decisions("large", 0.3, [LEFT_OUT]), variant="large", scenarios=[LEFT_OUT]))
    window_baselines.main(call("b", stores()))
    assert [r["rule"] for r in logged()] == ["eval_large", "window_baselines"]


def test_readings_are_logged_by_one_job_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_S", 0.0)
    lock = locks.try_lock(LOG.with_name(".lock"))
    assert lock
    with pytest.raises(CanidsError, match="experimentruns: process"):
        reading_log.record("eval_large", {"dataset": "d"}, "0", SCENARIOS)
    assert not logged()
    locks.release(LOG.with_name(".lock"), lock)
    reading_log.record("eval_large", {"dataset": "d"}, "0", SCENARIOS)
    assert len(logged()) == 1


def test_the_report_names_the_commit_that_read_and_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = decisions("large", 0.3)
    monkeypatch.setattr(reading_log, "commit", lambda: ("old", True))
    evaluate.main(call("a", inputs, variant="large"))
    monkeypatch.setattr(reading_log, "commit", lambda: ("new", False))
    evaluate.main(call("b", inputs, variant="large", code="other"))
    contents = [
        json.loads(Path(p).read_text())
        for p in ("a/metrics.json", "b/metrics.json", evaluated_baselines()["window_baselines"][0])
    ]
    (one, two, unlogged) = provenance.evaluations(contents).rows
    assert (one[:3], one[-1]) == (["eval_large", "0123456789abcdef", "0"], "commit old, with uncommitted changes")
    assert (two[1], two[-1]) == ("other", "commit new")
    assert (unlogged[0], unlogged[-1]) == ("window_baselines", "–")


@pytest.mark.parametrize(
    "line",
    [
        b'{"code": ',
        b"\xff",
        b"[1]",
        b"{}",
        b'{"time": 3, "code": "", "dataset": "", "rule": "", "instance": "", "commit": null, "dirty": null}',
    ],
)
def test_a_damaged_line_of_the_log_is_named(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    evaluate.main(call("a", decisions("large", 0.3), variant="large"))
    before = provenance.evaluations([json.loads(Path("a/metrics.json").read_text())]).rows
    with LOG.open("ab") as stream:
        stream.write(line + b"\n")
    assert provenance.evaluations([json.loads(Path("a/metrics.json").read_text())]).rows == before
    assert "test_readings.jsonl: line 2 is damaged and passed over" in caplog.text


def test_baselines_judged_by_another_config_are_refused() -> None:
    inputs = decisions("large", 0.3)
    other = json.loads(inputs["window_baselines"][0].read_text())
    other["config"]["bootstrap"] += 1
    write_json(inputs["window_baselines"][0], other["contract"], other)
    with pytest.raises(CanidsError, match=r"curves\.json: evaluated with another bootstrap; delete it and run again"):
        evaluate.main(call("a", inputs, variant="large"))


def test_id_rate_by_hand() -> None:
    write_store(Path("fit.safetensors"), [{1: 4, 2: 6}, {1: 5, 2: 5}, {1: 90, 9: 10}], [0, 0, 1])
    rule = id_rate.learn(GraphStore("fit.safetensors"))
    assert (rule.ids.tolist(), rule.highest.tolist()) == ([1, 2], [5, 6])
    write_store(
        Path("test.safetensors"), [{1: 5, 2: 5}, {1: 10}, {1: 5, 7: 5}, {1: 10, 7: 10}, {0: 3}], [0, 1, 1, 1, 1]
    )
    scores = rule.score(GraphStore("test.safetensors"))
    assert scores == pytest.approx([0, 0.5, 0.5, 0.75, 1])


def test_baselines_write_the_contract() -> None:
    inputs = stores()
    window_baselines.main(call("a", inputs))
    window_baselines.main(call("b", inputs))
    assert Path("a/metrics.json").read_bytes() == Path("b/metrics.json").read_bytes()
    content = json.loads(Path("a/metrics.json").read_text())
    assert content["variant"] is None
    methods = content["scenarios"]["test_known"]
    assert methods.keys() == WINDOW_BASELINES.keys()
    assert [methods[m]["f1"] for m in ("id_rate", "extra_trees")] == [1, 1]
    assert (methods["always_attack"]["recall"], methods["always_attack"]["mcc"]) == (1, None)


def test_leakage_is_refused() -> None:
    inputs = stores()
    write_store(inputs["scenarios"][1], [{1: 1}], [0], capture="copy", sha="fit-dos")
    with pytest.raises(CanidsError, match="'copy' has the same content as the training capture 'fit-dos'"):
        window_baselines.main(call("a", inputs))


def test_one_class_is_refused() -> None:
    inputs = stores()
    write_store(inputs["fit"][0], [{1: 1}, {1: 2}], [0, 0])
    with pytest.raises(CanidsError, match=r"fit\.safetensors: no attacked window"):
        window_baselines.main(call("a", inputs))


def evaluated(*variants: str) -> dict[str, list[Path]]:
    """Metrics and curves of these variants, each noisier than the one before, and of the baselines."""
    for i, variant in enumerate(variants):
        evaluate.main(call(f"eval_{variant}", decisions(variant, 0.6 + 0.1 * i), variant=variant))
    runs = [*(Path(f"eval_{v}") for v in variants), evaluated_baselines()["window_baselines"][0].parent]
    return {k: [run / f"{k}.json" for run in runs] for k in ("metrics", "curves")}


@pytest.mark.slow
def test_summary_names_a_baseline_that_wins() -> None:
    inputs = evaluated("large", "small_kd", "small_nokd")
    summarised("a", **inputs)
    summarised("b", **inputs)
    assert {p.name: p.read_bytes() for p in Path("a").iterdir()} == {
        p.name: p.read_bytes() for p in Path("b").iterdir()
    }
    page = Path("a/results.md").read_text()
    assert "**1.0000**" in page
    assert "ID and rate (F1 1.0000) beats the fusion (large" in page
    table = pl.read_csv("a/results.csv")
    assert len(table) == 2 * (3 * 5 + len(WINDOW_BASELINES))
    assert {"f1", "f1_low", "f1_high", "f1_optimal", "n_episodes"} <= set(table.columns)
    assert "<dc:date>" not in Path("a/f1.svg").read_text()
    assert "Needs a student" not in Path("a/distillation.svg").read_text()


def test_summary_of_a_scenario_without_labels() -> None:
    inputs = decisions("large", 0.3, [UNLABELLED])
    evaluate.main(call("a", inputs, variant="large", scenarios=[UNLABELLED]))
    summarised("s", metrics=[Path("a/metrics.json")], curves=[Path("a/curves.json")])
    assert "F1 is undefined here" in Path("s/results.md").read_text()


def test_summary_refuses_a_foreign_file() -> None:
    Path("metrics.json").write_text('{"contract": "metrics/0"}')
    with pytest.raises(CanidsError, match=r"metrics\.json: contract metrics/0, not metrics/6"):
        summarised("a", metrics=[Path("metrics.json")], curves=[])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"f1": 0', '"f1": 1.2345, "was": 0', "1.2345.* is greater than the maximum of 1"),
        ('"n_windows": 4', '"n_windows": 5', "was changed since it was written"),
        ('"n_windows": ', '"n_windows": "x", "was": ', "is not of type 'integer'"),
        ('"scenarios": {', '"scenarios": [], "was": {', "Additional properties|is not of type 'object'"),
    ],
)
def test_an_edited_evaluation_reaches_no_table_card_or_report(old: str, new: str, complaint: str) -> None:
    """All of them read `metrics.json` by one function."""
    evaluate.main(call("a", decisions("large", 0.3), variant="large"))
    path = Path("a/metrics.json")
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CanidsError, match=rf"^a/metrics\.json: .*({complaint})") as caught:
        summarised("s", metrics=[path], curves=[Path("a/curves.json")])
    assert len(str(caught.value)) < 500
    assert not Path("s").exists()


def test_evaluations_of_another_dataset_variant_or_instance_are_refused() -> None:
    inputs = decisions("large", 0.3)
    evaluate.main(call("eval_large", inputs, variant="large"))
    curves = [Path("eval_large/curves.json")]
    summarised("s", metrics=[Path("eval_large/metrics.json")], curves=curves)
    for folder, complaint in {
        "eval_small_kd": "is of variant 'large', not 'small_kd'",
        "eval_large@seed-1": "is of instance '', not '@seed-1'",
        "results/d/window_baselines": "is of variant 'large', not 'None'",
    }.items():
        copy = Path(folder, "metrics.json")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(Path("eval_large/metrics.json").read_bytes())
        with pytest.raises(CanidsError, match=rf"{folder}/metrics\.json: {complaint}; delete it and run again"):
            summarised("t", metrics=[copy], curves=curves)
    other = Call({"dataset": "other", "instance": ""}, {}, {}, {}, {"metrics": [Path("eval_large/metrics.json")]}, "{}")
    with pytest.raises(CanidsError, match=r"eval_large/metrics\.json: is of dataset 'd', not 'other'"):
        summary.main(other)


def test_without_a_test_scenario_blocks_of_the_own_captures_are_judged_and_that_is_said() -> None:
    inputs = decisions("large", 0.3, [JUDGED])
    own = [f"{JUDGED}-dos"]
    before = LOG.read_bytes() if LOG.exists() else b""
    window_baselines.main(call("b", stores([JUDGED]), scenarios=[JUDGED], captures=own))
    baselines = {"window_baselines": [Path("b/metrics.json")], "window_baseline_curves": [Path("b/curves.json")]}
    evaluate.main(call("a", {**inputs, **baselines}, variant="large", scenarios=[JUDGED], captures=own))
    assert (LOG.read_bytes() if LOG.exists() else b"") == before
    fusion = json.loads(Path("a/metrics.json").read_text())["scenarios"][JUDGED]["fusion"]
    assert list(fusion["per_capture"]) == own
    assert fusion["n_windows"] == 200
    summarised(
        "s",
        metrics=[Path("a/metrics.json"), Path("b/metrics.json")],
        curves=[Path("a/curves.json"), Path("b/curves.json")],
    )
    assert "The dataset has no test scenario: these are the blocks `select`" in Path("s/results.md").read_text()


def test_a_restart_repeats_windows_of_its_block_and_is_not_judged() -> None:
    start = np.array([0.0, 1, 2, 10, 11, 1, 11, 0, 1])
    names = ["a"] * 7 + ["b"] * 2
    table = pl.DataFrame({"capture": names, "t_start": start})
    judged = of_own_blocks(table, ["a", "b"])
    assert judged.tolist() == [True] * 5 + [False] * 2 + [True] * 2
    assert of_own_blocks(table, ["b"]).tolist() == [False] * 7 + [True] * 2


def test_buses_of_a_log_and_windows_of_one_time_are_judged() -> None:
    table = pl.DataFrame({"capture": ["a.can0"] * 3 + ["ab"] * 2, "t_start": [0.0, 0, 1, 0, 1]})
    assert of_own_blocks(table, ["a"]).tolist() == [True] * 3 + [False] * 2


def test_extra_trees_are_left_out_where_there_is_no_attack_to_learn_from() -> None:
    write_store(Path("fit.safetensors"), [{0: 1}] * 40, [0] * 40, capture="free")
    fit = GraphStore(Path("fit.safetensors"))
    assert not {"extra_trees", "gradient_boosting"} & window_baselines.learn(fit, 5, 0, attacks=False).keys()
    with pytest.raises(CanidsError, match="no attacked window, and classifiers learn from both classes"):
        window_baselines.learn(fit, 5, 0)
