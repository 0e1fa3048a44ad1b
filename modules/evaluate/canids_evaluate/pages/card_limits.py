"""Limits of a model on its card: sentences that follow from the data alone."""

from collections.abc import Iterator
from typing import Any

from canids_evaluate.pages.card_data import Subject, same
from canids_evaluate.pages.rows import hosts_of
from canids_evaluate.pages.tables import THRESHOLDS, number
from canids_shared.contracts.manifest import JUDGED

RECALL = 0.9
"""Below this recall a kind of attack is named."""


def limits(subject: Subject) -> list[str]:
    """All reasons against relying on a model, one sentence or two each."""
    methods = [(method, prefix, subject.results(method)) for method, prefix in subject.methods.items()]
    return [
        *(f"{prefix}{sentence}" for _, prefix, results in methods for sentence in _attacks(subject, results)),
        *_untested(subject),
        *_vehicles(subject),
        *_training(subject),
        *(
            f"{prefix}{sentence}"
            for m, prefix, results in methods
            for sentence in _operating_point(subject, m, results)
        ),
        *_scenarios_without_attacks(subject),
        *(f"{prefix}{sentence}" for _, prefix, results in methods for sentence in _baselines(subject, results)),
        *subject.warnings,
    ]


def _attacks(subject: Subject, results: dict[str, dict[str, Any]]) -> Iterator[str]:
    # Attacks outside the training data; attacks with a low recall; episodes without any alarm.
    never, weak, missed = [], [], []
    for scenario, values in results.items():
        for attack, on_attack in values["per_attack"].items():
            what = f"{attack} in `{scenario}` (recall {number('recall', on_attack['recall'])})"
            if not same(attack, subject.learnt.attacks):
                never.append(what)
            if on_attack["recall"] is not None and on_attack["recall"] < RECALL:
                weak.append(f"{what}, {on_attack['n_attacked']:,} attacked windows")
        share = values["episodes_found"]
        if share is not None and share < 1:
            missed.append(f"{round((1 - share) * values['n_episodes'])} of {values['n_episodes']} in `{scenario}`")
    if never and subject.learnt.attacks:
        yield f"Evaluated on attacks that it never learnt from: {'; '.join(never)}."
    if weak:
        yield f"Finds less than {RECALL:.0%} of the attacked windows of: {'; '.join(weak)}."
    if missed:
        yield f"Misses whole attack episodes: {'; '.join(missed)}."


def _untested(subject: Subject) -> Iterator[str]:
    tested = {a: 1 for v in subject.scenarios.values() for a in v["per_attack"]}
    if untested := [a for a in subject.learnt.attacks if not same(a, tested)]:
        yield f"Learnt from attacks that no test scenario holds: {', '.join(untested)}. How well it finds them elsewhere is unknown."


def _vehicles(subject: Subject) -> Iterator[str]:
    tested = sorted({v for scenario in subject.scenarios for v in subject.vehicles_in(scenario)})
    if strange := [v for v in tested if not same(v, subject.learnt.vehicles)]:
        yield f"Evaluated on vehicles that it never learnt from: {', '.join(strange)}."
    elif tested:
        yield (
            f"Every vehicle that it was evaluated on ({', '.join(tested)}) is one that it learnt from; these numbers do not "
            "hold for another vehicle."
        )


def _training(subject: Subject) -> Iterator[str]:
    learnt = subject.learnt
    tested = [capture for values in subject.scenarios.values() for capture in values["per_capture"]]
    if made := [capture for capture in tested if capture in subject.simulated]:
        share = "Every capture" if len(made) == len(tested) else f"{len(made)} of {len(tested)} captures"
        yield f"{share} that it was evaluated on comes from a simulator: that is no measurement on a vehicle."
    if hosts := hosts_of(tested, subject.sources):
        yield f"Evaluated on attacks that were injected into recordings ({hosts}): that is no measurement of real ones."
    if learnt.attacked and learnt.simulated_attacks == learnt.attacked:
        yield "Every attack that it learnt from was simulated; how well it finds real ones is unknown."
    if JUDGED in subject.scenarios:
        yield "No test scenario: it was evaluated on `select`, blocks of its own training captures on which it was chosen."
    if learnt.auxiliary:
        yield (
            f"{learnt.auxiliary / learnt.windows:.0%} of the windows that it learnt from ({learnt.auxiliary:,} of {learnt.windows:,}) "
            "are of simulated auxiliary captures, not recorded."
        )
    if subject.teacher:
        yield f"Distilled from `{subject.teacher}`: it can take over that model's mistakes."
    yield f"One training, seed {subject.training.seed}; other seeds give other numbers."


def _operating_point(subject: Subject, method: str, results: dict[str, dict[str, Any]]) -> Iterator[str]:
    budget, free = subject.metrics["config"]["false_alarm_budget"], subject.calibrate.free
    if subject.metrics["thresholds"][method]["budget"] is not None:
        yield f"Its threshold was set on {free:,} attack-free windows of the training captures, with a budget of {budget:.2%}. {THRESHOLDS}"
    over = [
        f"{values['fpr']:.2%} in `{scenario}` ({number('false_alarms_per_hour', values['false_alarms_per_hour'])} runs of false alarms an hour)"
        for scenario, values in results.items()
        if values["fpr"] is not None and values["fpr"] > budget
    ]
    if over:
        yield f"Alarms on more attack-free windows than the budget of {budget:.2%}: {'; '.join(over)}."


def _scenarios_without_attacks(subject: Subject) -> Iterator[str]:
    if absent := [s for s, v in subject.scenarios.items() if not v["n_attacked"]]:
        yield f"No attacked windows in {', '.join(f'`{s}`' for s in absent)}: recall and F1 are undefined there."


def _baselines(subject: Subject, results: dict[str, dict[str, Any]]) -> Iterator[str]:
    for scenario, values in results.items():
        if values["f1"] is None:
            continue
        f1 = {m: v["f1"] for m, v in subject.baselines.get(scenario, {}).items() if v["f1"] is not None}
        better = sorted((m for m in f1 if f1[m] > values["f1"]), key=lambda m: -f1[m])
        if better:
            named = ", ".join(f"{subject.names.label(m)} ({number('f1', f1[m])})" for m in better)
            yield f"In `{scenario}` simpler methods have a better F1 than its {number('f1', values['f1'])}: {named}."
