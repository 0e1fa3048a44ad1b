"""Apply a policy and its fusion baselines to the states of a split (rule decisions).

    python -m canids_train_drl.decide --spec JSON --output decisions.parquet --states states.parquet
        [--model model.safetensors] --fusion_baselines fusion_baselines.safetensors [--enrolment enrolment.parquet]

Without a policy, where there was no attack to train one on, the threshold among the fusion baselines decides.

With a list `each` of splits in the spec, as many outputs and tables of states.
Every segment of a capture is played from its beginning, with the alarm off, window by window: a decision depends on that
window and those before it alone. Runs on the CPU, so that decisions do not depend on where a policy was trained. What the config's
`fusion` names becomes the fusion; the policy, where it is not that, is a baseline like the others. With `recalibrate`, the scales
of the detectors' scores are fitted to the first seconds of each capture, whose windows are then not decided on by the past
alone. The splits of the training captures keep the scales that the policy learnt with: these captures are what they were fitted to.
Alarms of every fusion are held to its rule (`environment/holding.py`). In scenarios with enrolled vehicles (`…_enrolled`), and on the split
`enrolment` itself, the rules' thresholds are set by the vehicle's own windows in `--enrolment`, and the scale of a detector that finds them unlike training.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from canids_shared.alarm_rule import FEWEST_WINDOWS, AlarmRule, enrolled_vehicles
from canids_shared.contracts import detectors, tables
from canids_shared.contracts.manifest import ENROLLED, ENROLMENT, SPLITS
from canids_shared.contracts.model_file import refuse_mixture
from canids_shared.contracts.tables import DECISIONS
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of
from canids_shared.jobs import entry_point
from canids_train_drl.agent.policy import Policy
from canids_train_drl.environment import states
from canids_train_drl.environment.fusion_data import as_recorded
from canids_train_drl.environment.holding import UNHELD, enrolled_rule, held
from canids_train_drl.environment.observation import Observer
from canids_train_drl.environment.rollout import Fusion
from canids_train_drl.environment.states import States
from canids_train_drl.environment.unlike import over
from canids_train_drl.fusion_baselines import THRESHOLD
from canids_train_drl.fusion_baselines.stored import FusionBaselines

log = logging.getLogger(__name__)
UNLIKE = "unlike_"
"""Prefix of the columns that say which detectors find the traffic unlike training."""
Decider = Policy | FusionBaselines
"""What has the observer through which windows are seen."""
Rules = Mapping[str, AlarmRule]
"""Fusion → what its alarms are held to."""
_UNHELD: Rules = {}
STRANGE = 0.5
"""Share of the windows of an enrolment in which a detector finds them unlike its training, above which it gets a scale of the vehicle's."""


def refitted(policy: Decider, attack_free: States) -> Decider:
    """The policy (or fusion baselines) with scales fitted to windows of a vehicle that are taken to be attack-free."""
    labels = np.zeros(len(attack_free), dtype=np.int8)
    observer = policy.observer
    config = {"history": asdict(observer), "raw_columns": observer.raw}
    return replace(policy, observer=Observer.fit(replace(attack_free, labels=labels), config))


def _with_scales(policy: Decider, attack_free: States, strange: np.ndarray) -> Decider:
    """The policy (or fusion baselines) with the scales of the detectors `strange` [D] fitted to attack-free windows of a vehicle."""
    old, new = policy.observer, refitted(policy, attack_free).observer
    chosen = [new if is_strange else old for is_strange in strange]
    scales = tuple(observer.scales[number] for number, observer in enumerate(chosen))
    usual = tuple(observer.usual[number] for number, observer in enumerate(chosen))
    return replace(policy, observer=replace(old, scales=scales, usual=usual))


def rules_of(decider: Decider, baselines: FusionBaselines) -> Rules:
    """What the alarms of each fusion are held to."""
    return {**baselines.rules, **({"dqn": decider.rule} if isinstance(decider, Policy) else {})}


def recalibrated(policy: Decider, split: States, seconds: float) -> Decider:
    """The policy (or fusion baselines) with scales fitted to the first seconds of a capture, which are taken to be attack-free.

    Raises `CanidsError` if they hold too few windows, or windows labelled as attacked.
    """
    first = np.flatnonzero(split.keys["t_end"] - split.keys["t_start"].min() <= seconds)
    where = f"first {seconds:g} s"
    if len(first) < FEWEST_WINDOWS:
        raise CanidsError(
            f"{split.path}: {split.keys['capture'][0]} has {len(first)} windows in its {where}, too few to fit scales to; "
            f"set recalibrate to more seconds ({FEWEST_WINDOWS} windows at least)"
        )
    if (split.labels[first] == 1).any():
        raise CanidsError(
            f"{split.path}: the {where} of {split.keys['capture'][0]} hold windows labelled as attacked; set recalibrate to fewer seconds"
        )
    return refitted(policy, split.select(first))


