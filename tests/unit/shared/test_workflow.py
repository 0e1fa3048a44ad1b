"""What the Snakefiles rely on: instances, ports, params, resources."""

import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from snakemake.iocontainers import Wildcards  # type: ignore[import-untyped]

from canids_shared.contracts.manifest import SPLITS
from canids_shared.errors import CanidsError
from canids_shared.planning import deployment
from canids_shared.planning.deployment import use_cache
from canids_shared.planning.pipeline import STAGES, section
from canids_shared.planning.resource_labels import memory
from canids_shared.planning.stage import Stage

ROOT = Path(__file__).parents[3]
PREPROCESS = ROOT / "modules/preprocess/config.schema.yaml"
INSTANCES: dict[str, Any] = {
    "seed-1": {"train_gnn": {"seed": 1}, "train_drl": {"seed": 1}},
    "seed-2": {"train_gnn": {"seed": 2}, "train_drl": {"seed": 2}},
    "policy-2": {"train_drl": {"seed": 2}},
    "without-van": {"preprocess": {"leave_out": {"vehicles": ["van"]}}},
    "without-van-seed-1": {"preprocess": {"leave_out": {"vehicles": ["van"]}}, "train_gnn": {"seed": 1}},
    "wide": {"preprocess": {"window": 200}},
    "late": {"evaluate": {"budget": 2}},
}
CONFIG: dict[str, Any] = {"datasets": ["simulated"], "preprocess": {"stride": 50}, "instances": INSTANCES}


def wildcards(**values: str) -> Any:
    return Wildcards(fromdict={"dataset": "simulated", **values})


@pytest.fixture
def stages(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Stage]:
    """All stages of `CONFIG`; those after preprocess with a schema that knows `seed` and `budget`."""
    for stage in STAGES:  # Stage sets them
        monkeypatch.setenv(f"CANIDS_{stage.upper()}_PYTHON", "")
    known = {key: {"type": "integer", "default": 0} for key in ("seed", "budget")}
    schema = workplace / "schema.yaml"
    schema.write_text(yaml.safe_dump({"type": "object", "additionalProperties": False, "properties": known}))
    return {s: Stage(s, section(CONFIG, s), PREPROCESS if s == "preprocess" else schema) for s in STAGES}


def test_stage_has_files_of_its_own_only_for_instances_that_reach_it(stages: dict[str, Stage]) -> None:
    seeds, folds, wide = ["@seed-1", "@seed-2"], ["@without-van"], ["@wide"]
    assert list(stages["preprocess"].config) == ["", *folds, *wide]
    assert list(stages["train_gnn"].config) == ["", *seeds, *folds, "@without-van-seed-1", *wide]
    assert set(stages["train_drl"].config) == {"", "@policy-2", *(i for i in stages["train_gnn"].config if i)}
    assert set(stages["evaluate"].config) == {"", *("@" + i for i in INSTANCES)}


