"""What a sweep comes to: readings of finished trainings, intervals over seeds, importance, the table, the figures."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canids_evaluate import sweep, sweep_point
from canids_evaluate.sweeps.importance import importance
from canids_evaluate.sweeps.point_results import Point, Scale, best_first, points_of
from canids_shared.contracts.model_file import save_arrays
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.run_folder import write_history

OUTPUTS = {"markdown": "results.md", "csv": "results.csv", "params": "params.tsv"}
OUTPUTS |= {f: f"{f}.svg" for f in ("parallel", "importance", "best")}


def points(count: int, seed: int = 0) -> list[Point]:
    """Points whose loss follows the learning rate alone, two seeds each."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        values = {"gat.rate": float(10 ** rng.uniform(-4, -1)), "gat.batch": int(rng.integers(8, 64)), "gat.by": str(rng.choice(["a", "b"]))}  # fmt: skip
        loss = abs(np.log10(values["gat.rate"]) + 2.5)
        found.append(Point(f"sweep-{n:03d}", values, "loss", [loss, loss + 0.01]))
    return found


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


def write_point(folder: Path, point: Point, **runs: Any) -> Path:
    path = folder / point.instance / "select.json"
    path.parent.mkdir()
    readings = {"gat_large": {str(s): {"loss": v, "auroc": None} for s, v in enumerate(point.readings)}, **runs}
    content = {"contract": sweep_point.CONTRACT, "instance": point.instance, "values": point.values, "runs": readings}
    path.write_text(json.dumps(content, sort_keys=True))
    return path


def test_readings_are_those_of_the_weights_that_were_kept(tmp_path: Path) -> None:
    gat, dqn = tmp_path / "gat", tmp_path / "dqn"
    save_arrays(gat / "model.safetensors", {}, {"contract": "detector/2", "select": {"auroc": 0.75}})
    write_history(gat / "history.parquet", [{"epoch": e, "select_loss": v} for e, v in enumerate((0.5, 0.2, 0.4))])
    write_history(
        dqn / "history.parquet",
        [{"select_reward": r, "select_f1": f} for r, f in ((-0.5, 0.9), (-0.1, 0.8), (-0.3, 1.0))],
    )
    assert sweep_point.reading("gat_large", gat / "model.safetensors") == {"auroc": 0.75, "loss": 0.2}
    assert sweep_point.reading("dqn_large", dqn / "model.safetensors") == {"reward": -0.1, "f1": 0.8}
    with pytest.raises(
        CanidsError, match=r"history\.parquet: has no select_reward; delete the folder .*gat and train again"
    ):
        sweep_point.reading("dqn_large", gat / "model.safetensors")
    (gat / "history.parquet").write_bytes(b"x")
    with pytest.raises(CanidsError, match=r"history\.parquet: damaged"):
        sweep_point.reading("gat_large", gat / "model.safetensors")


def test_intervals_over_seeds_are_students(tmp_path: Path) -> None:
    point = Point("s", {}, "auroc", [0.8, 0.9, 1.0])
    assert point.mean == pytest.approx(0.9)
    assert point.deviation == pytest.approx(0.1)
    # t(0.975, 2) = 4.3027; an AUROC stays below 1.
    assert point.interval == pytest.approx((0.9 - 4.3027 * 0.1 / np.sqrt(3), 1.0), abs=1e-4)
    assert Point("s", {}, "loss", [1.0, 2.0]).interval == pytest.approx(
        (1.5 - 12.7062 / 2, 1.5 + 12.7062 / 2), abs=1e-3
    )
    assert Point("s", {}, "loss", [1.0]).interval is None


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_the_best_comes_first_whichever_way_the_metric_goes(means: list[float]) -> None:
    for metric, best in (("loss", min), ("reward", max)):
        ordered = best_first([Point(f"s-{n}", {}, metric, [m]) for n, m in enumerate(means)])
        assert ordered[0].mean == best(means)
        assert sorted(p.mean for p in ordered) == sorted(means)


def test_scales_are_logarithmic_where_logarithms_are_spread_more_evenly() -> None:
    assert Scale.of([0.001, 0.01, 0.1]).numbers([0.001, 0.1]).tolist() == pytest.approx([-3, -1])
    assert Scale.of([0.01, 0.1, 0.2, 0.3, 0.4]).numbers([0.01, 0.4]).tolist() == [0.01, 0.4]
    assert Scale.of([0, 100]).numbers([0, 100]).tolist() == [0, 100]
    assert Scale.of([True, False, True]).numbers([True, False]).tolist() == [1, 0]
    assert Scale.of([[64, 64], [8]]).levels == ["[64, 64]", "[8]"]


def test_importance_finds_the_option_that_matters_and_says_when_it_cannot() -> None:
    found = importance(points(40), trees=10, seed=0)
    assert next(iter(found.options)) == "gat.rate"
    assert found.options["gat.rate"][0] > 0.5
    assert max(found.options[o][0] for o in ("gat.batch", "gat.by")) < 0.1
    assert found.explained is not None
    assert found.explained > 0.5
    assert found.caution == ""
    assert importance(points(12), trees=5, seed=0).caution.startswith(
        ("12 points for 3 options are few", "A forest that")
    )
    assert importance(points(9), 5, 0).caution.startswith("No importance: 9 points")
    noise = [Point(p.instance, p.values, "loss", [float(v)]) for p, v in zip(points(20), np.random.default_rng(1).random(20), strict=True)]  # fmt: skip
    assert importance(noise, 10, 0).caution.endswith(
        "these importances say nothing; more points or wider ranges are needed."
    )
    same = [Point(p.instance, p.values, "loss", [1.0]) for p in points(20)]
    assert importance(same, 5, 0).caution == "No importance: all points are equal."


def test_table_and_figures_name_the_best_point(tmp_path: Path) -> None:
    made = points(14)
    paths = [write_point(tmp_path, p) for p in made]
    sweep.main(call(tmp_path, paths, {"gat_large": "loss"}))
    best = best_first(made)[0]
    text = (tmp_path / "results.md").read_text()
    assert f"Best on `select`: `{best.instance}`. The means of " in text
    assert f"```yaml\ntrain_gnn:\n  gat:\n    rate: {best.values['gat.rate']!r}\n" in text
    assert re.search(rf"\| {best.instance} \| .* \| \*\*{best.mean:.4g}\*\* \| 0\.00707\d \| \[", text)
    with open(tmp_path / "results.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["instance"] for r in rows] == [p.instance for p in best_first(made)]
    assert float(rows[0]["mean"]) == best.mean
    assert (tmp_path / "params.tsv").read_text().splitlines()[0] == "instance\tgat.rate\tgat.batch\tgat.by"
    for figure in ("parallel", "importance", "best"):
        assert (tmp_path / f"{figure}.svg").read_bytes().startswith(b"<?xml")
    first = {f: (tmp_path / f).read_bytes() for f in OUTPUTS.values()}
    sweep.main(call(tmp_path, paths, {"gat_large": "loss"}))
    assert first == {f: (tmp_path / f).read_bytes() for f in OUTPUTS.values()}


def test_one_point_and_an_undefined_metric(tmp_path: Path) -> None:
    (one,) = points(1)
    path = write_point(tmp_path, Point(one.instance, one.values, "loss", [0.5]))
    sweep.main(call(tmp_path, [path], {"gat_large": "loss"}))
    assert "One seed: what lies between two points may be chance" in (tmp_path / "results.md").read_text()
    with pytest.raises(CanidsError, match=r"select\.json: gat_large with seed 0 has no auroc: select lacks"):
        points_of([path], {"gat_large": "auroc"}, ["gat.rate"])