def enrolled(decider: Decider, baselines: FusionBaselines, enrolment: States) -> tuple[Decider, Rules]:
    """What decides on a vehicle, and the rules of its fusions, fitted to the vehicle's windows in the split `enrolment`.

    The scale of a detector that finds the vehicle unlike all that it was trained on is fitted to the vehicle's own windows; the others
    keep theirs, which many vehicles made: scales of a minute alone took the policy's false alarms from 2 to 600 an hour on the folds.
    """
    vehicle = enrolment.keys["vehicle"][0]
    unlike, _ = over(decider.observer, enrolment.values, enrolment.segments)
    strange, rules = unlike.mean(axis=0) > STRANGE, rules_of(decider, baselines)
    own = _with_scales(decider, enrolment, strange) if strange.any() else decider
    fusions = {**baselines.fusions, **({"dqn": own} if isinstance(own, Policy) else {})}
    return own, {
        name: enrolled_rule(fusion, own.observer, rules[name], enrolment, vehicle, baselines.budget)
        for name, fusion in fusions.items()
    }


def _enrolment(split: States) -> dict[str, States]:
    """The windows of each vehicle that the split `enrolment` enrols; the log names those with too few.

    Raises `CanidsError` naming the vehicle that has windows labelled as attacked.
    """
    if (attacked := split.labels == 1).any():
        raise CanidsError(
            f"{split.path}: {split.keys['vehicle'].filter(attacked)[0]} has windows labelled as attacked, "
            "and is enrolled by attack-free ones alone"
        )
    enough, few = enrolled_vehicles(split.keys)
    for reason in few:
        log.warning("%s: %s", split.path, reason)
    return {vehicle: part for vehicle, part in states.by("vehicle", split).items() if vehicle in enough}


def decide(
    policy: Decider,
    fusion_baselines: Mapping[str, Fusion],
    split: States,
    fusion: str = "dqn",
    rules: Rules = _UNHELD,
    all_vote: bool = False,
) -> pl.DataFrame:
    """Decisions (contract `decisions/4`) on every window of `split`.

    The columns of a baseline are `baseline_{name}_score` and `baseline_{name}_alarm`; `q_chosen` and `q_other` are the policy's
    values of the action it takes and of the best other one. Where fusion baselines stand in place of the policy, there are none.
    `unlike_{detector}` is 1 where a detector says that the traffic is unlike training, and has no vote (`environment/unlike.py`); with
    `all_vote` none says so, as for the splits of the training captures, whose blocks may begin with an attack.

    Raises `CanidsError` if the detectors' outputs are not those that the policy was trained on.
    """
    policy.observer.check_columns(split)
    unlike, voting = over(policy.observer, split.values, split.segments)
    if all_vote:
        unlike, voting = np.zeros_like(unlike), split.values
    windows = as_recorded(replace(split, values=voting), policy.observer)
    deciding: dict[str, Fusion] = {**fusion_baselines, **({"dqn": policy} if isinstance(policy, Policy) else {})}
    vehicle = split.keys["vehicle"]
    outputs = {
        name: held(each.step(windows, None)[0], rules.get(name, UNHELD), vehicle, split.segments)
        for name, each in deciding.items()
    }
    if fusion not in outputs:
        raise CanidsError(f"fusion: '{fusion}' is none of the fusion baselines that were fitted ({', '.join(outputs)})")
    played, decided = outputs["dqn"].rollout if "dqn" in outputs else None, outputs.pop(fusion)
    values = {"q_chosen": played.q_chosen, "q_other": played.q_other} if played else {}
    others = {
        f"baseline_{name}_{what}": pl.Series(column.astype(np.float32))
        for name, output in outputs.items()
        for what, column in (("score", output.score), ("alarm", output.alarm))
    }
    scores = policy.observer.scores(split.values)
    return split.keys.with_columns(
        *(pl.Series(detector.decided, scores[:, d]) for d, detector in enumerate(split.detectors)),
        fusion_score=pl.Series(decided.score),
        alarm=pl.Series(decided.alarm),
        action=pl.Series(decided.action),
        **{name: pl.Series(value[0].numpy()) for name, value in values.items()},
        **others,
        **{f"{UNLIKE}{d.name}": pl.Series(unlike[:, n].astype(np.float32)) for n, d in enumerate(split.detectors)},
    )


