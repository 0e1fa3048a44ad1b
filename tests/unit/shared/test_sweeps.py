"""Sweeps: points from tables and spaces, what is refused before anything runs, and Paramspace as it is handed out."""

import json
import math
import re
import sys
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import section
from canids_shared.sweeps import declaration, sampling
from canids_shared.sweeps import next_round as next_round_module
from canids_shared.sweeps.next_round import next_round, read_means
from canids_shared.sweeps.points import nested, read_points, table_of
from canids_shared.sweeps.sampling import sample
from canids_shared.sweeps.space import Space

MODULES = Path(__file__).parents[3] / "modules"
RATE = {"low": 0.0001, "high": 0.1, "log": True}
ranges = st.tuples(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.booleans()).map(
    lambda r: {"low": r[0], "high": r[0] * r[1], "log": r[2]}
)
whole_ranges = st.tuples(st.integers(1, 50), st.integers(1, 200), st.booleans()).map(
    lambda r: {"low": r[0], "high": r[0] + r[1], "log": r[2]}
)
texts = st.text("abcXYZ019._+-", min_size=1, max_size=6).filter(lambda t: t.strip("-") == t)
plain = (st.integers(-1000, 1000), st.floats(-1e6, 1e6).map(lambda f: f + 0.0), st.booleans(), texts)
tables = st.tuples(st.sampled_from(plain), st.sampled_from(plain)).flatmap(
    lambda kinds: st.lists(st.tuples(*kinds), min_size=1, max_size=8, unique_by=repr)
)


def config(**sweep: Any) -> dict[str, Any]:
    return {"train_gnn": {}, "sweep": {"stage": "train_gnn", "runs": ["gat_small_nokd"], **sweep}}


def declared(**sweep: Any) -> declaration.Sweep:
    return declaration.declared(config(**sweep), MODULES)


def from_table(text: str, **sweep: Any) -> declaration.Sweep:
    Path("params.tsv").write_text(text)
    return declared(table="params.tsv", **sweep)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), ranges | whole_ranges, min_size=1),
    st.sampled_from(("qmc", "random", "tpe")),
    st.integers(1, 20),
    st.integers(0, 9),
)
def test_points_keep_to_their_ranges_and_come_again_with_their_seed(
    space: dict[str, dict[str, Any]], method: str, count: int, seed: int
) -> None:
    whole = {o for o, axis in space.items() if isinstance(axis["low"], int)}
    points = sample(space, whole, method, count, seed)
    assert points == sample(space, whole, method, count, seed)
    assert len({json.dumps(p, sort_keys=True) for p in points}) == len(points) <= count
    # Rounded values of a narrow range may be equal, and are then one point.
    if not whole and all(axis["high"] > 2 * axis["low"] for axis in space.values()):
        assert len(points) == count
    for option, axis in space.items():
        values = [p[option] for p in points]
        assert axis["low"] <= min(values) <= max(values) <= axis["high"]
        assert all(isinstance(v, int if option in whole else float) for v in values)


def test_quasi_random_points_cover_a_range_evenly() -> None:
    points = sample({"a": {**RATE, "low": 1e-4, "high": 1e-1}}, set(), "qmc", 65, 0)
    eighths = [int((math.log10(p["a"]) + 4) / 3 * 8) for p in points[1:]]  # the first one is random
    assert {min(e, 7) for e in eighths} == set(range(8))
    assert all(6 <= eighths.count(e) <= 10 for e in range(1, 7))


@pytest.mark.parametrize("method", ["random", "qmc"])
def test_more_points_leave_the_first_as_they_are(method: str) -> None:
    space = {"a": RATE, "b": {"values": ["x", [64, 64]]}}
    longer = sample(space, set(), method, 12, 3)
    assert longer[:5] == sample(space, set(), method, 5, 3)
    assert len(sample({"b": space["b"]}, set(), method, 30, 3)) == 2
    assert all(p["b"] in space["b"]["values"] for p in longer)


def test_tpe_proposes_where_the_results_are_good(workplace: Path) -> None:
    space = {"gat.learning_rate": RATE, "gat.batch": {"low": 16, "high": 128}}
    first = sample(space, {"gat.batch"}, "random", 30, 0)
    past = [(point, abs(math.log10(point["gat.learning_rate"]) + 2)) for point in first]
    proposed = sample(space, {"gat.batch"}, "tpe", 20, 0, past)
    assert proposed == sample(space, {"gat.batch"}, "tpe", 20, 0, past)
    assert len(proposed) == 20
    assert not [p for p in proposed if p in first]
    off = [abs(math.log10(p["gat.learning_rate"]) + 2) for p in proposed]
    assert median(off) < median(value for _, value in past) / 1.2


