"""The leaderboard's document as tables and CSV."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from canids_evaluate.judging.bounds import ENOUGH
from canids_evaluate.judging.metrics import METRICS
from canids_evaluate.pages.tables import COLUMNS, UNDEFINED, Table, leaves_out_zero, number, with_interval
from canids_evaluate.standings.places import MAKES, REGIMES, SETTINGS, families

Document = Mapping[str, Any]
Entry = Mapping[str, Any]
CSV_COLUMNS = (
    *("dataset", "protocol", "setting", "regime", "family", "method", "variant", "own_point", "folds", "seeds"),
    *(f"{m}{end}" for m in METRICS for end in ("", "_low", "_high", "_worst", "_worst_fold", "_folds")),
    *("n_windows", "n_attacked", "n_episodes", "traffic_false_alarms", "traffic_hours"),
    *("traffic_false_alarms_per_hour", "traffic_low", "traffic_high", "traffic_alarm_seconds_per_hour", "traffic_fpr"),
)
_RATES = "episodes_found_at_10_per_hour"


def entries(document: Document, setting: str, regime: str, key: str = "standings") -> list[Entry]:
    """The entries of a place, the best first."""
    return [e for e in document[key] if (e["setting"], e["regime"]) == (setting, regime)]


def places(document: Document) -> list[tuple[str, str]]:
    """Setting and regime of all places that something was judged in."""
    return [(s, r) for s in SETTINGS for r in REGIMES if entries(document, s, r)]


def fold_name(document: Document, fold: str) -> str:
    """What a fold leaves out: `kia`."""
    left = document["protocol"]["left_out"].get(fold, {})
    return ", ".join(name for names in left.values() for name in names) or fold.removeprefix("@")


def few(e: Entry) -> dict[str, int]:
    """Folds with fewer attack episodes than an interval needs, and how many these are."""
    return {fold: n for fold, n in e["episodes"].items() if 0 < n < ENOUGH}


def shown_mean(e: Entry, metric: str) -> str:
    """The mean with its interval; where a fold has few episodes, how many of all were found."""
    m = e["metrics"][metric]
    if metric.startswith("episodes_found") and m["mean"] is not None and few(e):
        found = sum(share * e["episodes"][fold] for fold, share in m["folds"].items())
        return f"{found:.1f} of {sum(e['episodes'][fold] for fold in m['folds'])}".replace(".0 of", " of")
    return with_interval(metric, number(metric, m["mean"]), m["interval"]) + _of_folds(e, metric)


def _of_folds(e: Entry, metric: str) -> str:
    """On how many folds a mean is defined, where not on all: without an episode found there is no delay."""
    defined = len(e["metrics"][metric]["folds"])
    return f" on {defined} of {e['folds']} folds" if 0 < defined < e["folds"] else ""


def shown_worst(document: Document, e: Entry, metric: str) -> str:
    """The worst fold's value, and what the fold leaves out."""
    m = e["metrics"][metric]
    return UNDEFINED if m["worst"] is None else f"{number(metric, m['worst'])} ({fold_name(document, m['worst_fold'])})"


def false_alarms(traffic: Mapping[str, Any]) -> str:
    """False alarms an hour with their bounds."""
    metric = "false_alarms_per_hour"
    return with_interval(metric, number(metric, traffic[metric]), traffic["interval"])


def _delay(e: Entry) -> str:
    delay, floor = e["metrics"]["detection_delay_s"]["mean"], e["delay_floor_s"]
    text = number("detection_delay_s", delay)
    bound = "" if delay is None or floor is None else f" (≥ {number('detection_delay_s', floor)})"
    return text + bound + _of_folds(e, "detection_delay_s")


def _names(e: Entry) -> list[str]:
    return [e["label"], e["variant"] or UNDEFINED, "own" if e["own_point"] else "budget"]


def _of_traffic(t: Mapping[str, Any]) -> list[str]:
    return [
        number("fpr", t["fpr"]),
        false_alarms(t),
        number("alarm_seconds_per_hour", t["alarm_seconds_per_hour"]),
    ]


_TRAFFIC_HEADER = ("FPR", "False alarms/h", "Seconds in false alarm/h")


