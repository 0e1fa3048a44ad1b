"""Judge the detectors, the fusion and its fusion_baselines on every scenario (rules `eval_large`, `eval_small_kd`, `eval_small_nokd`).

    python -m canids_evaluate.evaluate --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": …,
        "variant": "large", "scenarios": ["test_known_attack"]}' --metrics metrics.json --curves curves.json
        --calibrate calibrate.parquet --scenarios test_known_attack.parquet
        --window_baselines …/metrics.json --window_baseline_curves …/curves.json

`gat` and `vgae` get their threshold from `calibrate`; the fusion and its fusion_baselines bring their own alarms, and their score
serves the ranking metrics (AUROC, PR-AUC) and the F1-optimal threshold. The baselines come along for the paired
bootstrap: fusion minus each method on the same resamples.
"""

from pathlib import Path

import numpy as np
import polars as pl

from canids_evaluate.judging.evaluation import CURVES_CONTRACT, METRICS_CONTRACT, Scores, judgement
from canids_evaluate.judging.evaluation import read as read_json
from canids_evaluate.runs.reading_log import record
from canids_shared.contracts.tables import DECISIONS, KEYS, read, read_metadata
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

_FUSION_BASELINE = "baseline_"
_DECIDED = ("policy", "fusion_baselines", "fusion", "recalibrate", "false_alarm_budget")
"""What the metadata of decisions say of how they came about: the same for all files of a variant."""


def scores_of(path: Path) -> Scores:
    """Scores and alarms of all methods in a decisions file.

    Raises `CanidsError` naming file and column if a score leaves [0, 1] or a baseline lacks its score or its alarm.
    """
    frame, head = read(path, DECISIONS)
    decides = head.get("fusion", "dqn") == "dqn"
    columns = {"gat": "gat_score", "vgae": "vgae_score", "fusion": "fusion_score"}
    alarms = {"fusion": "alarm"}
    ends = ("_score", "_alarm")
    for name in sorted(
        {c.removeprefix(_FUSION_BASELINE)[: -len(ends[0])] for c in frame.columns if _is_fusion_baseline(path, c, ends)}
    ):
        columns[name], alarms[name] = (f"{_FUSION_BASELINE}{name}{end}" for end in ends)
        if missing := [c for c in (columns[name], alarms[name]) if c not in frame.columns]:
            raise CanidsError(f"{path}: baseline '{name}' has no column '{missing[0]}'; delete it and run again")
    for column in columns.values():
        if len(frame) and not frame[column].is_between(0, 1).all():
            raise CanidsError(f"{path}: column '{column}' leaves [0, 1]; delete it and run again")
    return Scores(
        path=path,
        keys=frame.select(list(KEYS)),
        score={m: frame[c].cast(pl.Float64).to_numpy() for m, c in columns.items()},
        alarm={m: frame[c].to_numpy().astype(np.float32) > 0.5 for m, c in alarms.items()},
        action=frame["action"].to_numpy(),
        even_odds=head.get("even_odds", {}),
        # The policy's values explain the fusion only where the policy is the fusion.
        values={c: frame[c].to_numpy() for c in ("q_chosen", "q_other") if c in frame.columns and decides},
    )


def _is_fusion_baseline(path: Path, column: str, ends: tuple[str, ...]) -> bool:
    if not column.startswith(_FUSION_BASELINE):
        return False
    if not column.endswith(ends):
        raise CanidsError(f"{path}: column '{column}' is neither a baseline's score nor its alarm")
    return True


def refuse_mixture(calibrate: Path, scenarios: dict[str, Path], budget: float) -> None:
    """Raise `CanidsError` naming the file that was decided otherwise than `calibrate`, or on another split than its own.

    So is `calibrate` if its fusion_baselines keep to another false-alarm budget than `budget`, which the detectors are granted.
    """
    first = read_metadata(calibrate, DECISIONS)
    if (theirs := first.get("false_alarm_budget")) not in (None, budget):
        raise CanidsError(
            f"{calibrate}: decided with train_drl.false_alarm_budget {theirs:g}, and evaluate.false_alarm_rate is {budget:g}; "
            "set both to the same"
        )
    for split, path in {"calibrate": calibrate, **scenarios}.items():
        head = read_metadata(path, DECISIONS)
        if other := [key for key in _DECIDED if head.get(key) != first.get(key)]:
            raise CanidsError(f"{path}: decided by another {other[0]} than {calibrate}; delete both and run again")
        if head.get("split", split) != split:
            raise CanidsError(f"{path}: holds the decisions on '{head['split']}'; delete it and run again")


def main(call: Call) -> None:
    """Entry point."""
    variant, calibrate = call.constants["variant"], call.inputs["calibrate"][0]
    scenarios = dict(zip(call.constants["scenarios"], call.inputs["scenarios"], strict=True))
    refuse_mixture(calibrate, scenarios, call.config["false_alarm_rate"])
    judged = judgement(call.config, scores_of(calibrate))
    record(f"eval_{variant}", call.wildcards, call.constants["code"], list(scenarios))
    for scenario, path in scenarios.items():
        judged.add(scenario, scores_of(path))
    (baselines,), (drawn,) = call.inputs["window_baselines"], call.inputs["window_baseline_curves"]
    judged.add_baselines(drawn, read_json(baselines, METRICS_CONTRACT), read_json(drawn, CURVES_CONTRACT))
    judged.write(call, variant)


if __name__ == "__main__":
    entry_point.run(
        main,
        inputs=["calibrate", "scenarios", "window_baselines", "window_baseline_curves"],
        outputs=["metrics", "curves"],
        alone="metrics",
    )
