"""Evaluate the detectors, the fusion and the fusion baselines on every scenario (rules `eval_large`, `eval_small_kd`, `eval_small_nokd`).

    python -m canids_evaluate.evaluate --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": …,
        "variant": "large", "scenarios": ["test_known_attack"], "captures": []}' --metrics metrics.json --curves curves.json
        --calibrate calibrate.parquet --scenarios test_known_attack.parquet
        --window_baselines …/metrics.json --window_baseline_curves …/curves.json

The detectors that the decisions declare get their threshold from `calibrate`, and for scenarios with enrolled vehicles (`…_enrolled`)
from the vehicle's own windows in `--enrolment`, decisions on the split of that name; the fusion and the fusion baselines have alarms of
their own, and their score serves the ranking metrics (AUROC, PR-AUC) and the F1-optimal threshold. The window baselines are read
for the paired bootstrap: fusion minus each method on the same resamples.

Without a variant (rule `own_scores`) scores of anyone's detector are evaluated in the same way, with the graphs that their windows are of.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_evaluate.judging.evaluation import calibrated
from canids_evaluate.judging.scores import Scores
from canids_evaluate.runs.reading_log import record
from canids_evaluate.standings import own_scores
from canids_shared.alarm_rule import AlarmRule
from canids_shared.contracts.detectors import declared
from canids_shared.contracts.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, read_evaluation
from canids_shared.contracts.manifest import ENROLLED, ENROLMENT, SPLITS
from canids_shared.contracts.tables import DECISIONS, KEYS, read, read_metadata
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

BASELINE, SCORE, ALARM, UNLIKE = "baseline_", "_score", "_alarm", "unlike_"
"""Columns of a fusion baseline: `baseline_{name}_score`, `baseline_{name}_alarm`; of a detector `unlike_{name}`."""
_DECIDED = ("policy", "fusion_baselines", "fusion", "false_alarm_budget")
"""Keys of decisions' metadata that are the same in all files of a variant; `recalibrate` is the same in those of all scenarios."""


def fusion_baselines(path: Path, columns: list[str]) -> list[str]:
    """Names of the fusion baselines in a decisions file, sorted.

    Raises `CanidsError` naming file and column if one lacks its score or its alarm.
    """
    of_baselines = [c.removeprefix(BASELINE) for c in columns if c.startswith(BASELINE)]
    names = sorted({c.removesuffix(SCORE).removesuffix(ALARM) for c in of_baselines})
    for name in names:
        if missing := [c for end in (SCORE, ALARM) if (c := f"{BASELINE}{name}{end}") not in columns]:
            raise CanidsError(f"{path}: baseline '{name}' has no column '{missing[0]}'; delete it and run again")
    return names


def _rules(path: Path, header: dict[str, Any]) -> dict[str, AlarmRule]:
    try:
        return {method: AlarmRule.from_json(rule) for method, rule in header.get("rules", {}).items()}
    except ValueError:
        raise CanidsError(
            f"{path}: rules: evidence asks for more windows than it looks at; delete it and run again"
        ) from None


def scores_of(path: Path) -> Scores:
    """Scores and alarms of all methods in a decisions file.

    Raises `CanidsError` naming file and column if a score leaves [0, 1], a baseline lacks its score or its alarm, or a
    detector has the name of a baseline.
    """
    frame, header = read(path, DECISIONS)
    detectors = declared(header, path)
    baselines = fusion_baselines(path, frame.columns)
    if twice := [d.name for d in detectors if d.name in baselines]:
        raise CanidsError(
            f"{path}: '{twice[0]}' is the name of a detector and of a fusion baseline; rename one of them"
        )
    columns = {**{d.name: d.decided for d in detectors}, "fusion": "fusion_score"}
    columns |= {name: f"{BASELINE}{name}{SCORE}" for name in baselines}
    alarms = {"fusion": "alarm", **{name: f"{BASELINE}{name}{ALARM}" for name in baselines}}
    for column in columns.values():
        if len(frame) and not frame[column].is_between(0, 1).all():
            raise CanidsError(f"{path}: column '{column}' leaves [0, 1]; delete it and run again")
    # The policy's values explain the fusion only where the policy is the fusion.
    policy_decides = header.get("fusion", "dqn") == "dqn"
    return Scores(
        path=path,
        keys=frame.select(list(KEYS)),
        score={m: frame[c].cast(pl.Float64).to_numpy() for m, c in columns.items()},
        alarm={m: frame[c].to_numpy().astype(np.float32) > 0.5 for m, c in alarms.items()},
        detectors=detectors,
        action=frame["action"].to_numpy(),
        values={c: frame[c].to_numpy() for c in ("q_chosen", "q_other") if c in frame.columns and policy_decides},
        even_odds=header.get("even_odds", {}),
        even_odds_of=header.get("even_odds_of_vehicles", {}),
        rules=_rules(path, header),
        unlike={d.name: frame[c].to_numpy() > 0.5 for d in detectors if (c := f"{UNLIKE}{d.name}") in frame.columns},
    )


