"""Points of a sweep as a tab-separated table: a column per option of a stage, a row per point.

Cells have the type of the option's schema: whole numbers, numbers, text as it is written (`001` stays `001`), else JSON.
"""

import copy
import csv
import difflib
import json
import re
from pathlib import Path
from typing import Any

from canids_shared.contracts.config import options_of
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError

Points = dict[str, dict[str, Any]]
"""Instance → option (`gat.learning_rate`) → value."""
INSTANCE = "instance"
"""The column that names the points; without it they are numbered by row."""


def table_of(points: Points) -> str:
    """Points as a table that can be declared again."""
    options = list(next(iter(points.values()), {}))
    lines = [[INSTANCE, *options], *([i, *(_text(values[o]) for o in options)] for i, values in points.items())]
    return "".join("\t".join(line) + "\n" for line in lines)


def read_points(path: Path, schema: dict[str, Any], name: str) -> tuple[Points, dict[str, str]]:
    """Points of a table, and the place of each for messages.

    Args:
        schema: of the stage.
        name: of the sweep: points are called `NAME-000`, `NAME-001`, … where the table does not name them.

    Raises `CanidsError` naming file, and row or option: an unknown option, a row of another width, an empty cell, a name that
    occurs twice.
    """
    with reading(path, "table of points", csv.Error, again="set sweep.table to a table of points"):
        text = path.read_text(encoding="utf-8-sig")
        # No quoting: a cell may be JSON, which has quotes of its own.
        lines = [line for line in csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE) if line]
    header, *rows = lines or [[]]
    options = [o for o in header if o != INSTANCE]
    if not options or not rows:
        raise CanidsError(f"{path}: needs a header with options and at least one row")
    if twice := next((o for o in header if header.count(o) > 1), None):
        raise CanidsError(f"{path}: column '{twice}' occurs twice")
    kinds = {o: option_schema(o, schema, str(path)) for o in options}
    points: Points = {}
    places: dict[str, str] = {}
    for number, row in enumerate(rows):
        place = f"{path}: row {number + 1}"
        if len(row) != len(header):
            raise CanidsError(f"{place}: {len(row)} cells, and the header has {len(header)} columns")
        cells = dict(zip(header, row, strict=True))
        instance = cells.pop(INSTANCE, f"{name}-{number:03d}")
        if not re.fullmatch("[A-Za-z0-9_.-]+", instance):
            raise CanidsError(f"{place}: '{instance}' cannot name an instance")
        if instance in points:
            raise CanidsError(f"{place}: instance '{instance}' occurs twice")
        if empty := next((o for o, cell in cells.items() if not cell), None):
            raise CanidsError(f"{place}: no value for {empty}")
        points[instance] = {o: _value(cell, kinds[o]) for o, cell in cells.items()}
        places[instance] = f"{place} ({instance})"
    return points, places


def option_schema(option: str, schema: dict[str, Any], where: str) -> dict[str, Any]:
    """The schema of an option such as `gat.learning_rate`.

    Raises `CanidsError`, beginning with `where`, if the stage has none, or if it is a section, or the seed.
    """
    options = dict(options_of(schema))
    if option not in options:
        if inside := next((name for name in options if name.startswith(f"{option}.")), None):
            raise CanidsError(f"{where}: '{option}' is a section; name one of its options, such as {inside}")
        close = difflib.get_close_matches(option, options, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise CanidsError(f"{where}: this stage has no option '{option}'{hint}")
    if option == "seed":
        raise CanidsError(
            f"{where}: the seed is no option of a point; `seeds` is the number of seeds that every point is trained with"
        )
    return options[option]


def _value(cell: str, kind: dict[str, Any]) -> Any:
    """A cell in the type of the option's schema; one that does not fit stays text, which the schema then refuses."""
    wanted = kind.get("type")
    if wanted in ("integer", "number"):
        for read in (int, float):
            try:
                return read(cell)
            except ValueError:
                continue
        return cell
    if wanted == "string" or cell in kind.get("enum", []):
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """`{"gat.learning_rate": 0.001}` nested as in a config."""
    out: dict[str, Any] = {}
    for option, value in values.items():
        *sections, key = option.split(".")
        inner = out
        for part in sections:
            inner = inner.setdefault(part, {})
        inner[key] = copy.deepcopy(value)
    return out
