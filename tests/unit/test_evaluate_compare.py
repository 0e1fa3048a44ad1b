"""Evaluations side by side: folds, seeds, and the table of the README."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from canids_evaluate import compare, readme
from canids_evaluate.tables import Table, number
from canids_shared.errors import CanidsError


def write_metrics(folder: str, variant: str | None, instance: str = "", **f1: float | None) -> Path:
    names = ("precision", "recall", "auroc", "pr_auc", "fpr", "false_alarms_per_hour", "detection_delay_s")
    scenarios: dict[str, Any] = {"left_out": {}}
    for method, value in f1.items():
        values = {**dict.fromkeys((*names, "episodes_found"), 0.5), "f1": value}
        scenarios["left_out"][method] = {**values, "intervals": {"f1": [0.1, 0.9], "auroc": None}}
    head = {"contract": "metrics/1", "dataset": "d", "instance": instance, "variant": variant, "seed": 0}
    path = Path(folder, "metrics.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**head, "thresholds": {}, "scenarios": scenarios}))
    return path.parent


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A fold with two seeds, another with one, and the baselines of both."""
    monkeypatch.chdir(tmp_path)
    return [
        write_metrics("eval_large@without-dos", "large", "@without-dos", fusion=0.8, gat=0.7),
        write_metrics("eval_large@without-dos-seed-1", "large", "@without-dos-seed-1", fusion=0.9, gat=None),
        write_metrics("eval_large@without-kia", "large", "@without-kia", fusion=0.6, gat=0.5),
        write_metrics("baselines@without-dos", None, "@without-dos", id_rate=1.0),
        write_metrics("baselines@without-kia", None, "@without-kia", id_rate=0.5),
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
    assert compare.fold_and_seed(instance) == expected


def test_seeds_become_mean_and_spread(runs: list[Path]) -> None:
    table = compare.overview(compare.lines_of(runs), "f1")
    assert table.header == ["F1", "Variant", "without-dos", "without-kia", "Mean"]
    assert table.rows == [
        ["Fusion", "large", "0.8500 ± 0.0707", "0.6000 [0.100, 0.900]", "0.7250"],
        ["GAT", "large", "0.7000", "0.5000 [0.100, 0.900]", "0.6000"],
        ["ID and rate", "–", "1.0000 [0.100, 0.900]", "0.5000 [0.100, 0.900]", "0.7500"],
    ]


def test_the_order_of_runs_changes_nothing(runs: list[Path]) -> None:
    assert compare.markdown(compare.lines_of(runs)) == compare.markdown(compare.lines_of(runs[::-1]))


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
        assert text.count("± 0.0707") == 2
    assert "**1.0000** [0.100, 0.900]" in printed[1]
    monkeypatch.setattr(sys, "argv", ["compare", "--output", "t.md", *map(str, runs)])
    compare.main()
    assert Path("t.md").read_text() == printed[1]


def test_a_run_named_twice_is_refused(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    again = write_metrics("copy", "large", "@without-kia", fusion=0.6)
    with pytest.raises(CanidsError, match=r"copy/metrics\.json: the same run as eval_large@without-kia"):
        compare.lines_of([*runs, again])
    monkeypatch.setattr(sys, "argv", ["compare", "nowhere"])
    with pytest.raises(SystemExit, match=r"error: nowhere: no such file"):
        compare.main()


def test_the_readme_takes_all_seeds_and_no_fold(runs: list[Path]) -> None:
    for variant in ("large", "small_kd", "small_nokd"):
        write_metrics(f"experimentruns/d/eval_{variant}", variant, fusion=0.5)
    with pytest.raises(CanidsError, match=r"results/d/baselines/metrics\.json: no such file; run the pipeline"):
        readme.table("d")
    write_metrics("results/d/baselines", None, id_rate=1.0)
    write_metrics("experimentruns/d/eval_large@seed-1", "large", "@seed-1", fusion=0.7)
    write_metrics("experimentruns/d/eval_large@without-dos-seed-1", "large", "@without-dos-seed-1", fusion=0.1)
    table = readme.table("d")
    assert "| Fusion | large | 0.6000 ± 0.1414 |" in table
    assert "| ID and rate | – | 1.0000 [0.100, 0.900] |" in table


def test_a_table_is_the_same_in_every_form() -> None:
    table = Table(["Method", "F1"], [["A & B", "**0.5** [0, 1]"], ["C", number("f1", None)]])
    assert table.markdown().splitlines()[2:] == ["| A & B | **0.5** [0, 1] |", "| C | – |"]
    assert table.terminal().splitlines() == ["Method          F1", "A & B   0.5 [0, 1]", "C                –"]
    assert '<td>A &amp; B</td><td class="number"><strong>0.5</strong> [0, 1]</td>' in table.html()
