"""Time and memory of jobs, what is requested from them, and the profile."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml
from evaluate_data import write_benchmark
from hypothesis import given
from hypothesis import strategies as st

from canids_evaluate import resources
from canids_evaluate.pages import run_figures
from canids_evaluate.runs.measured import MEASURED, measured, time_by_rule
from canids_shared.contracts.tables import read
from canids_shared.errors import CanidsError
from canids_shared.jobs import job_usage
from canids_shared.jobs.entry_point import Call

CONFIG = {"headroom": 0.2, "runtime_headroom": 2.0, "job_overhead_mb": 0, "job_overhead_minutes": 5}
JOBS = st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.floats(50, 5e4))), min_size=1, max_size=12)


def jobs_of(needs: list[tuple[str, float | None]], column: str = "memory_mb") -> pl.DataFrame:
    """Jobs of one rule, by dataset and memory."""
    row = dict.fromkeys(MEASURED.columns) | {"rule": "r", "instance": "", "wildcards": "{}", "log": "l"}
    return pl.DataFrame([{**row, "dataset": d, column: need} for d, need in needs], schema=MEASURED.columns)


def evaluated(expression: str, dataset: str, attempt: int) -> Any:
    return eval(expression, {"wildcards": {"dataset": dataset}, "attempt": attempt, "min": min})


@given(JOBS, st.floats(0, 1))
def test_the_largest_job_of_each_dataset_is_covered_with_headroom(
    jobs: list[tuple[str, float | None]], headroom: float
) -> None:
    known = {d: max(n for other, n in jobs if other == d and n) for d, need in jobs if need}
    asked = resources.requests(jobs_of(jobs), {**CONFIG, "headroom": headroom})
    assert set(asked) == ({"mem_mb"} if known else set())
    for dataset, most in known.items():
        value = asked["mem_mb"][dataset]
        assert value % 10 == 0
        assert most * (1 + headroom) <= value < most * (1 + headroom) + 10
    if known:
        text = resources.expressions(asked)["mem_mb"]
        for attempt in (1, 2):
            for dataset, value in asked["mem_mb"].items():
                assert evaluated(text, dataset, attempt) == min(value * attempt, 64_000)
            assert evaluated(text, "unseen", attempt) == min(max(asked["mem_mb"].values()) * attempt, 64_000)


def test_the_expression_says_what_is_requested() -> None:
    assert resources.expression({"a": 500}) == "500 * attempt"
    assert resources.expression({"a": 500, "b": 500}) == "500 * attempt"
    assert resources.expression({"a": 500, "b": 80}, 64_000) == (
        "min({'b': 80}.get(wildcards.get('dataset'), 500) * attempt, 64000)"
    )


def write_log(
    log: Path, entry: str, size: float, memory: float | None = 500.0, gpu: float | None = None, **wildcards: str
) -> None:
    """A log that ends in what a job says of itself."""
    log.parent.mkdir(parents=True, exist_ok=True)
    usage = {"entry": entry, "wildcards": wildcards, "code": "c0de", "seconds": 90.0, "threads": 1}
    usage |= {"memory_mb": memory, "gpu_mb": gpu, "input_mb": size}
    log.write_text(f"trained\nresources: {json.dumps(usage)}\n")


def write_runs(folder: Path) -> None:
    """Jobs of two datasets, one of four times the other's size."""
    for dataset, size in (("one", 10.0), ("two", 40.0)):
        for run, entry in (("gat_large", "canids_train_gnn.gat"), ("gat_large@seed-1", "canids_train_gnn.gat")):
            write_benchmark(folder / "experimentruns" / dataset / run)
            write_log(
                folder / "experimentruns" / dataset / run / "log.txt",
                entry,
                size,
                400 + 5 * size,
                gpu=900.0,
                dataset=dataset,
            )
        write_benchmark(folder / "experimentruns" / dataset / "fusion_baselines_small_kd")
        log = folder / "results" / dataset / "graphs/fit.log"
        write_log(log, "canids_preprocess.graphs", 2 * size, 300 + size, dataset=dataset, split="fit", instance="")
        log = folder / "results" / dataset / "decisions/large/fuse.log"
        write_log(
            log, "canids_train_drl.decide", size, None, dataset=dataset, split="fuse", variant="large", instance=""
        )
    (folder / "results/one/graphs/old.log").write_text("a job from before\n")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path)
    return tmp_path


