"""Tables of results as Markdown, for a terminal, or as HTML; the one place where numbers are rounded for reading."""

import html
import re
from dataclasses import dataclass
from typing import Any

from canids_evaluate.judging.bounds import ENOUGH
from canids_evaluate.judging.metrics import COUNTS, METRICS
from canids_evaluate.pages.rows import FUSION, Row

COLUMNS = {
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "auroc": "AUROC",
    "pr_auc": "PR-AUC",
    "fpr": "FPR",
    "false_alarms_per_hour": "False alarms/h",
    "alarm_seconds_per_hour": "Seconds in false alarm/h",
    "recall_at_1_per_hour": "Recall at 1/h",
    "recall_at_10_per_hour": "Recall at 10/h",
    "detection_delay_s": "Delay (s)",
    "episodes_found": "Episodes found",
}
_DIGITS = {"f1": 4, "auroc": 4, "pr_auc": 4, "fpr": 4, "false_alarms_per_hour": 1, "alarm_seconds_per_hour": 1}
THRESHOLDS = (
    "A method's threshold is the lowest at which the share of false alarms, averaged over the vehicles in calibrate (each counts the same, recorded or simulated), is at most "
    "the budget; for a vehicle with attack-free traffic of its own (in calibrate or enrolled) that traffic counts half, all others together the other half; none lies below the even odds of a detector that has them. An alarm takes k of the last n "
    "windows; fusions are held to the same rule."
)
"""How thresholds are set: the one sentence of pages, cards and README."""
METHOD = (
    f"{THRESHOLDS} The F1-optimal threshold is chosen on calibrate too. Intervals are "
    "95 % bootstrap intervals over attack episodes and attack-free stretches, five of each at least, exact ones for counts of events (of false alarms the wider of both) and "
    "where no error was made; differences are paired over the same resamples, bold where the interval leaves out zero. By event: runs of "
    "false alarms, and seconds in false alarm, an hour of attack-free time (an alarm that never ends has 3,600); mean delay over the episodes "
    "that were found, with the shortest that a window allows; share of episodes found, below five their number. Recall at 1/h and at 10/h: by window, "
    "at a threshold with so many false alarms an hour and as many minutes of them, not known beforehand."
)
"""How to read the tables."""
UNDEFINED = "–"
CSV_COLUMNS = [
    *("dataset", "instance", "scenario", "variant", "method", *METRICS, "f1_optimal", *COUNTS),
    *(f"{metric}_{end}" for metric in METRICS for end in ("low", "high")),
]
"""Of `results.csv`."""


@dataclass(frozen=True)
class Table:
    """A table of text; `**…**` in a cell is bold. The first `names` columns are names, the others numbers."""

    header: list[str]
    rows: list[list[str]]
    names: int = 1

    def markdown(self) -> str:
        """As Markdown."""
        ruler = "|" + "---|" * self.names + "---:|" * (len(self.header) - self.names)
        return "\n".join([_line(self.header), ruler, *map(_line, self.rows)])

    def terminal(self) -> str:
        """As aligned columns."""
        lines = [self.header, *([c.replace("**", "") for c in row] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        return "\n".join(
            "  ".join(
                c.ljust(w) if i < self.names else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def html(self) -> str:
        """As an HTML `table`."""

        def row(cells: list[str], tag: str) -> str:
            kinds = ["" if i < self.names else ' class="number"' for i in range(len(cells))]
            return (
                "<tr>" + "".join(f"<{tag}{k}>{_bold(c)}</{tag}>" for c, k in zip(cells, kinds, strict=True)) + "</tr>"
            )

        body = "\n".join(row(r, "td") for r in self.rows)
        return f"<table>\n<thead>{row(self.header, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _bold(cell: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(cell))


def number(metric: str, value: float | None, sign: bool = False) -> str:
    """A metric's value, rounded as everywhere."""
    if value is None:
        return UNDEFINED
    return f"{value:{'+' if sign else ''}.{_DIGITS.get(metric, 3)}f}"


def with_interval(metric: str, text: str, interval: list[float] | None, sign: bool = False) -> str:
    """A shown value followed by its interval, where there is one."""
    if not interval:
        return text
    shown = f"{'+' if sign else ''}.{min(3, _DIGITS.get(metric, 3))}f"
    return f"{text} [{interval[0]:{shown}}, {interval[1]:{shown}}]"


def results(rows: list[Row]) -> Table:
    """Every method on one scenario; the best F1 is bold. The last column is F1 at the F1-optimal threshold."""
    best = max((r.values["f1"] for r in rows if r.values["f1"] is not None), default=None)
    header = ["Method", "Variant", "F1 [95 % interval]", *list(COLUMNS.values())[1:], "F1-optimal F1"]
    lines = []
    for row in rows:
        values = row.values
        f1 = number("f1", values["f1"])
        f1 = f"**{f1}**" if values["f1"] is not None and values["f1"] == best else f1
        cells = [_cell(m, values) for m in COLUMNS if m != "f1"]
        optimal = number("f1", values["f1_optimal"]["f1"])
        f1 = with_interval("f1", f1, values["intervals"]["f1"])
        lines.append([row.label, row.variant or UNDEFINED, f1, *cells, optimal])
    return Table(header, lines, names=2)


def _cell(metric: str, values: dict[str, Any]) -> str:
    """A metric as the table of results shows it: counts instead of small shares, rates and delays with what bounds them."""
    text, interval = number(metric, values[metric]), values["intervals"][metric]
    if metric == "episodes_found":
        return episodes_found(values)
    if metric == "detection_delay_s" and values[metric] is not None:
        return f"{text} (≥ {number(metric, values['delay_floor_s'])})"
    return with_interval(metric, text, interval) if metric == "false_alarms_per_hour" else text


def episodes_found(values: dict[str, Any]) -> str:
    """The share of episodes found, or how many of how many where they are fewer than five."""
    share, episodes = values["episodes_found"], values["n_episodes"]
    if share is None or episodes >= ENOUGH:
        return number("episodes_found", share)
    return f"{round(share * episodes)} of {episodes}"


def difference(metric: str, paired: dict[str, Any]) -> str:
    """A difference of `paired.differences` with its interval; bold where the interval leaves out zero."""
    text, interval = number(metric, paired["difference"], sign=True), paired["interval"]
    return with_interval(metric, f"**{text}**" if leaves_out_zero(interval) else text, interval, sign=True)


def leaves_out_zero(interval: list[float] | None) -> bool:
    """Whether there is an interval, and zero is not in it."""
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def fusion_minus(rows: list[Row], metric: str) -> Table:
    """The fusion of each variant minus every other method of one scenario, in one metric."""
    fusions = {r.variant: r.values["minus"] for r in rows if r.method == FUSION}
    # A detector occurs once per variant, a window baseline once; the column's fusion is compared with that of its variant.
    others = {r.method: r.label for r in rows if r.method != FUSION}
    header = [f"Fusion minus …, {COLUMNS[metric]}", *(v or UNDEFINED for v in fusions)]
    return Table(
        header, [[text, *(difference(metric, f[m][metric]) for f in fusions.values())] for m, text in others.items()]
    )


def parts(rows: list[Row], group: str, metric: str) -> Table:
    """One metric of every method on one scenario, by `per_attack` or `per_capture`."""
    names = list(dict.fromkeys(n for r in rows for n in r.values[group]))
    lines = [
        [r.label, r.variant or UNDEFINED, *(number(metric, r.values[group][n][metric]) for n in names)] for r in rows
    ]
    return Table(["Method", "Variant", *names], lines, names=2)
