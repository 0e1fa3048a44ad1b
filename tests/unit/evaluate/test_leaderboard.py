"""The leaderboard by hand: folds, seeds, regimes, false alarms with their bounds, ablations, and tables that are refused."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_records import record

from canids_evaluate import compare, leaderboard, readme
from canids_evaluate.judging.bounds import binomial, poisson
from canids_evaluate.judging.metrics import METRICS
from canids_evaluate.pages import tables
from canids_evaluate.planning import BOARD_FIGURES
from canids_evaluate.standings import board_pages, board_tables
from canids_evaluate.standings.board_compare import difference_of
from canids_shared.contracts import training_run
from canids_shared.contracts.detectors import DETECTORS, KEY, as_json
from canids_shared.contracts.evaluation import read_leaderboard, write_evaluation
from canids_shared.contracts.whole import write_json
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

LEFT_OUT = {
    "@without-kia": {"vehicles": ["kia"]},
    "@without-kia-seed-1": {"vehicles": ["kia"]},
    "@without-a": {"vehicles": ["a"]},
    "@without-a-no_edges": {"vehicles": ["a"]},
    "@without-dos": {"attacks": ["dos"]},
}
CAPTURES = {"k": "kia", "a1": "a", "w": "wrx", "x": "x250", "d": "kia"}
HOURS = {"k": 0.5, "a1": 1.5, "w": 1.0, "x": 2.0, "d": 0.25}
CONFIG = {"bootstrap": 40, "seed": 0, "false_alarm_budget": 0.005, "episode_gap": 1.0, "bootstrap_block": 5.0}


def of_capture(capture: str, alarms: int, attacked: bool) -> dict[str, Any]:
    n = 50 if attacked else 0
    rates = {
        "false_alarms_per_hour": alarms / HOURS[capture],
        "alarm_seconds_per_hour": 2 * alarms / HOURS[capture],
        "fpr": alarms / 200,
    }
    counts = {"n_windows": 200 + n, "n_attacked": n, "n_episodes": n // 10, "n_false_alarms": alarms}
    return {
        **dict.fromkeys(METRICS),
        **rates,
        **counts,
        "attack_free_hours": HOURS[capture],
        "delay_floor_s": 0.1 if n else None,
    }


def of_scenario(
    captures: dict[str, int], f1: float | None, spread: float = 0.1, **changes: Any
) -> tuple[dict[str, Any], Any]:
    """Values of a method whose replicates lie evenly around its F1, and these; `captures` are name → false alarms."""
    attacked = f1 is not None
    parts = {c: of_capture(c, n, attacked) for c, n in captures.items()}
    shares = dict.fromkeys(
        ("f1", "recall", "pr_auc", "auroc", "episodes_found", *(m for m in METRICS if "_at_" in m)), f1
    )
    values = {**dict.fromkeys(METRICS), **shares, "detection_delay_s": 0.4 if attacked else None, "fpr": 0.01}
    counts = {
        k: sum(p[k] for p in parts.values())
        for k in ("n_windows", "n_attacked", "n_episodes", "n_false_alarms", "attack_free_hours")
    }
    kinds = {"dos": {**values, **counts, "delay_floor_s": 0.1}} if attacked else {}
    optimal = dict.fromkeys(("f1", "precision", "recall", "threshold"))
    intervals = {m: [0.1, 0.9] if attacked else None for m in METRICS}
    whole = {
        **values,
        **counts,
        "delay_floor_s": 0.1,
        "intervals": intervals,
        "f1_optimal": optimal,
        "per_attack": kinds,
        "per_capture": parts,
    }
    around = [None] * 40 if f1 is None else (f1 + spread * np.linspace(-0.5, 0.5, 40)).tolist()
    stored = dict.fromkeys(
        ("f1", "auroc", "recall_at_1_per_hour", "recall_at_10_per_hour", "episodes_found_at_10_per_hour"), around
    )
    return {**whole, **changes}, stored


def write_run(
    folder: Path, instance: str, variant: str | None, scenarios: dict[str, dict[str, tuple[Any, Any]]], **further: Any
) -> Path:
    identity = {"dataset": "d", "instance": instance, "variant": variant, KEY: as_json(DETECTORS) if variant else []}
    methods = list(next(iter(scenarios.values())))
    thresholds = {m: {"budget": None if m == "fusion" else 0.5, "f1": None} for m in methods}
    made = {"code": f"e{variant}", "config": CONFIG, "seed": 0, "thresholds": thresholds}
    whole = {s: {m: values for m, (values, _) in of.items()} for s, of in scenarios.items()}
    drawn = {
        s: {
            "methods": {},
            "timelines": [],
            "policy": [],
            "replicates": {m: r for m, (_, r) in of.items()},
            "windows": {"w": s},
        }
        for s, of in scenarios.items()
    }
    path = folder / f"{variant or 'baselines'}{'-own' if 'mine' in methods else ''}{instance}" / "metrics.json"
    write_evaluation(
        path,
        path.with_name("curves.json"),
        {**identity, **made, "scenarios": whole},
        {**identity, **further, "scenarios": drawn},
    )
    return path


def runs(folder: Path) -> list[Path]:
    """Two vehicles left out, one with two seeds and both regimes, an ablation, a kind of attack, and traffic of other makes."""
    sources = {c: {"vehicle": v, "attack": "", "sha256": c * 8} for c, v in CAPTURES.items()}
    data = {"sources": sources, "warnings": ["No recorded attacked window in `fuse`: nor any other."]}

    def both(f1: float, k: int, w: int, capture: str = "k") -> dict[str, dict[str, tuple[Any, Any]]]:
        of = {"fusion": of_scenario({capture: k}, f1), "gat": of_scenario({capture: k + 1}, f1 - 0.2)}
        free = {"fusion": of_scenario({"w": w, "x": 2 * w}, None), "gat": of_scenario({"w": 9, "x": 9}, None)}
        return {"left_out": of, "unseen": free}

    enrolled = {"left_out_enrolled": {m: of_scenario({"k": 0}, 1.0, 0.0) for m in ("fusion", "gat")}}
    made = [
        write_run(folder, "@without-kia", "large", {**both(0.8, 2, 1), **enrolled}),
        write_run(folder, "@without-kia-seed-1", "large", both(0.9, 3, 2)),
        write_run(
            folder,
            "@without-a",
            "large",
            {s: {**of, "cusum": of["gat"]} for s, of in both(0.5, 7, 3, "a1").items()},
        ),
        write_run(
            folder,
            "@without-a-no_edges",
            "large",
            {s: {**of, "cusum": of["gat"]} for s, of in both(0.4, 7, 3, "a1").items()},
        ),
        write_run(
            folder, "@without-dos", "large", {"left_out": {m: of_scenario({"d": 0}, 0.7) for m in ("fusion", "gat")}}
        ),
    ]
    for fold, capture in (("@without-kia", "k"), ("@without-a", "a1")):
        trees = {"extra_trees": of_scenario({capture: 1}, 0.6), "always_attack": of_scenario({capture: 5}, 0.94)}
        made.append(write_run(folder, fold, None, {"left_out": trees}, **data))
        made.append(write_run(folder, fold, None, {"left_out": {"mine": of_scenario({capture: 4}, 0.65)}}))
    return made


def make(folder: Path, metrics: list[Path]) -> None:
    ablations = {"no_edges": "GAT without edges", "no_sim": "Without simulation"}
    config = {"ablations": ablations, "own_scores": {"mine": {"folder": "f", "column": "score"}}, "enrolment": 60}
    spec = {"wildcards": {"dataset": "d"}, "left_out": LEFT_OUT, "config": config}
    output = {"json": "leaderboard.json", "markdown": "b.md", "csv": "b.csv", "page": "b.html"}
    paths = {k: folder / v for k, v in {**output, **{f: f"{f}.svg" for f in BOARD_FIGURES}}.items()}
    trained = []
    for kind in ("gat", "dqn"):
        trained.append(folder / f"{kind}_large@without-a/run.json")
        training_run.write(trained[-1], record(kind, instance="@without-a", code=f"t-{kind}"))
    leaderboard.main(Call.of(json.dumps(spec), paths, {"metrics": metrics, "trainings": trained}))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the evaluations, and the leaderboard of them in `one`."""
    folder = tmp_path_factory.mktemp("board")
    make(folder / "one", runs(folder))
    return folder


