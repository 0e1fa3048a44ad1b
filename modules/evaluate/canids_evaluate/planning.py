"""Helpers of evaluate's Snakefile: names of figures and cards, instances that are folds, runs of other stages."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from canids_evaluate.pages.rows import FUSION, FUSION_BASELINES, WINDOW_BASELINES
from canids_shared.contracts.detectors import DETECTORS
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import POLICY_KIND, VARIANTS
from canids_shared.planning.stage import Stage

FIGURES = {
    "f1": "F1",
    "detection_delay": "detection delay",
    "roc": "ROC",
    "pr": "precision and recall",
    "timelines": "scores over time",
    "policy": "close-ups of the policy",
    "confusion": "alarms by kind of attack",
    "distillation": "effect of distillation",
}
"""Figures of the rule summary: name of the output and of the file (SVG) → its name in Snakemake's report."""
BOARD_FIGURES = {
    "recall": "recall by kind of attack",
    "false_alarms": "false alarms by vehicle",
    "ablations": "what ablations cost",
}
"""Figures of the rule leaderboard, likewise."""
_LEARN_FROM_ATTACKS = {POLICY_KIND, *(d.name for d in DETECTORS if d.supervised)}
"""Kinds of runs that are left out where there is no attack to learn from."""
InputFunction = Callable[[Any], list[str]]


def detector_runs(stage: Stage) -> list[str]:
    """Kinds of the runs that train the detectors (`detector_runs`); without a list one run for each detector, unsupervised first."""
    default = [d.name for d in sorted(DETECTORS, key=lambda d: d.supervised)]
    return stage.config[""]["detector_runs"] or default


def card_names(stage: Stage) -> list[str]:
    """Names of the trainings' cards, which are the outputs of the rule cards: `gat_large`, …; of all that any dataset has."""
    learnt = any(stage.has_attacks(d, i) for d in stage.datasets for i in stage.config if stage.has(d, i))
    kinds = [k for k in (*detector_runs(stage), POLICY_KIND) if learnt or k not in _LEARN_FROM_ATTACKS]
    return [f"{kind}_{variant}" for kind in kinds for variant in VARIANTS]


def cards_on_command_line(arguments: Sequence[str]) -> list[str]:
    """Names of the cards that a command line asks for, as options such as `--gat_large cards/gat_large.md`."""
    option = re.compile(f"--([a-z][a-z0-9_]*_(?:{'|'.join(VARIANTS)}))")
    return [match[1] for argument in arguments if (match := option.fullmatch(argument))]


def output_options(names: Iterable[str]) -> Callable[[Any, Any], str]:
    """Params function: the outputs of these names as options of a command line."""
    return lambda wildcards, output: " ".join(f"--{name} {output[name]}" for name in names)


def trainings(stage: Stage, file: str, variants: Sequence[str] = VARIANTS) -> InputFunction:
    """Input function: a file (`run.json`, `benchmark.tsv`) of every training behind an evaluation, detectors and policies.

    A run's instance is that of the files which its stage hands on.
    """
    states, decisions = (stage.upstream(f"<{port}>{{instance}}") for port in ("states", "decisions"))

    def files(wildcards: Any) -> list[str]:
        of_detectors = states(wildcards)[0].removeprefix("<states>")
        of_policies = decisions(wildcards)[0].removeprefix("<decisions>")
        instances = {**dict.fromkeys(detector_runs(stage), of_detectors), POLICY_KIND: of_policies}
        if not stage.has_attacks(wildcards.dataset, wildcards.instance):
            instances = {kind: instance for kind, instance in instances.items() if kind not in _LEARN_FROM_ATTACKS}
        return [f"<runs>/{kind}_{v}{instance}/{file}" for kind, instance in instances.items() for v in variants]

    return files


def benchmarks(stage: Stage) -> InputFunction:
    """Input function: `benchmark.tsv` of the trainings, the evaluations, and the window baselines."""
    of_trainings = trainings(stage, "benchmark.tsv")
    baselines = stage.upstream("<window_baselines>{instance}")

    def files(wildcards: Any) -> list[str]:
        instance = baselines(wildcards)[0].removeprefix("<window_baselines>")
        evaluations = [f"<runs>/eval_{v}{wildcards.instance}/benchmark.tsv" for v in VARIANTS]
        return [*of_trainings(wildcards), *evaluations, f"<runs>/window_baselines{instance}/benchmark.tsv"]

    return files


