"""Labels of a capture: intervals of a file of labels in the capture's time, and the files that lie beside captures."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from canids_preprocess.drafting.entries import Drafted, captures_in
from canids_preprocess.drafting.id_rates import IdRates, picture
from canids_preprocess.drafting.label_files import Interval, read_labels
from canids_preprocess.drafting.names import kind_of_attack
from canids_preprocess.formats import recognise
from canids_preprocess.formats.base import Batch
from canids_preprocess.formats.compressed import name_of
from canids_shared.errors import CanidsError

TIMES = ("auto", "relative", "absolute")
_SLACK = 1.0
"""Seconds beyond a capture's ends that are cut off: times of labels are rounded, or kept by hand."""
_MARK = "[._ -]*(labels?|attacks?|attacked|intervals?|annotations?|ground.?truth)"
_TABLES = (".csv", ".tsv", ".txt", ".json")
Attacked = list[list[Any]]


def base_of(capture: Path) -> str:
    """A capture's name without its suffix, and without that of its compression."""
    return Path(name_of(capture)).stem


def _is_capture(path: Path) -> bool:
    try:
        return bool(recognise(path))
    except CanidsError:
        return False


def label_files_in(folder: Path) -> dict[Path, Path]:
    """Files of labels below a folder → the capture beside them: `drive.log` has `drive.labels.csv`, `drive_attacks.json` or `drive.json`."""
    captures: dict[tuple[Path, str], Path] = {}
    for capture in captures_in(folder):
        for name in (capture.name, capture.stem, base_of(capture)):
            captures.setdefault((capture.parent, name.casefold()), capture)
    labelled: dict[Path, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _TABLES and p.is_file()):
        marked = re.fullmatch(f"(.+?){_MARK}", path.stem, re.IGNORECASE)
        name = marked[1] if marked else path.stem if path.suffix.lower() == ".json" else ""
        capture = captures.get((path.parent, name.casefold()), path)
        # `drive_attack.csv` beside `drive.csv` may be a capture as well.
        if capture != path and not _is_capture(path):
            labelled[path] = capture
    return {path: capture for path, capture in labelled.items() if capture not in labelled}


def since_first(intervals: list[Interval], rates: IdRates, times: str = "auto") -> Attacked:
    """Intervals as a manifest has them: seconds since the capture's first frame, in order.

    Args:
        intervals: in the time of their file.
        rates: of the capture, for its first and last time.
        times: `relative` to the first frame, `absolute` as in the capture, or `auto` for the one in which all intervals fit.

    Raises `CanidsError` naming the interval that lies outside the capture, or if both times fit.
    """
    last = rates.last - rates.first

    def outside(interval: Interval, offset: float) -> bool:
        return interval.start - offset < -_SLACK or interval.end - offset > last + _SLACK

    fitting = [
        offset
        for name, offset in (("relative", 0.0), ("absolute", rates.first))
        if times in (name, "auto")
        and not any(outside(i, offset) or (i.absolute and name == "relative") for i in intervals)
    ]
    if len(fitting) == 2 and abs(rates.first) > _SLACK / 1000:
        raise CanidsError(
            f"{intervals[0].place}: times fit as seconds since the first frame and as the capture's own ({rates.first:g} to "
            f"{rates.last:g} s); say which with --times relative or --times absolute"
        )
    if not fitting:
        offsets = {"relative": [0.0], "absolute": [rates.first]}.get(times, [0.0, rates.first])
        # By the reading that fits most of them.
        offset = min(offsets, key=lambda o: sum(outside(i, o) for i in intervals))
        wrong = next((i for i in intervals if outside(i, offset)), intervals[0])
        raise CanidsError(
            f"{wrong.place}: [{wrong.start:.15g}, {wrong.end:.15g}] lies outside the capture, which has {last:.6g} s, from "
            f"{rates.first:.15g} to {rates.last:.15g} s"
        )
    placed = sorted((max(i.start - fitting[0], 0.0), min(i.end - fitting[0], last), i.kind or "") for i in intervals)
    return [[round(start, 6), round(end, 6), *([kind] if kind else [])] for start, end, kind in placed]


def keys_of(attacked: Attacked, attack: str | None, fallback: str = "attack") -> dict[str, Any]:
    """The keys `attack` (where the entry has none) and `attacked` of an entry; an interval of the entry's own kind has none."""
    kinds = list(dict.fromkeys(kind for _, _, *rest in attacked for kind in rest))
    unnamed = any(len(interval) == 2 for interval in attacked)
    name = attack or (kinds[0] if len(kinds) == 1 and not unnamed else fallback)
    plain = [i[:2] if i[2:] and i[2].casefold() == name.casefold() else i for i in attacked]
    return {**({} if attack else {"attack": name}), "attacked": plain}


def picture_of(capture: Path) -> Path:
    """The picture beside a capture that shows its intervals."""
    return capture.with_name(f"{capture.name}.attacked.png")


def label_draft(one: Drafted, labels: Path, capture: Path, batches: Iterable[Batch]) -> None:
    """Give a drafted entry the intervals of a file of labels, and draw the picture beside the capture.

    Raises `CanidsError` if the file cannot be read, or an interval lies outside the capture.
    """
    rates = IdRates.of(batches)
    attacked = since_first(read_labels(labels, base_of(capture)), rates)
    attack = one.entry.get("attack")
    known = None if attack in (None, "attack") else attack
    keys = keys_of(attacked, known, kind_of_attack(Path(capture.name)))
    role = "train" if one.entry["role"] == "to_score" else one.entry["role"]
    one.entry = {**one.entry, "role": role, "content": "labelled", **keys}
    one.comments = [f"labelled by {labels.name}: do the intervals fit? See {picture_of(capture).name}"]
    picture(picture_of(capture), capture.name, rates, keys["attacked"], one.entry["attack"])
