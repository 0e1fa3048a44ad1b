"""Declared detectors of any names and number, and the runs that train them, from decisions to cards and report."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from evaluate_data import (
    call,
    decisions,
    evaluated_baselines,
    stores,
    summarised,
    write_benchmark,
    write_training,
)

from canids_evaluate import cards, evaluate, planning, report
from canids_evaluate.pages import curve_figures, provenance, run_figures, sentences
from canids_evaluate.pages.rows import by_scenario, rows_of
from canids_evaluate.planning import FIGURES
from canids_evaluate.runs.trainings import Cost, read_cost
from canids_shared.contracts import training_run
from canids_shared.contracts.detectors import Detector, as_json
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

TRIO = [Detector(n, n.title(), f"{n}_error", supervised=n == "forest") for n in ("forest", "pca", "rate")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    return {"page": ".html", "learning": ".svg", "cost": ".svg", "resources": ".svg", "time": ".svg"}


@pytest.mark.parametrize("count", [1, 5])
def test_one_or_five_detectors(count: int) -> None:
    detectors = [Detector(f"d{i}", f"D{i}", f"d{i}_error", supervised=False) for i in range(count)]
    evaluate.main(call("eval_large", decisions("large", 0.6, detectors=detectors), variant="large"))
    content = json.loads(Path("eval_large/metrics.json").read_text())
    rows = by_scenario(rows_of([content]))["test_known"]
    assert [row.label for row in rows[: count + 1]] == ["Fusion", *(d.label for d in detectors)]
    findings = " ".join(sentences.findings(rows))
    assert "D0" in findings
    assert "The episodes are too few" not in findings
    (fusion,) = (row for row in rows if row.label == "Fusion")
    fusion.values["minus"]["d0"]["f1"]["interval"] = None
    few = [
        sentence
        for sentence in sentences.findings(rows)
        if sentence.startswith("The episodes are too few (fewer than 5)")
    ]
    assert [("D0 (" in sentence, "D1 (" in sentence) for sentence in few] == [(True, False)]
    curve_figures.policy(Path("policy.svg"), json.loads(Path("eval_large/curves.json").read_text()))
    assert Path("policy.svg").stat().st_size > 0


@pytest.mark.parametrize("name", ["hysteresis", "extra_trees"])
def test_a_detector_with_the_name_of_a_baseline_is_refused(name: str) -> None:
    inputs = decisions("large", 0.6, detectors=[Detector(name, "X", f"{name}_error", supervised=False)])
    with pytest.raises(CanidsError, match=f"'{name}' is the name of a .*; rename"):
        evaluate.main(call("a", inputs, variant="large"))


def test_runs_that_train_the_detectors_follow_from_the_config() -> None:
    stage = SimpleNamespace(
        config={"": {"detector_runs": None}},
        datasets=["d"],
        has=lambda dataset, instance: True,
        has_attacks=lambda dataset, instance: True,
        upstream=lambda path: lambda wildcards: [path.replace("{instance}", "@s")],
    )
    assert planning.card_names(stage)[:4] == ["vgae_large", "vgae_small_kd", "vgae_small_nokd", "gat_large"]  # type: ignore[arg-type]
    stage.config = {"": {"detector_runs": ["detector"]}}
    expected = [f"<runs>/{k}_{v}@s/run.json" for k in ("detector", "dqn") for v in ("large", "small_kd", "small_nokd")]
    assert planning.trainings(stage, "run.json")(SimpleNamespace(dataset="d", instance="")) == expected  # type: ignore[arg-type]
    assert planning.cards_on_command_line(["--spec", "--detector_small_kd", "--metrics"]) == ["detector_small_kd"]


def test_a_training_is_read_whole_or_refused() -> None:
    record = write_training(Path("gat_small_kd@seed-2"), seed=2)
    training = training_run.read(record)
    assert (training.name, training.kind, training.variant, training.seed) == (
        "gat_small_kd@seed-2",
        "gat",
        "small_kd",
        2,
    )
    assert provenance.runs([training]).rows == [["gat_small_kd@seed-2", "0123456789abcdef", "2", "16", "4"]]
    record.write_bytes(record.read_bytes()[:50])
    with pytest.raises(
        CanidsError, match=r"gat_small_kd@seed-2/run\.json: not a whole .*; delete the folder gat_small_kd@seed-2 and"
    ):
        training_run.read(record)


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
