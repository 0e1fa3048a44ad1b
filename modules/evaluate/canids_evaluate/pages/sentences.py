"""Results as sentences, which follow from the numbers alone."""

from collections.abc import Mapping
from typing import Any

from canids_evaluate.judging.bounds import ENOUGH
from canids_evaluate.pages.rows import FUSION, Methods, Row, hosts_of
from canids_evaluate.pages.tables import difference, episodes_found, leaves_out_zero, number, with_interval
from canids_shared.contracts.manifest import JUDGED

NO_TEST = (
    "The dataset has no test scenario: these are the blocks `select` of its own training captures, from which no detector learnt, but on "
    "which epochs and policies were chosen; results on other captures will be worse."
)
"""The warning beside what is judged in place of a test scenario."""
_TOO_FEW = f"The episodes are too few (fewer than {ENOUGH}) to compare it in F1 with"


def counts(rows: list[Row], sources: Mapping[str, Mapping[str, Any]]) -> str:
    """Size of a scenario, and which of its captures hold injected attacks by their `sources`."""
    values = rows[0].values
    few = f", too few for intervals over episodes (from {ENOUGH} on)" if 0 < values["n_episodes"] < ENOUGH else ""
    size = (
        f"{values['n_windows']} windows, {values['n_attacked']} attacked, in {values['n_episodes']} attack episodes{few}; "
        f"{_span(values)} of attack-free traffic."
    )
    if not values["n_windows"]:
        size = "None of its windows is labelled, so there is nothing to evaluate here."
    hosts = hosts_of(values["per_capture"], sources)
    fusion = next((r for r in rows if r.method == FUSION), None)
    if fusion and len(fusion.methods.detectors) == 1:
        size += f" The fusion is of one detector alone, the {fusion.methods.detectors[0].label}."
    return " ".join([*without_test(rows), size, *([f"Attacks injected into recordings: {hosts}."] if hosts else [])])


def _span(values: dict[str, Any]) -> str:
    seconds = 3600 * values["attack_free_hours"]
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def without_test(rows: list[Row]) -> list[str]:
    """The warning where blocks of the training captures are judged, for want of a test scenario."""
    return [NO_TEST] if rows[0].scenario == JUDGED else []


def reference_fusion(rows: list[Row]) -> Row | None:
    """The fusion of the first variant (the teacher), which the sentences are about; None where its F1 is undefined.

    To take the best of several variants would be a choice made on the scenario itself.
    """
    return next((r for r in rows if r.method == FUSION and r.values["f1"] is not None), None)


def verdict(rows: list[Row]) -> str:
    """Window baselines with a better F1 than the fusion on a scenario, and whether that is certain."""
    fusion = reference_fusion(rows)
    if fusion is None:
        undefined = "F1 is undefined here: the scenario has no attacked windows."
        alarms = next((r for r in rows if r.method == FUSION and r.values["false_alarms_per_hour"] is not None), None)
        if alarms is None:
            return undefined
        shown = number("false_alarms_per_hour", alarms.values["false_alarms_per_hour"])
        return f"{undefined} The fusion ({alarms.variant}) raises {shown} false alarms an hour."
    reached = f"the fusion ({fusion.variant}, F1 {number('f1', fusion.values['f1'])})"
    baselines = [r for r in rows if r.variant is None and r.values["f1"] is not None]
    better = sorted(
        (r for r in baselines if r.values["f1"] > fusion.values["f1"]), key=lambda r: -float(r.values["f1"])
    )
    if not better:
        return f"No baseline beats {reached}."
    return " ".join(
        f"{r.label} (F1 {number('f1', r.values['f1'])}) beats {reached}"
        f"{_certainty(fusion.values['minus'][r.method]['f1'])}."
        for r in better
    )


def _certainty(paired: dict[str, Any]) -> str:
    if not paired["interval"]:
        return ""
    does = "leaves" if leaves_out_zero(paired["interval"]) else "does not leave"
    return f"; fusion minus it is {_plain_difference(paired)}, which {does} out zero"


def _plain_difference(paired: dict[str, Any]) -> str:
    return difference("f1", paired).replace("**", "")


def findings(rows: list[Row]) -> list[str]:
    """Sentences on one scenario: quality of the fusion, against its detectors and the fusion baselines, and its false alarms."""
    fusion = reference_fusion(rows)
    if fusion is None:
        return [*without_test(rows), verdict(rows)]
    values = fusion.values
    f1 = with_interval("f1", number("f1", values["f1"]), values["intervals"]["f1"])
    sentences = [
        f"The fusion ({fusion.variant}) reaches F1 {f1} and AUROC {number('auroc', values['auroc'])}; it finds "
        f"{_episodes(values)} of the attack episodes, {_delay(values)}, and raises {_false_alarms(values)}."
    ]
    # A method is better or worse only where the interval of the paired difference leaves out zero; too few episodes have none.
    others = [r for r in rows if r.method in values["minus"] and r.variant == fusion.variant]
    groups: dict[str, list[str]] = {"better than": [], "worse than": [], "not distinguishable from": [], _TOO_FEW: []}
    for row in sorted(others, key=lambda row: row.method):
        paired = values["minus"][row.method]["f1"]
        low, high = paired["interval"] or (-1, 1)
        kind = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
        kind = kind if paired["interval"] else _TOO_FEW
        groups[kind].append(f"{row.label} ({_plain_difference(paired)})")
    uncertain = groups.pop(_TOO_FEW)
    if compared := [f"{kind} {', '.join(names)}" for kind, names in groups.items() if names]:
        sentences.append("In F1, paired over the same episodes, it is " + "; ".join(compared) + ".")
    if uncertain:
        sentences.append(f"{_TOO_FEW} {', '.join(uncertain)}.")
    return [*without_test(rows), *sentences, verdict(rows)]


def _episodes(values: dict[str, Any]) -> str:
    share = values["episodes_found"]
    if share is None:
        return "an unknown share"
    return f"{100 * share:.0f} %" if values["n_episodes"] >= ENOUGH else episodes_found(values)


def _false_alarms(values: dict[str, Any]) -> str:
    """How many in how much traffic; a rate from seconds of traffic says little without its bounds."""
    count, bounds = values["n_false_alarms"], values["intervals"]["false_alarms_per_hour"]
    if not bounds:
        return "false alarms of an unknown rate, as there is no attack-free traffic"
    low, high = (number("false_alarms_per_hour", bound) for bound in bounds)
    return f"{count} false alarm{'s' * (count != 1)} in {_span(values)} of attack-free traffic (between {low} and {high} an hour)"


def _delay(values: dict[str, Any]) -> str:
    delay = values["detection_delay_s"]
    return (
        "at no known delay" if delay is None else f"on average {number('detection_delay_s', delay)} s after their start"
    )


def distillation(changes: dict[str, dict[str, Any]], methods: Methods) -> str:
    """The effect of distillation on the student, from method → differences (small_kd minus small_nokd)."""
    amounts = [f"{methods.label(m)} {_plain_difference(d['f1'])}" for m, d in changes.items()]
    return "Distillation changed the student's F1 by: " + ", ".join(amounts) + "."
