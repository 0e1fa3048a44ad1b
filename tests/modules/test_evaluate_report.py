"""The report, Snakemake's own report and the notebook, on synthetic decisions and runs; pages opened in Chromium."""

import csv
import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from evaluate_data import episodes, write_decisions, write_split, write_training
from workflows import TRAININGS, VARIANTS, Checkout, check_card

from canids_shared.contracts.evaluation import read_leaderboard
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import LEFT_OUT

pytestmark = pytest.mark.slow
SCENARIOS = ("test_known", "test_unknown")
CONFIG = "data/demo/evaluate.yaml"
SUMMARY = "results/demo/summary"
FIGURES = 12
BROWSER = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium to open pages in")
_MANIFEST = """\
contract: manifest/1
captures:
  train: {format: simulated, vehicle: van, role: train,        content: labelled, attack: dos, simulation: {duration: 9}}
  one:   {format: simulated, vehicle: van, role: test_known,   content: labelled, attack: dos, simulation: {duration: 9}}
  two:   {format: simulated, vehicle: van, role: test_unknown, content: labelled, attack: dos, simulation: {duration: 9}}
"""
_SEEN = """<script>addEventListener("load", () => {
  document.title = JSON.stringify([...document.images].map(i => i.naturalWidth * i.getBoundingClientRect().height));
});</script></body>"""
"""Put into a copy of the page: how large each image is on the screen."""


def write_splits(folder: Path, scenarios: tuple[str, ...], fold: str = "", seeds: tuple[str, ...] = ("",)) -> None:
    """Graphs of a fold (or of the plain run), and decisions of each of its seeds."""
    rng = np.random.default_rng(0)
    for split in ("fit", "select", "fuse", "calibrate", *scenarios):
        # `fuse` has no attack, which is warned of.
        captures = {f"{split}-{a}": (a, episodes(200, 0.4 * (split != "fuse"), rng)) for a in ("dos", "fuzzing")}
        keys = write_split(folder / f"results/demo/graphs{fold}/{split}.safetensors", captures, rng)
        for seed in seeds if split not in ("fit", "select", "fuse") else ():
            for i, variant in enumerate(VARIANTS):
                path = folder / f"results/demo/decisions/{variant}{fold}{seed}/{split}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_decisions(path, keys, 0.4 + 0.1 * i, rng)


def write_upstream(folder: Path) -> None:
    """The inputs of evaluate: graphs, decisions, and runs of trainings."""
    (folder / "data/demo").mkdir(parents=True)
    (folder / "data/demo/manifest.yaml").write_text(_MANIFEST)
    (folder / CONFIG).write_text("datasets: [demo]\nbootstrap: 20\ntrees: 5\n")
    write_splits(folder, SCENARIOS)
    for run in TRAININGS:
        write_training(folder / "experimentruns/demo" / run)


