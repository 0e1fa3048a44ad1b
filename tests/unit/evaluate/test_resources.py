"""What jobs took, the line over it, and the profile that comes of it."""

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
from hypothesis import assume, given
from hypothesis import strategies as st

from canids_evaluate import resources
from canids_evaluate.runs.fitting import SPAN, Ask, Line, ask, upper_line
from canids_evaluate.runs.measured import MEASURED, measured
from canids_shared.contracts.tables import read
from canids_shared.errors import CanidsError
from canids_shared.jobs import job_usage
from canids_shared.jobs.entry_point import Call

CONFIG = {"headroom": 0.2, "runtime_headroom": 2.0, "job_overhead_mb": 0, "job_overhead_minutes": 5}
SIZES = st.floats(0.01, 1e4)
NEEDS = st.floats(50, 5e4)
JOBS = st.lists(st.tuples(st.one_of(st.none(), SIZES), NEEDS), min_size=1, max_size=12)


@given(JOBS, st.floats(0, 1))
def test_what_is_asked_covers_every_run(jobs: list[tuple[float | None, float]], headroom: float) -> None:
    sizes, needs = [s for s, _ in jobs], [n for _, n in jobs]
    line = upper_line(sizes, needs)
    assert line.a >= 0
    assert line.b >= 0
    asked = ask(line, headroom, step=10)
    assert asked.base % 10 == 0
    for size, need in jobs:
        assert line.at(size or 0.0) >= need * (1 - 1e-9)
        assert asked.at(size or 0.0) >= round(need * (1 + headroom) * (1 - 1e-9))


@given(st.floats(50, 2000), st.floats(0, 50), st.lists(SIZES, min_size=2, max_size=12), st.data())
def test_a_need_that_is_linear_is_found_and_asked_for_no_more_than_twice(
    a: float, b: float, sizes: list[float], data: st.DataObject
) -> None:
    """Runs that stray by a tenth at most around a line; then a next run between the smallest and the largest of them."""
    assume(max(sizes) >= SPAN * min(sizes))
    needs = [(a + b * x) * data.draw(st.floats(0.95, 1.05)) for x in (min(sizes), max(sizes))]
    line = upper_line([min(sizes), max(sizes)], needs)
    asked = ask(line, CONFIG["headroom"], step=10)
    for size in sizes:
        need = (a + b * size) * data.draw(st.floats(0.95, 1.05))
        assert need <= asked.at(size) <= 2 * need


@given(st.lists(st.tuples(SIZES, NEEDS), min_size=2, max_size=8))
def test_no_line_that_covers_the_runs_lies_lower_on_average(jobs: list[tuple[float, float]]) -> None:
    sizes, needs = [s for s, _ in jobs], [n for _, n in jobs]
    assume(max(sizes) >= SPAN * min(sizes))
    mean = sum(sizes) / len(sizes)
    least = upper_line(sizes, needs).at(mean)
    slopes = [0.0, *((n - m) / (s - t) for s, n in jobs for t, m in jobs if s != t), *(n / s for s, n in jobs)]
    for slope in (s for s in slopes if s >= 0):
        intercept = max(0.0, *(n - slope * s for s, n in jobs))
        assert least <= intercept + slope * mean + 1e-6 * max(needs)


def test_one_size_alone_gives_a_constant() -> None:
    assert upper_line([3.0, 3.0, 4.0], [100, 120, 400]) == Line(400.0, 0.0)
    assert upper_line([None, None], [100, 120]) == Line(120.0, 0.0)
    assert ask(Line(400.0, 0.0), 0.2, step=50).expression == "500 * attempt"


def test_the_expression_says_what_is_asked() -> None:
    asked = Ask(480, 3.21, 64_000)

    class Input:
        size_mb = 1234.5

    for attempt in (1, 2, 3, 20):
        assert eval(asked.expression, {"input": Input, "attempt": attempt}) == asked.at(1234.5, attempt)
    assert asked.at(1234.5, 20) == 64_000


def say(
    log: Path, entry: str, size: float, memory: float | None = 500.0, gpu: float | None = None, **wildcards: str
) -> None:
    """A log that ends in what a job says of itself."""
    log.parent.mkdir(parents=True, exist_ok=True)
    said = {"entry": entry, "wildcards": wildcards, "code": "c0de", "seconds": 90.0, "threads": 1}
    said |= {"memory_mb": memory, "gpu_mb": gpu, "input_mb": size}
    log.write_text(f"trained\nresources: {json.dumps(said)}\n")


def write_runs(folder: Path) -> None:
    """Jobs of two datasets, one of four times the other's size."""
    for dataset, size in (("one", 10.0), ("two", 40.0)):
        for run, entry in (("gat_large", "canids_train_gnn.gat"), ("gat_large@seed-1", "canids_train_gnn.gat")):
            write_benchmark(folder / "experimentruns" / dataset / run)
            say(
                folder / "experimentruns" / dataset / run / "log.txt",
                entry,
                size,
                400 + 5 * size,
                gpu=900.0,
                dataset=dataset,
            )
        write_benchmark(folder / "experimentruns" / dataset / "fusion_baselines_small_kd")
        log = folder / "results" / dataset / "graphs/fit.log"
        say(log, "canids_preprocess.graphs", 2 * size, 300 + size, dataset=dataset, split="fit", instance="")
        log = folder / "results" / dataset / "decisions/large/fuse.log"
        say(log, "canids_train_drl.decide", size, None, dataset=dataset, split="fuse", variant="large", instance="")
    (folder / "results/one/graphs/old.log").write_text("a job from before\n")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path)
    return tmp_path


