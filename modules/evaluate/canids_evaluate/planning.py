"""What the Snakefile of evaluate asks: names of figures and cards, which instances are folds, where the runs of other stages lie."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from canids_shared.contracts.manifest import LEFT_OUT
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import VARIANTS
from canids_shared.planning.stage import Stage

FIGURES = {
    "f1": "F1",
    "detection_delay": "detection delay",
    "roc": "ROC",
    "pr": "precision and recall",
    "timelines": "scores over time",
    "policy": "what the policy does",
    "confusion": "alarms by kind of attack",
    "distillation": "what distillation changed",
}
"""Figures of the rule summary: name of the output and of the file (SVG) → what Snakemake's report calls it."""
CARDS = [f"{kind}_{variant}" for kind in ("vgae", "gat", "dqn") for variant in VARIANTS]
"""Names of the trainings' cards, and of the outputs of the rule cards."""


def trainings(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: `benchmark.tsv` of every training behind an evaluation, detectors and policies.

    A run's instance is that of the files which its stage hands on. Model, history, config and latency lie in the same
    folder and come from the same job; as inputs they would be half of all files that a plan looks at. The benchmark is
    written last, and never twice the same: a report is made anew though a model that was trained again has the bytes it had.
    """
    detectors, policies = (stage.upstream(f"<{port}>{{instance}}") for port in ("states", "decisions"))

    def of(wildcards: Any) -> list[str]:
        of_detectors = detectors(wildcards)[0].removeprefix("<states>")
        of_policies = policies(wildcards)[0].removeprefix("<decisions>")
        kinds = {"vgae": of_detectors, "gat": of_detectors, "dqn": of_policies}
        return [f"<runs>/{kind}_{v}{instance}/benchmark.tsv" for kind, instance in kinds.items() for v in VARIANTS]

    return of


def benchmarks(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: `benchmark.tsv` of the evaluations, and of the baselines."""
    baselines = stage.upstream("<window_baselines>{instance}")

    def of(wildcards: Any) -> list[str]:
        own = f"<runs>/window_baselines{baselines(wildcards)[0].removeprefix('<window_baselines>')}/benchmark.tsv"
        evaluations = [f"<runs>/eval_{v}{wildcards.instance}/benchmark.tsv" for v in VARIANTS]
        return [*evaluations, own]

    return of


def folds(stage: Stage, dataset: str) -> list[str]:
    """Instances (`@without-kia`, …) that are folds of a dataset's training captures."""
    return [i for i in stage.config if i and stage.scenarios(dataset, i) == [LEFT_OUT] and stage.has(dataset, i)]


def files_of_folds(stage: Stage, file: str) -> Callable[[Any], list[str]]:
    """Input function: `metrics.json` or `curves.json` of a dataset's folds, all variants, and each fold's baselines once."""
    baselines = stage.upstream(f"<window_baselines>{{instance}}/{file}")

    def of(wildcards: Any) -> list[str]:
        own = folds(stage, wildcards.dataset)
        found = [f"<runs>/eval_{v}{fold}/{file}" for fold in own for v in VARIANTS]
        found += [path for fold in own for path in baselines(SimpleNamespace(instance=fold))]
        return list(dict.fromkeys(found))

    return of


def use_own_commands(stage: Stage) -> None:
    """Let `notebook:` find papermill, which it looks for on PATH alone, also where nothing is activated.

    The folder comes last, so that whatever was found before still is. Raises `CanidsError` if the notebook is wanted where
    stand-ins are made: it is no entry point, and has none.
    """
    if stage.stand_in and any(config["notebook"] for config in stage.config.values()):
        raise CanidsError("evaluate.notebook: the analysis notebook has no stand-in; set it to false, or stand_in")
    folder = os.path.dirname(stage.python)
    if folder not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] += os.pathsep + folder
