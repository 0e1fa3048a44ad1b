"""The entry points on small synthetic decisions and graph stores."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from evaluate_data import (
    episodes,
    keys,
    write_benchmark,
    write_decisions,
    write_split,
    write_store,
    write_training,
)

from canids_evaluate import cards, evaluate, planning, report, summary, window_baselines
from canids_evaluate.judging import id_rate
from canids_evaluate.pages import curve_figures, run_figures, sentences
from canids_evaluate.pages.rows import by_scenario, rows_of
from canids_evaluate.planning import FIGURES
from canids_evaluate.runs import provenance, reading_log
from canids_evaluate.runs.trainings import Cost, read_cost, read_trainings
from canids_shared.contracts.detectors import DETECTORS, Detector, as_json
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import LEFT_OUT
from canids_shared.errors import CanidsError
from canids_shared.jobs import locks
from canids_shared.jobs.entry_point import Call

CONFIG = {
    "seed": 0,
    "bootstrap": 20,
    "bootstrap_block": 5.0,
    "false_alarm_budget": 0.01,
    "episode_gap": 1.0,
    "trees": 5,
}
SCENARIOS = ["test_known", "test_unknown"]
UNLABELLED = "test_unlabelled"
LOG = Path("experimentruns/test_readings.jsonl")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(output: str, inputs: dict[str, list[Path]], **constants: Any) -> Call:
    paths = {"metrics": Path(output) / "metrics.json", "curves": Path(output) / "curves.json"}
    constants = {"scenarios": SCENARIOS, "code": "0123456789abcdef", **constants}
    return Call({"dataset": "d", "instance": ""}, CONFIG, constants, paths, inputs, "{}")


def split(name: str, rng: np.random.Generator) -> dict[str, tuple[str, list[int]]]:
    labels = {a: [-1] * 20 if name == UNLABELLED else episodes(200, 0.4, rng) for a in ("dos", "fuzzing")}
    return {f"{name}-{a}": (a, values) for a, values in labels.items()}


def stores(scenarios: list[str] = SCENARIOS) -> dict[str, list[Path]]:
    rng = np.random.default_rng(0)
    paths = {}
    for name in ["fit", "calibrate", *scenarios]:
        paths[name] = Path(f"graphs/{name}.safetensors")
        write_split(paths[name], split(name, rng), rng)
    return {"fit": [paths["fit"]], "calibrate": [paths["calibrate"]], "scenarios": [paths[s] for s in scenarios]}


def evaluated_baselines(scenarios: list[str] = SCENARIOS) -> dict[str, list[Path]]:
    """The inputs that an evaluation takes from the baselines."""
    folder = Path("window_baselines", "-".join(scenarios))
    if not folder.exists():
        before = LOG.read_bytes() if LOG.exists() else b""
        window_baselines.main(call(str(folder), stores(scenarios), scenarios=scenarios))
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_bytes(before)
    return {"window_baselines": [folder / "metrics.json"], "window_baseline_curves": [folder / "curves.json"]}


def decisions(
    variant: str, noise: float, scenarios: list[str] = SCENARIOS, detectors: Sequence[Detector] = DETECTORS
) -> dict[str, list[Path]]:
    """Decisions on the windows of `stores`, and the baselines on the same."""
    found = evaluated_baselines(scenarios)
    rng = np.random.default_rng(int(10 * noise))
    paths = {}
    for i, name in enumerate(["calibrate", *scenarios]):
        paths[name] = Path(f"{variant}/{name}.parquet")
        write_decisions(paths[name], GraphStore(f"graphs/{name}.safetensors").keys(), noise * (1 + i), rng, detectors)
    return {**found, "calibrate": [paths["calibrate"]], "scenarios": [paths[s] for s in scenarios]}


def logged() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def test_evaluate_writes_the_contract_twice_the_same() -> None:
    inputs = decisions("large", 0.3)
    evaluate.main(call("a", inputs, variant="large"))
    evaluate.main(call("b", inputs, variant="large"))
    for name in ("metrics.json", "curves.json"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    found = json.loads(Path("a/metrics.json").read_text())
    assert (found["contract"], found["dataset"], found["variant"], found["seed"]) == ("metrics/3", "d", "large", 0)
    assert (found["code"], found["config"]) == ("0123456789abcdef", CONFIG)
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
    inputs = decisions("large", 0.4, ["calibrate"])
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
    inputs = decisions("large", 0.3, [UNLABELLED])
    evaluate.main(call("a", inputs, variant="large", scenarios=[UNLABELLED]))
    fusion = json.loads(Path("a/metrics.json").read_text())["scenarios"][UNLABELLED]["fusion"]
    assert (fusion["f1"], fusion["n_windows"], fusion["intervals"]["f1"]) == (None, 0, None)


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
    found = [
        json.loads(Path(p).read_text())
        for p in ("a/metrics.json", "b/metrics.json", evaluated_baselines()["window_baselines"][0])
    ]
    (one, two, unlogged) = provenance.evaluations(found).rows
    assert (one[:3], one[-1]) == (["eval_large", "0123456789abcdef", "0"], "commit old, with uncommitted changes")
    assert (two[1], two[-1]) == ("other", "commit new")
    assert (unlogged[0], unlogged[-1]) == ("window_baselines", "–")
    with LOG.open("a") as stream:
        stream.write('{"code": \n')
    with pytest.raises(CanidsError, match=r"test_readings\.jsonl: line 3 is damaged"):
        provenance.evaluations(found)


def test_baselines_judged_by_another_config_are_refused() -> None:
    inputs = decisions("large", 0.3)
    other = json.loads(inputs["window_baselines"][0].read_text())
    other["config"]["bootstrap"] += 1
    inputs["window_baselines"][0].write_text(json.dumps(other))
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
    found = json.loads(Path("a/metrics.json").read_text())
    assert found["variant"] is None
    methods = found["scenarios"]["test_known"]
    assert methods.keys() == {"id_rate", "extra_trees", "isolation_forest", "always_attack"}
    assert (methods["id_rate"]["f1"], methods["extra_trees"]["f1"]) == (1, 1)
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


def summarised(output: str, **inputs: list[Path]) -> None:
    paths = {"markdown": Path(output, "results.md"), "csv": Path(output, "results.csv")}
    paths |= {name: Path(output, f"{name}.svg") for name in FIGURES}
    summary.main(Call({"dataset": "d", "instance": ""}, {}, {}, paths, inputs, "{}"))


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
    assert len(table) == 2 * (3 * 5 + 4)
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
    with pytest.raises(CanidsError, match=r"metrics\.json: contract metrics/0, not metrics/3"):
        summarised("a", metrics=[Path("metrics.json")], curves=[])


def test_what_a_run_took_is_null_where_it_was_not_measured() -> None:
    write_benchmark(Path("gat_large"))
    assert read_cost(Path("gat_large/benchmark.tsv")) == Cost(12.5, 345.6)
    Path("b.tsv").write_text("s\th:m:s\tmax_rss\n0.0\t0:00:00\tNA\n")
    assert read_cost(Path("b.tsv")) == Cost(None, None)
    run_figures.resources(Path("r.svg"), {"gat_large": Cost(12.5, 345.6), "eval_large": Cost(None, None)})
    assert Path("r.svg").stat().st_size > 0
    with pytest.raises(CanidsError, match=r"absent\.tsv: no such file"):
        read_cost(Path("absent.tsv"))
    Path("b.tsv").write_bytes(b"s\xff\n1\n")
    with pytest.raises(CanidsError, match=r"b\.tsv: not a whole benchmark"):
        read_cost(Path("b.tsv"))


TRIO = [Detector(n, n.title(), f"{n}_error", supervised=n == "forest") for n in ("forest", "pca", "rate")]


def test_detectors_are_those_that_the_decisions_declare() -> None:
    """Three detectors of other names, trained in one run, from decisions to tables, figures, cards and report."""
    variants = ("large", "small_kd", "small_nokd")
    for i, variant in enumerate(variants):
        inputs = decisions(variant, 0.6 + 0.1 * i, detectors=TRIO)
        evaluate.main(call(f"eval_{variant}", inputs, variant=variant))
    baselines = evaluated_baselines()
    names = [d.name for d in TRIO]
    metrics = {v: json.loads(Path(f"eval_{v}/metrics.json").read_text()) for v in variants}
    assert metrics["large"]["detectors"] == as_json(TRIO)
    assert {*names, "fusion"} < metrics["large"]["scenarios"]["test_known"].keys()
    runs = {k: [Path(f"eval_{v}/{k}.json") for v in variants] for k in ("metrics", "curves")}
    everything = {
        "metrics": runs["metrics"] + baselines["window_baselines"],
        "curves": runs["curves"] + baselines["window_baseline_curves"],
    }
    summarised("s", **everything)
    page = Path("s/results.md").read_text()
    for label in ("Forest", "Pca", "Rate", "Fusion", "Extra Trees"):
        assert f"| {label} |" in page
    kinds = {"detector": names, "dqn": []}
    trainings = [
        write_training(Path(f"runs/{kind}_{v}"), detectors=detectors)
        for kind, detectors in kinds.items()
        for v in variants
    ]
    cards_ = {f"{kind}_{v}": Path(f"s/cards/{kind}_{v}.md") for kind in kinds for v in variants}
    graphs = stores()
    given = {**runs, **baselines, "trainings": trainings, "fit": graphs["fit"], "calibrate": graphs["calibrate"]}
    cards.main(
        Call({"dataset": "d", "instance": ""}, {}, {"simulated": []}, cards_, {**given, "fuse": given["fit"]}, "")
    )
    assert "As Pca in `metrics.json`" in cards_["detector_small_kd"].read_text()
    for v in variants:
        write_benchmark(Path(f"eval_{v}"))
    pages = {name: Path("s", name + suffix) for name, suffix in report_outputs().items()}
    benchmarks = [p.with_name("benchmark.tsv") for p in (*trainings, *runs["metrics"])]
    figures = [Path(f"s/{name}.svg") for name in FIGURES]
    shown = {"figures": figures, "trainings": trainings, "benchmarks": benchmarks, "cards": [*cards_.values()]}
    report.main(Call({"dataset": "d", "instance": ""}, {}, {}, pages, {**everything, **shown}, ""))
    text = pages["page"].read_text()
    assert "<td>Pca</td>" in text
    assert "gat" not in text.lower().replace("navigation", "")
    assert [c for c in ("Forest", "Pca", "Rate") if f"{c} " not in text] == []


def report_outputs() -> dict[str, str]:
    return {"page": ".html", "learning": ".svg", "cost": ".svg", "resources": ".svg"}


@pytest.mark.parametrize("count", [1, 5])
def test_one_or_five_detectors(count: int) -> None:
    detectors = [Detector(f"d{i}", f"D{i}", f"d{i}_error", supervised=False) for i in range(count)]
    evaluate.main(call("eval_large", decisions("large", 0.6, detectors=detectors), variant="large"))
    content = json.loads(Path("eval_large/metrics.json").read_text())
    rows = by_scenario(rows_of([content]))["test_known"]
    assert [row.label for row in rows[: count + 1]] == ["Fusion", *(d.label for d in detectors)]
    assert "D0" in " ".join(sentences.findings(rows))
    curve_figures.policy(Path("policy.svg"), json.loads(Path("eval_large/curves.json").read_text()))
    assert Path("policy.svg").stat().st_size > 0


@pytest.mark.parametrize("name", ["hysteresis", "extra_trees"])
def test_a_detector_with_the_name_of_a_baseline_is_refused(name: str) -> None:
    inputs = decisions("large", 0.6, detectors=[Detector(name, "X", f"{name}_error", supervised=False)])
    with pytest.raises(CanidsError, match=f"'{name}' is the name of a .*call (one|it) otherwise"):
        evaluate.main(call("a", inputs, variant="large"))


def test_runs_that_train_the_detectors_follow_from_the_config() -> None:
    stage = SimpleNamespace(config={"": {}}, upstream=lambda path: lambda wildcards: [path.replace("{instance}", "@s")])
    assert planning.card_names(stage)[:4] == ["vgae_large", "vgae_small_kd", "vgae_small_nokd", "gat_large"]  # type: ignore[arg-type]
    stage.config = {"": {"detector_runs": ["detector"]}}
    expected = [f"<runs>/{k}_{v}@s/run.json" for k in ("detector", "dqn") for v in ("large", "small_kd", "small_nokd")]
    assert planning.trainings(stage, "run.json")(None) == expected  # type: ignore[arg-type]
    assert planning.cards_on_command_line(["--spec", "--detector_small_kd", "--metrics"]) == ["detector_small_kd"]


def test_a_training_is_read_whole_or_refused() -> None:
    record = write_training(Path("gat_small_kd@seed-2"), seed=2)
    (found,) = read_trainings([record])
    assert (found.name, found.kind, found.variant, found.seed) == ("gat_small_kd@seed-2", "gat", "small_kd", 2)
    assert provenance.runs([found]).rows == [["gat_small_kd@seed-2", "0123456789abcdef", "2", "16", "4"]]
    record.write_bytes(record.read_bytes()[:50])
    with pytest.raises(
        CanidsError, match=r"gat_small_kd@seed-2/run\.json: not a whole .*; delete the folder gat_small_kd@seed-2 and"
    ):
        read_trainings([record])
