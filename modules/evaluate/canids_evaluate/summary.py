"""Tables and figures of a dataset from its evaluations (rule `summary`).

python -m canids_evaluate.summary --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": {}}'
    --markdown results.md --csv results.csv --f1 f1.svg --detection_delay detection_delay.svg --roc roc.svg --pr pr.svg
    --timelines timelines.svg --policy policy.svg --confusion confusion.svg --distillation distillation.svg
    --metrics …/metrics.json … --curves …/curves.json …
"""

import csv
from collections.abc import Sequence
from typing import Any

from canids_evaluate.judging import paired
from canids_evaluate.judging.metrics import COUNTS, METRICS
from canids_evaluate.pages import curve_figures, figures, sentences, tables
from canids_evaluate.pages.rows import Methods, Row, by_scenario, methods_of, rows_of
from canids_evaluate.planning import FIGURES
from canids_shared.contracts.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, read_evaluation
from canids_shared.files import write_text, written_whole
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

STUDENTS = ("small_kd", "small_nokd")


def markdown(
    dataset: str, instance: str, rows: list[Row], sources: dict[str, Any], warnings: Sequence[str] = ()
) -> str:
    """The whole page; `sources` of the captures and `warnings` as in `curves.json`."""
    parts = [f"# Results on {dataset}{instance}", f"{tables.METHOD} {tables.UNDEFINED}: undefined."]
    if warnings:
        parts.append("\n".join(["Warnings:\n", *(f"- {warning}" for warning in warnings)]))
    for scenario, of_scenario in by_scenario(rows).items():
        results, differences = tables.results(of_scenario), tables.fusion_minus(of_scenario, "f1")
        parts += [
            f"## {scenario}",
            sentences.counts(of_scenario, sources),
            results.markdown(),
            sentences.verdict(of_scenario),
        ]
        parts.append(differences.markdown())
    return "\n\n".join(parts) + "\n"


def distillation(metrics: list[dict[str, Any]], curves: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scenario → method → differences (see `paired.differences`), the student with distillation minus that without.

    Empty unless both students are there.
    """
    results = {c["variant"]: c["scenarios"] for c in metrics}
    drawn = {c["variant"]: c["scenarios"] for c in curves}
    if not all(s in results for s in STUDENTS):
        return {}
    with_, without = STUDENTS
    return {
        scenario: {
            method: paired.differences(
                *(results[student][scenario][method] for student in STUDENTS),
                *(drawn[student][scenario]["replicates"][method] for student in STUDENTS),
            )
            for method in fusion_and_detectors(metrics).networks
            if method in results[without][scenario]
        }
        for scenario in sorted(results[with_])
    }


def sources_in(curves: list[dict[str, Any]]) -> dict[str, Any]:
    """Capture → its source, as the window baselines' `curves.json` has them."""
    return {name: s for c in curves for name, s in c.get("sources", {}).items()}


def warnings_in(curves: list[dict[str, Any]]) -> list[str]:
    """What the data warn of, as the window baselines' `curves.json` has it."""
    return [warning for c in curves for warning in c.get("warnings", [])]


def fusion_and_detectors(metrics: list[dict[str, Any]]) -> Methods:
    """The methods of the first variant, whose detectors are those of all variants."""
    return methods_of(next(c for c in metrics if c["variant"] is not None))


def _write_csv(call: Call, rows: list[Row]) -> None:
    with written_whole(call.output["csv"]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(tables.CSV_COLUMNS)
        for r in rows:
            ends = [end for m in METRICS for end in (r.values["intervals"][m] or (None, None))]
            values = [*(r.values[k] for k in METRICS), r.values["f1_optimal"]["f1"]]
            values += [r.values[k] for k in COUNTS]
            writer.writerow([call.wildcards["dataset"], call.instance, r.scenario, r.variant, r.method, *values, *ends])


def main(call: Call) -> None:
    """Entry point."""
    dataset = call.wildcards["dataset"]
    metrics = [read_evaluation(path, METRICS_CONTRACT, dataset=dataset) for path in call.inputs["metrics"]]
    curves = [read_evaluation(path, CURVES_CONTRACT, dataset=dataset) for path in call.inputs["curves"]]
    rows = rows_of(metrics)
    sources = sources_in(curves)
    page = markdown(call.wildcards["dataset"], call.instance, rows, sources, warnings_in(curves))
    write_text(call.output["markdown"], page)
    _write_csv(call, rows)
    figures.dots(call.output["f1"], rows, {"f1": "F1"})
    delay = {
        "detection_delay_s": "Mean detection delay (s), found episodes",
        "episodes_found": "Share of episodes found",
    }
    figures.dots(call.output["detection_delay"], rows, delay)
    teacher = [c for c in curves if c["variant"] in ("large", None)]
    curve_figures.roc(call.output["roc"], teacher)
    curve_figures.precision_recall(call.output["pr"], teacher)
    curve_figures.timelines(call.output["timelines"], teacher[0])
    curve_figures.policy(call.output["policy"], teacher[0])
    figures.confusion(call.output["confusion"], [r for r in rows if r.variant in ("large", None)])
    changes = distillation(metrics, curves)
    figures.distillation(call.output["distillation"], changes, fusion_and_detectors(metrics))


if __name__ == "__main__":
    entry_point.run(main, inputs=["metrics", "curves"], outputs=["markdown", "csv", *FIGURES])