def write_results(folder: Path, points: dict[str, dict[str, Any]], metric: str = "loss") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.tsv").write_text(table_of(points))
    rows = [f"gat_small_nokd,{i},{metric},{p['gat.learning_rate']}" for i, p in points.items()]
    (folder / "results.csv").write_text("\n".join(["run,instance,metric,mean", *rows]) + "\n")


def test_rounds_of_tpe_add_rows_that_the_next_run_declares(workplace: Path) -> None:
    options = {
        "method": "tpe",
        "table": "rows.tsv",
        "space": {"gat.learning_rate": RATE},
        "points": 3,
        "metric": "loss",
    }
    first = declared(**options)
    assert list(first.space.points) == ["sweep-000", "sweep-001", "sweep-002"]
    schema = load_schema(MODULES / "train_gnn/config.schema.yaml", common=True)
    section = check(config(**options)["sweep"], load_schema(declaration.SCHEMA), where="sweep")
    with pytest.raises(CanidsError, match=r"params\.tsv: no such file"):
        next_round(section, schema, Path("results"))
    write_results(Path("results"), first.space.points)
    made = next_round(section, schema, Path("results"))
    assert made == next_round(section, schema, Path("results"))
    Path("rows.tsv").write_text(table_of(made))
    second = declared(**options)
    assert second.space.points == made
    assert list(made) == [f"sweep-{n:03d}" for n in range(6)]
    assert {i: made[i] for i in first.space.points} == first.space.points
    with pytest.raises(CanidsError, match=r"rows\.tsv: sweep-003 has no result in results; run the sweep"):
        next_round(section, schema, Path("results"))
    write_results(Path("results"), second.space.points, "auroc")
    assert len(next_round(section, schema, Path("results"))) == 9
    assert read_means(Path("results/results.csv"), "gat_small_nokd")["sweep-000"] < 0, "the highest AUROC is best"
    with pytest.raises(CanidsError, match="rounds need method: tpe"):
        next_round({**section, "method": "qmc"}, schema, Path("results"))


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CanidsError, match=r"Optuna is not installed here; .*\[sweep\]"):
        sampling.load_optuna()


def test_a_grid_is_every_combination() -> None:
    space = {
        "a": {"low": 0.001, "high": 0.1, "log": True, "steps": 3},
        "b": {"values": [1, 2]},
        "c": {"low": 1, "high": 2, "steps": 9},
    }
    points = sample(space, {"c"}, "grid", 99, 0)
    assert len(points) == 3 * 2 * 2
    assert [p["a"] for p in points[::4]] == [0.001, 0.01, 0.1]
    assert {(p["b"], p["c"]) for p in points} == {(1, 1), (1, 2), (2, 1), (2, 2)}


@settings(max_examples=40)
@given(tables)
def test_points_come_out_of_paramspace_as_plain_python_under_a_name_of_their_own(rows: list[tuple[Any, Any]]) -> None:
    points = {f"sweep-{n:03d}": {"gat.a": a, "b": b} for n, (a, b) in enumerate(rows)}
    space = Space(points)
    assert space.wildcard_pattern == "{point}"
    for name, (instance, expected) in zip(space.instance_patterns, points.items(), strict=True):
        assert re.fullmatch(r"gat_a~[A-Za-z0-9_.+-]+/b~[A-Za-z0-9_.+-]+", name)
        assert re.fullmatch(space.constraint, name)
        values = space.instance({"point": name})
        assert values == expected
        assert [type(v) for v in values.values()] == [type(v) for v in expected.values()]
        assert json.loads(json.dumps(values)) == expected
        assert space.run_instance({"point": name}) == instance


