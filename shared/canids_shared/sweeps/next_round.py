"""Add the points of the next round to the table of a sweep with `method: tpe`.

    python -m canids_shared.sweeps.next_round my_sweep.yaml results/simulated/sweeps/sweep/all

Reads the points so far and their results, lets the tree-structured Parzen estimator (Bergstra et al. 2011) propose `points` further
rows from the sweep's `space`, and appends them to its `table`. The next run trains them; rows that were there keep their runs.
"""

import argparse
import csv
import logging
import re
import sys
from pathlib import Path
from typing import Any

from canids_shared.contracts import yaml_file
from canids_shared.contracts.config import check, load_schema
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.planning.deployment import checkout
from canids_shared.sweeps.declaration import SCHEMA, whole_options
from canids_shared.sweeps.metrics import LOWER_IS_BETTER
from canids_shared.sweeps.points import Points, read_points, table_of
from canids_shared.sweeps.sampling import sample

log = logging.getLogger(__name__)


def read_means(path: Path, run: str) -> dict[str, float]:
    """Instance → mean over the seeds on `select`, of a run in `results.csv`; higher metrics are negated, so less is better."""
    with reading(path, "table of results", csv.Error, again="run the sweep"):
        with open(path, encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["run"] == run]
        return {r["instance"]: float(r["mean"]) * (1 if r["metric"] in LOWER_IS_BETTER else -1) for r in rows}


def next_round(sweep: dict[str, Any], schema: dict[str, Any], results: Path) -> Points:
    """The points so far and those of the next round.

    Args:
        sweep: the section `sweep` of a config, checked.
        schema: of the stage.
        results: folder with the `params.tsv` and `results.csv` of all points.

    Raises `CanidsError` if the sweep is not by `tpe`, a file is absent or damaged, or a point has no result yet.
    """
    if sweep["method"] != "tpe" or not sweep["table"] or not sweep["space"]:
        raise CanidsError("sweep: rounds need method: tpe, a space, and a table to append rows to")
    table = Path(sweep["table"])
    points, _ = read_points(table if table.exists() else results / "params.tsv", schema, sweep["name"])
    means = read_means(results / "results.csv", sweep["runs"][0])
    if waiting := [instance for instance in points if instance not in means]:
        raise CanidsError(f"{table}: {waiting[0]} has no result in {results}; run the sweep before the next round")
    past = [(values, means[instance]) for instance, values in points.items()]
    whole = whole_options(sweep["space"], schema)
    proposed = sample(sweep["space"], whole, "tpe", sweep["points"], sweep["seed"], past)
    numbers = [int(m[1]) for i in points if (m := re.fullmatch(re.escape(sweep["name"]) + r"-(\d+)", i))]
    first = max(numbers, default=-1) + 1
    return {**points, **{f"{sweep['name']}-{first + n:03d}": values for n, values in enumerate(proposed)}}


def main(options: argparse.Namespace) -> None:
    """Entry point."""
    with reading(options.config, "config", again="name the file with the section sweep"):
        section = yaml_file.load(options.config)["sweep"]
    sweep = check(section, load_schema(SCHEMA), where="sweep")
    path = checkout() / "modules" / sweep["stage"] / "config.schema.yaml"
    with reading(path, "schema", again="install canids from a checkout, which has the modules"):
        schema = load_schema(path, common=True)
    points = next_round(sweep, schema, options.results)
    write_text(Path(sweep["table"]), table_of(points))
    log.info("%s: %d points; run the sweep to train the new ones", sweep["table"], len(points))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="canids_shared.sweeps.next_round", description=__doc__)
    parser.add_argument("config", type=Path, help="config file with the section `sweep`")
    parser.add_argument("results", type=Path, help="folder with the results of all points")
    try:
        main(parser.parse_args())
    except CanidsError as error:
        sys.exit(f"error: {error}")