def call(**config: Any) -> Call:
    names = {
        "table": "resources.parquet",
        "markdown": "resources.md",
        "profile": "config.yaml",
    }
    output = {name: Path("out") / file for name, file in names.items()}
    inputs = {"runs": [Path("experimentruns")], "results": [Path("results")]}
    return Call({}, {"resources": {**CONFIG, **config}}, {}, output, inputs, "{}")


def test_jobs_become_a_table_a_page_and_a_profile(workplace: Path) -> None:
    resources.main(call())
    table, _ = read(Path("out/resources.parquet"), MEASURED)
    assert table["rule"].value_counts().sort("rule").rows() == [
        ("decisions", 2),
        ("fusion_baselines", 2),
        ("gat_large", 4),
        ("graphs", 2),
    ]
    (row,) = table.filter(rule="gat_large", dataset="two", instance="@seed-1").rows(named=True)
    # The job's own peak of 600 MB, which the benchmark's 345.6 MiB missed.
    assert (row["memory_mb"], row["gpu_mb"], row["input_mb"], row["seconds"]) == (600.0, 900.0, 40.0, 12.5)
    (row,) = table.filter(rule="fusion_baselines", dataset="one").rows(named=True)
    assert (row["memory_mb"], row["input_mb"]) == (pytest.approx(345.6 * 2**20 / 1e6), None)
    profile = yaml.safe_load(Path("out/config.yaml").read_text())["set-resources"]
    # The largest job of each dataset with a fifth more; no memory where no job measured it.
    assert profile["gat_large"] == {
        "mem_mb": "min({'one': 540}.get(wildcards.get('dataset'), 720) * attempt, 64000)",
        "runtime": "6 * attempt",
        "gpu_mem_mb": "1080 * attempt",
    }
    assert profile["graphs"]["mem_mb"] == "min({'one': 380}.get(wildcards.get('dataset'), 410) * attempt, 64000)"
    assert profile["fusion_baselines"]["mem_mb"] == "min(440 * attempt, 64000)"
    assert profile["decisions"].keys() == {"runtime"}
    usage = Path("out/resources.md").read_text()
    assert "| gat_large | two | 2 | 40.0 | 600 | 12.5 | 900 | 720 | 6 | 1080 |" in usage


def test_start_up_and_work_add_up_by_rule(workplace: Path) -> None:
    log = Path("results/one/states/large/fit.log")
    write_log(log, "canids_train_gnn.states", 1.0, dataset="one", variant="large")
    usage = json.loads(log.read_text().partition("resources: ")[2]) | {"start_seconds": 3.5, "seconds": 7.0}
    log.write_text(f"resources: {json.dumps(usage)}\n")
    Path("experimentruns/one/gat_large/benchmark.tsv").write_text("s\th:m:s\tmax_rss\n96.0\t0:01:36\t1.0\n")
    times = time_by_rule(measured(Path("experimentruns"), Path("results"), "one"))
    # Runs whose logs do not name their start: 96 − 90 s of the benchmark, and none where the benchmark is shorter than the log.
    assert times.rows() == [
        ("preprocess", "graphs", 1, 0.0, 90.0),
        ("train_gnn", "gat_large", 2, 6.0, 180.0),
        ("train_gnn", "states", 1, 3.5, 7.0),
        ("train_drl", "decisions", 1, 0.0, 90.0),
    ]
    run_figures.time(Path("time.svg"), times)
    text = Path("time.svg").read_text()
    assert "train_gnn · gat_large (2)" in text


def test_a_job_says_how_long_its_process_took_to_start() -> None:
    script = "import time; time.sleep(0.3)\nfrom canids_shared.jobs import job_usage; print(job_usage.since_start())"
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0.3 < float(asked.stdout) < 60


def test_what_other_packages_ran_is_no_rule_of_the_stages(workplace: Path) -> None:
    before = measured(Path("experimentruns"), Path("results"))
    write_log(Path("results/one/states/large/fit.log"), "own_detector.states", 1.0, dataset="one", variant="large")
    write_benchmark(Path("experimentruns/one/detector_large"))
    write_log(Path("experimentruns/one/detector_large/log.txt"), "own_detector.train", 1.0, dataset="one")
    assert measured(Path("experimentruns"), Path("results")).equals(before)


def test_a_job_on_a_cluster_asks_for_its_snakemake_too(workplace: Path) -> None:
    resources.main(call(job_overhead_mb=200))
    profile = yaml.safe_load(Path("out/config.yaml").read_text())["set-resources"]
    assert profile["fusion_baselines"]["mem_mb"] == "min(640 * attempt, 64000)"