def test_off_grid_targets_and_two_equal_points_are_refused() -> None:
    space = Space({"s-0": {"a": 1, "b": 0.5}, "s-1": {"a": 2, "b": 0.25}})
    assert re.fullmatch(space.constraint, "a~1/b~0.5")
    for name in ("a~1/b~0.25", "a~1/b~0.50", "a~1", "a~1/b~0x5"):
        assert not re.fullmatch(space.constraint, name)
        with pytest.raises(CanidsError, match=r"is no point of this sweep, which has 2"):
            space.instance({"point": name})
    with pytest.raises(CanidsError, match=r"s-2 has the same values as s-0: a 1, b 0.5"):
        Space({"s-0": {"a": 1, "b": 0.5}, "s-1": {"a": 2, "b": 0.5}, "s-2": {"a": 1, "b": 0.5}})
    with pytest.raises(CanidsError, match=r"a\.b and a_b have the same column|a_b and a\.b have the same column"):
        Space({"s-0": {"a.b": 1, "a_b": 2}})


def test_sub_spaces_are_spaces_with_the_same_names_and_instances() -> None:
    space = Space(
        {
            f"s-{n}": {"gat.rate": rate, "batch": batch}
            for n, (rate, batch) in enumerate([(0.1, 16), (0.01, 16), (0.001, 64)])
        }
    )
    for part in (space[space.gat_rate < 0.05], space.where({"gat.rate": {"high": 0.05}})):
        assert list(part.points) == ["s-1", "s-2"]
        assert part.wildcard_pattern == space.wildcard_pattern
        assert list(part.instance_patterns) == list(space.instance_patterns)[1:]
    assert list(space[1:][["batch"]].points.items()) == [("s-1", {"batch": 16}), ("s-2", {"batch": 64})]
    for condition, chosen in ((16, 2), ([16, 64], 3), ({"low": 16, "high": 20}, 2), ({"low": 17}, 1)):
        assert len(space.where({"batch": condition}).points) == chosen
    assert list(space.where({"batch": 16, "gat.rate": {"low": 0.05}}).points) == ["s-0"]
    with pytest.raises(CanidsError, match=r"'rate' is no option of this sweep; it has gat\.rate, batch"):
        space.where({"rate": 1})
    with pytest.raises(CanidsError, match=r"no point has batch: 1$"):
        space.where({"batch": 1})


def test_points_are_instances_of_one_stage_and_seeds_share_what_lies_before(workplace: Path) -> None:
    sweep = from_table("train\n".replace("train", "gat.epochs\tgat.batch") + "2\t32\n3\t32\n", seeds=2, metric="loss")
    assert sweep.instances == {
        "sweep-000": {"train_gnn": {"gat": {"epochs": 2, "batch": 32}}},
        "sweep-000-seed-1": {"train_gnn": {"gat": {"epochs": 2, "batch": 32}, "seed": 1}, "train_drl": {"seed": 1}},
        "sweep-001": {"train_gnn": {"gat": {"epochs": 3, "batch": 32}}},
        "sweep-001-seed-1": {"train_gnn": {"gat": {"epochs": 3, "batch": 32}, "seed": 1}, "train_drl": {"seed": 1}},
    }
    joined = sweep.joined(config())
    assert "sweep" not in joined
    assert section(joined, "preprocess")["instances"] == {}
    assert set(section(joined, "train_gnn")["instances"]) == set(sweep.instances)
    assert section(joined, "train_gnn")["ports"]["graphs"] == dict.fromkeys(sweep.instances, "")
    plan = section(joined, "evaluate")["sweep"]
    assert plan["instances"]["sweep-001"] == {"0": "sweep-001", "1": "sweep-001-seed-1"}
    assert plan["metric"] == {"gat_small_nokd": "loss"}
    policies = declaration.declared({"train_drl": {"seed": 5}, "sweep": {"stage": "train_drl", "runs": ["dqn_large"], "seeds": 2, "space": {"discount": {"values": [0.5]}}}}, MODULES)  # fmt: skip
    assert policies.instances["sweep-000-seed-6"] == {"train_drl": {"discount": 0.5, "seed": 6}}
    with pytest.raises(CanidsError, match=r"instances\.sweep-000 is a point of the sweep"):
        sweep.joined({"instances": {"sweep-000": {}}})


@pytest.mark.parametrize("names", [("a", "a-seed-1"), ("a-seed-1", "a")])
def test_a_point_that_is_called_what_a_seed_is_would_replace_it(workplace: Path, names: tuple[str, str]) -> None:
    text = "instance\tgat.batch\n{}\t32\n{}\t64\n".format(*names)
    assert list(from_table(text).instances) == list(names)
    with pytest.raises(CanidsError, match=r"^sweep\.table: instance 'a-seed-1' is a point and a seed of one"):
        from_table(text, seeds=2).joined(config())


