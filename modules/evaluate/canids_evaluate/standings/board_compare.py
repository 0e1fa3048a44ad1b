"""Several leaderboards side by side, where they are of one protocol and of the same data."""

from collections.abc import Sequence
from pathlib import Path

from canids_evaluate.pages.tables import UNDEFINED, Table, number
from canids_evaluate.standings.board_tables import Document, entries, false_alarms, places, shown_mean
from canids_evaluate.standings.places import SETTINGS
from canids_shared.contracts.evaluation import read_leaderboard
from canids_shared.errors import CanidsError


def read_comparable(paths: Sequence[Path]) -> dict[str, Document]:
    """Leaderboards by path; raises `CanidsError` naming the first whose protocol or data are not those of the first one."""
    documents: dict[str, Document] = {str(path): read_leaderboard(path) for path in paths}
    first = next(iter(documents))
    for path, found in documents.items():
        if difference := difference_of(documents[first], found):
            raise CanidsError(
                f"{path}: not comparable with {first}, whose {difference} is another; make both of one protocol and the same data"
            )
    return documents


def difference_of(one: Document, two: Document) -> str | None:
    """The part, and the key, in which protocol or data of two tables differ; None where they do not."""
    for part in ("protocol", "data"):
        for key in sorted(one[part].keys() | two[part].keys()):
            a, b = one[part].get(key), two[part].get(key)
            if a != b:
                inner = next((k for k in sorted({*a, *b}) if a.get(k) != b.get(k)), "") if isinstance(a, dict) else ""
                return f"{part}.{key}" + (f" ({inner})" if inner else "")
    return None


def side_by_side(documents: Sequence[Document]) -> list[tuple[str, Table]]:
    """F1 and false alarms an hour of several tables, place by place, and the change in F1 from the first to the last."""
    tables = []
    numbers = [str(n) for n in range(1, len(documents) + 1)]
    for place in dict.fromkeys(p for d in documents for p in places(d)):
        found = [{(e["variant"], e["method"]): e for e in entries(d, *place)} for d in documents]
        rows = []
        for key, any_of in {k: e for of in found for k, e in of.items()}.items():
            each = [of.get(key) for of in found]
            first, last = (e["metrics"]["f1"]["mean"] if e else None for e in (each[0], each[-1]))
            change = number("f1", None if first is None or last is None else last - first, sign=True)
            f1 = [shown_mean(e, "f1") if e else UNDEFINED for e in each]
            alarms = [false_alarms(e["traffic"]) if e else UNDEFINED for e in each]
            rows.append([any_of["label"], any_of["variant"] or UNDEFINED, *f1, change, *alarms])
        header = ["Method", "Variant", *(f"F1 ({n})" for n in numbers), "Change"]
        header += [f"False alarms/h ({n})" for n in numbers]
        tables.append((f"{SETTINGS[place[0]]}, {place[1]}", Table(header, rows, names=2)))
    return tables
