"""The list of detectors: name, label, score column, supervised or not.

Everything behind `train_gnn` iterates over the detectors that a states file declares in its header (`declared`). A further
detector is an entry in `DETECTORS`, or a declaration in the states files of another module.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from canids_shared.errors import CanidsError

KEY = "detectors"
"""Key of a header, of a states or decisions file or of a followed stream, that holds the declaration."""
_RESERVED = ("fusion", "baseline", "q", "unlike")
"""Prefixes of columns that the fusion writes."""
_TYPES: tuple[tuple[str, Any, str], ...] = (
    ("name", str, "text"),
    ("label", str, "text"),
    ("score", str, "text"),
    ("supervised", bool, "true or false"),
    ("even_odds", (int, float, type(None)), "a number or null"),
)


@dataclass(frozen=True)
class Detector:
    """A detector as its readers know it.

    Attributes:
        name: key in `metrics.json`; its states columns begin with `{name}_`, its column in decisions is `{name}_score`.
        label: its name in tables and figures.
        score: the states column that is its raw anomaly score, larger where more anomalous.
        supervised: whether it learns from labels.
        even_odds: raw score of a window that is attacked or attack-free with equal probability, where there is such a
            score (a logit: 0). No threshold lies below it.
    """

    name: str
    label: str
    score: str
    supervised: bool
    even_odds: float | None = None

    @property
    def prefix(self) -> str:
        """Prefix of its states columns."""
        return f"{self.name}_"

    @property
    def decided(self) -> str:
        """The decisions column with its score in [0, 1]."""
        return f"{self.name}_score"


GAT = Detector("gat", "GAT", "gat_logit", supervised=True, even_odds=0.0)
VGAE = Detector("vgae", "VGAE", "vgae_error", supervised=False)
DETECTORS = (GAT, VGAE)
"""The detectors of `train_gnn`, in the order in which the fusion reads them."""


def as_json(detectors: Sequence[Detector]) -> list[dict[str, Any]]:
    """The declaration for a header, under `KEY`."""
    return [asdict(detector) for detector in detectors]


def declared(header: Mapping[str, Any], path: str | Path) -> tuple[Detector, ...]:
    """The detectors that a header declares, in its order.

    Raises `CanidsError` naming the file if there is no such list, or an entry is not a detector.
    """
    entries = header.get(KEY)
    if not isinstance(entries, list) or not entries:
        raise CanidsError(f"{path}: declares no detectors; delete it and run again")
    detectors: list[Detector] = []
    for entry in entries:
        try:
            detector = Detector(**entry)
        except TypeError:
            known = ", ".join(field.name for field in fields(Detector))
            raise CanidsError(f"{path}: detectors: {entry!r} is not a detector ({known})") from None
        if problem := _problem(detector, detectors):
            raise CanidsError(f"{path}: detector '{detector.name}': {problem}")
        detectors.append(detector)
    return tuple(detectors)


def _problem(detector: Detector, others: Sequence[Detector]) -> str | None:
    """The rule that a declaration breaks beside `others`, or None."""
    for key, kinds, wanted in _TYPES:
        if not isinstance(getattr(detector, key), kinds):
            return f"{key} must be {wanted}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", detector.name):
        return "a name has lower-case letters, digits and underscores"
    if detector.name.split("_")[0] in _RESERVED:
        return f"a name does not begin with {', '.join(_RESERVED)}: the fusion's columns do"
    if not detector.score.startswith(detector.prefix):
        return f"its score column must begin with {detector.prefix}"
    clash = [o.name for o in others if detector.prefix.startswith(o.prefix) or o.prefix.startswith(detector.prefix)]
    return f"its columns have the same prefix as those of '{clash[0]}'" if clash else None