def decide_enrolled(
    policy: Decider, baselines: FusionBaselines, split: States, enrolment: dict[str, States], fusion: str
) -> tuple[pl.DataFrame, Rules, dict[str, dict[str, float]]]:
    """Decisions on each vehicle of `split` with what is fitted to its `enrolment`; as if never met where it has none.

    Returns them, the fusions' rules, and the detectors' scores of even odds by vehicle.
    """
    rules, even_odds = rules_of(policy, baselines), {}
    parts = [decide(policy, baselines.fusions, split.select(np.arange(0)), fusion)]
    for vehicle, part in states.by("vehicle", split).items():
        own, of_vehicle = enrolled(policy, baselines, enrolment[vehicle]) if vehicle in enrolment else (policy, rules)
        rules = {
            name: replace(rule, vehicles={**rule.vehicles, **of_vehicle[name].vehicles}) for name, rule in rules.items()
        }
        even_odds[vehicle] = own.observer.even_odds()
        parts.append(decide(own, baselines.fusions, part, fusion, rules))
    # Back to the order of the file, in which the captures of a vehicle need not lie side by side.
    row = np.concatenate([np.flatnonzero(split.keys["vehicle"] == vehicle) for vehicle in even_odds] or [np.arange(0)])
    return pl.concat(parts)[np.argsort(row)], rules, even_odds


def load(model: Path | None, fusion_baselines: Path) -> tuple[Decider, FusionBaselines]:
    """A policy (or, without one, the fusion baselines in its place) and its fusion baselines.

    Raises `CanidsError` naming the file that is damaged or learnt from other detectors.
    """
    if model is None:
        alone = FusionBaselines.load(fusion_baselines)
        return alone, alone
    refuse_mixture(model, fusion_baselines)
    policy = Policy.load(model)
    return policy, FusionBaselines.load(fusion_baselines, policy.observer)


def _log_unlike(decisions: pl.DataFrame) -> None:
    """Name the captures in which a detector says that the traffic is unlike training."""
    columns = [name for name in decisions.columns if name.startswith(UNLIKE)]
    shares = decisions.group_by("capture", maintain_order=True).agg(pl.col(columns).mean())
    for capture, *values in shares.iter_rows():
        for name, share in zip(columns, values, strict=True):
            if share:
                text = "%s: %s finds %.0f %% of the windows unlike training, and has no vote there"
                log.warning(text, capture, name.removeprefix(UNLIKE), 100 * share)


def main(call: entry_point.Call) -> None:
    """Read states, policy and fusion baselines, write decisions."""
    torch.set_num_threads(call.config["torch_threads"])
    model, (baselines_model,) = next(iter(call.inputs["model"]), None), call.inputs["fusion_baselines"]
    policy, baselines = load(model, baselines_model)
    split = states.read(call.inputs["states"][0], **call.made_for("dataset", "variant", "split"))
    fusion, rules, name = (
        call.config["fusion"] if model else THRESHOLD,
        rules_of(policy, baselines),
        call.wildcards["split"],
    )
    even_odds: dict[str, dict[str, float]] = {}
    enrolled = name == ENROLMENT or name.endswith(ENROLLED)
    # Only what is judged or scored: the scales were fitted to the splits of training, and an enrolment keeps them.
    recalibrate = 0 if name in SPLITS or enrolled else call.config["recalibrate"]
    if enrolled:
        wanted = {**call.made_for("dataset", "variant"), "split": ENROLMENT}
        by_vehicle = _enrolment(states.read(call.inputs["enrolment"][0], **wanted))
        decisions, rules, even_odds = decide_enrolled(policy, baselines, split, by_vehicle, fusion)
    elif recalibrate and len(split):
        decisions = pl.concat(
            decide(recalibrated(policy, capture, recalibrate), baselines.fusions, capture, fusion, rules)
            for capture in states.by("capture", split).values()
        )
    else:
        decisions = decide(policy, baselines.fusions, split, fusion, rules, all_vote=name in SPLITS)
    _log_unlike(decisions)
    metadata = {
        **call.wildcards,
        "fusion": fusion,
        "recalibrate": recalibrate,
        **({"policy": sha256_of(model)} if model else {}),
        "fusion_baselines": sha256_of(baselines_model),
        "false_alarm_budget": baselines.budget,
        "rules": {("fusion" if name == fusion else name): rule.to_json() for name, rule in rules.items()},
        # With scales fitted to each capture, or vehicle, the score of even odds differs between them.
        "even_odds": {} if call.config["recalibrate"] or even_odds else policy.observer.even_odds(),
        **({"even_odds_of_vehicles": even_odds} if even_odds else {}),
        detectors.KEY: detectors.as_json(split.detectors),
    }
    tables.write(call.output["output"], DECISIONS, decisions, metadata)


if __name__ == "__main__":
    entry_point.run(main, inputs=["states", "model", "fusion_baselines", "enrolment"], each=["states"])
