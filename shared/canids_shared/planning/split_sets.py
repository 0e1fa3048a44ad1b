"""Rules that make several splits in one job.

A rule has a fixed number of outputs, and datasets differ in their scenarios: datasets with the same scenarios share a rule, and
folds, whose only scenario is `left_out`, have one of their own. The first has the plain name (`decisions`), which pipelines can
refer to; a further one is named by its first dataset (`decisions_of_hcrl_sa`, `decisions_of_hcrl_sa_folds`).
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
    by_kind = {fold: [i for i in stage.config if not by_fold or stage.is_fold(i) == fold] for fold in (False, by_fold)}
    groups: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for fold, instances in by_kind.items():
        for dataset in stage.datasets if instances else ():
            if made := splits(dataset, instances[0]):
                groups.setdefault((fold, tuple(made)), []).append(dataset)
    sets: list[SplitSet] = []
    for (fold, names), datasets in groups.items():
        suffix = f"_of_{datasets[0]}{'_folds' if fold else ''}" if sets else ""
        instance = "|".join(re.escape(i) for i in by_kind[fold] if i)
        # Without instances the pattern is `()?`; an empty constraint would mean `.+`.
        optional = "?" if "" in by_kind[fold] else ""
        dataset = "|".join(map(re.escape, datasets))
        sets.append(SplitSet(kind + suffix, kind, list(names), dataset, f"({instance}){optional}"))
    return sets
