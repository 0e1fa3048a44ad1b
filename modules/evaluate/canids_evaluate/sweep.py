"""A sweep, or a sub-space of it, in one table and three figures (rule `sweep`).

    python -m canids_evaluate.sweep --spec '{"wildcards": {"dataset": "simulated", "subspace": "all"}, "config": {"seed": 0, "trees": 200},
        "name": "sweep", "stage": "train_drl", "metric": {"dqn_small_nokd": "f1"}, "options": ["discount"]}'
        --markdown results.md --csv results.csv --params params.tsv --parallel parallel.svg --importance importance.svg
        --best best.svg --points …/select.json …

All results are on `select`. `params.tsv` has the points as a table that can be declared as the `table` of another sweep.
"""

import polars as pl
import yaml

from canids_evaluate.pages.tables import UNDEFINED, Table
from canids_evaluate.sweeps import sweep_figures
from canids_evaluate.sweeps.point_results import WORDS, PointResult, best_first, read_point_results, shown
from canids_evaluate.sweeps.study import Importance, importance
from canids_shared.files import write_text
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call
from canids_shared.sweeps.metrics import LOWER_IS_BETTER
from canids_shared.sweeps.points import nested, table_of

_DIGITS = 4
EXPLAINED = (
    "Share of the variance of the points' ranks that each option explains in a forest (functional ANOVA). "
    "Shares add up to 1 also where only chance separates the points."
)


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.{_DIGITS}g}"


def _level(ordered: list[PointResult]) -> str:
    """The best point's distance from the others, in words."""
    best = ordered[0]
    if best.interval is None:
        return "One seed: what lies between two points may be chance; `seeds: 3` shows how much."
    low, high = best.interval
    level = sum(low <= p.mean <= high for p in ordered[1:])
    return f"The means of {level} of the other {len(ordered) - 1} points lie within the best one's interval."


def markdown(call: Call, runs: dict[str, list[PointResult]], importances: dict[str, Importance]) -> str:
    """The whole page."""
    stage, name, subspace = (call.constants["stage"], call.constants["name"], call.wildcards["subspace"])
    parts = [
        f"# Sweep `{name}`: options of {stage} on {call.wildcards['dataset']}"
        + ("" if subspace == "all" else f", {subspace}"),
        "Every result is on `select`; no test scenario was read. Mean and, over seeds, standard deviation and 95 % interval "
        f"(Student's t). {UNDEFINED}: undefined.",
    ]
    for run, points in runs.items():
        ordered = best_first(points)
        metric, options = ordered[0].metric, list(ordered[0].values)
        better = "lower" if metric in LOWER_IS_BETTER else "higher"
        header = ["Point", *options, WORDS[metric], "± seeds", "95 % interval"]
        rows = [
            [
                p.instance,
                *(shown(p.values[o]) for o in options),
                f"**{_number(p.mean)}**" if p is ordered[0] else _number(p.mean),
                _number(p.deviation),
                f"[{_number(p.interval[0])}, {_number(p.interval[1])}]" if p.interval else UNDEFINED,
            ]
            for p in ordered
        ]
        chosen = yaml.safe_dump({stage: nested(ordered[0].values)}, sort_keys=False).strip()
        parts += [
            f"## {run}: {WORDS[metric]} ({better} is better)",
            f"Best on `select`: `{ordered[0].instance}`. {_level(ordered)}",
            f"```yaml\n{chosen}\n```",
            Table(header, rows).markdown(),
            _importance(importances[run]),
        ]
    parts.append("![Parallel coordinates](parallel.svg)\n![Importance](importance.svg)\n![Best points](best.svg)")
    return "\n\n".join(parts) + "\n"


def _importance(one: Importance) -> str:
    if not one.options:
        return one.caution
    shares = Table(["Option", "Importance"], [[option, f"{share:.2f}"] for option, share in one.options.items()])
    return f"{shares.markdown()}\n\n{EXPLAINED} {one.caution}".strip()


def table(runs: dict[str, list[PointResult]]) -> pl.DataFrame:
    """A row per run and point, the best of a run first."""
    rows = []
    for run, points in runs.items():
        for p in best_first(points):
            low, high = p.interval or (None, None)
            values = {option: shown(value) for option, value in p.values.items()}
            result = {"metric": p.metric, "mean": p.mean, "deviation": p.deviation, "low": low, "high": high}
            rows.append({"run": run, "instance": p.instance, **values, **result, "seeds": len(p.readings)})
    return pl.DataFrame(rows, infer_schema_length=None)


def main(call: Call) -> None:
    """Entry point."""
    runs = read_point_results(call.inputs["points"], call.constants["metric"], call.constants["options"])
    forest = (call.config["trees"], call.config["seed"])
    by_run = {run: importance(points, *forest) for run, points in runs.items()}
    write_text(call.output["markdown"], markdown(call, runs, by_run))
    write_text(call.output["csv"], table(runs).write_csv())
    first = next(iter(runs.values()))
    write_text(call.output["params"], table_of({p.instance: p.values for p in first}))
    sweep_figures.parallel(call.output["parallel"], runs)
    sweep_figures.importances(call.output["importance"], runs, by_run, *forest)
    sweep_figures.best(call.output["best"], runs)


if __name__ == "__main__":
    entry_point.run(main, inputs=["points"], outputs=["markdown", "csv", "params", "parallel", "importance", "best"])
