"""Rules that make several splits in one job.

A rule has a fixed number of outputs, and datasets differ in their scenarios, as instances do, since folds judge what they leave
out: datasets and instances with the same splits share a rule. The first has the plain name (`decisions`), which pipelines can
refer to; a further one is named by its first dataset (`decisions_of_hcrl_sa`, `decisions_of_hcrl_sa_folds`, `…_folds_too`).
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from canids_shared.planning.stage import Stage


class SplitSet(NamedTuple):
    """Splits that one job makes.

    Attributes:
        rule: the rule's name.
        kind: name of the first rule of its kind.
        splits: the splits.
        dataset, instance: regular expressions of the rule's wildcards.
    """

    rule: str
    kind: str
    splits: list[str]
    dataset: str
    instance: str

    def listed(self, wildcards: Any) -> list[str]:
        """The splits, as an input function wants them."""
        return self.splits

    def files(self, workflow: Any, pattern: str) -> list[str]:
        """The rule's outputs: `pattern` for each split.

        Pathvars are replaced already here: Snakemake constrains no wildcard that a pathvar brings, such as `{dataset}`.
        """
        return [workflow.pathvars.apply(pattern).replace("{split}", split) for split in self.splits]

    @property
    def each(self) -> list[dict[str, Any]]:
        """What the calls of the rule's entry point have of their own (`canids_shared.jobs.entry_point.calls_of`)."""
        return [{"wildcards": {"split": split}} for split in self.splits]


def split_sets(
    stage: Stage, kind: str, splits: Callable[[str, str], list[str]], by_fold: bool = True
) -> list[SplitSet]:
    """The sets of splits that rules of one kind make; none where no dataset has a split of them.

    Args:
        stage: datasets, instances and folds.
        kind: name of the first rule.
        splits: the splits of a dataset and an instance that one job makes.
        by_fold: whether folds have other splits than the other instances.
    """
    # Whether folds, splits, instances → the datasets of which these instances have these splits; they share a rule.
    groups: dict[tuple[bool, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for fold in (False, True) if by_fold else (False,):
        members = [i for i in stage.config if not by_fold or stage.is_fold(i) == fold]
        for dataset in stage.datasets:
            by_splits: dict[tuple[str, ...], list[str]] = {}
            for instance in members:
                if stage.has(dataset, instance):
                    by_splits.setdefault(tuple(splits(dataset, instance)), []).append(instance)
            for made, instances in by_splits.items():
                # Instances that a dataset does not have do no harm, and most datasets have the same splits in all.
                of_rule = members if len(by_splits) == 1 else instances
                if made:
                    groups.setdefault((fold, made, tuple(of_rule)), []).append(dataset)
    sets: list[SplitSet] = []
    for (fold, made, instances_of_rule), datasets in groups.items():
        suffix = f"_of_{datasets[0]}{'_folds' if fold else ''}" if sets else ""
        while kind + suffix in {known.rule for known in sets}:
            suffix += "_too"
        instance = "|".join(re.escape(i) for i in instances_of_rule if i)
        # Without instances the pattern is `()?`; an empty constraint would mean `.+`.
        optional = "?" if "" in instances_of_rule else ""
        dataset = "|".join(map(re.escape, datasets))
        sets.append(SplitSet(kind + suffix, kind, list(made), dataset, f"({instance}){optional}"))
    return sets
