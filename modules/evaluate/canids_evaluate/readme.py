"""Put the results of finished runs into a document.

    python -m canids_evaluate.readme [--folds] [--metrics METRIC …] [--methods METHOD …] [--marks NAME] --datasets DATASET … --document README.md

Every method on every scenario, from the `metrics.json` of the plain run and of all its seeds, between the marks
`<!-- results -->`; or, with `--folds`, on every fold, between the marks `<!-- folds -->`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canids_evaluate.compare import overview
from canids_evaluate.judging.evaluation import METRICS_CONTRACT, other_judgement, read
from canids_evaluate.pages.comparison import Line, fold_and_seed, lines_of
from canids_evaluate.pages.tables import COLUMNS
from canids_evaluate.runs.trainings import KINDS, read_config
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import VARIANTS
from canids_shared.tools.documents import insert


def _runs(dataset: str) -> list[Path]:
    """Evaluations of all variants and seeds, and the baselines.

    Raises `CanidsError` if one is missing, or naming all that are of other code or config than the plain run.
    """
    folder, baselines = Path("experimentruns") / dataset, Path("results") / dataset / "window_baselines"
    plain = [*(folder / f"eval_{v}" for v in VARIANTS), baselines]
    for run in plain:
        if not (run / "metrics.json").exists():
            raise CanidsError(f"{run}/metrics.json: no such file; run the pipeline first")
    seeds = [r for r in folder.glob("eval_*@*seed-*") if fold_and_seed("@" + r.name.partition("@")[2])[0] == ""]
    runs = plain + sorted(r for r in seeds if (r / "metrics.json").exists())
    if others := [f"{run} ({what})" for r in runs for run, what in _otherwise(r, plain[0]).items()]:
        raise CanidsError(f"{', '.join(others)}: not as in {plain[0]}; run again, or move away what is old")
    return runs


def _otherwise(run: Path, reference: Path) -> dict[Path, str]:
    """Of an evaluation and the trainings behind it, those that do not go with the plain ones, and in what they differ."""
    own, wanted = (read(r / "metrics.json", METRICS_CONTRACT) for r in (run, reference))
    found = {}
    # The baselines have an entry point, and so a hash, of their own.
    if own["variant"] is not None and own["code"] != wanted["code"]:
        found[run] = "other code"
    elif other := other_judgement(own["config"], wanted["config"]):
        found[run] = f"another {other[0]}"
    for kind in KINDS if own["instance"] else ():
        plain = run.with_name(f"{kind}_{own['variant']}")
        training = plain.with_name(plain.name + own["instance"])
        # An instance whose seed does not reach a stage has no training of its own there.
        if (training / "config.yaml").exists() and (plain / "config.yaml").exists():
            one, two = (_recipe(r / "config.yaml") for r in (training, plain))
            if differing := [what for what in one if one[what] != two[what]]:
                found[training] = f"other {' and '.join(differing)}"
    return found


def _recipe(config: Path) -> dict[str, Any]:
    """What seeds have in common."""
    content = read_config(config)
    spec = content["spec"]
    settings = {k: v for k, v in spec["config"].items() if k != "seed"}
    return {"code": spec["code"], "config": settings, "graphs": (content.get("inputs") or {}).get("graphs")}


def _kept(lines: list[Line], methods: Sequence[str]) -> list[Line]:
    """Those of the named methods, and all baselines; all of them if none is named."""
    return [line for line in lines if not methods or line.variant is None or line.method in methods]


def table(dataset: str, metrics: Sequence[str] = ("f1",), methods: Sequence[str] = ()) -> str:
    """Markdown tables, one a metric: a row per method and variant, a column per scenario."""
    lines = _kept(lines_of(_runs(dataset)), methods)
    return "\n\n".join([f"By window, dataset `{dataset}`:", *(overview(lines, m).markdown() for m in metrics)])


def folds_table(dataset: str, metrics: Sequence[str] = ("f1",), methods: Sequence[str] = ()) -> str:
    """Markdown tables, one a metric: a row per method and variant, a column per fold (`@without-…`; other pipelines' have a prefix).

    Raises `CanidsError` if no fold has been evaluated, or naming an evaluation that is of other code than the first.
    """
    folder, results = Path("experimentruns") / dataset, Path("results") / dataset
    found = sorted(folder.glob("eval_*@*/metrics.json"))
    evaluations = [p.parent for p in found if "@without-" in p.parent.name]
    if not evaluations:
        raise CanidsError(f"{folder}: no evaluation of a fold; make folds first")
    codes = {run: read(run / "metrics.json", METRICS_CONTRACT)["code"] for run in evaluations}
    if others := [str(run) for run, code in codes.items() if code != codes[evaluations[0]]]:
        raise CanidsError(f"{', '.join(others)}: other code than {evaluations[0]}; run again, or move away what is old")
    baselines = [p.parent for p in sorted(results.glob("window_baselines@without-*/metrics.json"))]
    lines = _kept(lines_of([*evaluations, *baselines]), methods)
    title = f"By window, on folds of the training captures of dataset `{dataset}`:"
    return "\n\n".join([title, *(overview(lines, m).markdown() for m in metrics)])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="canids_evaluate.readme", description="Results into a document.")
    parser.add_argument("--document", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--metrics", nargs="+", default=["f1"], choices=COLUMNS)
    parser.add_argument(
        "--methods", nargs="+", default=[], help="methods of the variants to show; baselines always are"
    )
    parser.add_argument("--folds", action="store_true", help="results on folds")
    parser.add_argument("--marks", help="name of the marks, instead of results or folds")
    given = parser.parse_args()
    make = folds_table if given.folds else table
    marks = given.marks or ("folds" if given.folds else "results")
    try:
        insert(given.document, marks, "\n\n".join(make(d, given.metrics, given.methods) for d in given.datasets))
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
