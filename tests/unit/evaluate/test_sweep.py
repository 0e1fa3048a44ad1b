"""Results of a sweep: metrics of finished trainings, intervals over seeds, importance, the table, the figures."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_records import record

from canids_evaluate import sweep, sweep_point
from canids_evaluate.sweeps.point_results import CONTRACT, PointResult, best_first, read_point_results
from canids_evaluate.sweeps.study import importance, means, study
from canids_shared.contracts import training_run
from canids_shared.contracts.whole import write_json
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

OUTPUTS = {"markdown": "results.md", "csv": "results.csv", "params": "params.tsv"}
OUTPUTS |= {f: f"{f}.svg" for f in ("parallel", "importance", "best")}


def points(count: int, seed: int = 0) -> list[PointResult]:
    """Points whose loss follows the learning rate alone, two seeds each."""
    rng = np.random.default_rng(seed)
    result = []
    for n in range(count):
        values = {"gat.rate": float(10 ** rng.uniform(-4, -1)), "gat.batch": int(rng.integers(8, 64)), "gat.by": str(rng.choice(["a", "b"]))}  # fmt: skip
        loss = abs(np.log10(values["gat.rate"]) + 2.5)
        result.append(PointResult(f"sweep-{n:03d}", values, "loss", [loss, loss + 0.01]))
    return result


def call(folder: Path, paths: list[Path], metric: dict[str, str]) -> Call:
    output = {k: folder / name for k, name in OUTPUTS.items()}
    constants = {
        "name": "sweep",
        "stage": "train_gnn",
        "metric": metric,
        "options": ["gat.rate", "gat.batch", "gat.by"],
    }
    wildcards = {"dataset": "d", "subspace": "all"}
    return Call(wildcards, {"seed": 0, "trees": 5}, constants, output, {"points": paths}, "{}")


def write_point(folder: Path, point: PointResult, **runs: Any) -> Path:
    path = folder / point.instance / "select.json"
    path.parent.mkdir()
    readings = {"gat_large": {str(s): {"loss": v, "auroc": None} for s, v in enumerate(point.readings)}, **runs}
    content = {"dataset": "d", "instance": point.instance, "values": point.values, "runs": readings}
    write_json(path, CONTRACT, content)
    return path


def write_run(folder: Path, kind: str, select: dict[str, Any]) -> Path:
    run = record(kind, instance="@sweep-000", select=select)
    path = folder / run.name / "run.json"
    training_run.write(path, run)
    return path


def test_results_of_a_point_are_those_of_its_run_files(tmp_path: Path) -> None:
    gat = write_run(tmp_path, "gat", {"auroc": 0.75, "loss": 0.2})
    dqn = write_run(tmp_path, "dqn", {"reward": -0.1, "f1": None, "more": 1})
    constants = {
        "instance": "sweep-000",
        "values": {"gat.rate": 0.1},
        "trainings": ["gat_large", "dqn_large"],
        "seeds": ["0"],
    }
    output = {"output": tmp_path / "select.json"}
    sweep_point.main(Call({"dataset": "d"}, {}, constants, output, {"runs": [gat, dqn]}, "{}"))
    content = json.loads(output["output"].read_text())
    assert content["runs"] == {
        "gat_large": {"0": {"auroc": 0.75, "loss": 0.2}},
        "dqn_large": {"0": {"reward": -0.1, "f1": None}},
    }
    (tmp_path / "vgae_large@sweep-000").mkdir()
    with pytest.raises(CanidsError, match=r"run\.json: no such file"):
        sweep_point.results("vgae_large", tmp_path / "vgae_large@sweep-000/run.json")
    with pytest.raises(CanidsError, match=r"run\.json: select has no loss; delete the folder .* and train again"):
        sweep_point.results("gat_large", write_run(tmp_path, "gat", {"auroc": 0.75}))


def test_intervals_over_seeds_are_students(tmp_path: Path) -> None:
    point = PointResult("s", {}, "auroc", [0.8, 0.9, 1.0])
    assert point.mean == pytest.approx(0.9)
    assert point.deviation == pytest.approx(0.1)
    # t(0.975, 2) = 4.3027; an AUROC stays below 1.
    assert point.interval == pytest.approx((0.9 - 4.3027 * 0.1 / np.sqrt(3), 1.0), abs=1e-4)
    assert PointResult("s", {}, "loss", [1.0, 2.0]).interval == pytest.approx(
        (1.5 - 12.7062 / 2, 1.5 + 12.7062 / 2), abs=1e-3
    )
    assert PointResult("s", {}, "loss", [1.0]).interval is None


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_the_best_comes_first_whichever_way_the_metric_goes(means: list[float]) -> None:
    for metric, best in (("loss", min), ("reward", max)):
        ordered = best_first([PointResult(f"s-{n}", {}, metric, [m]) for n, m in enumerate(means)])
        assert ordered[0].mean == best(means)
        assert sorted(p.mean for p in ordered) == sorted(means)


def test_a_study_has_a_trial_per_point_and_an_objective_per_run() -> None:
    made = points(20)
    other = [PointResult(p.instance, p.values, "auroc", [0.5]) for p in made]
    result = study({"gat_large": made, "vgae_large": other}, means)
    assert [d.name for d in result.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [t.values for t in result.trials] == [[p.mean, 0.5] for p in made]
    kinds = result.trials[0].distributions
    assert kinds["gat.rate"].log
    assert not kinds["gat.batch"].log
    assert kinds["gat.by"].choices == ("a", "b")


def test_importance_finds_the_option_that_matters_and_says_when_it_cannot() -> None:
    result = importance(points(40), trees=10, seed=0)
    assert next(iter(result.options)) == "gat.rate"
    assert result.options["gat.rate"] > 0.5
    assert sum(result.options.values()) == pytest.approx(1)
    assert result.caution == ""
    assert result == importance(points(40), trees=10, seed=0)
    assert importance(points(12), trees=5, seed=0).caution.startswith("12 points for 3 options are few")
    assert importance(points(9), 5, 0).caution.startswith("No importance: 9 points")
    same = [PointResult(p.instance, p.values, "loss", [1.0]) for p in points(20)]
    assert importance(same, 5, 0).caution == "No importance: all points are equal."


@pytest.mark.parametrize("others", [{}, {"dqn_large": {"0": {"reward": 0.5}, "1": {"reward": 0.6}}}])
def test_table_and_figures_name_the_best_point(others: dict[str, Any], tmp_path: Path) -> None:
    made = points(14)
    paths = [write_point(tmp_path, p, **others) for p in made]
    metric = {"gat_large": "loss", **dict.fromkeys(others, "reward")}
    sweep.main(call(tmp_path, paths, metric))
    best = best_first(made)[0]
    text = (tmp_path / "results.md").read_text()
    assert f"Best on `select`: `{best.instance}`. The means of " in text
    assert f"```yaml\ntrain_gnn:\n  gat:\n    rate: {best.values['gat.rate']!r}\n" in text
    assert re.search(rf"\| {best.instance} \| .* \| \*\*{best.mean:.4g}\*\* \| 0\.00707\d \| \[", text)
    with open(tmp_path / "results.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["instance"] for r in rows[:14]] == [p.instance for p in best_first(made)]
    assert float(rows[0]["mean"]) == best.mean
    assert (tmp_path / "params.tsv").read_text().splitlines()[0] == "instance\tgat.rate\tgat.batch\tgat.by"
    for figure in ("parallel", "importance", "best"):
        assert (tmp_path / f"{figure}.svg").read_bytes().startswith(b"<?xml")
    assert "gat.rate" in text.partition("| Option | Importance |")[2]
    first = {f: (tmp_path / f).read_bytes() for f in OUTPUTS.values()}
    sweep.main(call(tmp_path, paths, metric))
    assert first == {f: (tmp_path / f).read_bytes() for f in OUTPUTS.values()}


def test_one_point_and_an_undefined_metric(tmp_path: Path) -> None:
    (one,) = points(1)
    path = write_point(tmp_path, PointResult(one.instance, one.values, "loss", [0.5]))
    sweep.main(call(tmp_path, [path], {"gat_large": "loss"}))
    assert "One seed: what lies between two points may be chance" in (tmp_path / "results.md").read_text()
    with pytest.raises(CanidsError, match=r"select\.json: gat_large with seed 0 has no auroc: select lacks"):
        read_point_results([path], {"gat_large": "auroc"}, ["gat.rate"])