def folds(stage: Stage, dataset: str) -> list[str]:
    """Instances (`@without-kia`, …) that are folds of a dataset's training captures."""
    return [i for i in stage.config if stage.is_fold(i) and stage.has(dataset, i)]


def files_of_folds(stage: Stage, file: str) -> InputFunction:
    """Input function: `metrics.json` or `curves.json` of a dataset's folds, of the variants that are judged on them, and once of each fold's window baselines."""
    baselines = stage.upstream(f"<window_baselines>{{instance}}/{file}")

    def files(wildcards: Any) -> list[str]:
        instances = folds(stage, wildcards.dataset)
        evaluations = [f"<runs>/eval_{v}{fold}/{file}" for fold in instances for v in stage.config[""]["variants"]]
        of_baselines = [path for fold in instances for path in baselines(SimpleNamespace(instance=fold))]
        return [*evaluations, *dict.fromkeys(of_baselines)]

    return files


def trainings_of_folds(stage: Stage) -> InputFunction:
    """Input function: `run.json` of the trainings behind the folds, of the variants that are judged on them."""
    of_a_fold = trainings(stage, "run.json", stage.config[""]["variants"])

    def files(wildcards: Any) -> list[str]:
        instances = folds(stage, wildcards.dataset)
        found = [p for fold in instances for p in of_a_fold(SimpleNamespace(dataset=wildcards.dataset, instance=fold))]
        return list(dict.fromkeys(found))

    return files


def own_scores_of(stage: Stage, *splits: str | Callable[[Any], list[str]]) -> InputFunction:
    """Input function: Parquet files of a folder in `own_scores`, of these splits (names, or functions of the wildcards)."""

    def files(wildcards: Any) -> list[str]:
        folder = stage.config[""]["own_scores"][wildcards.own]["folder"]
        try:
            place = folder.format(dataset=wildcards.dataset, instance=wildcards.instance)
        except (KeyError, IndexError, ValueError, AttributeError):
            raise CanidsError(
                f"evaluate.own_scores.{wildcards.own}.folder: '{folder}' may hold {{dataset}} and {{instance}}, and no other braces"
            ) from None
        return [
            f"{place}/{s}.parquet"
            for split in splits
            for s in ([split] if isinstance(split, str) else split(wildcards))
        ]

    return files


def own_scores_of_folds(stage: Stage, file: str) -> InputFunction:
    """Input function: `metrics.json` or `curves.json` of all `own_scores`, once of each fold's graphs; ablations have none."""
    graphs = stage.upstream("<graphs>{instance}")
    own, ablations = (stage.config[""][key] for key in ("own_scores", "ablations"))
    names = {FUSION, *FUSION_BASELINES, *WINDOW_BASELINES, *(d.name for d in DETECTORS)}
    if taken := [name for name in own if name in names]:
        raise CanidsError(f"evaluate.own_scores.{taken[0]}: is the name of another method; give it another")

    def files(wildcards: Any) -> list[str]:
        whole = [
            f
            for f in folds(stage, wildcards.dataset)
            if not re.search(rf"-({'|'.join(ablations) or '(?!)'})(-seed-\d+)?$", f)
        ]
        instances = dict.fromkeys(
            path.removeprefix("<graphs>") for fold in whole for path in graphs(SimpleNamespace(instance=fold))
        )
        return [f"<leaderboard>/own_scores/{name}{instance}/{file}" for name in own for instance in instances]

    return files


def use_own_commands(stage: Stage) -> None:
    """Put the stage's commands on PATH, where `notebook:` looks for papermill, also where nothing is activated.

    The folder comes last, so that all other commands stay the same. Raises `CanidsError` if the notebook is wanted where
    stand-ins are made: it is no entry point, and has none.
    """
    if stage.stand_in and any(config["notebook"] for config in stage.config.values()):
        raise CanidsError("evaluate.notebook: the analysis notebook has no stand-in; set it to false, or stand_in")
    folder = os.path.dirname(stage.python)
    if folder not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] += os.pathsep + folder
