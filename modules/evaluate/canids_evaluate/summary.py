"""Tables and figures of a dataset from what the evaluation rules found (rule `summary`).

python -m canids_evaluate.summary --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": {}}'
    --markdown results.md --csv results.csv --f1 f1.svg --detection_delay detection_delay.svg --roc roc.svg --pr pr.svg
    --timelines timelines.svg --policy policy.svg --confusion confusion.svg --distillation distillation.svg
    --metrics …/metrics.json … --curves …/curves.json …
"""

import csv
from typing import Any

from canids_evaluate.judging import paired
from canids_evaluate.judging.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, read
from canids_evaluate.judging.metrics import METRICS
from canids_evaluate.pages import curve_figures, figures, sentences, tables
from canids_evaluate.pages.rows import Row, by_scenario, rows_of
from canids_evaluate.planning import FIGURES
from canids_shared.files import write_text, written_whole
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

STUDENTS = ("small_kd", "small_nokd")


def markdown(dataset: str, instance: str, rows: list[Row]) -> str:
    """The whole page."""
    parts = [f"# Results on {dataset}{instance}", f"{tables.METHOD} {tables.UNDEFINED}: undefined."]
    for scenario, own in by_scenario(rows).items():
        parts += [f"## {scenario}", sentences.counts(own), tables.results(own).markdown(), sentences.verdict(own)]
        parts.append(tables.fusion_minus(own, "f1").markdown())
    return "\n\n".join(parts) + "\n"


def distillation(metrics: list[dict[str, Any]], curves: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scenario → method → difference (see `paired.differences`) of the student with distillation minus that without.

    Empty unless both students are there.
    """
    found = {c["variant"]: c["scenarios"] for c in metrics}
    drawn = {c["variant"]: c["scenarios"] for c in curves}
    if not all(s in found for s in STUDENTS):
        return {}
    with_, without = STUDENTS
    return {
        scenario: {
            method: paired.differences(
                methods[method],
                found[without][scenario][method],
                drawn[with_][scenario]["replicates"][method],
                drawn[without][scenario]["replicates"][method],
            )
            for method in ("fusion", "gat", "vgae")
        }
        for scenario, methods in sorted(found[with_].items())
    }


def _write_csv(call: Call, rows: list[Row]) -> None:
    bounds = [f"{m}_{end}" for m in METRICS for end in ("low", "high")]
    with written_whole(call.output["csv"]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        head = [
            "dataset",
            "instance",
            "scenario",
            "variant",
            "method",
            *METRICS,
            "f1_optimal",
            *sentences.COUNTS,
            *bounds,
        ]
        writer.writerow(head)
        for r in rows:
            ends = [end for m in METRICS for end in (r.values["intervals"][m] or (None, None))]
            values = [*(r.values[k] for k in METRICS), r.values["f1_optimal"]["f1"]]
            values += [r.values[k] for k in sentences.COUNTS]
            writer.writerow([call.wildcards["dataset"], call.instance, r.scenario, r.variant, r.method, *values, *ends])


def main(call: Call) -> None:
    """Entry point."""
    metrics = [read(path, METRICS_CONTRACT) for path in call.inputs["metrics"]]
    curves = [read(path, CURVES_CONTRACT) for path in call.inputs["curves"]]
    rows = rows_of(metrics)
    write_text(call.output["markdown"], markdown(call.wildcards["dataset"], call.instance, rows))
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
    figures.distillation(call.output["distillation"], distillation(metrics, curves))


if __name__ == "__main__":
    entry_point.run(main, inputs=["metrics", "curves"], outputs=["markdown", "csv", *FIGURES])
