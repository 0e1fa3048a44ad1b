"""Scores of all methods on one split, and which of its windows are judged."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from canids_evaluate.judging.windows import of_own_blocks
from canids_shared.alarm_rule import AlarmRule, Evidence, segments_of
from canids_shared.contracts.detectors import Detector
from canids_shared.contracts.manifest import JUDGED

log = logging.getLogger(__name__)


@dataclass
class Scores:
    """Scores of all methods on one split, one value per window.

    Attributes:
        path: the file that they come from, for messages.
        keys: key columns of the windows.
        score: method → f64 [W].
        alarm: method → bool [W], for methods with alarms of their own; the others get a threshold.
        detectors: which of the methods are detectors, as their decisions declare them.
        action: i16 [W], what the fusion did, if there is one.
        values: the policy's values of its action (`q_chosen`) and of the best other one (`q_other`), f32 [W], if there is a policy.
        even_odds: method → the score of windows that are attacked or attack-free with equal probability, where that is known.
        even_odds_of: vehicle → the same, of methods whose scores are on a scale of the enrolled vehicle's own.
        rules: method with alarms of its own → what these are held to, where its decisions say so.
        refitted: methods whose scores on enrolled vehicles are of other models than on `calibrate`.
        unlike: method → bool [W], where a detector says that the traffic is unlike that of its training: it does not alarm there.
    """

    path: Path
    keys: pl.DataFrame
    score: dict[str, np.ndarray]
    alarm: dict[str, np.ndarray]
    detectors: tuple[Detector, ...] = ()
    action: np.ndarray | None = None
    values: dict[str, np.ndarray] = field(default_factory=dict)
    even_odds: dict[str, float] = field(default_factory=dict)
    even_odds_of: dict[str, dict[str, float]] = field(default_factory=dict)
    rules: dict[str, AlarmRule] = field(default_factory=dict)
    refitted: frozenset[str] = frozenset()
    unlike: dict[str, np.ndarray] = field(default_factory=dict)

    def judged(self, scenario: str, captures: list[str]) -> "Scores":
        """The windows of a scenario that are judged: all, or of `JUDGED` those of blocks of the dataset's own `captures`."""
        return self if scenario != JUDGED else self.only(of_own_blocks(self.keys, captures))

    def of_vehicles(self, enrolled: Mapping[str, object]) -> "Scores":
        """The windows of vehicles that are enrolled, none where no vehicle is; the log names the others."""
        vehicles = self.keys["vehicle"].unique().sort().to_list()
        if absent := [name for name in vehicles if name not in enrolled]:
            log.warning("%s: not judged with enrolment: %s has none, or too little", self.path, ", ".join(absent))
        return self.only(self.keys["vehicle"].is_in(list(enrolled)).to_numpy()) if absent else self

    def only(self, rows: np.ndarray) -> "Scores":
        """Some of the windows, bool [W]."""
        score, alarm, values, unlike = (
            {name: column[rows] for name, column in columns.items()}
            for columns in (self.score, self.alarm, self.values, self.unlike)
        )
        action = None if self.action is None else self.action[rows]
        keys = self.keys.filter(rows)
        return replace(self, keys=keys, score=score, alarm=alarm, action=action, values=values, unlike=unlike)

    def strengthened(self, evidence: Mapping[str, Evidence]) -> "Scores":
        """The scores after the evidence that each method's alarms take; methods that are not named stay as they are."""
        segments = segments_of(self.keys)
        rules = {m: evidence.get(m, Evidence()) for m in self.score}
        return replace(self, score={m: rules[m].over(score, segments) for m, score in self.score.items()})
