"""Put the results of finished runs into a document.

    python -m canids_evaluate.readme [--folds] [--metrics METRIC …] [--methods METHOD …] [--marks NAME] --datasets DATASET … --document README.md
    python -m canids_evaluate.readme --leaderboard results/leaderboard/leaderboard/leaderboard.json --document README.md

Every method on every scenario, from the `metrics.json` of the plain run and of all its seeds, between the marks
`<!-- results -->`; or, with `--folds`, on every fold, between the marks `<!-- folds -->`. With `--leaderboard` the head of a leaderboard, between the marks `<!-- leaderboard -->`, with the commit and the day.
"""

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canids_evaluate.compare import overview
from canids_evaluate.judging.evaluation import incompatible_settings
from canids_evaluate.pages.comparison import fold_and_seed, read_results
from canids_evaluate.pages.tables import COLUMNS
from canids_evaluate.runs.reading_log import commit
from canids_evaluate.standings import board_pages, board_tables
from canids_shared.contracts import training_run
from canids_shared.contracts.evaluation import METRICS_CONTRACT, read_evaluation, read_leaderboard
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.planning.pipeline import VARIANTS


def _runs(dataset: str) -> list[Path]:
    """Evaluations of all variants and seeds, and the baselines.

    Raises `CanidsError` if one is missing, or naming all that are of other code or config than the plain run.
    """
    folder, baselines = Path("experimentruns") / dataset, Path("results") / dataset / "window_baselines"
    plain = [*(folder / f"eval_{v}" for v in VARIANTS), baselines]
    for run in plain:
        if not (run / "metrics.json").exists():
            raise CanidsError(f"{run}/metrics.json: no such file; run the pipeline first")
    # `@seed-1` belongs to the plain run, `@without-dos-seed-1` to a fold.
    seeds = [r for r in folder.glob("eval_*@*seed-*") if fold_and_seed("@" + r.name.partition("@")[2])[0] == ""]
    runs = plain + sorted(r for r in seeds if (r / "metrics.json").exists())
    if others := [f"{run} ({what})" for r in runs for run, what in _differences(r, plain[0]).items()]:
        raise CanidsError(f"{', '.join(others)}: not as in {plain[0]}; run again, or move away what is old")
    return runs


def _differences(run: Path, reference: Path) -> dict[Path, str]:
    """An evaluation and the trainings behind it → their differences from the plain ones; those without any are left out."""
    ours, theirs = (read_evaluation(r / "metrics.json", METRICS_CONTRACT) for r in (run, reference))
    differences = {}
    # The window baselines have an entry point, and so a hash, of their own.
    if ours["variant"] is not None and ours["code"] != theirs["code"]:
        differences[run] = "other code"
    elif other := incompatible_settings(ours["config"], theirs["config"]):
        differences[run] = f"another {other[0]}"
    if not ours["instance"]:
        return differences
    # An instance whose seed does not reach a stage has no training of its own there.
    for record in sorted(run.parent.glob(f"*_{ours['variant']}{ours['instance']}/run.json")):
        training = record.parent
        plain = training.with_name(training.name.removesuffix(ours["instance"])) / "run.json"
        if plain.exists():
            one, two = (_recipe(training_run.read(r)) for r in (record, plain))
            if differing := [what for what in one if one[what] != two[what]]:
                differences[training] = f"other {' and '.join(differing)}"
    return differences


def _recipe(training: TrainingRun) -> dict[str, Any]:
    """The settings that seeds have in common."""
    settings = {k: v for k, v in training.config.items() if k != "seed"}
    return {"code": training.code, "config": settings, "graphs": training.input_digests.get("graphs")}


def _tables(title: str, runs: Sequence[Path], metrics: Sequence[str], methods: Sequence[str]) -> str:
    """A table a metric, of the named methods (all if none is named) and all window baselines."""
    kept = [r for r in read_results(runs) if not methods or r.variant is None or r.method in methods]
    return "\n\n".join([title, *(overview(kept, m).markdown() for m in metrics)])


