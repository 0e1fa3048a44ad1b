"""One self-contained HTML page on a dataset, with the figures of its runs (rule `report`).

python -m canids_evaluate.report --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": {}}'
    --page report.html --learning learning.svg --cost cost.svg --resources resources.svg --time time.svg
    --metrics …/metrics.json … --curves …/curves.json … --figures f1.svg … --trainings …/run.json …
    --benchmarks …/benchmark.tsv … --cards …/gat_large.md …
"""

from typing import Any

import polars as pl
import yaml

from canids_evaluate.pages import page, provenance, run_figures, sentences, tables
from canids_evaluate.pages.rows import Methods, Row, by_scenario, plain, rows_of
from canids_evaluate.runs.measured import measured, time_by_rule
from canids_evaluate.runs.trainings import read_cost
from canids_evaluate.summary import distillation, fusion_and_detectors, sources_in, warnings_in
from canids_shared.contracts import training_run
from canids_shared.contracts.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, read_evaluation
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.files import write_text
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

CAPTIONS = {
    "f1": "F1 by window; bars are 95 % intervals.",
    "detection_delay": "Detection delay over the episodes that were found, and how many were found.",
    "roc": "ROC curves of the teacher and the baselines; the false-positive rate is on a logarithmic axis.",
    "pr": "Precision and recall of the teacher and the baselines.",
    "timelines": "Scores over time in the first capture of each kind of attack; attacks are shaded.",
    "policy": "The teacher's policy as an attack begins and ends, window by window: scores, alarms (bars above: the fusion, then its "
    "detectors), and the values of its action and of the best other one.",
    "confusion": "Share of windows that are alarmed, in percent, by kind of attack: teacher and baselines.",
    "distillation": "Effect of distillation on the student; paired 95 % intervals.",
    "learning": "Learning curves. With distillation the loss on fit holds the distance to the teacher as well.",
    "cost": "F1 against the number of parameters, inference latency (median over windows, one at a time) and "
    "training time; a detector counts its training, the fusion all trainings of its variant.",
    "resources": "Time and peak memory of every run.",
    "time": "Where the time went: all finished jobs of the dataset, by stage and rule, with the number of jobs. Start-up is the time "
    "until everything is imported. Jobs whose files came from the cache took none.",
}
"""Figure → caption, in the order of the page."""


def _scenario(name: str, rows: list[Row], sources: dict[str, Any]) -> dict[str, Any]:
    attacks = tables.parts(rows, "per_attack", "f1")
    captures = tables.parts(rows, "per_capture", "f1")
    shown = {
        "Every method:": tables.results(rows),
        "The fusion minus each method, F1:": tables.fusion_minus(rows, "f1"),
        "The fusion minus each method, AUROC:": tables.fusion_minus(rows, "auroc"),
        "F1 by kind of attack (its windows and the attack-free ones of the same captures):": attacks,
        "F1 by capture:": captures,
    }
    return {
        "name": name,
        "counts": sentences.counts(rows, sources),
        "tables": {k: t for k, t in shown.items() if t.rows},
    }


def _short(rows: dict[str, list[Row]], changes: dict[str, dict[str, Any]], methods: Methods) -> dict[str, list[str]]:
    short = {}
    for scenario, of_scenario in rows.items():
        short[plain(scenario)] = sentences.findings(of_scenario)
        if scenario in changes:
            short[plain(scenario)].append(sentences.distillation(changes[scenario], methods))
    return short


def _config(training: TrainingRun) -> str:
    content = {"config": training.config, "inputs": training.inputs}
    return yaml.safe_dump(content, sort_keys=True, allow_unicode=True)


def _jobs(call: Call) -> pl.DataFrame:
    """Time of the dataset's jobs by rule, from their logs, which stand beside the results and are no output of any rule."""
    runs, results = (call.inputs[name][0].parent.parent.parent for name in ("benchmarks", "figures"))
    return time_by_rule(measured(runs, results, call.wildcards["dataset"]))


def _share_of_starts(jobs: pl.DataFrame) -> str:
    """Time of all jobs, and which part of it was start-up."""
    start, work, count = (float(jobs[column].sum()) for column in ("start", "work", "jobs"))
    share = f", {start / (start + work):.0%} of it start-up" if start + work else ""
    return f"{start + work:,.0f} s in {count:,.0f} jobs{share}"


def main(call: Call) -> None:
    """Entry point."""
    inputs, dataset = call.inputs, call.wildcards["dataset"]
    metrics = [read_evaluation(path, METRICS_CONTRACT, dataset=dataset) for path in inputs["metrics"]]
    curves = [read_evaluation(path, CURVES_CONTRACT, dataset=dataset) for path in inputs["curves"]]
    trainings = [training_run.read(path) for path in inputs["trainings"]]
    costs = {path.parent.name: read_cost(path) for path in inputs["benchmarks"]}
    rows = rows_of(metrics)
    run_figures.learning(call.output["learning"], trainings)
    run_figures.cost(call.output["cost"], rows, trainings, costs)
    run_figures.resources(call.output["resources"], costs)
    jobs = _jobs(call)
    run_figures.time(call.output["time"], jobs)
    drawn = {**{path.stem: path for path in inputs["figures"]}, **call.output}
    sources = sources_in(curves)
    facts = {"Code that made this report": provenance.code(), "Machine that made this report": provenance.machine()}
    facts["Time of the dataset's jobs"] = _share_of_starts(jobs)
    origins = {
        "Evaluations": provenance.evaluations(metrics),
        "Trainings": provenance.runs(trainings),
        "Captures": provenance.captures(sources),
        "Packages in the environment that made this report": provenance.packages(),
    }
    warnings = warnings_in(curves)
    grouped, changes = by_scenario(rows), distillation(metrics, curves)
    content = page.render(
        title=f"Results on {dataset}{call.instance}",
        short={
            **(page.plain({"Warnings": warnings}) if warnings else {}),
            **_short(grouped, changes, fusion_and_detectors(metrics)),
        },
        overview=None,
        method=tables.METHOD,
        scenarios=[_scenario(scenario, of_scenario, sources) for scenario, of_scenario in grouped.items()],
        figures={caption: page.image(drawn[name]) for name, caption in CAPTIONS.items()},
        facts=facts,
        tables={title: table for title, table in origins.items() if table.rows},
        configs={t.name: _config(t) for t in trainings},
        cards={path.stem: path.read_text(encoding="utf-8") for path in inputs["cards"]},
    )
    write_text(call.output["page"], content)


if __name__ == "__main__":
    entry_point.run(
        main,
        inputs=["metrics", "curves", "figures", "trainings", "benchmarks", "cards"],
        outputs=["page", "learning", "cost", "resources", "time"],
    )
