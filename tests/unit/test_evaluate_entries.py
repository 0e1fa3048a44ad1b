"""The entry points on small synthetic decisions and graph stores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from evaluate_data import episodes, keys, write_decisions, write_store

from canids_evaluate import baselines, evaluate, id_rate, summary
from canids_shared.cli import Call
from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphStore
from canids_shared.manifest import LEFT_OUT

CONFIG = {
    "seed": 0,
    "bootstrap": 20,
    "bootstrap_block": 5.0,
    "false_alarm_rate": 0.01,
    "episode_gap": 1.0,
    "trees": 5,
}
SCENARIOS = ["test_known", "test_unknown"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(output: str, inputs: dict[str, list[Path]], **constants: Any) -> Call:
    paths = {"metrics": Path(output) / "metrics.json", "curves": Path(output) / "curves.json"}
    constants = {"scenarios": SCENARIOS, "code": "0123456789abcdef", **constants}
    return Call({"dataset": "d", "instance": ""}, CONFIG, constants, paths, inputs, "{}")


def decisions(variant: str, noise: float, scenarios: list[str] = SCENARIOS) -> dict[str, list[Path]]:
    rng = np.random.default_rng(int(10 * noise))
    paths = {}
    for i, split in enumerate(["calibrate", *scenarios]):
        parts = [keys(episodes(200, 0.4, rng), f"{split}-{a}", a) for a in ("dos", "fuzzing")]
        paths[split] = Path(f"{variant}/{split}.parquet")
        write_decisions(paths[split], pl.concat(parts), noise * (1 + i), rng)
    return {"calibrate": [paths["calibrate"]], "scenarios": [paths[s] for s in scenarios]}


def stores(scenarios: list[str] = SCENARIOS) -> dict[str, list[Path]]:
    rng = np.random.default_rng(0)
    paths = {}
    for split in ["fit", "calibrate", *scenarios]:
        labels = episodes(120, 0.4, rng)
        windows = [{**dict(zip(range(9), rng.integers(1, 6, 9), strict=True)), 0: 40 if v else 3} for v in labels]
        paths[split] = Path(f"graphs/{split}.safetensors")
        write_store(paths[split], windows, labels, capture=split)
    return {"fit": [paths["fit"]], "calibrate": [paths["calibrate"]], "scenarios": [paths[s] for s in scenarios]}


def readings() -> list[dict[str, Any]]:
    path = Path("experimentruns/test_readings.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_evaluate_writes_the_contract_twice_the_same() -> None:
    inputs = decisions("large", 0.3)
    evaluate.main(call("a", inputs, variant="large"))
    evaluate.main(call("b", inputs, variant="large"))
    for name in ("metrics.json", "curves.json"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    found = json.loads(Path("a/metrics.json").read_text())
    assert (found["contract"], found["dataset"], found["variant"], found["seed"]) == ("metrics/1", "d", "large", 0)
    methods = {"gat", "vgae", "fusion", "fixed_weight", "hysteresis"}
    assert found["scenarios"].keys() == set(SCENARIOS)
    assert found["scenarios"]["test_known"].keys() == found["thresholds"].keys() == methods
    gat = found["scenarios"]["test_known"]["gat"]
    assert gat["per_attack"].keys() == {"dos", "fuzzing"}
    assert sum(v["n_attacked"] for v in gat["per_attack"].values()) == gat["n_attacked"]
    assert sum(v["n_windows"] for v in gat["per_capture"].values()) == gat["n_windows"] == 400
    assert gat["f1_optimal"]["threshold"] == found["thresholds"]["gat"]["f1"]
    assert found["thresholds"]["fusion"]["budget"] is None


def test_budget_holds_on_calibrate_and_fusion_takes_its_own_alarms() -> None:
    inputs = decisions("large", 0.4)
    inputs["scenarios"] = inputs["calibrate"]
    evaluate.main(call("a", inputs, variant="large", scenarios=["calibrate"]))
    found = json.loads(Path("a/metrics.json").read_text())["scenarios"]["calibrate"]
    assert found["gat"]["fpr"] <= 0.01
    table = pl.read_parquet(inputs["calibrate"][0])
    hit = table["label"].to_numpy() == 1
    assert found["fusion"]["recall"] == pytest.approx(table["alarm"].to_numpy()[hit].mean())
    assert found["gat"]["f1_optimal"]["f1"] >= found["gat"]["f1"]


def test_calibrate_without_attack_free_windows_is_refused() -> None:
    inputs = decisions("large", 0.3)
    write_decisions(inputs["calibrate"][0], keys([1, 1]), 0.1, np.random.default_rng(0))
    with pytest.raises(CanidsError, match=r"calibrate\.parquet: no attack-free window"):
        evaluate.main(call("a", inputs, variant="large"))


def test_unlabelled_scenario_gives_nulls() -> None:
    inputs = decisions("large", 0.3, ["test_known"])
    write_decisions(inputs["scenarios"][0], keys([None] * 5), 0.1, np.random.default_rng(0))
    evaluate.main(call("a", inputs, variant="large", scenarios=["test_known"]))
    fusion = json.loads(Path("a/metrics.json").read_text())["scenarios"]["test_known"]["fusion"]
    assert (fusion["f1"], fusion["n_windows"], fusion["intervals"]["f1"]) == (None, 0, None)


def test_test_scenarios_are_logged_and_folds_are_not() -> None:
    evaluate.main(call("a", decisions("large", 0.3), variant="large"))
    (line,) = readings()
    assert (line["rule"], line["scenarios"], line["dataset"]) == ("eval_large", SCENARIOS, "d")
    assert line.keys() == {"time", "commit", "dirty", "code", "dataset", "rule", "instance", "scenarios"}
    evaluate.main(call("a", decisions("large", 0.3, [LEFT_OUT]), variant="large", scenarios=[LEFT_OUT]))
    baselines.main(call("b", stores()))
    assert [r["rule"] for r in readings()] == ["eval_large", "baselines"]


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
    baselines.main(call("a", inputs))
    baselines.main(call("b", inputs))
    assert Path("a/metrics.json").read_bytes() == Path("b/metrics.json").read_bytes()
    found = json.loads(Path("a/metrics.json").read_text())
    assert found["variant"] is None
    methods = found["scenarios"]["test_known"]
    assert methods.keys() == {"id_rate", "extra_trees", "isolation_forest", "always_attack"}
    assert (methods["id_rate"]["f1"], methods["extra_trees"]["f1"]) == (1, 1)
    assert (methods["always_attack"]["recall"], methods["always_attack"]["mcc"]) == (1, None)


def test_leakage_is_refused() -> None:
    inputs = stores()
    write_store(inputs["scenarios"][1], [{1: 1}], [0], capture="copy", sha="fit")
    with pytest.raises(CanidsError, match="'copy' has the same content as the training capture 'fit'"):
        baselines.main(call("a", inputs))


def test_one_class_is_refused() -> None:
    inputs = stores()
    write_store(inputs["fit"][0], [{1: 1}, {1: 2}], [0, 0])
    with pytest.raises(CanidsError, match=r"fit\.safetensors: no attacked window"):
        baselines.main(call("a", inputs))


def summarised(output: str, **inputs: list[Path]) -> None:
    names = {"markdown": "results.md", "csv": "results.csv", "f1": "f1.svg", "delay": "delay.svg"}
    names |= {"roc": "roc.svg", "pr": "pr.svg", "timelines": "timelines.svg"}
    paths = {k: Path(output, v) for k, v in names.items()}
    summary.main(Call({"dataset": "d", "instance": ""}, {}, {}, paths, inputs, "{}"))


def test_summary_names_a_baseline_that_wins() -> None:
    evaluate.main(call("large", decisions("l", 0.6), variant="large"))
    evaluate.main(call("small_kd", decisions("s", 0.7), variant="small_kd"))
    baselines.main(call("baselines", stores()))
    runs = ["large", "small_kd", "baselines"]
    inputs = {k: [Path(r, f"{k}.json") for r in runs] for k in ("metrics", "curves")}
    summarised("a", **inputs)
    summarised("b", **inputs)
    assert {p.name: p.read_bytes() for p in Path("a").iterdir()} == {
        p.name: p.read_bytes() for p in Path("b").iterdir()
    }
    page = Path("a/results.md").read_text()
    assert "**1.0000**" in page
    assert "ID and rate (F1 1.0000) beats the best fusion (large" in page
    table = pl.read_csv("a/results.csv")
    assert len(table) == 2 * (5 + 5 + 4)
    assert {"f1", "f1_low", "f1_high", "n_episodes"} <= set(table.columns)
    assert "<dc:date>" not in Path("a/f1.svg").read_text()


def test_summary_of_a_scenario_without_labels() -> None:
    inputs = decisions("large", 0.3, ["test_known"])
    write_decisions(inputs["scenarios"][0], keys([None] * 5), 0.1, np.random.default_rng(0))
    evaluate.main(call("a", inputs, variant="large", scenarios=["test_known"]))
    summarised("s", metrics=[Path("a/metrics.json")], curves=[Path("a/curves.json")])
    assert "F1 is undefined here" in Path("s/results.md").read_text()


def test_summary_refuses_a_foreign_file() -> None:
    Path("metrics.json").write_text('{"contract": "metrics/0"}')
    with pytest.raises(CanidsError, match=r"metrics\.json: not of contract metrics/1"):
        summarised("a", metrics=[Path("metrics.json")], curves=[])
