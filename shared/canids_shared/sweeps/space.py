"""The points of a sweep as Snakemake's Paramspace, with what it lacks.

Paramspace alone returns numpy scalars (no JSON, no cache), turns `001` into `1`, garbles column names with a dot, accepts targets that
are no point, and loses its wildcard in a sub-space.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pandas as pd
from snakemake.utils import Paramspace  # type: ignore[import-untyped]

from canids_shared.errors import CanidsError
from canids_shared.sweeps.points import Points

WILDCARD = "point"


class Space(Paramspace):  # type: ignore[misc]
    """Points by run instance; the index of `dataframe` names the instance, its columns the options, dots as underscores.

    `wildcard_pattern` is `{point}`, which stands for a folder per option: `gat_batch~64/gat_learning_rate~0.003`. A
    sub-space is a Space too: `space[space.gat_batch == 64]`, `space.where({"gat.batch": 64})`.

    Attributes:
        points: instance → option (`gat.learning_rate`) → value.
    """

    def __init__(self, points: Points) -> None:
        """Points that all have the same options.

        Raises `CanidsError` if two options have the same column, or two points the same values.
        """
        self.points = points
        options = list(next(iter(points.values()), {}))
        columns = {column(option): option for option in options}
        if len(columns) < len(options):
            twice = next(o for o in options if columns[column(o)] != o)
            raise CanidsError(f"options {twice} and {columns[column(twice)]} have the same column {column(twice)}")
        cells = {c: [_cell(values[o]) for values in points.values()] for c, o in columns.items()}
        super().__init__(pd.DataFrame(cells, index=list(points)), single_wildcard=WILDCARD)
        # Points of equal values would share a folder.
        if len(self.instances) < len(points):
            first = {name: i for i, name in reversed(self.names.items())}
            i, same = next((i, first[n]) for i, n in self.names.items() if first[n] != i)
            values = ", ".join(f"{option} {value}" for option, value in points[i].items())
            raise CanidsError(f"{i} has the same values as {same}: {values}")

    @cached_property
    def names(self) -> dict[str, str]:
        """Instance → value of the wildcard."""
        return dict(zip(self.dataframe.index, self.instance_patterns, strict=True))

    @cached_property
    def instances(self) -> dict[str, str]:
        """Value of the wildcard → instance."""
        return {name: instance for instance, name in self.names.items()}

    @property
    def constraint(self) -> str:
        """Regular expression for the wildcard: these points and no others."""
        return "|".join(map(re.escape, self.instances))

    def run_instance(self, wildcards: Any) -> str:
        """The run instance (`sweep-017`) behind a rule's wildcards.

        Raises `CanidsError` if they are no point.
        """
        name = wildcards[WILDCARD] if isinstance(wildcards, dict) else getattr(wildcards, WILDCARD)
        if name not in self.instances:
            raise CanidsError(f"{name} is no point of this sweep, which has {len(self.instances)}")
        return self.instances[name]

    def instance(self, wildcards: Any) -> dict[str, Any]:
        """Option → value of the point that a rule's wildcards name, in plain Python.

        Raises `CanidsError` if they name none.
        """
        return self.points[self.run_instance(wildcards)]

    def where(self, conditions: Mapping[str, Any]) -> "Space":
        """The points whose options meet all conditions.

        Args:
            conditions: option → its value, a list of values, or `{low, high}` with either bound; bounds belong to the range.

        Raises `CanidsError` if the points do not have such an option, or none meets the conditions.
        """
        options = list(next(iter(self.points.values())))
        if unknown := next((o for o in conditions if o not in options), None):
            raise CanidsError(f"'{unknown}' is no option of this sweep; it has {', '.join(options)}")
        chosen = {i: p for i, p in self.points.items() if all(_meets(p[o], c) for o, c in conditions.items())}
        if not chosen:
            wanted = ", ".join(f"{option}: {condition}" for option, condition in conditions.items())
            raise CanidsError(f"no point has {wanted}")
        return Space(chosen)

    def __getitem__(self, key: Any) -> Any:
        """A column, or a sub-space, as of a data frame."""
        selected = self.dataframe[key]
        if not isinstance(selected, pd.DataFrame):
            return selected
        kept = set(selected.columns)
        return Space({i: {o: v for o, v in self.points[i].items() if column(o) in kept} for i in selected.index})


def column(option: str) -> str:
    """The column of an option, which pandas and paths can take."""
    return option.replace(".", "_")


def _cell(value: Any) -> Any:
    """A value in a frame and in a path: numbers and truth values as they are, all else as plain text."""
    if isinstance(value, bool | int | float):
        return value
    items = value if isinstance(value, list) else [value]
    return "-".join(re.sub("[^A-Za-z0-9_.+]+", "-", str(item)) for item in items)


def _meets(value: Any, condition: Any) -> bool:
    if isinstance(condition, dict):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and condition.get("low", value) <= value <= condition.get("high", value)
    return value == condition or (isinstance(condition, list) and value in condition)