def results(document: Document, setting: str, regime: str) -> Table:
    """Every method in a place; the best F1 is bold."""
    if setting == MAKES:
        return _of_makes(document, regime)
    rows = []
    best = next((m for e in entries(document, setting, regime) if (m := e["metrics"]["f1"]["mean"]) is not None), None)
    for e in entries(document, setting, regime):
        f1 = shown_mean(e, "f1")
        if best is not None and e["metrics"]["f1"]["mean"] == best:
            value, gap, rest = f1.partition(" ")
            f1 = f"**{value}**{gap}{rest}"
        shown = ("recall_at_1_per_hour", "recall_at_10_per_hour", _RATES)
        cells = [
            f1,
            shown_worst(document, e, "f1"),
            *(shown_mean(e, m) for m in shown),
            shown_worst(document, e, _RATES),
        ]
        further = [*(shown_mean(e, m) for m in ("episodes_found", "pr_auc")), _delay(e)]
        rows.append([*_names(e), *cells, *further, *_of_traffic(e["traffic"])])
    header = [
        "Method",
        "Variant",
        "Point",
        "F1",
        "Worst F1",
        "Recall at 1/h",
        "Recall at 10/h",
        "Episodes found at 10/h",
    ]
    header += ["Worst of these", "Episodes found", "PR-AUC", "Delay (s)", *_TRAFFIC_HEADER]
    return Table(header, rows, names=3)


def _of_makes(document: Document, regime: str) -> Table:
    rows = []
    for e in entries(document, MAKES, regime):
        vehicles = e["traffic"]["vehicles"]
        worst = max(vehicles, key=lambda v: vehicles[v]["fpr"] or 0, default=None)
        text = UNDEFINED if worst is None else f"{number('fpr', vehicles[worst]['fpr'])} ({worst})"
        rows.append([*_names(e), *_of_traffic(e["traffic"]), text])
    return Table(["Method", "Variant", "Point", *_TRAFFIC_HEADER, "Worst FPR"], rows, names=3)


def size(document: Document, setting: str, regime: str) -> str:
    """What the values of a place rest on."""
    e = entries(document, setting, regime)[0]
    short = ", ".join(f"{n} in {fold_name(document, fold)}" for fold, n in few(e).items() if setting != MAKES)
    short = short or (str(e["n_episodes"]) if few(e) else "")
    too_few = f" ({short}: too few for intervals, from {ENOUGH} in every fold on)" if short else ""
    folds = [fold_name(document, f) for f in e["metrics"]["fpr"]["folds"] or e["metrics"]["f1"]["folds"]]
    hours = e["traffic"]["attack_free_hours"]
    of = f"vehicles {', '.join(e['traffic']['vehicles'])}"
    judged = of if setting == MAKES else f"left out: {', '.join(folds)}; {of}"
    return (
        f"{e['folds']} fold{'s' * (e['folds'] != 1)} ({judged}), seeds {', '.join(map(str, document['seeds']))}; {e['n_attacked']:,} attacked windows in "
        f"{e['n_episodes']:,} episodes{too_few}; {hours * 60:.1f} minutes of attack-free traffic."
    )


def best(document: Document, setting: str, regime: str) -> list[Entry]:
    """The entries of the best methods of the families, in their order."""
    found = {(e["variant"], e["method"]): e for e in entries(document, setting, regime)}
    # A file has its keys sorted.
    order = families(sorted(document["best"], key=lambda family: (family != "Fusion", family)))
    return [found[key] for family in order if (key := tuple(document["best"][family])) in found]


def attacks(document: Document, setting: str, regime: str) -> Table:
    """Recall by window, and episodes found, by kind of attack and fold: of the best method of each family."""
    chosen = best(document, setting, regime)
    kinds = [(f, a) for f, found in (chosen[0]["attacks"] if chosen else {}).items() for a in found]
    rows = []
    for fold, attack in kinds:
        parts = [e["attacks"].get(fold, {}).get(attack, {}) for e in chosen]
        n = parts[0]["n_episodes"]
        cells = [
            f"{number('recall', p.get('recall'))} ({round((p.get('episodes_found') or 0) * n, 1):g} of {n})"
            for p in parts
        ]
        rows.append([fold_name(document, fold), attack, *cells])
    return Table(["Left out", "Attack", *(e["label"] for e in chosen)], rows, names=2)


def vehicles(document: Document, setting: str, regime: str) -> Table:
    """False alarms an hour by vehicle, with bounds and the minutes they rest on: of the best method of each family."""
    chosen = best(document, setting, regime)
    rows = []
    for vehicle, first in (chosen[0]["traffic"]["vehicles"] if chosen else {}).items():
        cells = [false_alarms(v) if (v := e["traffic"]["vehicles"].get(vehicle)) else UNDEFINED for e in chosen]
        rows.append([vehicle, f"{60 * first['attack_free_hours']:.1f}", *cells])
    return Table(["Vehicle", "Minutes", *(e["label"] for e in chosen)], rows)


