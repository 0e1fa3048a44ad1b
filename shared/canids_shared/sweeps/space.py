"""The points of a sweep as Snakemake's Paramspace, with what it lacks.

Paramspace alone hands out numpy's scalars (no JSON, no cache), makes `1` of `001`, garbles column names with a dot,
accepts targets that are no point, and forgets its wildcard in a sub-space.
"""

import re
from functools import cached_property
from typing import Any

import pandas as pd
from snakemake.utils import Paramspace  # type: ignore[import-untyped]

from canids_shared.errors import CanidsError
from canids_shared.sweeps.points import Points

WILDCARD = "point"


class Space(Paramspace):  # type: ignore[misc]
    """Points by run instance; the index of `dataframe` names the instance, its columns the options, dots as underscores.

    `wildcard_pattern` is `{point}`, which stands for a folder an option: `gat_batch~64/gat_learning_rate~0.003`. A
    sub-space is a Space too: `space[space.gat_batch == 64]`, `space.query("gat_learning_rate < 0.01")`,
    `space[["gat_batch"]]`.

    Attributes:
        points: instance → option (`gat.learning_rate`) → value.
    """

    def __init__(self, points: Points) -> None:
        """Points that all have the same options.

        Raises `CanidsError` if two options have one column, or two points the same values.
        """
        self.points = points
        options = list(next(iter(points.values()), {}))
        columns = {column(option): option for option in options}
        if len(columns) < len(options):
            twice = next(o for o in options if columns[column(o)] != o)
            raise CanidsError(f"options {twice} and {columns[column(twice)]} have the same column {column(twice)}")
        cells = {c: [_cell(values[o]) for values in points.values()] for c, o in columns.items()}
        super().__init__(pd.DataFrame(cells, index=list(points)), single_wildcard=WILDCARD)
        if len(self.instances) < len(points):
            first = {name: i for i, name in reversed(self.names.items())}
            i, same = next((i, first[n]) for i, n in self.names.items() if first[n] != i)
            raise CanidsError(f"{i} has the same values as {same}: {', '.join(_words(points[i]))}")

    @cached_property
    def names(self) -> dict[str, str]:
        """Instance → what the wildcard is for it."""
        return dict(zip(self.dataframe.index, self.instance_patterns, strict=True))

    @cached_property
    def instances(self) -> dict[str, str]:
        """The wildcard's value → instance."""
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

    def query(self, condition: str) -> "Space":
        """The points for which a condition holds (`pandas.DataFrame.query`).

        Raises `CanidsError` if pandas does not understand it.
        """
        try:
            found = self.dataframe.query(condition)
        except Exception as error:  # whatever pandas, or the condition itself, raises
            known = ", ".join(self.dataframe.columns)
            raise CanidsError(f"'{condition}' is no condition on {known}: {error}") from None
        if not isinstance(found, pd.DataFrame):
            raise CanidsError(f"'{condition}' is no condition")
        return self._of(found)

    def __getitem__(self, key: Any) -> Any:
        """A column, or a sub-space, as of a data frame."""
        found = self.dataframe[key]
        return self._of(found) if isinstance(found, pd.DataFrame) else found

    def _of(self, frame: pd.DataFrame) -> "Space":
        kept = set(frame.columns)
        return Space({i: {o: v for o, v in self.points[i].items() if column(o) in kept} for i in frame.index})


def column(option: str) -> str:
    """The column of an option, which pandas and paths can take."""
    return option.replace(".", "_")


def _cell(value: Any) -> Any:
    """A value as it stands in a frame and in a path: numbers and truth values as they are, all else as plain text."""
    if isinstance(value, bool | int | float):
        return value
    items = value if isinstance(value, list) else [value]
    return "-".join(re.sub("[^A-Za-z0-9_.+]+", "-", str(item)) for item in items)


def _words(values: dict[str, Any]) -> list[str]:
    return [f"{option} {value}" for option, value in values.items()]
