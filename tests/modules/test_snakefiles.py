"""What the Snakefiles and schemas promise to profiles, clusters and users."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.iocontainers import Wildcards
from snakemake.resources import Resource, Resources
from snakemake.rules import Rule
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings
from workflows import CACHED, EVALUATIONS, MODULES, REPOSITORY, TRAININGS

from canids_shared.planning.resource_labels import LABELS, resources_by_label

SNAKEFILES = sorted(REPOSITORY.glob("modules/*/Snakefile")) + sorted(REPOSITORY.glob("pipelines/*/Snakefile"))
PROFILES = sorted(REPOSITORY.glob("shared/profiles/*/config*.yaml"))
CLUSTERS = [profile for profile in PROFILES if profile.parent.name != "local"]
SCHEMAS = [
    *sorted(REPOSITORY.glob("modules/*/config.schema.yaml")),
    REPOSITORY / "shared/canids_shared/contracts/common.schema.yaml",
]
UNUSED = {"input": [], "threads": 1, "rulename": ""}
"""What Snakemake hands to a resource function beside wildcards and attempt."""
ATTEMPT = {"wildcards": {}, "async_run": None}


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Rule]]:
    """Snakefile → its rules by name, parsed with no config but the Snakefile's own."""
    found = {}
    for snakefile in SNAKEFILES:
        workdir = tmp_path_factory.mktemp("parsed")
        with SnakemakeApi(OutputSettings(quiet=None)) as api:
            parsed = api.workflow(ResourceSettings(cores=1), snakefile=snakefile, workdir=workdir)
            found[named(snakefile)] = {rule.name: rule for rule in parsed._workflow.rules}
    return found


@pytest.fixture(scope="module")
def composed(rules: dict[str, dict[str, Rule]]) -> dict[str, Rule]:
    return rules["pipelines/kd_fusion/Snakefile"]


def test_rule_names_are_unique_over_modules(rules: dict[str, dict[str, Rule]]) -> None:
    names = [name for snakefile, found in rules.items() if snakefile.startswith("modules/") for name in found]
    assert len(names) == len(set(names))


def test_modules_and_pipelines_have_a_target_of_their_own_name(rules: dict[str, dict[str, Rule]]) -> None:
    for snakefile, found in rules.items():
        assert f"all_{Path(snakefile).parent.name}" in found


def test_pipeline_adds_nothing_but_its_target(rules: dict[str, dict[str, Rule]], composed: dict[str, Rule]) -> None:
    modules = {name for stage in MODULES for name in rules[f"modules/{stage}/Snakefile"]}
    assert set(composed) - modules == {"all_kd_fusion"}


@pytest.mark.parametrize("notebook", [True, False])
def test_pipeline_asks_for_the_notebook_where_the_config_does(notebook: bool, tmp_path: Path) -> None:
    config = ConfigSettings(config={"evaluate": {"notebook": notebook}, "instances": {"b": {"evaluate": {"seed": 1}}}})
    with SnakemakeApi(OutputSettings(quiet=None)) as api:
        snakefile = REPOSITORY / "pipelines/kd_fusion/Snakefile"
        parsed = api.workflow(ResourceSettings(cores=1), config, snakefile=snakefile, workdir=tmp_path)
        (target,) = (rule for rule in parsed._workflow.rules if rule.name == "all_kd_fusion")
    asked = {str(path) for path in target.input if str(path).endswith("errors.csv")}
    assert asked == ({f"results/simulated/summary{i}/errors.csv" for i in ("", "@b")} if notebook else set())


def test_a_common_key_reaches_the_fusion_and_the_evaluation(tmp_path: Path) -> None:
    budgets = {"": 0.02, "@strict": 0.001}
    instances = {"strict": {"false_alarm_budget": budgets["@strict"]}}
    config = ConfigSettings(config={"false_alarm_budget": budgets[""], "instances": instances})
    with SnakemakeApi(OutputSettings(quiet=None)) as api:
        snakefile = REPOSITORY / "pipelines/kd_fusion/Snakefile"
        parsed = api.workflow(ResourceSettings(cores=1), config, snakefile=snakefile, workdir=tmp_path)
        specs = {rule.name: dict(rule.params.items()).get("spec") for rule in parsed._workflow.rules}
    for name in ("dqn_large", "eval_large", "window_baselines"):
        for instance, budget in budgets.items():
            spec = specs[name](Wildcards(fromdict={"dataset": "simulated", "instance": instance}))
            assert json.loads(spec)["config"]["false_alarm_budget"] == budget, name


