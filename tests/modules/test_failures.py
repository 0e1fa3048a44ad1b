"""Errors are one line that names file, line or key, also through Snakemake."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from workflows import TINY, Checkout, one_line

HEADER = "timestamp,arbitration_id,data_field,attack"


@pytest.fixture(scope="module")
def checkout(new_checkout: Callable[[], Checkout], tiny_dataset: Path) -> Checkout:
    made = new_checkout()
    shutil.copytree(tiny_dataset, made.folder / "data")
    return made


def test_broken_row_names_file_and_line(checkout: Checkout) -> None:
    rows = (HEADER, "0.001,100,00FF,0", "0.002,100,00FG,0", "0.003,100,00FF,0")
    (checkout.folder / "data/tiny/test.csv").write_text("\n".join(rows) + "\n")
    options = ("results/tiny/frames/test.parquet", "--configfile", TINY, "--retries", "2")
    done = checkout.module("preprocess", *options)
    assert done.returncode != 0
    # The log, as the job ends, and the cause, as the workflow does.
    assert done.stderr.count("error: data/tiny/test.csv, line 3") == 1
    reason = "data/tiny/test.csv, line 3: payload '00FG' is not a row of bytes; correct or remove the line"
    last = done.stderr.splitlines()[-2:]
    assert last[0] == "What failed, and why:"
    assert last[1].startswith(f"  ingest test of tiny: {reason}")
    assert last[1].endswith("(log: results/tiny/frames/test.log)")
    assert "Traceback" not in done.stderr
    of_make = checkout.module("preprocess", *options, "--logger", "lines")
    assert of_make.stderr.splitlines()[-2:] == last
    assert "--spec" not in of_make.stderr
    assert not (checkout.folder / "results/tiny/frames/test.parquet").exists()


def test_name_of_a_capture_is_no_command(checkout: Checkout) -> None:
    folder = checkout.folder / "data/odd"
    folder.mkdir()
    name = "it's my $(touch made)> drive.csv"
    (folder / name).write_text(f"{HEADER}\n0.001,100,00FF,0\n")
    entry = {"path": name, "vehicle": "van", "content": "attack-free"}
    captures = {"a": {**entry, "role": "train"}, "1": {**entry, "role": "test"}}  # nor is a number more than a name
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"contract": "manifest/1", "captures": captures}))
    done = checkout.module("preprocess", "results/odd/frames/1.parquet", "--config", "datasets=[odd]")
    assert done.returncode == 0, done.stderr
    assert not (checkout.folder / "made").exists()


@pytest.mark.parametrize(
    ("snakefile", "text", "parts"),
    [
        ("modules/preprocess/Snakefile", "strde: 50", ("'preprocess.strde'", "did you mean 'stride'?")),
        ("pipelines/kd_fusion/Snakefile", "train_gnn: {gat: {epoch: 1}}", ("'train_gnn.gat.epoch'", "'epochs'?")),
        ("pipelines/kd_fusion/Snakefile", "train_gn: {}", ("unknown key 'train_gn'", "train_gnn")),
        (
            "pipelines/kd_fusion/Snakefile",
            "evaluate: {false_alarm_budget: 0.01}",
            ("config: evaluate.false_alarm_budget: several stages must agree on it; set false_alarm_budget, outside",),
        ),
    ],
)
def test_misspelt_or_misplaced_key_is_named(
    checkout: Checkout, snakefile: str, text: str, parts: tuple[str, ...]
) -> None:
    (checkout.folder / "misspelt.yaml").write_text(text + "\n")
    done = checkout.snakemake("-s", snakefile, "--configfile", "misspelt.yaml")
    assert done.returncode != 0
    one_line(done.stderr, *parts)
    assert "Traceback" not in done.stderr


@pytest.mark.workflow("kd_fusion")
def test_half_a_graph_file_stops_the_training_and_is_named(checkout: Checkout, workflow_dir: Path) -> None:
    graphs = checkout.folder / "results/smoke/graphs"
    shutil.copytree(workflow_dir / "results/smoke/graphs", graphs)
    whole = (graphs / "fit.safetensors").read_bytes()
    (graphs / "fit.safetensors").write_bytes(whole[: len(whole) // 2])
    (checkout.folder / "train_gnn.yaml").write_text("{datasets: [smoke], data_root: tests/data, accelerator: cpu}\n")
    model = "experimentruns/smoke/vgae_large/model.safetensors"
    done = checkout.module("train_gnn", model, "--configfile", "train_gnn.yaml")
    assert done.returncode != 0
    one_line(done.stderr, "error: ", "results/smoke/graphs/fit.safetensors", "run again")
    assert "Traceback" not in done.stderr
    assert not (checkout.folder / model).exists()