def opened(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in headless Chromium that reaches no host; standard error has what the page says on its console."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=8000"]
    command += ["--window-size=1200,2000", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def console(text: str) -> list[str]:
    return [line for line in text.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def evaluated(new_checkout: Callable[[], Checkout]) -> Checkout:
    checkout = new_checkout()
    write_upstream(checkout.folder)
    done = checkout.module("evaluate", "--configfile", CONFIG)
    assert done.returncode == 0, done.stderr
    return checkout


def test_the_report_needs_nothing_else(evaluated: Checkout) -> None:
    page = (evaluated.folder / SUMMARY / "report.html").read_text()
    assert page.count('<img src="data:image/svg+xml;base64,') == page.count("<img") == FIGURES
    assert not re.search(r"<script|<iframe|@import|url\(|(?:src|href)=\"(?!data:|#)", page)


def test_what_the_data_warn_of_is_in_log_results_report_and_cards(evaluated: Checkout) -> None:
    log = evaluated.folder / "experimentruns/demo/window_baselines/log.txt"
    pages = [log, *(evaluated.folder / SUMMARY / page for page in ("results.md", "report.html", "cards/gat_large.md"))]
    for page in pages:
        text = page.read_text().replace("`", "")
        assert "No recorded attacked window in fuse: nor any other." in text, page


def test_the_report_has_the_numbers_of_the_metrics(evaluated: Checkout) -> None:
    page = re.sub("</?strong>", "", (evaluated.folder / SUMMARY / "report.html").read_text())
    results = (evaluated.folder / SUMMARY / "results.md").read_text().replace("**", "")
    with open(evaluated.folder / SUMMARY / "results.csv", encoding="utf-8") as stream:
        table = {(r["scenario"], r["variant"], r["method"]): r for r in csv.DictReader(stream)}
    for variant in VARIANTS:
        path = evaluated.folder / f"experimentruns/demo/eval_{variant}/metrics.json"
        for scenario, methods in json.loads(path.read_text())["scenarios"].items():
            for method, values in methods.items():
                low, high = values["intervals"]["f1"]
                shown = f"{values['f1']:.4f} [{low:.3f}, {high:.3f}]"
                assert f">{shown}</td>" in page
                assert f"| {shown} |" in results
                assert float(table[scenario, variant, method]["f1"]) == values["f1"]


def test_the_report_says_where_it_comes_from(evaluated: Checkout) -> None:
    page = (evaluated.folder / SUMMARY / "report.html").read_text()
    for text in (
        "Code that made this report: canids",
        "Machine that made this report",
        "scikit-learn",
        *TRAININGS,
        "fit-dos",
        "SHA-256",
    ):
        assert text in page
    assert str(evaluated.folder) not in page
    evaluations = [f"eval_{v}" for v in VARIANTS]
    for run in (*evaluations, "window_baselines"):
        folder = "results" if run == "window_baselines" else "experimentruns"
        code = json.loads((evaluated.folder / folder / "demo" / run / "metrics.json").read_text())["code"]
        assert re.search(rf"<td>{run}</td><td>{code}</td><td>0</td><td>20\d\d-[^<]+</td><td>[^–<]+</td>", page)


def test_every_model_has_a_card_with_its_own_numbers(evaluated: Checkout) -> None:
    page = html.unescape((evaluated.folder / SUMMARY / "report.html").read_text())
    for run in TRAININGS:
        kind, _, variant = run.partition("_")
        text = (evaluated.folder / SUMMARY / f"cards/{run}.md").read_text()
        metrics = json.loads((evaluated.folder / f"experimentruns/demo/eval_{variant}/metrics.json").read_text())
        values = {s: methods["fusion" if kind == "dqn" else kind] for s, methods in metrics["scenarios"].items()}
        check_card(text, f"demo/{run}", values)
        assert f"<pre>{text}</pre>" in page
        assert ("Distilled from `" in text) == (variant == "small_kd")
        # A VGAE learns from attack-free windows, and `fuse`, from which a policy learns, has no others here.
        assert ("| dos | test_known, test_unknown | – |" in text) == (kind in ("vgae", "dqn"))


@needs_browser
def test_the_report_opens_with_all_figures_visible(evaluated: Checkout, tmp_path: Path) -> None:
    page = (evaluated.folder / SUMMARY / "report.html").read_text()
    copy = tmp_path / "report.html"
    copy.write_text(page.replace("</body>", _SEEN))
    done = opened(copy, tmp_path / "profile", "--dump-dom")
    assert not console(done.stderr)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    sizes = json.loads(title[1])
    assert len(sizes) == FIGURES
    assert all(size > 0 for size in sizes)


@needs_browser
def test_the_report_of_snakemake_opens(evaluated: Checkout, tmp_path: Path) -> None:
    done = evaluated.module("evaluate", "--configfile", CONFIG, "--report", str(tmp_path / "snakemake.html"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "snakemake.html").read_text()
    for name in ("results.md", "report.html", "confusion.svg", "distillation.svg", "learning.svg", "cost.svg"):
        assert name in page
    done = opened(tmp_path / "snakemake.html", tmp_path / "profile", "--dump-dom")
    assert not [line for line in console(done.stderr) if re.search("error|refused|failed", line, re.IGNORECASE)]
    assert "demo" in done.stdout


def test_the_notebook_runs(evaluated: Checkout) -> None:
    pytest.importorskip("papermill", reason="the extra `notebook` is not installed")
    config = evaluated.folder / "notebook.yaml"
    config.write_text((evaluated.folder / CONFIG).read_text() + "notebook: true\n")
    done = evaluated.module("evaluate", "--configfile", "notebook.yaml", PATH=os.defpath)
    assert done.returncode == 0, done.stderr
    source = json.loads((evaluated.folder / "modules/evaluate/notebooks/analysis.py.ipynb").read_text())
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in source["cells"])
    executed = json.loads((evaluated.folder / "experimentruns/demo/reports/analysis.ipynb").read_text())
    assert all(cell["execution_count"] for cell in executed["cells"] if cell["cell_type"] == "code")
    metrics = json.loads((evaluated.folder / "experimentruns/demo/eval_large/metrics.json").read_text())
    assert f"{metrics['scenarios']['test_known']['fusion']['f1']:.4f}" in json.dumps(executed)
    readings = (evaluated.folder / "experimentruns/test_readings.jsonl").read_text().splitlines()
    (line,) = (r for r in map(json.loads, readings) if r["rule"] == "notebook")
    assert (line["dataset"], line["scenarios"]) == ("demo", list(SCENARIOS))
    with open(evaluated.folder / SUMMARY / "errors.csv", encoding="utf-8") as stream:
        assert {row["kind"] for row in csv.DictReader(stream)} <= {"missed", "false alarm"}


def test_folds_and_seeds_come_into_one_table_and_the_leaderboard_without_a_test_scenario(
    new_checkout: Callable[[], Checkout],
) -> None:
    checkout = new_checkout()
    write_upstream(checkout.folder)
    write_splits(checkout.folder, (LEFT_OUT,), "@without-x", ("", "-seed-1"))
    for split in ("calibrate", LEFT_OUT):
        keys = GraphStore(checkout.folder / f"results/demo/graphs@without-x/{split}.safetensors").keys()
        path = checkout.folder / f"own/demo@without-x/{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        keys.select("capture", "window", "t_start", odds=pl.col("label") * 2.0).write_parquet(path)
    names = ["without-x", "without-x-seed-1"]
    for run in (f"{training}@{name}" for training in TRAININGS for name in names):
        write_training(checkout.folder / "experimentruns/demo" / run)
    same = {name: name for name in names}
    config = {
        **yaml.safe_load((checkout.folder / CONFIG).read_text()),
        "own_scores": {"mine": {"folder": "own/{dataset}{instance}", "column": "odds"}},
        "instances": {name: {} for name in names},
        "folds": {name: {"vehicles": ["van"]} for name in names},
        "ports": {
            "states": same,
            "decisions": same,
            **dict.fromkeys(("graphs", "window_baselines"), dict.fromkeys(names, names[0])),
        },
    }
    (checkout.folder / "folds.yaml").write_text(yaml.safe_dump(config))
    board = "results/demo/leaderboard/leaderboard"
    done = checkout.module("evaluate", "all_folds", f"{board}.md", "--configfile", "folds.yaml")
    assert done.returncode == 0, done.stderr
    table = (checkout.folder / "results/demo/folds/results.md").read_text()
    assert re.search(
        r"\| Fusion \| large \| 2 \| \*{0,2}0\.\d{4}\*{0,2} ± 0\.\d{4} \[0\.\d{3}, [01]\.\d{3}\] \|", table
    )
    assert "Fusion minus …, F1" in table
    assert re.search(r"\| Extra Trees \| – \| 1 \|", table)
    assert (checkout.folder / "results/demo/folds/methods.svg").stat().st_size > 10_000
    made = read_leaderboard(checkout.folder / f"{board}.json")
    assert made["warnings"]["@without-x"] == ["No recorded attacked window in `fuse`: nor any other."]
    fusion, mine = (next(e for e in made["standings"] if e["method"] == m) for m in ("fusion", "mine"))
    assert (fusion["seeds"], mine["seeds"], mine["setting"]) == ([0, 1], [0], "vehicle")
    assert mine["metrics"]["f1"]["mean"] == 1.0
    assert made["protocol"]["left_out"] == {"@without-x": {"vehicles": ["van"]}}
    assert {"gat", "vgae", "dqn"} <= made["code"].keys()
    assert not (checkout.folder / "experimentruns/test_readings.jsonl").exists()
    assert all("@without-x" in p.name for p in checkout.folder.glob("experimentruns/demo/eval_*"))