def test_conda_environments_get_the_canids_that_runs_here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def source_variable() -> str:
        monkeypatch.setenv("CANIDS_SOURCE", "to be put back")
        monkeypatch.delenv("CANIDS_SOURCE")
        Stage("preprocess", {}, PREPROCESS, conda=True)
        return os.environ["CANIDS_SOURCE"]

    monkeypatch.setenv("CANIDS_PREPROCESS_PYTHON", "")
    assert source_variable() == str(ROOT)
    monkeypatch.setattr(deployment, "__file__", str(workplace / "site-packages/canids_shared/planning/deployment.py"))
    installed: dict[str, Any] = {"url": "https://example/canids", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    monkeypatch.setattr(
        deployment.importlib.metadata,
        "distribution",
        lambda _: SimpleNamespace(read_text=lambda _: json.dumps(installed)),
    )
    assert source_variable() == "git+https://example/canids@c0ffee#egg=canids"
    del installed["vcs_info"]
    with pytest.raises(CanidsError, match="set CANIDS_SOURCE"):
        source_variable()
    monkeypatch.setenv("CANIDS_SOURCE", "mine")
    Stage("preprocess", {}, PREPROCESS, conda=True)
    assert os.environ["CANIDS_SOURCE"] == "mine"


def test_a_further_module_comes_after_all_stages_and_reads_what_they_made() -> None:
    instances = {
        **INSTANCES,
        "own": {"audit": {"seed": 1}},
        "own-seed-2": {**INSTANCES["seed-2"], "audit": {"seed": 1}},
    }
    config = {**CONFIG, "modules": ["audit"], "audit": {"budget": 3}, "instances": instances}
    audit = section(config, "audit")
    assert (audit["budget"], audit["datasets"]) == (3, ["simulated"])
    assert list(audit["instances"]) == list(instances)
    assert audit["instances"]["own"] == audit["instances"]["own-seed-2"] == {"seed": 1}
    assert {"own": "", "own-seed-2": "seed-2", "late": ""}.items() <= audit["ports"]["decisions"].items()
    assert "own" not in section(config, "evaluate")["instances"]
    with pytest.raises(CanidsError, match="modules does not list 'audit'"):
        section(CONFIG, "audit")


def test_tracking_knows_every_instance_and_is_overridden_by_none() -> None:
    made = section({**CONFIG, "tracking": {"patience": 5}}, "tracking")
    assert made["patience"] == 5
    assert made["instances"] == {name: {} for name in INSTANCES}
    assert made["ports"]["window_baselines"]["seed-1"] == ""
    with pytest.raises(CanidsError, match="no stage 'tracking'"):
        section({**CONFIG, "instances": {"x": {"tracking": {}}}}, "evaluate")


def test_stages_agree_on_a_common_key(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the modules that have it, also from an instance, whose files then differ from the fusion on."""
    budget = {"type": "number", "default": 0.005, "maximum": 0.5}
    schema = workplace / "with_budget.yaml"
    properties = {"seed": {"type": "integer", "default": 0}, "false_alarm_budget": budget}
    schema.write_text(yaml.safe_dump({"type": "object", "additionalProperties": False, "properties": properties}))
    schemas = {s: PREPROCESS if s == "preprocess" else schema for s in (*STAGES, "audit")}
    schemas["train_gnn"] = ROOT / "modules/train_gnn/config.schema.yaml"
    config = {
        "datasets": ["simulated"],
        "modules": ["audit"],
        "instances": {"strict": {"false_alarm_budget": 0.001}, "seed-1": {"train_drl": {"seed": 1}}},
    }
    for name in schemas:
        monkeypatch.setenv(f"CANIDS_{name.upper()}_PYTHON", "")

    def budgets(**top: Any) -> dict[str, dict[str, float | None]]:
        stages = {s: Stage(s, section({**config, **top}, s), schemas[s], package="canids_shared") for s in schemas}
        return {
            s: {i: part.get("false_alarm_budget") for i, part in stage.config.items()} for s, stage in stages.items()
        }

    agreed = {"": 0.02, "@strict": 0.001, "@seed-1": 0.02}
    expected = {"preprocess": {"": None}, "train_gnn": {"": None}, **dict.fromkeys(("train_drl", "evaluate"), agreed)}
    assert budgets(false_alarm_budget=0.02) == {**expected, "audit": agreed}
    assert budgets()["evaluate"] == {"": 0.005, "@strict": 0.001, "@seed-1": 0.005}
    ports = section(config, "evaluate")["ports"]
    assert ports["decisions"] == {"strict": "strict", "seed-1": "seed-1"}
    assert ports["states"] == {"strict": "", "seed-1": ""}
    with pytest.raises(CanidsError, match=r"^train_drl\.false_alarm_budget: 2 is greater than the maximum"):
        budgets(false_alarm_budget=2)
    alone = Stage("train_drl", {"false_alarm_budget": 0.1}, schema, package="canids_shared")
    assert alone.config[""]["false_alarm_budget"] == 0.1


def test_overrides_lie_on_the_base_config(stages: dict[str, Stage]) -> None:
    config = stages["preprocess"].config
    assert [config[i]["window"] for i in ("", "@without-van", "@wide")] == [100, 100, 200]
    assert {c["stride"] for c in config.values()} == {50}
    assert [c["seed"] for c in stages["train_gnn"].config.values()] == [0, 1, 2, 0, 1, 0]


@pytest.mark.parametrize(
    ("stage", "port", "expected"),
    [
        ("train_gnn", "graphs", {"": "", "@seed-1": "", "@seed-2": "", "@without-van-seed-1": "@without-van", "@wide": "@wide"}),
        ("train_drl", "states", {"@policy-2": "", "@seed-2": "@seed-2", "@without-van": "@without-van"}),
        ("evaluate", "decisions", {"@late": "", "@policy-2": "@policy-2", "@seed-1": "@seed-1"}),
        ("evaluate", "graphs", {"@late": "", "@seed-1": "", "@without-van-seed-1": "@without-van"}),
        ("evaluate", "window_baselines", {"@seed-1": "", "@late": "@late", "@without-van-seed-1": "@without-van"}),
    ],
)  # fmt: skip
def test_instances_share_what_is_equal_up_to_there(
    stages: dict[str, Stage], stage: str, port: str, expected: dict[str, str]
) -> None:
    files = stages[stage].upstream(f"<{port}>{{instance}}/fit.safetensors")
    read = {instance: files(wildcards(instance=instance)) for instance in expected}
    assert read == {i: [f"<{port}>{source}/fit.safetensors"] for i, source in expected.items()}


def test_upstream_multiplies_by_splits(stages: dict[str, Stage]) -> None:
    stage = stages["train_gnn"]
    files = stage.upstream("<graphs>{instance}/{split}.safetensors", splits=lambda w: ["fit", "select"])
    assert files(wildcards(instance="@wide")) == ["<graphs>@wide/fit.safetensors", "<graphs>@wide/select.safetensors"]
    assert files(wildcards()) == ["<graphs>/fit.safetensors", "<graphs>/select.safetensors"]


def test_undeclared_port_is_an_error_and_never_the_plain_instance(workplace: Path) -> None:
    part = section(CONFIG, "preprocess")
    part["ports"]["graphs"].pop("without-van")
    stage = Stage("preprocess", part, PREPROCESS)
    files = stage.upstream("<graphs>{instance}/fit.safetensors")
    assert files(wildcards(instance="@wide")) == ["<graphs>@wide/fit.safetensors"]
    with pytest.raises(CanidsError, match=r"instance 'without-van' .* set ports\.graphs\.without-van"):
        files(wildcards(instance="@without-van"))
    with pytest.raises(CanidsError, match=r"'<frames>/x' does not begin with a port; ports: graphs, states"):
        stage.upstream("<frames>/x")
    with pytest.raises(CanidsError, match="does not begin with a port"):
        stage.upstream("results/x")


def test_fold_has_the_left_out_captures_for_its_only_scenario(stages: dict[str, Stage]) -> None:
    scenarios = ["test_known_attack", "test_unknown_attack", "test_unknown_vehicle"]
    for name, folds in (("preprocess", ["@without-van"]), ("train_gnn", ["@without-van", "@without-van-seed-1"])):
        for fold in folds:
            assert stages[name].splits("simulated", fold) == [*SPLITS, "left_out"]
        assert stages[name].splits("simulated") == [*SPLITS, *scenarios]
        assert stages[name].scenarios("simulated", "@wide") == scenarios


def test_targets_are_every_split_of_every_instance(stages: dict[str, Stage]) -> None:
    targets = stages["preprocess"].targets("results/{dataset}/graphs{instance}/{split}.safetensors")
    assert len(targets) == 7 + 5 + 7
    assert "results/simulated/graphs@without-van/left_out.safetensors" in targets
    assert not [t for t in targets if "without-van/test" in t]
    assert len(stages["train_drl"].targets("{dataset}{instance}/{variant}", variant=["large", "small_kd"])) == 14


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"preproces": {}}, "config: unknown key 'preproces'; known keys: datasets, "),
        ({"instances": {"a": {"train": {}}}}, "config: instances.a: no stage 'train'; known keys: preprocess"),
        ({"instances": {"a": 5}}, "config: instances.a must be a mapping"),
        ({"instances": ["a"]}, "config: instances must be a mapping"),
        (
            {"instances": {"a": {"preprocess": 3.5}}},
            "config: instances.a.preprocess must be a mapping of options, not 3.5",
        ),
        ({"preprocess": 5}, "config: preprocess must be a mapping"),
        ({"preprocess": {"windw": 5}}, "unknown key 'preprocess.windw'; did you mean 'window'?"),
        ({"instances": {"a": {"preprocess": {"window": 0}}}}, "instances.a.preprocess.window: 0 is less than"),
        ({"instances": {2024: {"preprocess": {"window": 9}}}}, "preprocess.instances: key 2024 is not text"),
        (
            {"preprocess": {"leave_out": {"vehicles": ["van"]}}},
            "preprocess.leave_out: makes a fold, so it belongs to an instance",
        ),
        ({"preprocess": {"environment": "/nowhere"}}, "preprocess.environment: no Python at /nowhere/bin/python"),
        (
            {"train_drl": {"false_alarm_budget": 0.01}},
            "config: train_drl.false_alarm_budget: several stages must agree on it; set false_alarm_budget, outside",
        ),
        (
            {"instances": {"a": {"evaluate": {"false_alarm_budget": 0.01}}}},
            "config: instances.a.evaluate.false_alarm_budget: several stages must agree on it; "
            "set instances.a.false_alarm_budget, outside the section",
        ),
        ({"modules": "audit"}, "config: modules must be a list of the names of further modules, not 'audit'"),
        ({"audit": {}}, "config: unknown key 'audit'; known keys: datasets"),
        ({"datasets": ["a b"]}, "preprocess.datasets.0: 'a b' does not match"),
        ({"datasets": []}, "preprocess.datasets: "),
    ],
)
def test_wrong_config_is_named_in_one_line(workplace: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CanidsError) as caught:
        Stage("preprocess", section({**CONFIG, **change}, "preprocess"), PREPROCESS)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_spec_holds_what_decides_the_outcome_and_no_place(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANIDS_PREPROCESS_PYTHON", "")
    here = os.path.dirname(os.path.dirname(sys.executable))
    config = {**CONFIG, "preprocess": {"environment": here}, "data_root": str(workplace / "data")}
    stage = Stage("preprocess", section(config, "preprocess"), PREPROCESS)
    spec = stage.spec("canids_preprocess.graphs", "window", "blocks", capture=lambda w: w.split + "!", kind="k")
    text = spec(wildcards(split="fit", instance="@wide"))
    value = json.loads(text)
    assert value["wildcards"] == {"dataset": "simulated", "split": "fit", "instance": "@wide"}
    assert (value["capture"], value["kind"], value["config"]["window"]) == ("fit!", "k", 200)
    assert sorted(value["config"]) == ["blocks", "window"]
    assert len(value["code"]) == 16
    assert '"/' not in text
    assert str(workplace) not in text
    assert str(ROOT) not in text
    assert text == spec(wildcards(split="fit", instance="@wide"))


def stage_with(monkeypatch: pytest.MonkeyPatch, name: str, config: dict[str, Any]) -> Stage:
    monkeypatch.setenv(f"CANIDS_{name.upper()}_PYTHON", "")
    return Stage(
        name, section({"datasets": ["simulated"], **config}, name), ROOT / f"modules/{name}/config.schema.yaml"
    )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("preset", ["full", "demo", "smoke", "overfit"])
def test_every_preset_fits_the_schema(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, stage: str, preset: str
) -> None:
    plain, chosen = (stage_with(monkeypatch, stage, c).config[""] for c in ({}, {"preset": preset}))
    file = ROOT / f"modules/{stage}/canids_{stage}/presets/{preset}.yaml"
    assert (chosen != {**plain, "preset": preset}) == file.exists()


@pytest.mark.parametrize(("key", "value"), [("accelerator", "cuda"), ("stand_in", True)])
def test_what_rules_are_planned_with_is_one_for_all_instances(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    same = {"train_gnn": {key: value}, "instances": {"a": {"train_gnn": {key: value, "seed": 1}}}}
    assert stage_with(monkeypatch, "train_gnn", same).config["@a"][key] == value
    with pytest.raises(CanidsError, match=rf"^instances\.a\.train_gnn: {key} is one for all .* set train_gnn\.{key}$"):
        stage_with(monkeypatch, "train_gnn", {**same, "train_gnn": {}})


def test_every_preset_file_has_a_name_that_the_schema_knows() -> None:
    known = yaml.safe_load((ROOT / "shared/canids_shared/contracts/common.schema.yaml").read_text())["properties"][
        "preset"
    ]
    presets = {path.stem for path in ROOT.glob("modules/*/*/presets/*")}
    assert presets | {"full"} == set(known["enum"])


def test_explicit_keys_lie_on_the_preset(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gnn = {"gat": {"epochs": 3, "large": {"heads": 1}}}
    config = {"preset": "smoke", "train_gnn": gnn, "instances": {"long": {"train_gnn": {"preset": "full"}}}}
    stage = stage_with(monkeypatch, "train_gnn", config)
    gat = {i: stage.config[i]["gat"] for i in ("", "@long")}
    assert [gat[i]["epochs"] for i in gat] == [3, 3]
    assert [gat[i]["batch"] for i in gat] == [32, 64]
    assert [gat[i]["large"]["heads"] for i in gat] == [1, 1]
    assert [gat[i]["large"]["channels"] for i in gat] == [8, 24]


def test_a_preset_comes_with_the_package_also_where_the_schema_comes_from_elsewhere(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANIDS_EVALUATE_PYTHON", "")
    schema = tmp_path / "fetched.yaml"
    schema.write_text((ROOT / "modules/evaluate/config.schema.yaml").read_text())
    config = section({"datasets": ["simulated"], "preset": "smoke"}, "evaluate")
    assert Stage("evaluate", config, schema).config[""]["bootstrap"] == 20


def test_a_section_has_a_preset_of_its_own(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"preset": "smoke", "train_drl": {"preset": "overfit"}}
    assert stage_with(monkeypatch, "train_drl", config).config[""]["overfit_windows"]
    assert stage_with(monkeypatch, "evaluate", config).config[""]["bootstrap"] == 20


@pytest.mark.parametrize("name", ["smok", "../../../README", ["smoke"]])
def test_unknown_preset_is_named_with_those_that_there_are(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    with pytest.raises(CanidsError, match=r"evaluate\.preset: .* is not one of \['full', 'demo', 'smoke', 'overfit'\]"):
        stage_with(monkeypatch, "evaluate", {"preset": name})


def test_interpreter_of_the_stage_is_set_for_its_shells(stages: dict[str, Stage]) -> None:
    assert os.environ["CANIDS_PREPROCESS_PYTHON"] == sys.executable == stages["preprocess"].python


def test_memory_doubles_at_the_second_attempt_and_is_capped() -> None:
    mem_mb = memory(20_000)
    assert [mem_mb(None, attempt) for attempt in (1, 2, 3)] == [20_000, 40_000, 64_000]


def with_cache(rules: object) -> SimpleNamespace:
    return SimpleNamespace(workflow_settings=SimpleNamespace(cache=rules), is_main_process=True)


def test_cache_lies_where_it_is_said_else_in_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", "put back afterwards")
    monkeypatch.delenv("SNAKEMAKE_OUTPUT_CACHE")
    use_cache(with_cache(None))
    assert "SNAKEMAKE_OUTPUT_CACHE" not in os.environ
    use_cache(with_cache(["ingest"]))
    assert os.environ["SNAKEMAKE_OUTPUT_CACHE"] == str(tmp_path / "canids")
    assert (tmp_path / "canids").is_dir()
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path / "shared" / "cache"))
    use_cache(with_cache([]))
    assert (tmp_path / "shared" / "cache").is_dir()


def test_a_folder_in_which_snakemake_cannot_write_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    use_cache(with_cache(None))
    assert not list((tmp_path / ".snakemake").iterdir())
    assert logging.raiseExceptions
    (tmp_path / ".snakemake").rmdir()
    (tmp_path / ".snakemake").touch()
    with pytest.raises(
        CanidsError, match=r"\.snakemake.*: (File exists|Not a directory); a file lies where a folder is"
    ):
        use_cache(with_cache(None))
    assert not logging.raiseExceptions, "a traceback for every line of a log that cannot be written either"


def test_cache_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CanidsError, match="file/cache: Not a directory; set SNAKEMAKE_OUTPUT_CACHE"):
        use_cache(with_cache(["ingest"]))
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CanidsError, match=r"no permission to write; .* writable for your group"):
        use_cache(with_cache(["ingest"]))