def test_a_generated_space_is_read_back_from_its_table(workplace: Path) -> None:
    space = {
        "gat.learning_rate": RATE,
        "gat.batch": {"low": 16, "high": 128},
        "gat.curriculum.by": {"values": ["none", "vgae"]},
    }
    first = declared(space=space, points=7, seed=3, subspaces={"small": {"gat.learning_rate": {"high": 0.005}}})
    again = from_table(table_of(first.space.points), subspaces={"small": {"gat.learning_rate": {"high": 0.005}}})
    assert again.plan == first.plan
    assert 0 < len(first.subspaces["small"]) < 7 == len(first.subspaces["all"])
    header, *rows = table_of(first.space.points).splitlines()
    shuffled = from_table("\n".join([header, *reversed(rows[2:])]))
    assert shuffled.space.points == {i: first.space.points[i] for i in reversed(list(first.space.points)[2:])}


def test_a_round_needs_the_schemas_of_a_checkout(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_round_module, "checkout", lambda: workplace / "site-packages")
    Path("s.yaml").write_text("sweep: {stage: train_gnn, runs: [gat_large]}\n")
    with pytest.raises(CanidsError, match=r"config\.schema\.yaml: no such file; install canids from a checkout"):
        next_round_module.main(Namespace(config=Path("s.yaml"), results=Path("results")))


