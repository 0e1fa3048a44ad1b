"""Stand-ins: the mark in every kind of file, who refuses it, and that every entry point of a Snakefile has one."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from snakemake.iocontainers import Wildcards  # type: ignore[import-untyped]
from training_records import record

from canids_shared.contracts import model_file, stand_in_mark, tables, training_run, whole
from canids_shared.contracts.detectors import DETECTORS, KEY, as_json
from canids_shared.contracts.evaluation import METRICS_CONTRACT, read_evaluation
from canids_shared.contracts.graph_store import GraphStore, writing
from canids_shared.errors import CanidsError
from canids_shared.files import write_json
from canids_shared.jobs import entry_point, stand_in_runner
from canids_shared.jobs.stand_in_runner import StandIn
from canids_shared.planning.pipeline import STAGES, section
from canids_shared.planning.stage import Stage

MODULES = (*STAGES, "track")

ROOT = Path(__file__).parents[3]
NAMES = ("node_features", "edge_features", "statistics", "attacks", "captures", "vehicles")
EMPTY_GRAPHS: dict[str, Any] = {name: [] for name in NAMES}


def write_graphs(path: Path) -> None:
    with writing(path, EMPTY_GRAPHS, windows=0, nodes=0, edges=0):
        pass


def write_states(path: Path) -> None:
    scores = dict.fromkeys((detector.score for detector in DETECTORS), pl.Float32)
    tables.write(path, tables.STATES, pl.DataFrame(schema={**tables.KEYS, **scores}), {KEY: as_json(DETECTORS)})


def write_run(path: Path) -> None:
    """The record of a training in the folder that it names."""
    training_run.write(path, record(instance="@a"))


NO_METRICS: dict[str, Any] = {
    **{"dataset": "d", "instance": "", "variant": None, "code": "x", "seed": 0},
    **{"detectors": [], "config": {}, "thresholds": {}, "scenarios": {}},
}
FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any] | None]] = {
    "graphs.safetensors": (write_graphs, GraphStore),
    "states.parquet": (write_states, lambda p: tables.read(p, tables.STATES)),
    "model.safetensors": (
        lambda p: model_file.save_arrays(p, {"a": np.ones(2, np.float32)}, {"contract": "c/1"}),
        lambda p: model_file.load_arrays(p, "c/1"),
    ),
    "gat_large@a/run.json": (write_run, training_run.read),
    "metrics.json": (
        lambda p: whole.write_json(p, METRICS_CONTRACT, NO_METRICS),
        lambda p: read_evaluation(p, METRICS_CONTRACT),
    ),
    "history.parquet": (lambda p: training_run.write_history(p, [{"epoch": 1}]), None),
    "config.yaml": (lambda p: p.write_text("spec: {}\n") and None, None),
    "capture.csv": (lambda p: p.write_text("timestamp,arbitration_id,data_field,attack\n") and None, None),
    "figure.svg": (lambda p: p.write_text("<svg/>\n") and None, None),
}


@pytest.mark.parametrize("name", FILES)
def test_a_marked_file_is_refused_by_its_reader_and_by_every_rule(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, read = FILES[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path)
    assert not stand_in_mark.is_marked(path)
    stand_in_mark.refuse(path)
    before = read(path) if read else None
    stand_in_mark.mark(path)
    assert stand_in_mark.is_marked(path)
    called = []

    def main(call: entry_point.Call) -> None:
        called.append(call)

    options = ["--spec", '{"wildcards": {}, "config": {}}', "--input", str(path), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["entry", *options])
    with pytest.raises(SystemExit, match=rf"{re.escape(str(path))}: a stand-in, .*run the stage that makes it without"):
        entry_point.run(main, inputs=["input"])
    assert not called
    with stand_in_mark.allow_stand_ins():
        entry_point.run(main, inputs=["input"])
    assert len(called) == 1
    if read:
        with pytest.raises(CanidsError, match=rf"{re.escape(str(path))}: a stand-in"):
            read(path)
        with stand_in_mark.allow_stand_ins():
            assert type(read(path)) is type(before)


def test_the_mark_changes_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model_file.save_arrays(path, {"a": np.arange(3.0)}, {"contract": "c/1", "x": [1]})
    stand_in_mark.mark(path)
    with stand_in_mark.allow_stand_ins():
        arrays, header = model_file.load_arrays(path, "c/1")
    assert header == {"contract": "c/1", "x": [1], "stand_in": True, "digest": header["digest"]}
    assert arrays["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"\xff\x00" * 200, b'{"stand_in": tr', b'["stand_in"]', b'{"stand_in": 1}'])
@pytest.mark.parametrize("name", ["a.json", "a.parquet", "a.safetensors", "a.csv", "a"])
def test_what_is_damaged_absent_or_no_stand_in_is_left_to_its_reader(tmp_path: Path, name: str, content: bytes) -> None:
    assert not stand_in_mark.is_marked(tmp_path / name)
    (tmp_path / name).write_bytes(content)
    assert not stand_in_mark.is_marked(tmp_path / name)


def called(monkeypatch: pytest.MonkeyPatch, stand_ins: dict[str, StandIn], *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["stand_in", "-m", *arguments])
    stand_in_runner.run(stand_ins)


def test_outputs_are_marked_and_pages_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def make(call: entry_point.Call) -> None:
        seen.append(call)
        write_json(call.output["metrics"], {"contract": "m/1"})

    entry = {"evaluate": StandIn(make, ("metrics", "page"))}
    spec = {"wildcards": {"dataset": "d"}, "config": {"seed": 1}, "variant": "large", "stand_in": True}
    out = [tmp_path / "new" / name for name in ("metrics.json", "page.html")]
    options = ["--metrics", str(out[0]), "--page", str(out[1]), "--scenarios", "a", "b", "--teacher"]
    called(monkeypatch, entry, "canids_x.evaluate", "--spec", json.dumps(spec), *options)
    (call,) = seen
    assert call.inputs == {"scenarios": [Path("a"), Path("b")], "teacher": []}
    assert (call.wildcards, call.config, call.constants["variant"]) == ({"dataset": "d"}, {"seed": 1}, "large")
    assert json.loads(out[0].read_text()) == {"contract": "m/1", "stand_in": True}
    assert out[1].read_text().startswith("<!-- stand_in: true -->\n<!doctype html>")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["metrics.json", "page.html"]


def test_what_was_not_made_is_named_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"a": StandIn(lambda call: write_json(call.output["one"], {}), ("one", "two"))}
    options = ("--one", str(tmp_path / "one.json"), "--two", str(tmp_path / "two.parquet"))
    with pytest.raises(SystemExit, match=r"two\.parquet: its stand-in was not made"):
        called(monkeypatch, entry, "canids_x.a", *options)
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        SystemExit, match=r"canids_x\.b: has no stand-in; add one to the table in canids_x/stand_ins\.py"
    ):
        called(monkeypatch, entry, "canids_x.b")


@pytest.mark.parametrize("stage", MODULES)
def test_every_entry_point_of_the_snakefile_has_a_stand_in(stage: str) -> None:
    table = importlib.import_module(f"canids_{stage}.stand_ins").STAND_INS
    text = "".join(
        path.read_text() for path in [ROOT / f"modules/{stage}/Snakefile", *ROOT.glob(f"modules/{stage}/*.smk")]
    )
    # `{params.entry}` stands for one of several.
    entries = set(re.findall(rf"-m canids_{stage}\.([\w.]+)", text)) | set(
        re.findall(rf'f?"canids_{stage}\.([\w.]+)"', text)
    )
    # What has no weights is not exported, and no pipeline asks for it.
    assert entries - {"planning", "sweep_planning", "pages.mistakes", "export"} <= set(table)


def stage_of(workplace: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Stage:
    monkeypatch.setenv("CANIDS_PREPROCESS_PYTHON", "")
    return Stage("preprocess", section(config, "preprocess"), ROOT / "modules/preprocess/config.schema.yaml")


def test_params_tell_a_stand_in_from_the_real_one(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wildcards = Wildcards(fromdict={"dataset": "simulated", "split": "fit", "instance": ""})
    specs = []
    for flag in (False, True, "true"):
        stage = stage_of(workplace, monkeypatch, stand_in=flag)
        specs.append(json.loads(stage.spec("canids_preprocess.graphs", "window")(wildcards)))
    real, *stand_ins = specs
    assert "stand_in" not in real
    for spec in stand_ins:
        assert spec["stand_in"] is True
        assert spec["code"] != real["code"]


def test_the_flag_of_a_section_goes_before_that_of_the_pipeline() -> None:
    config: dict[str, Any] = {"stand_in": True, "preprocess": {"stand_in": False}}
    assert [section(config, stage)["stand_in"] for stage in STAGES] == [False, True, True, True]


def test_an_instance_cannot_be_a_stand_in_beside_real_ones(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CanidsError, match=r"instances\.a\.preprocess: stand_in is one for all"):
        stage_of(workplace, monkeypatch, instances={"a": {"preprocess": {"stand_in": True}}})


def test_a_result_is_not_replaced_by_a_stand_in(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(workplace, monkeypatch, stand_in=True)
    of = stage.spec("canids_preprocess.graphs", "window")
    wildcards = Wildcards(fromdict={"dataset": "simulated", "split": "fit", "instance": ""})
    write_graphs(workplace / "fit.safetensors")
    with pytest.raises(CanidsError, match=r"fit\.safetensors is a result, which stand_in: true would replace"):
        of(wildcards, ["absent.csv", "fit.safetensors"])
    stand_in_mark.mark(workplace / "fit.safetensors")
    assert yaml.safe_load(of(wildcards, ["absent.csv", "fit.safetensors"]))["stand_in"]
