"""One table over folds, seeds, regimes and methods (rule `leaderboard`).

    python -m canids_evaluate.leaderboard --spec '{"wildcards": {"dataset": "leaderboard"}, "config": {"ablations": {}, "own_scores": {}, "enrolment": 60},
        "left_out": {"@without-kia": {"vehicles": ["kia"]}}}' --markdown leaderboard.md --csv leaderboard.csv --json leaderboard.json
        --page leaderboard.html --recall recall.svg --false_alarms false_alarms.svg --ablations ablations.svg
        --metrics eval_large@without-kia/metrics.json … --trainings gat_large@without-kia/run.json …

`curves.json` lies beside each `metrics.json`. Everything else is made of `leaderboard.json` (contract leaderboard/1), which carries
protocol, digests of the data, code and seeds.
"""

import csv
import json
import logging
from typing import Any

from canids_evaluate.pages import page, provenance
from canids_evaluate.pages.comparison import contents, results_of
from canids_evaluate.pages.tables import Table
from canids_evaluate.planning import BOARD_FIGURES
from canids_evaluate.standings import board_figures, board_pages, board_tables
from canids_evaluate.standings.document import Notes, document
from canids_shared.contracts import training_run
from canids_shared.contracts.evaluation import LEADERBOARD_CONTRACT
from canids_shared.contracts.whole import write_json
from canids_shared.files import write_text, written_whole
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

log = logging.getLogger(__name__)


def html(made: dict[str, Any], drawn: dict[str, str]) -> str:
    """The page; `drawn` are the figures as data URIs, by caption."""
    captures = [
        [name, *(str(c[k] or "–") for k in ("vehicle", "attack", "sha256"))]
        for name, c in made["data"]["captures"].items()
    ]
    warnings = board_pages.warnings(made)
    return page.render(
        title=f"Leaderboard on {made['dataset']}",
        short=page.plain({**({"Warnings": warnings} if warnings else {}), **board_pages.findings(made)}),
        overview=board_tables.overview(made),
        method=board_pages.METHOD.replace("`", ""),
        scenarios=[{"name": n, "counts": size, "tables": t} for n, size, t in board_pages.sections(made)],
        figures=drawn,
        facts={
            "Protocol": board_pages.provenance(made).replace("`", ""),
            "Code that made this page": provenance.code(),
        },
        tables={"Captures": Table(["Capture", "Vehicle", "Attack", "SHA-256"], captures, names=4)},
        configs={},
        cards={},
    )


def main(call: Call) -> None:
    """Entry point."""
    notes = Notes()
    results = results_of(notes.attend(contents(call.inputs["metrics"])))
    notes.trained(map(training_run.read, call.inputs["trainings"]))
    made = document(
        call.wildcards["dataset"],
        results,
        notes,
        left_out=call.constants["left_out"],
        ablations=call.config["ablations"],
        own=list(call.config["own_scores"]),
        enrolment=call.config["enrolment"],
    )
    # As its file has it, so that the other outputs are the same when they are made of the file.
    made = json.loads(json.dumps(made, sort_keys=True))
    for text in board_pages.warnings(made):
        log.warning("%s", text)
    write_json(call.output["json"], LEADERBOARD_CONTRACT, made)
    write_text(call.output["markdown"], board_pages.markdown(made))
    with written_whole(call.output["csv"]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(board_tables.CSV_COLUMNS)
        writer.writerows(board_tables.csv_rows(made))
    for name in BOARD_FIGURES:
        getattr(board_figures, name)(call.output[name], made)
    images = {caption: page.image(call.output[name]) for name, caption in board_figures.CAPTIONS.items()}
    write_text(call.output["page"], html(made, images))


if __name__ == "__main__":
    entry_point.run(main, inputs=["metrics", "trainings"], outputs=["json", "markdown", "csv", "page", *BOARD_FIGURES])
