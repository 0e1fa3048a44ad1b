"""Tables and figures of a dataset from what the evaluation rules found (rule `summary`).

python -m canids_evaluate.summary --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": {}}'
    --markdown results.md --csv results.csv --f1 f1.svg --delay detection_delay.svg --roc roc.svg --pr pr.svg
    --timelines timelines.svg --metrics …/metrics.json … --curves …/curves.json …
"""

import csv
from dataclasses import dataclass
from typing import Any

from canids_evaluate import figures
from canids_evaluate.judgement import CURVES_CONTRACT, METRICS_CONTRACT, read
from canids_evaluate.metrics import METRICS
from canids_shared import cli
from canids_shared.cli import Call
from canids_shared.errors import CanidsError
from canids_shared.files import write_text, written_whole

COUNTS = ("n_windows", "n_attacked", "n_episodes")
COLUMNS = {
    "f1": "F1 [95 % interval]",
    "precision": "Precision",
    "recall": "Recall",
    "auroc": "AUROC",
    "pr_auc": "PR-AUC",
    "fpr": "FPR",
    "false_alarms_per_hour": "False alarms/h",
    "detection_delay_s": "Delay (s)",
    "episodes_found": "Episodes found",
}
_DIGITS = {"f1": 4, "fpr": 4, "false_alarms_per_hour": 1}
UNDEFINED = "–"


@dataclass(frozen=True)
class Row:
    """One method of one variant (None: a baseline) on one scenario."""

    scenario: str
    variant: str | None
    method: str
    values: dict[str, Any]


def rows_of(contents: list[dict[str, Any]]) -> list[Row]:
    """Rows of all metrics files: scenario by scenario, within it in the order of the files, the fusion first.

    Raises `CanidsError` if the files do not speak of the same scenarios.
    """
    scenarios = list(dict.fromkeys(s for c in contents for s in c["scenarios"]))
    rows = []
    for scenario in sorted(scenarios):
        for content in contents:
            if scenario not in content["scenarios"]:
                name = content["variant"] or "baselines"
                raise CanidsError(
                    f"scenario '{scenario}' is missing from the metrics of {name}; delete them and run again"
                )
            methods = content["scenarios"][scenario]
            for method in sorted(methods, key=lambda m: (figures.rank(m), m)):
                rows.append(Row(scenario, content["variant"], method, methods[method]))
    return rows


def _cell(row: Row, metric: str, best: float | None) -> str:
    value = row.values[metric]
    if value is None:
        return UNDEFINED
    digits = _DIGITS.get(metric, 3)
    text = f"{value:.{digits}f}"
    if metric != "f1":
        return text
    if value == best:
        text = f"**{text}**"
    interval = row.values["intervals"][metric]
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text


def table(rows: list[Row]) -> str:
    """Markdown table of one scenario; the best F1 is bold."""
    best = max((r.values["f1"] for r in rows if r.values["f1"] is not None), default=None)
    lines = [
        "| Method | Variant | " + " | ".join(COLUMNS.values()) + " |",
        "|---|---|" + "---:|" * len(COLUMNS),
    ]
    for row in rows:
        cells = [figures.label(row.method), row.variant or UNDEFINED, *(_cell(row, m, best) for m in COLUMNS)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(rows: list[Row]) -> str:
    """In words: which baselines have a better F1 than the best fusion of the scenario, and whether that is certain."""
    fusions = [r for r in rows if r.method == "fusion" and r.values["f1"] is not None]
    if not fusions:
        return "F1 is undefined here: the scenario has no attacked windows."
    fusion = max(fusions, key=lambda r: float(r.values["f1"]))
    reached = f"the best fusion ({fusion.variant}, F1 {fusion.values['f1']:.4f})"
    rivals = [r for r in rows if r.variant is None and r.values["f1"] is not None]
    better = sorted((r for r in rivals if r.values["f1"] > fusion.values["f1"]), key=lambda r: -float(r.values["f1"]))
    if not better:
        return f"No baseline beats {reached}."
    return " ".join(
        f"{figures.label(r.method)} (F1 {r.values['f1']:.4f}) beats {reached}{_overlap(r, fusion)}." for r in better
    )


def _overlap(one: Row, other: Row) -> str:
    a, b = one.values["intervals"]["f1"], other.values["intervals"]["f1"]
    if not a or not b:
        return ""
    apart = a[0] > b[1] or b[0] > a[1]
    return "; their intervals do not overlap" if apart else "; their intervals overlap"


def markdown(dataset: str, instance: str, rows: list[Row]) -> str:
    """The whole page."""
    parts = [
        f"# Results on {dataset}{instance}",
        "Alarms of GAT, VGAE and the baselines: threshold set to the false-alarm budget on attack-free `calibrate` "
        "windows. The fusion and its rivals bring their own alarms. Intervals: bootstrap over attack episodes and "
        f"attack-free stretches. {UNDEFINED}: undefined.",
    ]
    for scenario in dict.fromkeys(r.scenario for r in rows):
        own = [r for r in rows if r.scenario == scenario]
        windows, attacked, episodes = (own[0].values[c] for c in COUNTS)
        counts = f"{windows} windows, {attacked} attacked, in {episodes} attack episodes."
        parts += [f"## {scenario}", counts, table(own), verdict(own)]
    return "\n\n".join(parts) + "\n"


def _write_csv(call: Call, rows: list[Row]) -> None:
    bounds = [f"{m}_{end}" for m in METRICS for end in ("low", "high")]
    with written_whole(call.output["csv"]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["dataset", "instance", "scenario", "variant", "method", *METRICS, *COUNTS, *bounds])
        for r in rows:
            ends = [end for m in METRICS for end in (r.values["intervals"][m] or (None, None))]
            values = [r.values[k] for k in (*METRICS, *COUNTS)]
            writer.writerow([call.wildcards["dataset"], call.instance, r.scenario, r.variant, r.method, *values, *ends])


def main(call: Call) -> None:
    """Entry point."""
    rows = rows_of([read(path, METRICS_CONTRACT) for path in call.inputs["metrics"]])
    write_text(call.output["markdown"], markdown(call.wildcards["dataset"], call.instance, rows))
    _write_csv(call, rows)
    points = [figures.Points(r.scenario, r.variant, r.method, r.values) for r in rows]
    figures.dots(call.output["f1"], points, {"f1": "F1"})
    delay = {
        "detection_delay_s": "Mean detection delay (s), found episodes",
        "episodes_found": "Share of episodes found",
    }
    figures.dots(call.output["delay"], points, delay)
    curves = [read(path, CURVES_CONTRACT) for path in call.inputs["curves"]]
    teacher = [c for c in curves if c["variant"] in ("large", None)]
    figures.roc(call.output["roc"], teacher)
    figures.precision_recall(call.output["pr"], teacher)
    figures.timelines(call.output["timelines"], teacher[0])


if __name__ == "__main__":
    cli.run(
        main,
        inputs=["metrics", "curves"],
        outputs=["markdown", "csv", "f1", "delay", "roc", "pr", "timelines"],
    )