@pytest.mark.parametrize(
    "text", ["", "s\th:m:s\tmax_rss\n", "s\tmax\n1\t2\n", "s\tmax_rss\n1.0\tmuch\n", "s\tmax_rss\n1.0\n"]
)
def test_a_damaged_benchmark_is_named(workplace: Path, text: str) -> None:
    Path("experimentruns/one/gat_large/benchmark.tsv").write_text(text)
    with pytest.raises(CanidsError, match=r"one/gat_large/benchmark\.tsv: not a whole benchmark; delete it"):
        resources.main(call())


@pytest.mark.parametrize("values", ["0.0\t0:00:00\t0.0", "0.01\t0:00:00\t-", "0.02\t0:00:00\tNA"])
def test_what_a_job_was_too_short_for_is_unknown(workplace: Path, values: str) -> None:
    Path("experimentruns/one/fusion_baselines_small_kd/benchmark.tsv").write_text(f"s\th:m:s\tmax_rss\n{values}\n")
    jobs = measured(Path("experimentruns"), Path("results"))
    assert jobs.filter(rule="fusion_baselines", dataset="one")["memory_mb"].to_list() == [None]
    assert resources.by_rule(jobs, CONFIG)["fusion_baselines"]["mem_mb"] == {"two": 440}


def test_a_damaged_line_in_a_log_is_named(workplace: Path) -> None:
    log = Path("results/one/graphs/fit.log")
    log.write_text(log.read_text()[:40])
    with pytest.raises(CanidsError, match=r"graphs/fit\.log: the line 'resources: …' is damaged"):
        resources.main(call())


def test_without_runs_there_is_nothing_to_suggest(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match="run a pipeline first"):
        measured(tmp_path / "a", tmp_path / "b")


def test_a_rule_without_measurements_requests_nothing() -> None:
    assert resources.by_rule(jobs_of([("d", None)]), CONFIG) == {"r": {}}


_SNAKEFILE = """
module inner:
    snakefile: "inner.smk"

use rule * from inner as composed_*
"""
_INNER = """
rule gat_large:
    input: "data.bin"
    output: "{dataset}.txt"
    resources: mem_mb=lambda wildcards, attempt: 4000 * attempt, gpu=1
    shell: "echo {resources.mem_mb} {resources.runtime} {resources.gpu} >> asked.txt; [ $(wc -l < asked.txt) = 2 ] && touch {output}"
"""


@pytest.mark.slow
def test_the_next_run_takes_its_numbers(workplace: Path) -> None:
    """Also under the name that composition gives a rule, beside another profile, and more at the second attempt."""
    resources.main(call())
    text = Path("out/config.yaml").read_text().replace("  gat_large:", "  composed_gat_large:")
    Path("out/config.yaml").write_text(text)
    other = {"cores": 1, "retries": 1, "set-resources": {"composed_gat_large": {"mem_mb": 1}}}
    Path("profile").mkdir()
    Path("profile/config.yaml").write_text(yaml.safe_dump(other))
    Path("Snakefile").write_text(_SNAKEFILE)
    Path("inner.smk").write_text(_INNER)
    Path("data.bin").write_bytes(b"x")
    command = [sys.executable, "-m", "snakemake", "--profile", "profile", "--workflow-profile", "out", "--", "one.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # 540 MB, of dataset `one`, times the attempt; minutes; what the profile does not name stays.
    assert Path("asked.txt").read_text().splitlines() == ["540 6 1", "1080 12 1"]


def test_a_job_says_what_it_took(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(3 * 2**20))
    log = tmp_path / "log.txt"
    log.write_text(
        "before\n"
        + job_usage.line([tmp_path / "in", tmp_path], 1.5, entry="e", wildcards={}, code="c", threads=2)
        + "\n"
    )
    profile = job_usage.read(log)
    assert profile is not None
    assert (profile["input_mb"], profile["seconds"], profile["threads"], profile["gpu_mb"]) == (3.0, 1.5, 2, None)
    assert profile["memory_mb"] is None or 20 < profile["memory_mb"] < 10_000


def test_memory_of_a_gpu_is_that_which_torch_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    for used, expected in ((True, 3_000_000_000), (False, None)):
        cuda = SimpleNamespace(is_initialized=lambda used=used: used, max_memory_reserved=lambda: 3_000_000_000)
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        assert job_usage.peak_gpu_memory() == expected
    monkeypatch.delitem(sys.modules, "torch")
    assert job_usage.peak_gpu_memory() is None
