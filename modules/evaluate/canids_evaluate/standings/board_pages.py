"""The leaderboard's document as sentences and pages."""

import re
from collections.abc import Iterator, Mapping, Sequence

from canids_evaluate.judging.bounds import ENOUGH
from canids_evaluate.pages.rows import FUSION
from canids_evaluate.pages.tables import THRESHOLDS, Table
from canids_evaluate.standings.board_tables import (
    Document,
    Entry,
    ablations,
    attacks,
    best,
    differences,
    entries,
    false_alarms,
    few,
    fold_name,
    overview,
    places,
    results,
    shown_mean,
    shown_worst,
    size,
    vehicles,
)
from canids_evaluate.standings.places import MAKES, SETTINGS
from canids_shared.planning.pipeline import VARIANTS

_WORDS_OF_A_KIND = 3
_PARTS = re.compile(r"[\w.]*\w|.", re.DOTALL)
"""Words and whatever stands between them."""
METHOD = (
    "Each value is the mean over folds of the mean over seeds; beside it stands the worst fold. Intervals (95 %) draw attack episodes, attack-free pieces "
    f"and seeds, not the folds; where a fold has fewer than {ENOUGH} episodes there are counts and no interval. False alarms are runs of alarmed attack-free windows, on "
    "traffic that counts once however many folds and seeds judged it, with bounds from the lower exact (Poisson) one of the runs with the fewest to the upper of those with the most, "
    "which assume that alarms come independently of each other; an alarm that never ends has 3,600 seconds an hour. "
    "Recall and episodes found at 1/h and 10/h: at a threshold with so many false alarms an hour and as many minutes of them, not known beforehand. "
    f"{THRESHOLDS} Point: `budget` alarms above such a threshold, `own` by decisions of its own. Every method runs once with the pipeline's options. Features, schedules and defaults of "
    "canids' own methods were chosen on folds of these same vehicles. A delay is of the episodes found, and cannot be shorter than the window behind ≥; what is undefined on a fold is a mean over the others, whose number stands beside it."
)
"""How to read the tables."""


def findings(document: Document) -> dict[str, list[str]]:
    """Heading → sentences, which follow from the numbers alone; a failure is said as plainly as a success."""
    return {
        f"{SETTINGS[setting]}, {regime}": sentences
        for setting, regime in places(document)
        if (sentences := list(_sentences(document, setting, regime)))
    }


def _sentences(document: Document, setting: str, regime: str) -> Iterator[str]:
    found = entries(document, setting, regime)
    # Of several variants the first, the teacher: to take the best would be a choice made on these very folds.
    fusion = min((e for e in found if e["method"] == FUSION), key=lambda e: VARIANTS.index(e["variant"]), default=None)
    if setting == MAKES:
        # Without a fusion the best method, by its F1 where there are attacks.
        ranks = [(e["variant"], e["method"]) for e in document["standings"]]
        others = sorted(best(document, setting, regime), key=lambda e: ranks.index((e["variant"], e["method"])))
        for e in [e for e in (fusion, *others) if e is not None][:1]:
            if e["traffic"]["fpr"] is not None:
                share, budget = e["traffic"]["fpr"], document["protocol"]["config"].get("false_alarm_budget", 0)
                kept = "within" if share <= budget else "beyond"
                yield (
                    f"{_name(e)} alarms in {share:.2%} of the attack-free windows, {kept} the budget of {budget:.2%}: "
                    f"{false_alarms(e['traffic'])} false alarms an hour."
                )
        return
    defined = [e for e in found if e["metrics"]["f1"]["mean"] is not None]
    if not defined:
        return
    yield _placed("The best mean F1 has", document, defined[0])
    if fusion is not None and fusion in defined and fusion is not defined[0]:
        yield _placed(f"Number {defined.index(fusion) + 1} of {len(defined)} is", document, fusion)
    yield from _compared(entries(document, setting, regime, "differences"), fusion)


def _name(e: Entry) -> str:
    return f"{e['label']} ({e['variant']})" if e["variant"] else str(e["label"])


def _placed(begin: str, document: Document, e: Entry) -> str:
    return (
        f"{begin} {_name(e)}: F1 {shown_mean(e, 'f1')}, at worst {shown_worst(document, e, 'f1')}; "
        f"{false_alarms(e['traffic'])} false alarms an hour."
    )


