"""Evaluations side by side: folds, seeds, and the table of the README."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_data import write_training

from canids_evaluate import compare, readme
from canids_evaluate.judging import metrics
from canids_evaluate.judging.metrics import METRICS
from canids_evaluate.pages import comparison
from canids_evaluate.pages.comparison import MethodResults, Run
from canids_evaluate.pages.rows import Methods
from canids_evaluate.pages.tables import Table, number
from canids_shared.contracts.detectors import DETECTORS, KEY, as_json
from canids_shared.contracts.evaluation import write_evaluation
from canids_shared.contracts.whole import write_json
from canids_shared.errors import CanidsError

SPREAD = {"fusion": 0.2, "gat": 0.12}


def write_metrics(folder: str, variant: str | None, instance: str = "", **f1: float | None) -> Path:
    scenarios: dict[str, Any] = {"left_out": {}}
    replicates = {}
    for method, value in f1.items():
        values = {**dict.fromkeys(METRICS, 0.5), "f1": value}
        interval = None if value is None else [0.1, 0.9]
        counts = {"mcc": None, "n_windows": 9, "n_attacked": 3, "n_episodes": 1, "per_attack": {}, "per_capture": {}}
        counts |= {"n_false_alarms": 2, "attack_free_hours": 0.5, "delay_floor_s": 0.1}
        optimal = dict.fromkeys(("f1", "precision", "recall", "threshold"))
        intervals = {"f1": interval, "auroc": None}
        scenarios["left_out"][method] = {**values, **counts, "intervals": intervals, "f1_optimal": optimal}
        around = (0.5 if value is None else value) + SPREAD.get(method, 0) * np.linspace(-0.5, 0.5, 41)
        replicates[method] = {"f1": around.tolist(), "auroc": [0.5] * 41}
    detectors = as_json(DETECTORS) if variant else []
    identity = {"dataset": "d", "instance": instance, "variant": variant, KEY: detectors}
    made = {"code": "e0", "config": {"bootstrap": 41, "seed": 0}, "seed": 0, "thresholds": {}}
    path = Path(folder, "metrics.json")
    figures: dict[str, Any] = {"methods": {}, "timelines": [], "policy": []}
    drawn = {"left_out": {**figures, "replicates": replicates, "windows": {"c": "0"}}}
    measured, curves = {**identity, **made, "scenarios": scenarios}, {**identity, "scenarios": drawn}
    write_evaluation(path, path.with_name("curves.json"), measured, curves)
    return path.parent


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file, nested ones as `a__b`; it is sealed again, as one that was made so."""
    content = json.loads(path.read_text())
    for key, value in values.items():
        *parents, last = key.split("__")
        inner = content
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    write_json(path, content["contract"], content)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A fold with two seeds, another with one, and the baselines of both."""
    monkeypatch.chdir(tmp_path)
    return [
        write_metrics("eval_large@without-dos", "large", "@without-dos", fusion=0.8, gat=0.7),
        write_metrics("eval_large@without-dos-seed-1", "large", "@without-dos-seed-1", fusion=0.9, gat=None),
        write_metrics("eval_large@without-kia", "large", "@without-kia", fusion=0.6, gat=0.5),
        write_metrics("window_baselines@without-dos", None, "@without-dos", id_rate=1.0),
        write_metrics("window_baselines@without-kia", None, "@without-kia", id_rate=0.5),
    ]


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ("", ("", "0")),
        ("@seed-3", ("", "3")),
        ("@without-dos", ("@without-dos", "0")),
        ("@without-dos-seed-12", ("@without-dos", "12")),
        ("@reseed-4", ("@reseed-4", "0")),
    ],
)
def test_folds_and_seeds_are_told_apart(instance: str, expected: tuple[str, str]) -> None:
    assert comparison.fold_and_seed(instance) == expected


def test_seeds_become_mean_and_spread(runs: list[Path]) -> None:
    table = compare.overview(comparison.read_results(runs), "f1")
    assert table.header == ["F1", "Variant", "without-dos", "without-kia", "Mean"]
    assert table.rows == [
        ["Fusion", "large", "0.8500 ± 0.0707 [0.735, 0.950]", "0.6000 [0.100, 0.900]", "0.7250"],
        ["GAT", "large", "0.7000 [0.100, 0.900]", "0.5000 [0.100, 0.900]", "0.6000"],
        ["ID and rate", "–", "1.0000 [0.100, 0.900]", "0.5000 [0.100, 0.900]", "0.7500"],
    ]


def test_seeds_are_a_sample_too(runs: list[Path]) -> None:
    fusion = next(r for r in comparison.read_results(runs) if r.method == "fusion" and len(r.runs) == 2)
    fixed = metrics.percentiles(np.mean([run.resampled("f1") for run in fusion.runs.values()], axis=0))
    drawn = fusion.interval("f1")
    assert fixed
    assert drawn
    assert drawn[0] < fixed[0] < fixed[1] < drawn[1]


def test_differences_are_paired_over_seeds_and_resamples(runs: list[Path]) -> None:
    table = compare.overview(comparison.paired_differences(comparison.read_results(runs)), "f1")
    assert table.header == ["Fusion minus …, F1", "Variant", "without-dos", "without-kia", "Mean"]
    # GAT is undefined in the second seed of the first fold; the only run of the baselines goes with both seeds.
    assert table.rows == [
        ["GAT", "large", "**+0.1000** [+0.062, +0.138]", "**+0.1000** [+0.062, +0.138]", "+0.1000"],
        ["ID and rate", "large", "**-0.1500** ± 0.0707 [-0.265, -0.050]", "**+0.1000** [+0.005, +0.195]", "-0.0250"],
    ]
    auroc = compare.overview(comparison.paired_differences(comparison.read_results(runs)), "auroc").rows
    assert [row[2] for row in auroc] == ["+0.0000 ± 0.0000"] * 2


@pytest.mark.parametrize(
    ("file", "values", "complaint"),
    [
        (
            "metrics.json",
            {"config__bootstrap": 40},
            r"metrics\.json: evaluated with another bootstrap than .*@without-dos/",
        ),
        ("curves.json", {"scenarios__left_out__windows": {"c": "1"}}, r"metrics\.json: other windows .* of capture c"),
        ("curves.json", {"variant": "small_kd"}, r"curves\.json: is of variant 'small_kd', not 'large'"),
    ],
)
def test_runs_that_do_not_compare_are_refused(
    runs: list[Path], file: str, values: dict[str, Any], complaint: str
) -> None:
    change(runs[1] / file, **values)
    with pytest.raises(CanidsError, match=complaint):
        comparison.read_results(runs)


def test_the_order_of_runs_changes_nothing(runs: list[Path]) -> None:
    assert compare.markdown(comparison.read_results(runs)) == compare.markdown(comparison.read_results(runs[::-1]))


def test_terminal_and_markdown_hold_the_same_numbers(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for options in ([], ["--markdown"]):
        monkeypatch.setattr(sys, "argv", ["compare", *options, *map(str, runs)])
        compare.main()
        printed.append(capsys.readouterr().out)
    assert "| Fusion | large | 2 | **0.8500** ± 0.0707 |" not in printed[0]
    for text in printed:
        assert text.count("0.8500") == 2
        assert text.count("± 0.0707 [0.735, 0.950]") == 2
        assert text.count("Fusion minus …") == 2
    assert "**1.0000** [0.100, 0.900]" in printed[1]
    monkeypatch.setattr(sys, "argv", ["compare", "--output", "t.md", *map(str, runs)])
    compare.main()
    assert Path("t.md").read_text() == printed[1]


def test_a_run_named_twice_is_refused(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    again = write_metrics("copy", "large", "@without-kia", fusion=0.6)
    with pytest.raises(CanidsError, match=r"copy/metrics\.json: the same run as eval_large@without-kia"):
        comparison.read_results([*runs, again])
    monkeypatch.setattr(sys, "argv", ["compare", "nowhere"])
    with pytest.raises(SystemExit, match=r"error: nowhere: no such file"):
        compare.main()


def test_the_readme_takes_all_seeds_and_no_fold(runs: list[Path]) -> None:
    for variant in ("large", "small_kd", "small_nokd"):
        write_metrics(f"experimentruns/d/eval_{variant}", variant, fusion=0.5)
    with pytest.raises(CanidsError, match=r"results/d/window_baselines/metrics\.json: no such file; run the pipeline"):
        readme.table("d")
    write_metrics("results/d/window_baselines", None, id_rate=1.0)
    write_metrics("experimentruns/d/eval_large@seed-1", "large", "@seed-1", fusion=0.7)
    write_metrics("experimentruns/d/eval_large@without-dos-seed-1", "large", "@without-dos-seed-1", fusion=0.1)
    table = readme.table("d")
    assert "| Fusion | large | 0.6000 ± 0.1414 [0.435, 0.740] |" in table
    assert "| ID and rate | – | 1.0000 [0.100, 0.900] |" in table
    assert readme.table("d", ["auroc", "fpr"]).count("| Fusion | large |") == 2


def test_the_readme_refuses_what_is_of_other_code_or_config(runs: list[Path]) -> None:
    for variant in ("large", "small_kd", "small_nokd"):
        write_metrics(f"experimentruns/d/eval_{variant}", variant, fusion=0.5)
    write_metrics("results/d/window_baselines", None, id_rate=1.0)
    seed = write_metrics("experimentruns/d/eval_large@seed-1", "large", "@seed-1", fusion=0.7)
    for instance in ("", "@seed-1"):
        write_training(Path(f"experimentruns/d/gat_large{instance}"), seed=len(instance))
    assert "± 0.1414" in readme.table("d")  # a seed of its own is no other config
    write_training(
        Path("experimentruns/d/gat_large@seed-1"),
        code="old",
        config={"seed": 1, "epochs": 2},
        input_digests={"graphs": ["other"]},
    )
    change(seed / "metrics.json", code="e1")
    change(Path("experimentruns/d/eval_small_kd/metrics.json"), config__bootstrap=7)
    with pytest.raises(CanidsError) as refused:
        readme.table("d")
    assert str(refused.value) == (
        "experimentruns/d/eval_small_kd (another bootstrap), experimentruns/d/eval_large@seed-1 (other code), "
        "experimentruns/d/gat_large@seed-1 (other code and config and graphs): not as in experimentruns/d/eval_large; "
        "run again, or move away what is old"
    )


def test_a_table_is_the_same_in_every_form() -> None:
    table = Table(["Method", "F1"], [["A & B", "**0.5** [0, 1]"], ["C", number("f1", None)]])
    assert table.markdown().splitlines()[2:] == ["| A & B | **0.5** [0, 1] |", "| C | – |"]
    assert table.terminal().splitlines() == ["Method          F1", "A & B   0.5 [0, 1]", "C                –"]
    assert '<td>A &amp; B</td><td class="number"><strong>0.5</strong> [0, 1]</td>' in table.html()


def test_folds_of_one_code_go_into_a_document(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CanidsError, match=r"experimentruns/d: no evaluation of a fold; make folds first"):
        readme.folds_table("d")
    write_metrics("experimentruns/d/eval_large", "large", fusion=0.3)
    for fold, f1 in (("without-dos", 0.5), ("without-dos-seed-1", 0.7), ("without-kia", 0.9)):
        write_metrics(f"experimentruns/d/eval_large@{fold}", "large", f"@{fold}", fusion=f1)
    write_metrics("results/d/window_baselines@without-dos", None, "@without-dos", id_rate=1.0)
    Path("d.md").write_text("a\n<!-- folds -->\n<!-- /folds -->\nb\n")
    monkeypatch.setattr(sys, "argv", ["readme", "--folds", "--document", "d.md", "--datasets", "d"])
    readme.main()
    text = Path("d.md").read_text()
    assert "| F1 | Variant | without-dos | without-kia | Mean |" in text
    assert "| Fusion | large | 0.6000 ± 0.1414 [0.435, 0.740] | 0.9000" in text
    assert "| ID and rate | – | 1.0000 [0.100, 0.900] | – | – |" in text
    change(Path("experimentruns/d/eval_large@without-kia/metrics.json"), code="other")
    with pytest.raises(
        SystemExit, match=r"eval_large@without-kia: other code than \S+eval_large@without-dos; run again"
    ):
        readme.main()


def test_a_document_without_marks_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text("a\n<!-- results -->\nold\n<!-- /results -->\nb\n")
    readme.insert(document, "results", "new")
    assert document.read_text() == "a\n<!-- results -->\nnew\n<!-- /results -->\nb\n"
    with pytest.raises(CanidsError, match="no marks"):
        readme.insert(document, "graph", "new")


def test_the_mean_is_of_vehicles_never_met_and_not_enrolled() -> None:
    def result(fold: str, scenario: str, f1: float | None) -> MethodResults:
        run = Run({"f1": f1, "intervals": {"f1": None}}, {})
        return MethodResults("d", fold, scenario, None, "gat", Methods(DETECTORS), {"0": run})

    folds = (("@without-a", 0.4), ("@without-b", 0.6))
    plain = [result(fold, "left_out", f1) for fold, f1 in folds]
    assert compare.overview(plain, "f1").header[-1] == "Mean"
    others = [result(fold, s, f1) for fold, _ in folds for s, f1 in (("left_out_enrolled", 1.0), ("unseen", None))]
    table = compare.overview([*plain, *others], "f1")
    assert table.header[-1] == "Mean (neither enrolled nor unseen)"
    assert table.rows[0][-1] == "0.5000"