def test_datasets_with_other_scenarios_and_folds_have_rules_of_their_own(tmp_path: Path) -> None:
    folds = {"left": {"preprocess": {"leave_out": {"vehicles": ["van"]}}}, "seed-1": {"train_gnn": {"seed": 1}}}
    datasets = ["simulated", "smoke", "simulated_hours"]
    config = ConfigSettings(
        config={"datasets": datasets, "data_root": str(REPOSITORY / "tests/data"), "instances": folds}
    )
    with SnakemakeApi(OutputSettings(quiet=None)) as api:
        snakefile = REPOSITORY / "pipelines/kd_fusion/Snakefile"
        resources = ResourceSettings(cores=1, overwrite_resources={"states": Resources.from_mapping({"mem_mb": 7})})
        parsed = api.workflow(resources, config, snakefile=snakefile, workdir=tmp_path)
        parsed_rules = list(parsed._workflow.rules)

    def maker(file: str) -> str:
        (rule,) = (rule for rule in parsed_rules if rule.is_producer(f"results/{file}"))
        if "states" in rule.name:
            assert rule.resources["mem_mb"].value == 7, "a profile's entry for `states` is for all of its kind"
        return str(rule.name)

    kinds = {"graphs/test_known_attack.safetensors": "scenario_graphs", "graphs/fit.safetensors": "graphs"}
    kinds |= {"graphs@left/left_out.safetensors": "scenario_graphs", "states/large@seed-1/fuse.parquet": "states"}
    kinds |= {"states/large/fit.parquet": "fit_states", "decisions/large/fuse.parquet": "training_decisions"}
    for file, rule in kinds.items():
        assert [maker(f"{dataset}/{file}") for dataset in datasets] == [rule] * 3
    for dataset, of in (("simulated", ""), ("smoke", "_of_smoke"), ("simulated_hours", "_of_simulated_hours")):
        scenario = "test_known_attack_hour" if dataset == "simulated_hours" else "test_known_attack"
        for instance in ("", "@seed-1"):
            assert maker(f"{dataset}/states/large{instance}/{scenario}.parquet") == f"scenario_states{of}"
            assert maker(f"{dataset}/decisions/large{instance}/{scenario}.parquet") == f"decisions{of}"
            assert maker(f"{dataset}/decisions/large{instance}/calibrate.parquet") == f"decisions{of}"
        for file in ("left_out", "calibrate"):
            assert maker(f"{dataset}/decisions/large@left/{file}.parquet") == "decisions_of_simulated_folds"


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_profiles_name_only_rules_that_exist(profile: Path, rules: dict[str, dict[str, Rule]]) -> None:
    """Snakemake ignores unknown names in silence."""
    known = {name for found in rules.values() for name in found}
    config = yaml.safe_load(profile.read_text())
    for key in ("set-threads", "set-scatter", "groups"):
        assert set(config.get(key) or {}) <= known, key
    assert set(config.get("set-resources") or {}) <= {*known, *LABELS}
    # `Rule.group` itself is empty wherever jobs run locally.
    groups = {rule._group for found in rules.values() for rule in found.values()}
    assert set(config.get("group-components") or {}) <= {*(config.get("groups") or {}).values(), *groups}
    assert set(config["cache"]) == set(CACHED)


@pytest.mark.parametrize("profile", PROFILES, ids=named)
def test_profiles_give_the_reason_of_every_entry(profile: Path) -> None:
    """A comment above it; entries under one comment follow each other without a blank line."""
    explained = False
    for line in profile.read_text().splitlines():
        explained = (explained and bool(line)) or line.strip().startswith("#")
        assert explained or not line, f"{profile.parent.name}: no comment above '{line}'"