def _compared(differences_: Sequence[Entry], fusion: Entry | None) -> Iterator[str]:
    if fusion is None:
        return
    groups: dict[str, list[str]] = {}
    for e in differences_:
        if e["variant"] != fusion["variant"]:
            continue
        interval = e["metrics"]["f1"]["interval"]
        kind = (
            "seen in too few episodes to compare with" if interval is None and few(e)
            else "without an interval against" if interval is None
            else "better than" if interval[0] > 0
            else "worse than" if interval[1] < 0
            else "not distinguishable from"
        )  # fmt: skip
        groups.setdefault(kind, []).append(e["label"])
    if len(groups) == 1 and len(names := next(iter(groups.values()))) > 1:
        groups = {next(iter(groups)): [f"any of the other {len(names)} methods"]}
    if groups:
        yield (
            f"Paired over episodes and seeds, by F1 the fusion ({fusion['variant']}) is "
            + "; ".join(f"{kind} {', '.join(names)}" for kind, names in sorted(groups.items()))
            + "."
        )


def sections(document: Document) -> Iterator[tuple[str, str, dict[str, Table]]]:
    """Heading, what it rests on, and caption → table, of every place."""
    for setting, regime in places(document):
        place = (document, setting, regime)
        shown = {"Every method:": results(*place)}
        shown["Recall by kind of attack (and episodes found), best of each family:"] = attacks(*place)
        shown["False alarms an hour by vehicle, best of each family:"] = vehicles(*place)
        if setting != MAKES:
            shown["The fusion less each method:"] = differences(*place)
            shown["Ablated methods less whole ones:"] = ablations(*place)
        yield f"{SETTINGS[setting]}, {regime}", size(*place), {k: t for k, t in shown.items() if t.rows}


def warnings(document: Document) -> list[str]:
    """Warnings, each with the folds that it is of; those that begin alike are one."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for fold, texts in document["warnings"].items():
        for text in texts:
            names = kinds.setdefault(" ".join(text.split()[:_WORDS_OF_A_KIND]), {}).setdefault(text, [])
            names.append(fold_name(document, fold) if fold else "")
    made = [_merged(folds) for folds in kinds.values()]
    missing = [document["ablations"]["labels"][name] for name in document["ablations"]["missing"]]
    return made + ([f"Ablations that no fold was run of: {', '.join(missing)}."] if missing else [])


def _merged(folds: Mapping[str, Sequence[str]]) -> str:
    """One sentence of several that differ in their middle: `Fewer than 5 episodes in (4 without kia; 3 without sonata): counts.`"""
    if len(folds) == 1:
        ((text, names),) = folds.items()
        return text if list(names) == [""] else f"Without {'; '.join(names)}: {text}"
    parts = {text: _PARTS.findall(text) for text in folds}
    before = _beginning(list(parts.values()))
    rest = [p[len(before) :] for p in parts.values()]
    after = _beginning([p[::-1] for p in rest])[::-1]
    # A bracket that opens in the middle closes there.
    while after and any(p.count("(") > p.count(")") for p in (q[: len(q) - len(after)] for q in rest)):
        after = after[1:]
    middles = ["".join(p[: len(p) - len(after)]) for p in rest]
    differing = [f"{m} without {', '.join(n)}".strip() for m, n in zip(middles, folds.values(), strict=True)]
    return "".join(before) + "; ".join(differing) + "".join(after)


def _beginning(lists: Sequence[list[str]]) -> list[str]:
    """What all of them begin with."""
    differing = (i for i, column in enumerate(zip(*lists, strict=False)) if len(set(column)) > 1)
    return lists[0][: next(differing, min(map(len, lists)))]


def provenance(document: Document) -> str:
    """Protocol, seeds and code in a paragraph."""
    p = document["protocol"]
    options = ", ".join(
        f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in sorted(p["config"].items())
    )
    code = ", ".join(f"{rule} {' and '.join(hashes)}" for rule, hashes in sorted(document["code"].items()))
    enrolled = f"vehicles enrolled by {p['enrolment']:g} s" if p["enrolment"] else "no vehicle enrolled"
    return (
        f"Protocol {p['version']}, dataset `{document['dataset']}`, {enrolled}, seeds {', '.join(map(str, document['seeds']))}; {options}. "
        f"Code: {code}. {len(document['data']['captures'])} captures, by SHA-256 in `leaderboard.json`."
    )


def markdown(document: Document) -> str:
    """The whole page."""
    parts = [f"# Leaderboard on {document['dataset']}", METHOD]
    if texts := warnings(document):
        parts += ["## Warnings", "\n".join(f"- {text}" for text in texts)]
    parts += ["## In short", overview(document).markdown()]
    parts += [f"**{heading}.** {' '.join(sentences)}" for heading, sentences in findings(document).items()]
    for heading, rests_on, tables in sections(document):
        parts += [f"## {heading}", rests_on]
        parts += [text for caption, table in tables.items() for text in (caption, table.markdown())]
    return "\n\n".join([*parts, "## Provenance", provenance(document)]) + "\n"
