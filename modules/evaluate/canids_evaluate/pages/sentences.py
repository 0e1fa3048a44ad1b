"""What the numbers say, in sentences; every sentence is made from them, none is fixed."""

from typing import Any

from canids_evaluate.pages.rows import Row, label
from canids_evaluate.pages.tables import difference, number, with_interval

COUNTS = ("n_windows", "n_attacked", "n_episodes")


def counts(rows: list[Row]) -> str:
    """How large a scenario is."""
    windows, attacked, episodes = (rows[0].values[c] for c in COUNTS)
    return f"{windows} windows, {attacked} attacked, in {episodes} attack episodes."


def spokesman(rows: list[Row]) -> Row | None:
    """The fusion that sentences speak of, the first variant's (the teacher's); None where its F1 is undefined.

    To take the best of several variants would be a choice made on the scenario itself.
    """
    return next((r for r in rows if r.method == "fusion" and r.values["f1"] is not None), None)


def verdict(rows: list[Row]) -> str:
    """Which baselines have a better F1 than the fusion on a scenario, and whether that is certain."""
    fusion = spokesman(rows)
    if fusion is None:
        return "F1 is undefined here: the scenario has no attacked windows."
    reached = f"the fusion ({fusion.variant}, F1 {number('f1', fusion.values['f1'])})"
    fusion_baselines = [r for r in rows if r.variant is None and r.values["f1"] is not None]
    better = sorted(
        (r for r in fusion_baselines if r.values["f1"] > fusion.values["f1"]), key=lambda r: -float(r.values["f1"])
    )
    if not better:
        return f"No baseline beats {reached}."
    return " ".join(
        f"{label(r.method)} (F1 {number('f1', r.values['f1'])}) beats {reached}"
        f"{_certainty(fusion.values['minus'][r.method]['f1'])}."
        for r in better
    )


def _certainty(found: dict[str, Any]) -> str:
    interval = found["interval"]
    if not interval:
        return ""
    text = difference("f1", found).replace("**", "")
    certain = interval[0] > 0 or interval[1] < 0
    return f"; fusion minus it is {text}, " + ("which leaves out zero" if certain else "which does not leave out zero")


def findings(rows: list[Row]) -> list[str]:
    """Sentences on one scenario: how good the fusion is, against its detectors and fusion_baselines, and what it costs."""
    fusion = spokesman(rows)
    if fusion is None:
        return [verdict(rows)]
    values = fusion.values
    f1 = with_interval("f1", number("f1", values["f1"]), values["intervals"]["f1"])
    found = [
        f"The fusion ({fusion.variant}) reaches F1 {f1} and AUROC {number('auroc', values['auroc'])}; it finds "
        f"{_percent(values['episodes_found'])} of the attack episodes, {_delay(values)}, and raises "
        f"{number('false_alarms_per_hour', values['false_alarms_per_hour'])} false alarms an hour."
    ]
    others = [m for m in values["minus"] if any(r.method == m and r.variant == fusion.variant for r in rows)]
    groups: dict[str, list[str]] = {"better than": [], "worse than": [], "not to be told apart from": []}
    for method in others:
        difference_ = values["minus"][method]["f1"]
        low, high = difference_["interval"] or (-1, 1)
        kind = "better than" if low > 0 else "worse than" if high < 0 else "not to be told apart from"
        groups[kind].append(f"{label(method)} ({difference('f1', difference_).replace('**', '')})")
    told = [f"{kind} {', '.join(names)}" for kind, names in groups.items() if names]
    if told:
        found.append("In F1, paired over the same episodes, it is " + "; ".join(told) + ".")
    return [*found, verdict(rows)]


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.0f} %"


def _delay(values: dict[str, Any]) -> str:
    delay = values["detection_delay_s"]
    return "never in time" if delay is None else f"on average {number('detection_delay_s', delay)} s after their start"


def distillation(changes: dict[str, dict[str, Any]]) -> str:
    """What distillation did to the student, from method → difference in F1 (small_kd minus small_nokd)."""
    told = [f"{label(m)} {difference('f1', d).replace('**', '')}" for m, d in changes.items()]
    return "Distillation changed the student's F1 by: " + ", ".join(told) + "."
