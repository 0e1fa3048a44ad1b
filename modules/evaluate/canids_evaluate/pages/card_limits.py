"""What a model card warns of: sentences that the data give, none of them fixed."""

from collections.abc import Iterator

from canids_evaluate.pages.card_data import Subject, same
from canids_evaluate.pages.rows import label
from canids_evaluate.pages.tables import number

RECALL = 0.9
"""Below this recall a kind of attack is named."""


def limits(subject: Subject) -> list[str]:
    """Everything that the data say against relying on a model, one sentence or two each."""
    return [
        *_attacks(subject),
        *_vehicles(subject),
        *_training(subject),
        *_operating_point(subject),
        *_baselines(subject),
    ]


def _attacks(subject: Subject) -> Iterator[str]:
    never, weak, missed = [], [], []
    for scenario, values in subject.scenarios.items():
        for attack, found in values["per_attack"].items():
            what = f"{attack} in `{scenario}` (recall {number('recall', found['recall'])})"
            if not same(attack, subject.learnt.attacks):
                never.append(what)
            if found["recall"] is not None and found["recall"] < RECALL:
                weak.append(f"{what}, {found['n_attacked']:,} attacked windows")
        share = values["episodes_found"]
        if share is not None and share < 1:
            missed.append(f"{round((1 - share) * values['n_episodes'])} of {values['n_episodes']} in `{scenario}`")
    if never and subject.learnt.attacks:
        yield f"Judged on attacks that it never learnt from: {'; '.join(never)}."
    if weak:
        yield f"Finds less than {RECALL:.0%} of the attacked windows of: {'; '.join(weak)}."
    if missed:
        yield f"Misses whole attack episodes: {'; '.join(missed)}."
    tested = {a: 1 for v in subject.scenarios.values() for a in v["per_attack"]}
    if untested := [a for a in subject.learnt.attacks if not same(a, tested)]:
        yield f"Learnt from attacks that no test scenario holds: {', '.join(untested)}. Nothing is known of how well it finds them elsewhere."


def _vehicles(subject: Subject) -> Iterator[str]:
    found = {s: subject.vehicles_in(s) for s in subject.scenarios}
    tested = sorted({v for names in found.values() for v in names})
    strange = [v for v in tested if not same(v, subject.learnt.vehicles)]
    if strange:
        yield f"Judged on vehicles that it never learnt from: {', '.join(strange)}."
    elif tested:
        yield (
            f"Every vehicle that it was judged on ({', '.join(tested)}) is one that it learnt from; these numbers say "
            "nothing about another vehicle."
        )


def _training(subject: Subject) -> Iterator[str]:
    learnt = subject.learnt
    judged = [capture for values in subject.scenarios.values() for capture in values["per_capture"]]
    if made := [capture for capture in judged if capture in subject.simulated]:
        share = "Every capture" if len(made) == len(judged) else f"{len(made)} of {len(judged)} captures"
        yield f"{share} that it was judged on comes from a simulator: that is no measurement on a vehicle."
    if learnt.auxiliary_captures:
        yield (
            f"{learnt.auxiliary_captures / learnt.windows:.0%} of the windows behind it ({learnt.auxiliary_captures:,} of {learnt.windows:,}) are of simulated "
            "auxiliary_captures, not recorded."
        )
    if subject.teacher:
        yield f"Distilled from `{subject.teacher}`: it can take over that model's mistakes."
    yield f"One training, seed {subject.training.seed}; other seeds give other numbers."


def _operating_point(subject: Subject) -> Iterator[str]:
    budget = subject.metrics["config"]["false_alarm_rate"]
    own = subject.metrics["thresholds"][subject.method]["budget"] is None
    free = subject.calibrate.free
    if not own:
        yield (
            f"Its threshold was set on {free:,} attack-free windows of the training captures: a budget of {budget:.2%} is "
            f"{budget * free:.1f} of them."
        )
    over = [
        f"{values['fpr']:.2%} in `{scenario}` ({number('false_alarms_per_hour', values['false_alarms_per_hour'])} runs of false alarms an hour)"
        for scenario, values in subject.scenarios.items()
        if values["fpr"] is not None and values["fpr"] > budget
    ]
    if over:
        yield f"Alarms on more attack-free windows than the budget of {budget:.2%}: {'; '.join(over)}."
    if absent := [s for s, v in subject.scenarios.items() if not v["n_attacked"]]:
        yield f"No attacked windows in {', '.join(f'`{s}`' for s in absent)}: recall and F1 are undefined there."


def _baselines(subject: Subject) -> Iterator[str]:
    for scenario, values in subject.scenarios.items():
        others = subject.baselines.get(scenario, {})
        better = {
            m: v["f1"] for m, v in others.items() if None not in (v["f1"], values["f1"]) and v["f1"] > values["f1"]
        }
        if better:
            named = ", ".join(
                f"{label(m)} ({number('f1', f1)})" for m, f1 in sorted(better.items(), key=lambda i: -i[1])
            )
            yield f"In `{scenario}` simpler methods have a better F1 than its {number('f1', values['f1'])}: {named}."
