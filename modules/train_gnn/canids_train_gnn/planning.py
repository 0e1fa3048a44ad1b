"""Choices of the Snakefile that follow from the config: which models a training reads, and which environment it needs."""

from collections.abc import Callable
from typing import Any

from canids_shared.contracts.detectors import DETECTORS
from canids_shared.contracts.manifest import SPLITS
from canids_shared.planning.pipeline import VARIANTS
from canids_shared.planning.split_sets import SplitSet, split_sets
from canids_shared.planning.stage import Stage


def teacher(kind: str, variant: str) -> list[str]:
    """The teacher that a variant learns from, if any."""
    return [f"<runs>/{kind}_large{{instance}}/model.safetensors"] if variant == "small_kd" else []


def curriculum_vgae(stage: Stage, kind: str, variant: str) -> Callable[[Any], list[str]]:
    """Input function: the VGAE that ranks the windows of a GAT's curriculum, if the instance's config has one."""

    def model(wildcards: Any) -> list[str]:
        by = stage.config[wildcards.instance]["gat"]["curriculum"]["by"]
        return [f"<runs>/vgae_{variant}{{instance}}/model.safetensors"] if kind == "gat" and by == "vgae" else []

    return model


def environment(stage: Stage) -> str:
    """The conda environment that the backends of all instances need."""
    wanted = {config["backend"] for config in stage.config.values()}
    return "environment.dgl.yaml" if "dgl" in wanted else "environment.yaml"


def exports(stage: Stage) -> list[str]:
    """The ONNX files, with their reports, of all detectors that are trained: supervised ones only where there are attacks to learn from."""
    return [
        f"experimentruns/{dataset}/{detector.name}_{variant}{instance}/{file}"
        for dataset in stage.datasets
        for instance in stage.config
        if stage.has(dataset, instance)
        for detector in DETECTORS
        if stage.has_attacks(dataset, instance) or not detector.supervised
        for variant in VARIANTS
        for file in ("model.onnx", "export.json")
    ]


def state_sets(stage: Stage) -> list[SplitSet]:
    """Splits whose states one job makes: those that policies learn from, `fit`, and the scenarios with their enrolment."""
    learnt = ("select", "fuse", "calibrate")

    def those_of(*names: str) -> Callable[[str, str], list[str]]:
        return lambda dataset, _: [split for split in stage.training_splits(dataset) if split in names]

    def scenarios(dataset: str, instance: str) -> list[str]:
        # Without a test scenario, one of the splits of training is judged.
        judged = [*stage.scenarios(dataset, instance), *stage.enrolment(dataset, instance)]
        return [split for split in judged if split not in SPLITS]

    return [
        *split_sets(stage, "states", those_of(*learnt), by_fold=False),
        *split_sets(stage, "fit_states", those_of("fit"), by_fold=False),
        *split_sets(stage, "scenario_states", scenarios),
    ]