def call(**config: Any) -> Call:
    names = {
        "table": "resources.parquet",
        "figure": "resources.svg",
        "markdown": "resources.md",
        "profile": "config.yaml",
    }
    output = {name: Path("out") / file for name, file in names.items()}
    inputs = {"runs": [Path("experimentruns")], "results": [Path("results")]}
    return Call({}, {"resources": {**CONFIG, **config}}, {}, output, inputs, "{}")


def test_jobs_become_a_table_a_figure_and_a_profile(workplace: Path) -> None:
    resources.main(call())
    table, _ = read(Path("out/resources.parquet"), MEASURED)
    assert table["rule"].value_counts().sort("rule").rows() == [
        ("decisions", 2),
        ("gat_large", 4),
        ("graphs", 2),
        ("fusion_baselines", 2),
    ]
    (row,) = table.filter(rule="gat_large", dataset="two", instance="@seed-1").rows(named=True)
    # The job's own peak of 600 MB, which the benchmark's 345.6 MiB missed.
    assert (row["memory_mb"], row["gpu_mb"], row["input_mb"], row["seconds"]) == (600.0, 900.0, 40.0, 12.5)
    (row,) = table.filter(rule="fusion_baselines", dataset="one").rows(named=True)
    assert (row["memory_mb"], row["input_mb"]) == (pytest.approx(345.6 * 2**20 / 1e6), None)
    found = yaml.safe_load(Path("out/config.yaml").read_text())["set-resources"]
    # 400 MB + 5 MB/MiB with a fifth more; GPU memory of one size; no memory where no job told it.
    assert found["gat_large"] == {
        "mem_mb": "min(round((480 + 6 * input.size_mb) * attempt), 64000)",
        "runtime": "6 * attempt",
        "gpu_mem_mb": "1080 * attempt",
    }
    assert found["graphs"]["mem_mb"] == "min(round((360 + 0.6 * input.size_mb) * attempt), 64000)"
    assert found["fusion_baselines"]["mem_mb"] == "min(440 * attempt, 64000)"
    assert found["decisions"].keys() == {"runtime"}
    said = Path("out/resources.md").read_text()
    assert "| gat_large | 4 | 2 | 10.0 to 40.0 | 450 to 600 | 1.20 |" in said
    assert "<svg" in Path("out/resources.svg").read_text()


def test_what_other_packages_ran_is_no_rule_of_the_stages(workplace: Path) -> None:
    before = measured(Path("experimentruns"), Path("results"))
    say(Path("results/one/states/large/fit.log"), "own_detector.states", 1.0, dataset="one", variant="large")
    write_benchmark(Path("experimentruns/one/detector_large"))
    say(Path("experimentruns/one/detector_large/log.txt"), "own_detector.train", 1.0, dataset="one")
    assert measured(Path("experimentruns"), Path("results")).equals(before)


def test_a_job_on_a_cluster_asks_for_its_snakemake_too(workplace: Path) -> None:
    resources.main(call(job_overhead_mb=200))
    found = yaml.safe_load(Path("out/config.yaml").read_text())["set-resources"]
    assert found["fusion_baselines"]["mem_mb"] == "min(640 * attempt, 64000)"


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
    asked = resources.suggestions(jobs, CONFIG)["fusion_baselines"].memory
    assert asked is not None
    assert asked.base == 440, "what dataset two tells"


def test_a_damaged_line_in_a_log_is_named(workplace: Path) -> None:
    log = Path("results/one/graphs/fit.log")
    log.write_text(log.read_text()[:40])
    with pytest.raises(CanidsError, match=r"graphs/fit\.log: the line 'resources: …' is damaged"):
        resources.main(call())


def test_without_runs_there_is_nothing_to_suggest(tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match="run a pipeline first"):
        measured(tmp_path / "a", tmp_path / "b")


def test_the_figure_has_room_for_rules_that_nothing_is_known_of(tmp_path: Path) -> None:
    row = dict.fromkeys(MEASURED.columns) | {"dataset": "d", "rule": "a", "instance": "", "wildcards": "{}", "log": "l"}
    jobs = pl.DataFrame([row], schema=MEASURED.columns)
    found = resources.suggestions(jobs, CONFIG)
    assert found["a"].resources == {}
    resources.resource_figure.draw(tmp_path / "f.svg", jobs, found)
    assert "<svg" in (tmp_path / "f.svg").read_text()


_SNAKEFILE = """
module inner:
    snakefile: "inner.smk"

use rule * from inner as composed_*
"""
_INNER = """
rule gat_large:
    input: "data.bin"
    output: "out.txt"
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
    Path("data.bin").write_bytes(bytes(20 * 2**20))
    command = [sys.executable, "-m", "snakemake", "--profile", "profile", "--workflow-profile", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # (480 + 6 · 20) · attempt MB; minutes; what the profile does not name stays.
    assert Path("asked.txt").read_text().splitlines() == ["600 6 1", "1200 12 1"]


def test_a_job_says_what_it_took(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(3 * 2**20))
    log = tmp_path / "log.txt"
    log.write_text(
        "before\n"
        + job_usage.line([tmp_path / "in", tmp_path], 1.5, entry="e", wildcards={}, code="c", threads=2)
        + "\n"
    )
    found = job_usage.read(log)
    assert found is not None
    assert (found["input_mb"], found["seconds"], found["threads"], found["gpu_mb"]) == (3.0, 1.5, 2, None)
    assert found["memory_mb"] is None or 20 < found["memory_mb"] < 10_000


def test_memory_of_a_gpu_is_that_which_torch_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    for used, expected in ((True, 3_000_000_000), (False, None)):
        cuda = SimpleNamespace(is_initialized=lambda used=used: used, max_memory_reserved=lambda: 3_000_000_000)
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        assert job_usage.peak_gpu_memory() == expected
    monkeypatch.delitem(sys.modules, "torch")
    assert job_usage.peak_gpu_memory() is None
