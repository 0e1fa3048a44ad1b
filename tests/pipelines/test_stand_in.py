"""A dry run of the main job's whole rule graph with stand-ins (`stand_in: true`): the same jobs, and no reader accepts its files."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml
from workflows import CACHED, EVALUATIONS, TRAININGS, VARIANTS, Checkout, one_line

from canids_shared.contracts import stand_in_mark, tables, training_run
from canids_shared.contracts.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, read_evaluation
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.model_file import DETECTOR, FUSION_BASELINES, POLICY, load_arrays
from canids_shared.contracts.tables import DECISIONS, FRAMES, KEYS, REJECTS, STATES

pytestmark = pytest.mark.slow
SPLITS = ("fit", "select", "fuse", "calibrate", "test_dos")
CONFIG = ("-s", "pipelines/kd_fusion/Snakefile", "--configfile", "tiny.yaml")
CONTRACTS = {"vgae": DETECTOR, "gat": DETECTOR, "dqn": POLICY, "fusion_baselines": FUSION_BASELINES}


def contract(path: Path) -> str:
    """Contract of a model file, by the name of its run."""
    return next(c for kind, c in CONTRACTS.items() if path.parent.name.startswith(f"{kind}_"))


def planned(text: str) -> set[str]:
    """The commands of all jobs, with every file that they read and write; without the params."""
    commands = re.findall(r'^Shell command: ("\$CANIDS_\w+_PYTHON" .*)$', text, re.M)
    return {re.sub("--spec '.*?'", "--spec", command) for command in commands}


@pytest.fixture(scope="module")
def dry(new_checkout: Callable[[], Checkout], tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the whole graph ran with stand-ins, with a cache in its folder `cache`."""
    checkout = new_checkout()
    shutil.copytree(tiny_dataset, checkout.folder / "data")
    preprocess = yaml.safe_load((checkout.folder / "data/tiny/preprocess.yaml").read_text())
    config = {"datasets": preprocess.pop("datasets"), "preprocess": preprocess}
    (checkout.folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    (checkout.folder / "cache").mkdir()
    real, dry = (checkout.snakemake("-n", "-p", *CONFIG, *more) for more in ((), ("--config", "stand_in=true")))
    assert real.returncode == dry.returncode == 0, real.stderr + dry.stderr
    assert planned(real.stdout) == planned(dry.stdout)
    assert len(planned(real.stdout)) > 30
    options = ("--config", "stand_in=true", "--cache", *CACHED)
    done = checkout.snakemake("-c2", *CONFIG, *options, SNAKEMAKE_OUTPUT_CACHE=str(checkout.folder / "cache"))
    assert done.returncode == 0, done.stderr
    return checkout


def test_every_file_is_marked_and_keeps_its_contract(dry: Checkout) -> None:
    results, experiments = dry.folder / "results/tiny", dry.folder / "experimentruns/tiny"
    files = [p for folder in (results, experiments) for p in folder.rglob("*") if p.is_file()]
    unmarked = {p.name for p in files if not stand_in_mark.is_marked(p)}
    assert {n for n in unmarked if not n.endswith((".log", ".snakemake_timestamp"))} == {"log.txt", "benchmark.tsv"}
    assert not (experiments.parent / "test_readings.jsonl").exists(), "no score of a test scenario was read"
    with stand_in_mark.allow_stand_ins():
        for capture in ("free", "dos", "test"):
            assert len(tables.read(results / f"frames/{capture}.parquet", FRAMES)[0])
            tables.read(results / f"frames/rejects/{capture}.parquet", REJECTS)
        keys = {s: GraphStore(results / f"graphs/{s}.safetensors").keys() for s in SPLITS}
        assert {len(k) for k in keys.values()} == {8, 16}
        for variant in VARIANTS:
            for split in SPLITS[1:]:
                states = tables.read(results / f"states/{variant}/{split}.parquet", STATES)[0]
                assert states.select(list(KEYS)).equals(keys[split])
            for split in ("calibrate", "test_dos"):
                decisions = tables.read(results / f"decisions/{variant}/{split}.parquet", DECISIONS)[0]
                assert decisions.select(list(KEYS)).equals(keys[split])
        for run in (*TRAININGS, *(f"fusion_baselines_{v}" for v in VARIANTS)):
            load_arrays(experiments / run / "model.safetensors", contract(experiments / run / "model.safetensors"))
            assert yaml.safe_load((experiments / run / "config.yaml").read_text())["spec"]["stand_in"]
        for run in TRAININGS:
            assert training_run.read(experiments / run / "run.json").latency == {"median_ms": 1.0, "device": "cpu"}
            assert len(pl.read_parquet(experiments / run / "history.parquet")) == 1
        for folder in (*(experiments / e for e in EVALUATIONS), results / "window_baselines"):
            assert list(read_evaluation(folder / "metrics.json", METRICS_CONTRACT)["scenarios"]) == ["test_dos"]
            assert list(read_evaluation(folder / "curves.json", CURVES_CONTRACT)["scenarios"]) == ["test_dos"]


@pytest.mark.workflow("kd_fusion")
def test_stand_ins_have_the_columns_and_keys_of_real_files(workflow_dir: Path, dry: Checkout) -> None:
    def shape(path: Path) -> object:
        match path.suffix:
            case ".parquet":
                schema = {k: v for k, v in pl.read_parquet_schema(path).items() if not k.startswith("baseline_")}
                # What was not measured has no type in a history.
                return list(schema) if path.stem == "history" else schema
            case ".csv":
                return next(line for line in path.read_text().splitlines() if not line.startswith("#"))
            case ".json":
                return sorted(json.loads(path.read_text()).keys() - {"stand_in"})
        with stand_in_mark.allow_stand_ins():
            header = GraphStore(path).header if "graphs" in path.parts else load_arrays(path, contract(path))[1]
        return sorted(header.keys() - {"stand_in"})

    pairs = {f"experimentruns/{{}}/{run}/model.safetensors" for run in TRAININGS}
    pairs |= {f"experimentruns/{{}}/{run}/{f}" for run in TRAININGS for f in ("history.parquet", "run.json")}
    pairs |= {f"experimentruns/{{}}/{run}/{f}.json" for run in EVALUATIONS for f in ("metrics", "curves")}
    pairs |= {"experimentruns/{}/fusion_baselines_large/model.safetensors", "results/{}/graphs/fit.safetensors"}
    pairs |= {"results/{}/states/large/fuse.parquet", "results/{}/decisions/large/calibrate.parquet"}
    pairs |= {
        "results/{}/summary/results.csv",
        "results/{}/frames/captures.csv",
        "results/{}/window_baselines/curves.json",
    }
    for pattern in sorted(pairs):
        real, stand_in = workflow_dir / pattern.format("smoke"), dry.folder / pattern.format("tiny")
        assert shape(stand_in) == shape(real), pattern


def test_a_real_run_refuses_them_and_names_the_file(dry: Checkout) -> None:
    """Even where Snakemake is to reuse them."""
    target = "experimentruns/tiny/eval_large/metrics.json"
    done = dry.snakemake(target, "--force", "--rerun-triggers", "mtime", *CONFIG)
    assert done.returncode != 0
    one_line(done.stderr, "error: ", "decisions/large/calibrate.parquet: a stand-in", "without stand_in")


def test_a_stand_in_does_not_replace_a_result(dry: Checkout) -> None:
    page = dry.folder / "results/tiny/summary/results.md"
    before = page.read_text()
    page.write_text("# Results\n")
    done = dry.snakemake("-n", *CONFIG, "--config", "stand_in=true")
    page.write_text(before)
    assert done.returncode != 0
    assert (
        "results/tiny/summary/results.md is a result, which stand_in: true would replace" in done.stdout + done.stderr
    )


def test_the_cache_never_hands_one_to_a_real_run(dry: Checkout) -> None:
    frames = dry.folder / "results/tiny/frames/free.parquet"
    assert stand_in_mark.is_marked(frames)
    assert frames.is_symlink(), "it is in the cache"
    options = (*CONFIG, "--cache", *CACHED)
    target = "results/tiny/frames/free.parquet"
    files = {"results/tiny/captures/free.csv", target, "results/tiny/frames/rejects/free.parquet"}
    for file in files:
        (dry.folder / file).unlink()
    done = dry.snakemake(target, *options, SNAKEMAKE_OUTPUT_CACHE=str(dry.folder / "cache"))
    assert done.returncode == 0, done.stderr
    made = set(re.findall(r"Moving output file (\S+) to cache", done.stderr))
    assert made == files
    frame, head = tables.read(frames, FRAMES)
    assert len(frame) == head["frames"] > 1000