def test_cells_are_what_the_option_wants(workplace: Path) -> None:
    schema = {"properties": {
        "text": {"type": "string"}, "whole": {"type": "integer"}, "number": {"type": "number"}, "either": {"enum": ["on", 1]},
        "yes": {"type": "boolean"}, "list": {"type": "array"},
    }}  # fmt: skip
    Path("t.tsv").write_text(
        "\ufefftext\twhole\tnumber\teither\tyes\tlist\n001\t001\t1e-5\ton\ttrue\t[64, 64]\n\n1\t2\t3\t1\tfalse\t[]\n"
    )
    points, _ = read_points(Path("t.tsv"), schema, "s")
    assert points == {
        "s-000": {"text": "001", "whole": 1, "number": 1e-5, "either": "on", "yes": True, "list": [64, 64]},
        "s-001": {"text": "1", "whole": 2, "number": 3, "either": 1, "yes": False, "list": []},
    }
    assert read_points(Path("t.tsv"), schema, "s")[0] == points
    name = next(iter(Space(points).instances))
    assert name == "text~001/whole~1/number~1e-05/either~on/yes~True/list~64-64"
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gat.batch\n32\n0\n", r"params.tsv: row 2 \(sweep-001\).gat.batch: 0 is less than the minimum of 1"),
        ("gat.batch\n32\nmany\n", r"params.tsv: row 2 \(sweep-001\).gat.batch: 'many' is not of type 'integer'"),
        ("gat.batch\n1.5\n", r"params.tsv: row 1 \(sweep-000\).gat.batch: 1.5 is not of type 'integer'"),
        ("gat.bach\n32\n", r"params.tsv: this stage has no option 'gat.bach'; did you mean 'gat.batch'\?"),
        ("gat\n32\n", r"params.tsv: 'gat' is a section; name one of its options, such as gat\.large\.channels"),
        ("seed\n32\n", r"params.tsv: the seed is no option of a point"),
        ("gat.batch\tgat.batch\n32\t32\n", r"params.tsv: column 'gat.batch' occurs twice"),
        ("gat.batch\tgat.epochs\n32\n", r"params.tsv: row 1: 1 cells, and the header has 2 columns"),
        ("gat.batch\tgat.epochs\n32\t\n", r"params.tsv: row 1: no value for gat.epochs"),
        ("gat.batch\n32\n032\n", r"sweep-001 has the same values as sweep-000: gat.batch 32"),
        ("instance\tgat.batch\na\t32\na\t64\n", r"params.tsv: row 2: instance 'a' occurs twice"),
        ("instance\tgat.batch\na/b\t32\n", r"params.tsv: row 1: 'a/b' cannot name an instance"),
        ("gat.batch\n", r"params.tsv: needs a header with options and at least one row"),
        ("", r"params.tsv: needs a header"),
        ("gat.batch\n" + "1" * 200_000, r"params.tsv: not a whole table of points; set sweep.table"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_with_row_and_option(workplace: Path, text: str, complaint: str) -> None:
    with pytest.raises(CanidsError, match=complaint) as caught:
        from_table(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sweep", "complaint"),
    [
        ({}, "sweep: needs a table, or a space to take points from, and not both"),
        ({"table": "nowhere.tsv"}, "nowhere.tsv: no such file; set sweep.table"),
        ({"space": {"gat.rate": RATE}}, "sweep.space: this stage has no option 'gat.rate'"),
        ({"space": {"gat.clip": {"low": 1, "high": 1}}}, "sweep.space.gat.clip: low 1 is not below high 1"),
        ({"space": {"gat.clip": {"low": 0, "high": 1, "log": True}}}, "sweep.space.gat.clip: a logarithmic scale needs low above 0"),
        ({"space": {"gat.clip": RATE}, "method": "grid"}, "sweep.space.gat.clip: a grid needs values, or steps"),
        ({"space": {"gat.clip": {"values": [-1]}}}, r"sweep.space: sweep-000.gat.clip: -1 is less than or equal to the minimum"),
        ({"space": {"gat.clip": RATE}, "point": 3}, "unknown key 'sweep.point'; did you mean 'points'?"),
        ({"space": {"gat.clip": RATE}, "stage": "evaluate"}, "sweep.stage: 'evaluate' is not one of"),
        ({"space": {"gat.clip": RATE}, "runs": ["gat"]}, "sweep.runs.0: 'gat' does not match"),
        ({"space": {"discount": {"values": [0.5]}}, "stage": "train_drl"}, "sweep.runs: gat_small_nokd comes before train_drl"),
        ({"space": {"gat.clip": RATE}, "metric": "reward"}, "sweep.metric: gat_small_nokd has no reward; it has auroc and loss"),
        ({"space": {"vgae.edge_weight": RATE}, "runs": ["vgae_large"], "metric": "loss"}, "sweep: vgae.edge_weight changes what loss means; set sweep.metric: auroc"),
        ({"space": {"reward.flapping": RATE}, "stage": "train_drl", "runs": ["dqn_large"]}, "sweep: reward.flapping changes what reward means; set sweep.metric: f1"),
        ({"space": {"episode_length": {"values": [8]}}, "stage": "train_drl", "runs": ["dqn_large"], "metric": "f1"}, "sweep: episode_length changes what f1 means; points of dqn_large cannot be compared"),
        ({"space": {"window": {"values": [50]}}, "stage": "preprocess", "metric": "loss"}, "sweep: preprocess changes what loss means; set sweep.metric: auroc"),
        ({"space": {"gat.clip": RATE}, "subspaces": {"none": {"gat.clip": {"low": 5}}}}, "sweep.subspaces.none: no point has gat.clip: {'low': 5}"),
        ({"space": {"gat.clip": RATE}, "subspaces": {"odd": {"clip": 5}}}, "sweep.subspaces.odd: 'clip' is no option of this sweep; it has gat.clip"),
        ({"space": {"gat.clip": RATE}, "subspaces": {"code": "@pd.io.common.os.system('true')"}}, "sweep.subspaces.code: "),
        ({"space": {"gat.batch": {"low": 16.2, "high": 16.8}}}, "sweep.space.gat.batch: no whole number from 16.2 to 16.8"),
        ({"space": {"gat.clip": {"low": 1, "high": math.inf}}}, "sweep.space.gat.clip.high: inf is not a finite number"),
        ({"space": {o: {"values": list(range(101))} for o in ("gat.clip", "gat.weight_decay")}, "method": "grid"}, "sweep: 10,201 points, more than 10,000; declare"),
        ({"space": {"gat.clip": RATE}, "points": 11, "seeds": 1000}, "sweep: 11,000 trainings of each run, more than 10,000; declare"),
        ({"space": {"gat.clip": RATE}, "method": "tpe"}, "sweep: method tpe needs a space, and a table"),
        ({"space": {"gat.clip": RATE}, "runs": ["pca_large"]}, "sweep.runs: no training is called pca_large; kinds of training: gat, vgae, dqn"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_named_in_one_line(workplace: Path, sweep: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CanidsError) as caught:
        declared(**sweep)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_the_section_of_the_stage_must_be_one() -> None:
    with pytest.raises(CanidsError, match="train_gnn: 3 is not of type 'object'"):
        declaration.declared({**config(space={"gat.clip": RATE}), "train_gnn": 3}, MODULES)


def test_a_pipeline_without_a_sweep_says_so() -> None:
    with pytest.raises(CanidsError, match="config: sweep is missing"):
        declaration.declared({}, MODULES)
