"""Stand-ins of this module's files (`stand_in: true`): a judgement of eight made-up windows, and pages that say what they are.

No score of a test scenario is read, and so none is logged as read.
"""

import csv
from pathlib import Path

import numpy as np
import polars as pl

from canids_evaluate.judging.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, Judgement, Scores, judgement
from canids_evaluate.judging.evaluation import read as read_json
from canids_evaluate.judging.metrics import METRICS
from canids_evaluate.pages.sentences import COUNTS
from canids_evaluate.planning import CARDS, FIGURES
from canids_evaluate.runs.measured import MEASURED
from canids_evaluate.sweep_point import CONTRACT as SELECT_CONTRACT
from canids_evaluate.watch.alarm_tracker import csv_schema, schema
from canids_shared.contracts import tables
from canids_shared.contracts.detectors import declared
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.files import write_json, write_text
from canids_shared.jobs import stand_in_runner
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.stand_in_runner import StandIn
from canids_shared.sweeps.metrics import metrics_of

WINDOWS = 8
BASELINES = ("id_rate", "extra_trees", "isolation_forest", "always_attack")


def _scores(path: Path, methods: list[str], alarms: list[str]) -> Scores:
    """Windows of a second, two of them attacked, which every method finds."""
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
    action = attacked.astype(np.int16) if "fusion" in methods else None
    return Scores(path, keys, dict.fromkeys(methods, attacked.astype(float)), dict.fromkeys(alarms, attacked), action)


def _judged(call: Call, methods: list[str], alarms: list[str]) -> Judgement:
    judged = judgement(call.config, _scores(call.inputs["calibrate"][0], methods, alarms))
    for scenario, path in zip(call.constants["scenarios"], call.inputs["scenarios"], strict=True):
        judged.add(scenario, _scores(path, methods, alarms))
    return judged


def baselines(call: Call) -> None:
    """Metrics and curves of the baselines."""
    stores = [GraphStore(path) for name in ("fit", "calibrate", "scenarios") for path in call.inputs[name]]
    sources = {name: store.header["sources"][name] for store in stores for name in store.header["captures"]}
    _judged(call, list(BASELINES), ["always_attack"]).write(call, None, sources=sources)


def evaluation(call: Call) -> None:
    """Metrics and curves of the methods that the decisions' columns name."""
    columns = pl.read_parquet_schema(call.inputs["calibrate"][0])
    fusion_baselines = [c.removeprefix("baseline_").removesuffix("_score") for c in columns if c.endswith("_score")]
    fusion_baselines = [name for name in fusion_baselines if f"baseline_{name}_alarm" in columns]
    judged = _judged(call, ["gat", "vgae", "fusion", *fusion_baselines], ["fusion", *fusion_baselines])
    (found,), (drawn,) = call.inputs["window_baselines"], call.inputs["window_baseline_curves"]
    judged.add_baselines(drawn, read_json(found, METRICS_CONTRACT), read_json(drawn, CURVES_CONTRACT))
    judged.write(call, call.constants["variant"])


def summary(call: Call) -> None:
    """The table's head without a row."""
    ends = [f"{metric}_{end}" for metric in METRICS for end in ("low", "high")]
    head = ["dataset", "instance", "scenario", "variant", "method", *METRICS, "f1_optimal", *COUNTS, *ends]
    with open(call.output["csv"], "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerow(head)


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
    head = {"contract": SELECT_CONTRACT, "dataset": call.wildcards["dataset"], "runs": runs}
    write_json(call.output["output"], {**head, **{key: call.constants[key] for key in ("instance", "values")}})


def sweep(call: Call) -> None:
    """Tables' heads without a row."""
    write_text(call.output["csv"], "instance\n")
    write_text(call.output["params"], "instance\n")


STAND_INS = {
    "window_baselines": StandIn(baselines, ("metrics", "curves")),
    "evaluate": StandIn(evaluation, ("metrics", "curves")),
    "summary": StandIn(summary, ("markdown", "csv", *FIGURES)),
    "report": StandIn(outputs=("page", "learning", "cost", "resources")),
    "alarms": StandIn(alarms, ("alarms", "csv", "figure", "summary")),
    "compare": StandIn(),
    "cards": StandIn(outputs=tuple(CARDS)),
    "resources": StandIn(resources, ("table", "markdown", "profile")),
    "sweep_point": StandIn(point),
    "sweep": StandIn(sweep, ("markdown", "csv", "params", "parallel", "importance", "best")),
}

if __name__ == "__main__":
    stand_in_runner.run(STAND_INS)