def table(dataset: str, metrics: Sequence[str] = ("f1",), methods: Sequence[str] = ()) -> str:
    """Markdown tables, one a metric: a row per method and variant, a column per scenario."""
    return _tables(f"By window, dataset `{dataset}`:", _runs(dataset), metrics, methods)


def folds_table(dataset: str, metrics: Sequence[str] = ("f1",), methods: Sequence[str] = ()) -> str:
    """Markdown tables, one a metric: a row per method and variant, a column per fold (`@without-…`; other pipelines' have a prefix).

    Raises `CanidsError` if no fold has been evaluated, or naming an evaluation that is of other code than the first.
    """
    folder, results = Path("experimentruns") / dataset, Path("results") / dataset
    evaluations = [p.parent for p in sorted(folder.glob("eval_*@*/metrics.json")) if "@without-" in p.parent.name]
    if not evaluations:
        raise CanidsError(f"{folder}: no evaluation of a fold; make folds first")
    codes = {run: read_evaluation(run / "metrics.json", METRICS_CONTRACT)["code"] for run in evaluations}
    if others := [str(run) for run, code in codes.items() if code != codes[evaluations[0]]]:
        raise CanidsError(f"{', '.join(others)}: other code than {evaluations[0]}; run again, or move away what is old")
    baselines = [p.parent for p in sorted(results.glob("window_baselines@without-*/metrics.json"))]
    title = f"By window, on folds of the training captures of dataset `{dataset}`:"
    return _tables(title, [*evaluations, *baselines], metrics, methods)


def leaderboard_block(path: Path) -> str:
    """The overview of a `leaderboard.json`, what follows from it, how many warnings it has, and of which protocol, data, code and day it is."""
    made = read_leaderboard(path)
    revision, dirty = commit()
    of = f"commit `{revision[:10]}`{' with changes' if dirty else ''}" if revision else "an installed canids"
    day = datetime.date.today().isoformat()
    parts = [f"Put here on {day} by {of}. {board_pages.provenance(made)}", board_tables.overview(made).markdown()]
    parts += [f"**{heading}.** {' '.join(sentences)}" for heading, sentences in board_pages.findings(made).items()]
    if warnings := board_pages.warnings(made):
        parts.append(
            f"Warnings of the data: {len(warnings)}, by name in [`leaderboard.md`](modules/evaluate/README.md#leaderboard)."
        )
    return "\n\n".join(parts)


def insert(document: Path, mark: str, content: str) -> None:
    """Replace the text of a document between `<!-- mark -->` and `<!-- /mark -->`; the marks stay.

    Raises `CanidsError` naming the document if it lacks the marks.
    """
    text = document.read_text(encoding="utf-8")
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise CanidsError(f"{document}: no marks '{begin}' and '{end}'")
    write_text(document, f"{before}{begin}\n{content.strip()}\n{end}{after}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="canids_evaluate.readme", description="Results into a document.")
    parser.add_argument("--document", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--datasets", nargs="+")
    what.add_argument("--leaderboard", type=Path, help="a leaderboard.json")
    parser.add_argument("--metrics", nargs="+", default=["f1"], choices=COLUMNS)
    parser.add_argument(
        "--methods", nargs="+", default=[], help="methods of the variants to show; baselines always are"
    )
    parser.add_argument("--folds", action="store_true", help="results on folds")
    parser.add_argument("--marks", help="name of the marks, instead of results or folds")
    given = parser.parse_args()
    make = folds_table if given.folds else table
    marks = given.marks or ("leaderboard" if given.leaderboard else "folds" if given.folds else "results")
    try:
        if given.leaderboard:
            insert(given.document, marks, leaderboard_block(given.leaderboard))
            return
        insert(given.document, marks, "\n\n".join(make(d, given.metrics, given.methods) for d in given.datasets))
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