COMPARED = ("f1", "recall_at_10_per_hour", _RATES)


def _changes(found: Sequence[Entry], names: Sequence[str]) -> Table:
    def cell(e: Entry, metric: str) -> str:
        m = e["metrics"].get(metric)
        if m is None:
            return UNDEFINED
        text = number(metric, m["mean"], sign=True)
        text = f"**{text}**" if leaves_out_zero(m["interval"]) else text
        return with_interval(metric, text, m["interval"], sign=True)

    rows = [[*(str(e[n] or UNDEFINED) for n in names), *(cell(e, m) for m in COMPARED)] for e in found]
    heads = {"label": "Method", "variant": "Variant", "ablation": "Ablation"}
    columns = {**COLUMNS, _RATES: "Episodes found at 10/h"}
    return Table([*(heads[n] for n in names), *(columns[m] for m in COMPARED)], rows, names=len(names))


def differences(document: Document, setting: str, regime: str) -> Table:
    """The fusion less each method, paired; bold where the interval leaves out zero."""
    return _changes(entries(document, setting, regime, "differences"), ("label", "variant"))


def ablations(document: Document, setting: str, regime: str) -> Table:
    """Ablated methods less whole ones, paired: the networks alone, which ablations are of."""
    labels = document["ablations"]["labels"]
    changes = [e for e in document["ablations"]["changes"] if (e["setting"], e["regime"]) == (setting, regime)]
    found = [{**e, "ablation": labels[e["ablation"]]} for e in changes]
    return _changes(found, ("ablation", "label", "variant"))


def overview(document: Document) -> Table:
    """The first setting (vehicles never met), the regimes side by side, for README and the head of the page.

    Of each family its best method, as in the figures; every method where none is best.
    """
    found = {p: {(e["variant"], e["method"]): e for e in entries(document, *p)} for p in places(document)}
    setting = next((s for s, _ in found if s != MAKES), MAKES)
    regimes = [regime for regime in REGIMES if (setting, regime) in found]
    elsewhere = [regime for regime in REGIMES if (MAKES, regime) in found]
    chosen = {tuple(best) for best in document["best"].values()}
    header = [f"{SETTINGS[setting]}: best of each family", "Variant"]
    for regime in regimes:
        header += [f"F1, {regime}", "worst", f"Episodes found at 10/h, {regime}"]
    header += [f"FPR on traffic of other vehicles, {regime}" for regime in elsewhere]
    rows = []
    for key, e in found[setting, regimes[0]].items() if regimes else ():
        if chosen and key not in chosen:
            continue
        cells: list[str] = []
        for regime in regimes:
            here = found[setting, regime].get(key)
            shown = (
                (shown_mean(here, "f1"), shown_worst(document, here, "f1"), shown_mean(here, _RATES)) if here else ()
            )
            cells += shown or [UNDEFINED] * 3
        for regime in elsewhere:
            here = found[MAKES, regime].get(key)
            cells.append(number("fpr", here["traffic"]["fpr"] if here else None))
        rows.append([e["label"], e["variant"] or UNDEFINED, *cells])
    return Table(header, rows, names=2)


def csv_rows(document: Document) -> Iterator[list[Any]]:
    """Rows of `leaderboard.csv`, with `CSV_COLUMNS`."""
    for e in document["standings"]:
        head = [
            document["dataset"],
            document["protocol"]["version"],
            *(e[k] for k in ("setting", "regime", "family", "method", "variant")),
        ]
        values: list[Any] = []
        for m in METRICS:
            found = e["metrics"][m]
            values += [
                found["mean"],
                *(found["interval"] or (None, None)),
                found["worst"],
                found["worst_fold"],
                len(found["folds"]),
            ]
        t = e["traffic"]
        traffic = [
            t["n_false_alarms"],
            t["attack_free_hours"],
            t["false_alarms_per_hour"],
            *(t["interval"] or (None, None)),
        ]
        counts = [e[k] for k in ("n_windows", "n_attacked", "n_episodes")]
        yield [
            *head,
            e["own_point"],
            e["folds"],
            len(e["seeds"]),
            *values,
            *counts,
            *traffic,
            t["alarm_seconds_per_hour"],
            t["fpr"],
        ]