def refuse_mixture(calibrate: Path, others: Iterable[tuple[str, Path]], budget: float, **wanted: str) -> None:
    """Raise `CanidsError` naming the file whose decisions were made with other models or options than those on `calibrate`.

    Also if a file holds another split than its name says, or is not of the dataset and variant that are `wanted`, or if the fusion
    baselines keep to another false-alarm budget than `budget`, that of the detectors.
    """
    first = read_metadata(calibrate, DECISIONS, split="calibrate", **wanted)
    # Decisions from elsewhere may come without a budget.
    if (theirs := first.get("false_alarm_budget")) not in (None, budget):
        raise CanidsError(
            f"{calibrate}: decided with false_alarm_budget {theirs}, and evaluate.false_alarm_budget is {budget:g}; "
            "set both to the same"
        )
    judged = {path: read_metadata(path, DECISIONS, split=split, **wanted) for split, path in others}
    for path, header in judged.items():
        if other := [key for key in _DECIDED if header.get(key) != first.get(key)]:
            raise CanidsError(f"{path}: decided by another {other[0]} than {calibrate}; delete both and run again")
    # Only scenarios of vehicles that are not enrolled are recalibrated; a split of the training captures is judged as it is.
    recalibrated = {
        path: header.get("recalibrate")
        for path, header in judged.items()
        if header["split"] not in (*SPLITS, ENROLMENT) and not header["split"].endswith(ENROLLED)
    }
    for path, seconds in recalibrated.items():
        if seconds != next(iter(recalibrated.values())):
            raise CanidsError(
                f"{path}: decided by another recalibrate than {next(iter(recalibrated))}; delete both and run again"
            )


def main(call: Call) -> None:
    """Entry point."""
    variant, calibrate = call.constants["variant"], call.inputs["calibrate"][0]
    scenarios = dict(zip(call.constants["scenarios"], call.inputs["scenarios"], strict=True))
    enrolment = call.inputs.get("enrolment", [])
    dataset = call.wildcards["dataset"]
    read_scores: Callable[[Path], Scores] = own_scores.reader(call) if variant is None else scores_of
    if variant is not None:
        others = [*scenarios.items(), *((ENROLMENT, path) for path in enrolment)]
        refuse_mixture(calibrate, others, call.config["false_alarm_budget"], dataset=dataset, variant=variant)
    evaluation = calibrated(call.config, read_scores(calibrate))
    for path in enrolment:
        evaluation.enrol(read_scores(path))
    record(f"eval_{variant}" if variant else "own_scores", call.wildcards, call.constants["code"], list(scenarios))
    for scenario, path in scenarios.items():
        evaluation.add(scenario, read_scores(path).judged(scenario, call.constants["captures"]))
    if variant is None:
        evaluation.write(call, None)
        return
    (baselines,), (drawn,) = call.inputs["window_baselines"], call.inputs["window_baseline_curves"]
    evaluation.add_baselines(
        drawn,
        read_evaluation(baselines, METRICS_CONTRACT, dataset=dataset),
        read_evaluation(drawn, CURVES_CONTRACT, dataset=dataset),
    )
    evaluation.write(call, variant)


if __name__ == "__main__":
    entry_point.run(
        main,
        inputs=["calibrate", "scenarios", "enrolment", "window_baselines", "window_baseline_curves", "graphs"],
        outputs=["metrics", "curves"],
        alone="metrics",
    )