@pytest.mark.parametrize("profile", CLUSTERS, ids=named)
def test_clusters_get_a_number_for_every_need(profile: Path, composed: dict[str, Rule]) -> None:
    config = yaml.safe_load(profile.read_text())
    assert set(config["set-resources"]) == set(LABELS)
    given = {
        label: Resources.parse([f"{k}={v}" for k, v in numbers.items()], allow_expressions=True)
        for label, numbers in config["set-resources"].items()
    }
    resources_for = resources_by_label(SimpleNamespace(resource_settings=SimpleNamespace(overwrite_resources=given)))
    for label in LABELS:
        memory = [resources_for(label)["mem_mb"](**{**UNUSED, **ATTEMPT, "attempt": n}) for n in range(1, 7)]
        assert memory[1] == 2 * memory[0]
        assert memory == sorted(memory)
        assert memory[-1] == memory[-2], "no cap"
        assert resources_for(label)["runtime"] > 0
        assert ("gpu" in resources_for(label)) == label.startswith("gpu_")


def test_a_training_without_gpu_is_a_job_for_the_cpu() -> None:
    settings = SimpleNamespace(
        overwrite_resources={"gpu_train": {"slurm_partition": Resource("slurm_partition", "gpu")}}
    )
    workflow = SimpleNamespace(resource_settings=settings)
    assert resources_by_label(workflow, gpu=False)("gpu_train") == LABELS["cpu"]
    assert resources_by_label(workflow)("gpu_train") == {**LABELS["gpu_train"], "slurm_partition": "gpu"}


def test_cached_rules_are_eligible_and_unmeasured(composed: dict[str, Rule]) -> None:
    """A rule with a benchmark cannot be cached."""
    cached = {name for name, rule in composed.items() if rule.cache.flag}
    assert cached == {name for name in composed if name.startswith((*CACHED, "inject", "profile", "scenario_graphs"))}
    assert cached >= set(CACHED)
    assert not any(composed[name].benchmark for name in cached)


@pytest.mark.parametrize("name", [*TRAININGS, *EVALUATIONS])
def test_runs_are_measured_and_logged_in_their_folder(name: str, composed: dict[str, Rule]) -> None:
    rule = composed[name]
    folder = f"experimentruns/{{dataset}}/{name}"
    assert str(rule.benchmark).startswith(folder)
    assert str(rule.benchmark).endswith("/benchmark.tsv")
    assert [str(log).rpartition("/")[2] for log in rule.log] == ["log.txt"]
    assert all(str(path).startswith(folder) for path in [*rule.log, *rule.output])


def test_work_is_logged_timed_and_asks_for_more_memory_at_the_next_attempt(composed: dict[str, Rule]) -> None:
    for name, rule in composed.items():
        if name.startswith("all_"):
            continue
        assert list(rule.log), name
        assert rule.message, name
        assert rule.resources["runtime"].value > 0
        memory = [rule.resources["mem_mb"].evaluate({}, attempt=a, **UNUSED).value for a in (1, 2)]
        assert memory[1] == 2 * memory[0] > 0, name


def test_trainings_say_whether_they_want_a_gpu(composed: dict[str, Rule]) -> None:
    assert all("gpu" in composed[name].resources for name in TRAININGS)
    assert not any("gpu" in composed[name].resources for name in EVALUATIONS)


def test_evaluations_and_summary_are_one_submission(composed: dict[str, Rule]) -> None:
    """Only `summary`, which consumes all three, makes one group of them."""
    # `Rule.group` itself is empty wherever jobs run locally.
    assert {name for name, rule in composed.items() if rule._group == "evaluation"} == {
        *EVALUATIONS,
        "summary",
        "cards",
        "report",
    }


def options(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, option in schema.get("properties", {}).items():
        yield f"{place}{key}", option
        yield from options(option, f"{place}{key}.")


@pytest.mark.parametrize("path", SCHEMAS, ids=named)
def test_every_option_is_described_and_has_a_default(path: Path) -> None:
    schema = yaml.safe_load(path.read_text())
    # Lists of what to leave out are absent unless a fold names them; pathvars are Snakemake's.
    for name, option in options(schema, ""):
        assert option.get("description"), name
        assert "default" in option or name == "pathvars" or name.startswith("leave_out."), name
        if "properties" in option:
            assert option["additionalProperties"] is False, name
            assert option["default"] == {}, name