@pytest.fixture
def board(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The content of `one/leaderboard.json`, in a folder that has a copy of `one`."""
    shutil.copytree(built / "one", tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    return read_leaderboard(Path("one/leaderboard.json"))


def entry(made: dict[str, Any], setting: str, regime: str, method: str, key: str = "standings") -> dict[str, Any]:
    (found,) = (e for e in board_tables.entries(made, setting, regime, key) if e["method"] == method)
    return dict(found)


def test_folds_count_alike_and_the_worst_stands_beside_the_mean(board: dict[str, Any]) -> None:
    f1 = entry(board, "vehicle", "zero-shot", "fusion")["metrics"]["f1"]
    # Seeds of a fold are averaged first: (0.85 + 0.5) / 2, not (0.8 + 0.9 + 0.5) / 3.
    assert f1["mean"] == pytest.approx(0.675)
    assert f1["folds"] == {"@without-a": 0.5, "@without-kia": pytest.approx(0.85)}
    assert (f1["worst"], f1["worst_fold"]) == (0.5, "@without-a")
    low, high = f1["interval"]
    assert 0.575 < low < 0.675 < high < 0.775


def test_the_regimes_and_the_kinds_of_folds_are_kept_apart(board: dict[str, Any]) -> None:
    made = board
    assert board_tables.places(made) == [
        *[("vehicle", "zero-shot"), ("vehicle", "enrolled"), ("makes", "zero-shot"), ("attack", "zero-shot")]
    ]
    enrolled = entry(made, "vehicle", "enrolled", "fusion")
    # Five episodes, all found by everyone: no resample differs, and the run's own interval is taken.
    assert enrolled["metrics"]["f1"]["interval"] == pytest.approx([0.1, 1.0])
    assert entry(made, "attack", "zero-shot", "fusion")["metrics"]["f1"]["mean"] == 0.7
    unseen = entry(made, "makes", "zero-shot", "fusion")
    assert unseen["metrics"]["f1"] == {"mean": None, "interval": None, "worst": None, "worst_fold": None, "folds": {}}


def test_false_alarms_rest_on_traffic_that_counts_once(board: dict[str, Any]) -> None:
    made = board
    traffic = entry(made, "vehicle", "zero-shot", "fusion")["traffic"]
    # kia: seeds with 2 and 3 false alarms in the same half hour; a: 7 in one and a half.
    assert traffic["vehicles"]["kia"]["n_false_alarms"] == 2.5
    assert traffic["vehicles"]["kia"]["interval"] == pytest.approx([poisson(2, 0.5)[0], poisson(3, 0.5)[1]])  # type: ignore[index]
    assert (traffic["n_false_alarms"], traffic["attack_free_hours"]) == (9.5, 2.0)
    assert traffic["false_alarms_per_hour"] == 4.75
    assert traffic["alarm_seconds_per_hour"] == 9.5
    # Traffic of other makes is judged by three runs (1, 2 and 3 in wrx, twice that in x250): three hours, not nine.
    makes = entry(made, "makes", "zero-shot", "fusion")["traffic"]
    assert (makes["n_false_alarms"], makes["attack_free_hours"]) == (6, 3)
    assert makes["vehicles"]["x250"]["fpr"] == pytest.approx(4 / 200)
    # From the run with the fewest to that with the most, so that runs that differ widen the bounds.
    assert makes["vehicles"]["wrx"]["interval"] == pytest.approx([poisson(1, 1)[0], poisson(3, 1)[1]])  # type: ignore[index]


def test_an_ablation_is_subtracted_from_its_own_fold(board: dict[str, Any]) -> None:
    made = board
    changes = [e for e in made["ablations"]["changes"] if (e["setting"], e["method"]) == ("vehicle", "fusion")]
    (change,) = changes
    assert change["ablation"] == "no_edges"
    # Resample by resample: the spread that both have cancels out, and 0.4 − 0.5 is left; five episodes bound it.
    assert change["metrics"]["f1"]["mean"] == pytest.approx(-0.1)
    # Of the networks alone, whose colours the figure has.
    assert {e["method"] for e in made["ablations"]["changes"]} == {"fusion", "gat"}
    assert made["ablations"]["missing"] == ["no_sim"]
    assert "Ablations that no fold was run of: Without simulation." in board_pages.warnings(made)
    assert "@without-a-no_edges" not in made["protocol"]["left_out"]


def test_the_code_is_that_of_trainings_too(board: dict[str, Any]) -> None:
    assert (board["code"]["gat"], board["code"]["dqn"]) == (["t-gat"], ["t-dqn"])
    assert board["code"]["eval_large"] == ["elarge"]


def test_an_ablation_on_other_windows_is_refused(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path, f"@without-a{a}", "large", {"left_out": {"fusion": of_scenario({"a1": 1}, 0.5)}})
        for a in ("", "-no_edges")
    ]
    drawn = paths[1].with_name("curves.json")
    content = json.loads(drawn.read_text())
    content["scenarios"]["left_out"]["windows"] = {"w": "others"}
    write_json(drawn, content["contract"], content)
    with pytest.raises(CanidsError, match="@without-a-no_edges, left_out: judged on other windows than @without-a"):
        make(tmp_path / "one", paths)


def test_the_fusion_is_compared_with_every_method_and_the_best_of_each_family_is_shown(
    board: dict[str, Any],
) -> None:
    made = board
    less = entry(made, "vehicle", "zero-shot", "gat", "differences")["metrics"]["f1"]
    assert less["mean"] == pytest.approx(0.2)
    assert entry(made, "vehicle", "zero-shot", "mine", "differences")["metrics"]["f1"]["mean"] == pytest.approx(0.025)
    # An alarm that never ends has the best F1 here, and is the best of nothing.
    assert made["best"] == {
        "Fusion": ["large", "fusion"],
        "GAT": ["large", "gat"],
        "Fusion baselines": ["large", "cusum"],
        "Classifiers of window statistics": [None, "extra_trees"],
        "Detectors of others": [None, "mine"],
    }
    assert entry(made, "vehicle", "zero-shot", "fusion")["own_point"]
    assert not entry(made, "vehicle", "zero-shot", "gat")["own_point"]


def test_below_five_episodes_there_are_counts(tmp_path: Path) -> None:
    values, stored = of_scenario({"k": 0}, 0.5)
    few = write_run(
        tmp_path / "few", "@without-kia", "large", {"left_out": {"fusion": ({**values, "n_episodes": 4}, stored)}}
    )
    make(tmp_path / "few", [few])
    e = entry(read_leaderboard(tmp_path / "few/leaderboard.json"), "vehicle", "zero-shot", "fusion")
    assert e["metrics"]["f1"]["interval"] is None
    assert board_tables.shown_mean(e, "episodes_found_at_10_per_hour") == "2 of 4"
    assert "(4 in kia: too few for intervals" in (tmp_path / "few/b.md").read_text()


def test_attacks_on_traffic_that_every_fold_judges_count_once(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, fold, "large", {"left_out": {"fusion": of_scenario({c: 0}, 0.5)}, "unseen": {"fusion": of_scenario({"w": 0}, f1)}})
        for fold, c, f1 in (("@without-kia", "k", 0.2), ("@without-a", "a1", 0.4))
    ]  # fmt: skip
    make(tmp_path / "one", runs)
    made = read_leaderboard(tmp_path / "one/leaderboard.json")
    makes, vehicles = (entry(made, setting, "zero-shot", "fusion") for setting in ("makes", "vehicle"))
    assert (makes["n_episodes"], makes["n_attacked"], makes["n_windows"]) == (5, 50, 250)
    assert (vehicles["n_episodes"], vehicles["n_windows"]) == (10, 500)
    assert makes["attacks"].keys() == {"all folds"}
    assert makes["attacks"]["all folds"]["dos"]["recall"] == pytest.approx(0.3)
    assert makes["attacks"]["all folds"]["dos"]["n_episodes"] == 5


def test_a_fold_without_spread_brings_its_own_bounds(tmp_path: Path) -> None:
    runs = []
    for fold, capture, f1 in (("@without-kia", "k", 1.0), ("@without-a", "a1", 0.5)):
        methods = {}
        for method, less in (("fusion", 0.0), ("gat", 1.0)):
            value = max(f1 - less, 0.0)
            values, stored = of_scenario({capture: 0}, value, spread=0.0 if value in (0, 1) else 0.2)
            own = binomial(int(5 * value), 5) if value in (0, 1) else [0.4, 0.6]
            methods[method] = ({**values, "intervals": dict.fromkeys(METRICS, own)}, stored)
        runs.append(write_run(tmp_path, fold, "large", {"left_out": methods}))
    make(tmp_path / "one", runs)
    made = read_leaderboard(tmp_path / "one/leaderboard.json")
    low, high = entry(made, "vehicle", "zero-shot", "fusion")["metrics"]["f1"]["interval"]
    # Half of what five of five found leave open, beside half of the other fold's spread of 0.2.
    assert low == pytest.approx(0.75 - (1 - binomial(5, 5)[0]) / 2 - 0.05, abs=0.01)
    assert high == pytest.approx(0.8, abs=0.01)
    low, high = entry(made, "vehicle", "zero-shot", "gat", "differences")["metrics"]["f1"]["interval"]
    assert -1 <= low < 0.75 < high <= 1


def test_one_fold_of_few_episodes_leaves_counts_for_all(tmp_path: Path) -> None:
    runs = []
    for fold, capture, n in (("@without-kia", "k", 4), ("@without-a", "a1", 12)):
        values, stored = of_scenario({capture: 0}, 0.5)
        methods = {m: ({**values, "n_episodes": n}, stored) for m in ("fusion", "gat")}
        runs.append(write_run(tmp_path, fold, "large", {"left_out": methods}))
    make(tmp_path / "one", runs)
    made = read_leaderboard(tmp_path / "one/leaderboard.json")
    e = entry(made, "vehicle", "zero-shot", "fusion")
    assert e["metrics"]["f1"]["interval"] is None
    assert board_tables.shown_mean(e, "episodes_found_at_10_per_hour") == "8 of 16"
    assert entry(made, "vehicle", "zero-shot", "gat", "differences")["metrics"]["f1"]["interval"] is None
    (sentences,) = board_pages.findings(made).values()
    assert "too few episodes to compare with GAT" in " ".join(sentences)


def test_pages_say_what_the_document_says(board: dict[str, Any]) -> None:
    made = board
    text, page = Path("one/b.md").read_text(), Path("one/b.html").read_text()
    for said in (
        "Without a; kia: No recorded attacked window",
        "**Vehicles never met, zero-shot.**",
        "0.6750 [",
        "0.5000 (a)",
        "1 fold (left out: dos; vehicles kia)",
    ):
        assert said in text, said
    assert "No recorded attacked window" in page
    assert page.count("data:image/svg+xml") == len(BOARD_FIGURES)
    rows = list(csv.DictReader(Path("one/b.csv").read_text().splitlines()))
    assert len(rows) == len(made["standings"])
    first = next(r for r in rows if (r["method"], r["setting"], r["regime"]) == ("fusion", "vehicle", "zero-shot"))
    assert (first["f1_worst_fold"], first["traffic_false_alarms"], first["protocol"]) == ("@without-a", "9.5", "1")


def test_equal_inputs_in_any_order_give_equal_bytes(built: Path, board: dict[str, Any]) -> None:
    make(Path("two"), sorted(built.glob("*/metrics.json"), reverse=True))
    for name in ("leaderboard.json", "b.md", "b.csv", *(f"{f}.svg" for f in BOARD_FIGURES)):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name


def compared(monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", *paths])
    compare.main()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d["protocol"].update(version=2), "protocol.version"),
        (lambda d: d["protocol"].update(enrolment=0), "protocol.enrolment"),
        (lambda d: d["protocol"]["config"].update(false_alarm_budget=0.01), "protocol.config (false_alarm_budget)"),
        (lambda d: d["protocol"]["left_out"].pop("@without-a"), "protocol.left_out (@without-a)"),
        (lambda d: d["data"]["captures"]["k"].update(sha256="other"), "data.captures (k)"),
        (lambda d: d["data"]["windows"].update({"@without-a left_out": "0"}), "data.windows (@without-a left_out)"),
    ],
)
def test_tables_of_another_protocol_or_other_data_are_refused(
    board: dict[str, Any], monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], named: str
) -> None:
    made = board
    assert difference_of(made, json.loads(json.dumps(made))) is None
    change(made)
    write_json(Path("other/leaderboard.json"), made["contract"], made)
    with pytest.raises(
        SystemExit, match=r"other/leaderboard\.json: not comparable with one/leaderboard\.json"
    ) as caught:
        compared(monkeypatch, "one/leaderboard.json", "other/leaderboard.json")
    assert named in str(caught.value)


def test_tables_of_one_protocol_stand_side_by_side(
    board: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = board
    made["code"], made["seeds"] = {"eval_large": ["new"]}, [0]
    entry(made, "vehicle", "zero-shot", "fusion")["metrics"]["f1"].update(mean=0.775)
    write_json(Path("two/leaderboard.json"), made["contract"], made)
    compared(monkeypatch, "one/leaderboard.json", "two/leaderboard.json")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("Fusion")]
    assert "+0.1000" in lines[0]


def test_an_edited_table_is_refused(board: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("one/leaderboard.json")
    path.write_text(path.read_text().replace("0.675", "0.975"))
    with pytest.raises(SystemExit, match="was changed since it was written"):
        compared(monkeypatch, str(path), str(path))


def test_the_readme_gets_the_overview(board: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("R.md").write_text("before\n<!-- leaderboard -->\nold\n<!-- /leaderboard -->\nafter\n")
    monkeypatch.setattr(sys, "argv", ["readme", "--leaderboard", "one/leaderboard.json", "--document", "R.md"])
    readme.main()
    text = Path("R.md").read_text()
    assert text.startswith("before\n<!-- leaderboard -->\nPut here on ")
    assert text.endswith("<!-- /leaderboard -->\nafter\n")
    # Of each family the best, of which the alarm that never ends is none; warnings by number.
    assert "| Vehicles never met: best of each family |" in text
    assert "| Fusion | large | 0.6750 [" in text
    assert "| Always attack |" not in text
    assert "Warnings of the data: 2, by name in [" in text
    assert "No recorded attacked window" not in text
    assert "\nold\n" not in text


def test_one_sentence_says_how_thresholds_are_set(board: dict[str, Any]) -> None:
    module = Path(leaderboard.__file__).parents[1]
    for text in (board_pages.METHOD, tables.METHOD, Path("one/b.md").read_text(), (module / "README.md").read_text()):
        assert tables.THRESHOLDS in text


def test_warnings_of_one_kind_are_one(board: dict[str, Any]) -> None:
    few = "Fewer than 5 attack episodes in `left_out` ({}): counts instead of intervals."
    board["warnings"] = {"@without-a": [few.format(4), "Other."], "@without-kia": [few.format(3)]}
    board["ablations"]["missing"] = []
    assert board_pages.warnings(board) == [
        "Fewer than 5 attack episodes in `left_out` (4 without a; 3 without kia): counts instead of intervals.",
        "Without a: Other.",
    ]
    drift = "Attack-free traffic unlike training in `unseen`: {} (drift in deviations)."
    board["warnings"] = {f"@without-{v}": [drift.format(f"{v} (0.{n}, rate)")] for n, v in enumerate(("a", "kia"))}
    (text,) = board_pages.warnings(board)
    assert text == drift.format("a (0.0, rate) without a; kia (0.1, rate) without kia")


def test_without_a_fusion_the_best_method_is_named_on_traffic_of_other_makes(board: dict[str, Any]) -> None:
    heading = "Traffic of vehicles that nothing is trained on, zero-shot"
    assert board_pages.findings(board)[heading][0].startswith("Fusion (large) alarms in ")
    board["standings"] = [e for e in board["standings"] if e["method"] != "fusion"]
    assert board_pages.findings(board)[heading][0].startswith("GAT (large) alarms in ")


def test_pages_of_the_file_are_those_of_the_run(board: dict[str, Any]) -> None:
    assert board_pages.markdown(board) == Path("one/b.md").read_text()
    best = [e["label"] for e in board_tables.best(board, "vehicle", "zero-shot")]
    assert best == ["Fusion", "GAT", "Fixed weight, CUSUM", "Extra Trees", "mine"]


def test_a_mean_says_on_how_many_folds_it_is_defined(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, fold, "large", {"left_out": {"fusion": of_scenario({c: 0}, 0.5, detection_delay_s=delay)}})
        for fold, c, delay in (("@without-kia", "k", 0.4), ("@without-a", "a1", None))
    ]
    make(tmp_path / "one", runs)
    assert "| 0.400 (≥ 0.100) on 1 of 2 folds |" in (tmp_path / "one/b.md").read_text()
    (row,) = csv.DictReader((tmp_path / "one/b.csv").read_text().splitlines())
    assert (row["detection_delay_s_folds"], row["f1_folds"], row["folds"]) == ("1", "2", "2")
