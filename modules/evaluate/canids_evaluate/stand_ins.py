"""Stand-ins of this module's files (`stand_in: true`): an evaluation of eight made-up windows, and pages marked as stand-ins.

No score of a test scenario is read, so no reading is logged.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_evaluate.evaluate import fusion_baselines
from canids_evaluate.judging.evaluation import Evaluation, calibrated, sources_of
from canids_evaluate.judging.scores import Scores
from canids_evaluate.pages.rows import FUSION, WINDOW_BASELINES
from canids_evaluate.pages.tables import CSV_COLUMNS
from canids_evaluate.planning import BOARD_FIGURES, FIGURES, cards_on_command_line
from canids_evaluate.runs.measured import MEASURED
from canids_evaluate.standings import board_tables
from canids_evaluate.standings.document import PROTOCOL
from canids_evaluate.sweeps.point_results import CONTRACT as SELECT_CONTRACT
from canids_evaluate.watch.alarm_tracker import csv_schema, schema
from canids_shared.contracts import tables
from canids_shared.contracts.detectors import Detector, declared
from canids_shared.contracts.evaluation import (
    CURVES_CONTRACT,
    LEADERBOARD_CONTRACT,
    METRICS_CONTRACT,
    read_evaluation,
)
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.whole import write_json
from canids_shared.files import write_text
from canids_shared.jobs import stand_in_runner
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.stand_in_runner import StandIn
from canids_shared.sweeps.metrics import metrics_of

WINDOWS = 8


def _scores(path: Path, methods: list[str], alarms: list[str], detectors: tuple[Detector, ...]) -> Scores:
    """Windows of a second, two of them attacked, with scores of every method that find both."""
    attacked = np.arange(WINDOWS) // 2 == 1
    keys = pl.DataFrame(
        {
            "capture": ["stand-in"] * WINDOWS,
            "vehicle": ["stand-in"] * WINDOWS,
            "window": range(WINDOWS),
            "t_start": np.arange(WINDOWS, dtype=float),
            "t_end": np.arange(WINDOWS) + 0.9,
            "label": attacked.astype(np.uint8),
            "attack": ["stand-in" if a else "" for a in attacked],
        },
        schema=tables.KEYS,
    )
    score = dict.fromkeys(methods, attacked.astype(float))
    action = attacked.astype(np.int16) if FUSION in methods else None
    return Scores(path, keys, score, dict.fromkeys(alarms, attacked), detectors, action)


def _evaluated(call: Call, methods: list[str], alarms: list[str], detectors: tuple[Detector, ...] = ()) -> Evaluation:
    result = calibrated(call.config, _scores(call.inputs["calibrate"][0], methods, alarms, detectors))
    for path in call.inputs.get("enrolment", []):
        scores = _scores(path, methods, alarms, detectors)
        result.enrol(scores.only((scores.keys["label"] == 0).to_numpy()))
    for scenario, path in zip(call.constants["scenarios"], call.inputs["scenarios"], strict=True):
        result.add(scenario, _scores(path, methods, alarms, detectors))
    return result


def baselines(call: Call) -> None:
    """Metrics and curves of the window baselines."""
    stores = [
        GraphStore(path)
        for name in ("fit", "calibrate", "enrolment", "scenarios")
        for path in call.inputs.get(name, [])
    ]
    _evaluated(call, list(WINDOW_BASELINES), ["always_attack"]).write(
        call, None, sources=sources_of(stores), warnings=[]
    )


def evaluation(call: Call) -> None:
    """Metrics and curves of the methods in the decisions' header and columns."""
    path = call.inputs["calibrate"][0]
    if call.constants["variant"] is None:
        _evaluated(call, [call.constants["own"]], []).write(call, None)
        return
    detectors = declared(tables.read_metadata(path, tables.DECISIONS), path)
    alarms = [FUSION, *fusion_baselines(path, list(pl.read_parquet_schema(path)))]
    result = _evaluated(call, [*(d.name for d in detectors), *alarms], alarms, detectors)
    (metrics,), (drawn,) = call.inputs["window_baselines"], call.inputs["window_baseline_curves"]
    result.add_baselines(drawn, read_evaluation(metrics, METRICS_CONTRACT), read_evaluation(drawn, CURVES_CONTRACT))
    result.write(call, call.constants["variant"])


def summary(call: Call) -> None:
    """The table's header without a row."""
    with open(call.output["csv"], "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerow(CSV_COLUMNS)


def leaderboard(call: Call) -> None:
    """The document and the table's header without a method."""
    protocol = {"version": PROTOCOL, "config": {}, "enrolment": 0, "left_out": {}}
    empty: dict[str, Any] = {"code": {}, "seeds": [], "standings": [], "best": {}, "differences": [], "warnings": {}}
    empty |= {"data": {"captures": {}, "windows": {}}, "ablations": {"labels": {}, "missing": [], "changes": []}}
    content = {"dataset": call.wildcards["dataset"], "protocol": protocol, **empty}
    write_json(call.output["json"], LEADERBOARD_CONTRACT, content)
    write_text(call.output["csv"], ",".join(board_tables.CSV_COLUMNS) + "\n")


def alarms(call: Call) -> None:
    """No alarm."""
    (path,) = call.inputs["decisions"]
    detectors = declared(tables.read_metadata(path, tables.DECISIONS), path)
    pl.DataFrame(schema=schema(detectors)).write_parquet(call.output["alarms"])
    pl.DataFrame(schema=csv_schema(detectors)).write_csv(call.output["csv"])


def resources(call: Call) -> None:
    """No job, and a profile that asks for nothing."""
    tables.write(call.output["table"], MEASURED, pl.DataFrame(schema=MEASURED.columns), {})
    write_text(call.output["profile"], "set-resources: {}\n")


def point(call: Call) -> None:
    """A point's results: 1 for every metric."""
    metrics = {run: dict.fromkeys(metrics_of(run), 1.0) for run in call.constants["trainings"]}
    runs = {run: dict.fromkeys(call.constants["seeds"], values) for run, values in metrics.items()}
    head = {"dataset": call.wildcards["dataset"], "runs": runs}
    write_json(
        call.output["output"], SELECT_CONTRACT, {**head, **{key: call.constants[key] for key in ("instance", "values")}}
    )


def sweep(call: Call) -> None:
    """Tables' headers without a row."""
    write_text(call.output["csv"], "instance\n")
    write_text(call.output["params"], "instance\n")


STAND_INS = {
    "window_baselines": StandIn(baselines, ("metrics", "curves")),
    "evaluate": StandIn(evaluation, ("metrics", "curves")),
    "summary": StandIn(summary, ("markdown", "csv", *FIGURES)),
    "report": StandIn(outputs=("page", "learning", "cost", "resources", "time")),
    "alarms": StandIn(alarms, ("alarms", "csv", "figure", "summary")),
    "compare": StandIn(),
    "leaderboard": StandIn(leaderboard, outputs=("json", "markdown", "csv", "page", *BOARD_FIGURES)),
    "cards": StandIn(outputs=tuple(cards_on_command_line(sys.argv))),
    "resources": StandIn(resources, ("table", "markdown", "profile")),
    "sweep_point": StandIn(point),
    "sweep": StandIn(sweep, ("markdown", "csv", "params", "parallel", "importance", "best")),
}

if __name__ == "__main__":
    stand_in_runner.run(STAND_INS)
