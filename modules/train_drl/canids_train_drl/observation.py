"""What the policy sees of a window: the one definition, used in training and in deployment.

| part | width | content |
|---|---|---|
| scores | 2 | both detectors on the common scale (`scale.TailScale`), in [0, 1] |
| history | 8 | of both: the previous score, exponential means over two time constants, the maximum of the last k |
| raw outputs | C or 0 | every detector output, standardised on attack-free `calibrate` windows, clipped to ±`CLIP` |
| alarm state | 2 | whether the alarm is on, and for how long it has been so |

All but the alarm state follow from the detectors' outputs up to and including the window; actions do not change them.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from canids_shared.errors import CanidsError
from canids_train_drl.scale import TailScale
from canids_train_drl.states import SCORES, States

CLIP = 5.0
SINCE_CAP = 32
"""Windows after which the age of an alarm state counts as old."""
_DETECTORS = ("gat", "vgae")


@dataclass(frozen=True)
class Past:
    """What the windows so far of a segment leave behind for the next, float64.

    Attributes:
        scores: [k, 2], of the last windows, k at most `Observer.recent` (and at least one).
        fast, slow: [2], exponential means.
    """

    scores: np.ndarray
    fast: np.ndarray
    slow: np.ndarray


@dataclass(frozen=True)
class Observer:
    """Turns detector outputs into observations; saved with the policy.

    Attributes:
        columns: the detector outputs that it was fitted on, C names.
        scales: common scale of each detector's score, in the order of `states.SCORES`.
        centre, spread: median and scaled interquartile range of each column, C floats.
        fast, slow: time constants of the exponential means, windows.
        recent: length of the running maximum, windows.
        raw: whether the standardised outputs are part of the observation.
    """

    columns: tuple[str, ...]
    scales: tuple[TailScale, TailScale]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    fast: float
    slow: float
    recent: int
    raw: bool

    @classmethod
    def fit(cls, calibrate: States, config: dict[str, Any]) -> "Observer":
        """Fit to the attack-free windows of `calibrate`; `config` has `history` and `raw_columns`."""
        quiet = calibrate.values[calibrate.labels == 0].astype(np.float64)
        low, middle, high = np.quantile(quiet, [0.25, 0.5, 0.75], axis=0)
        # 1.349: the interquartile range of a normal distribution in standard deviations.
        spread = np.maximum((high - low) / 1.349, 1e-3 * np.maximum(1.0, np.abs(middle)))
        gat, vgae = (TailScale.fit(quiet[:, calibrate.columns.index(name)]) for name in SCORES)
        return cls(
            columns=calibrate.columns,
            scales=(gat, vgae),
            centre=tuple(map(float, middle)),
            spread=tuple(map(float, spread)),
            fast=float(config["history"]["fast"]),
            slow=float(config["history"]["slow"]),
            recent=int(config["history"]["recent"]),
            raw=bool(config["raw_columns"]),
        )

    @property
    def layout(self) -> list[str]:
        """Names of the observation's components, in order."""
        parts = ("{}", "{}_previous", "{}_fast", "{}_slow", "{}_recent_maximum")
        names = [part.format(d) for part in parts for d in _DETECTORS]
        return [*names, *(self.columns if self.raw else ()), "alarm", "since_change"]

    def check_columns(self, states: States) -> None:
        """Raise `CanidsError` unless `states` has exactly the columns, in that order, that the observer knows."""
        if states.columns == self.columns:
            return
        differing = sorted(set(states.columns) ^ set(self.columns))
        raise CanidsError(
            f"{states.path}: other detector outputs than the policy was trained on "
            f"({', '.join(differing[:5]) or 'another order'}); train the policy again on these detectors"
        )

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Scores on the common scale: float32 [N, 2] (GAT, VGAE) of `values` [N, C]."""
        columns = [self.columns.index(name) for name in SCORES]
        return np.stack([s.score(values[:, c]) for s, c in zip(self.scales, columns, strict=True)], axis=1)

    def even_odds(self) -> float:
        """The GAT's score on the common scale of a window that it holds for attacked and attack-free alike (logit 0)."""
        return float(self.scales[0].score(np.zeros(1))[0])

    def features(self, values: np.ndarray, segment_of: np.ndarray) -> np.ndarray:
        """Everything but the alarm state: float32 [N, len(layout) − 2] of `values` [N, C].

        History never crosses the border of a segment (`segment_of`, [N]); a segment's first window is its own past.
        """
        scores = self.scores(values).astype(np.float64)
        fast, slow = (_mean(scores, windows, segment_of) for windows in (self.fast, self.slow))
        return self._complete(self._recent(scores, segment_of), fast, slow, values)

    def resumed(self, values: np.ndarray, past: Past | None) -> tuple[np.ndarray, Past]:
        """`features` of the next windows [n, C] of a segment, n > 0, and what they and `past` leave behind.

        An exponential mean goes on from its last value as if that were a first score, so the numbers are the same.
        """
        own = self.scores(values).astype(np.float64)
        scores = np.concatenate([past.scores, own]) if past else own
        recent = self._recent(scores, np.zeros(len(scores), np.int64))[-len(own) :]

        def mean(windows: float, last: np.ndarray | None) -> np.ndarray:
            begun = own if last is None else np.concatenate([last[None], own])
            return _mean(begun, windows, np.zeros(len(begun), np.int64))[-len(own) :]

        fast, slow = mean(self.fast, past.fast if past else None), mean(self.slow, past.slow if past else None)
        left = Past(scores[-max(self.recent, 1) :], fast[-1], slow[-1])
        return self._complete(recent, fast, slow, values), left

    def _recent(self, scores: np.ndarray, segment_of: np.ndarray) -> np.ndarray:
        """Of scores [N, 2]: themselves, the previous ones, and the highest of the last k, float64 [N, 6]."""
        frame = pl.DataFrame(scores, schema=list(_DETECTORS)).with_columns(segment=pl.Series(segment_of))
        both = pl.col(*_DETECTORS)
        return frame.select(
            both.name.keep(),
            both.shift(1).over("segment").fill_null(both).name.suffix("_previous"),
            both.rolling_max(self.recent, min_samples=1).over("segment").name.suffix("_recent_maximum"),
        ).to_numpy()

    def _complete(self, recent: np.ndarray, fast: np.ndarray, slow: np.ndarray, values: np.ndarray) -> np.ndarray:
        """All parts in the order of `layout`, float32; the outputs standardised where they are wanted."""
        history = np.concatenate([recent[:, :4], fast, slow, recent[:, 4:]], axis=1).astype(np.float32)
        if not self.raw:
            return history
        standard = (values.astype(np.float64) - np.array(self.centre)) / np.array(self.spread)
        return np.concatenate([history, np.clip(standard, -CLIP, CLIP).astype(np.float32)], axis=1)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value, for the policy file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Observer":
        """The inverse of `to_json`."""
        gat, vgae = (TailScale(tuple(s["knots"]), tuple(s["levels"]), s["slope"]) for s in value["scales"])
        tuples = {name: tuple(value[name]) for name in ("columns", "centre", "spread")}
        return cls(**{**value, **tuples, "scales": (gat, vgae)})


def _mean(scores: np.ndarray, windows: float, segment_of: np.ndarray) -> np.ndarray:
    """Exponential means, float64 [N, 2], over so many windows of scores [N, 2], from the beginning of each segment."""
    alpha = 1 - float(np.exp(-1 / windows))
    frame = pl.DataFrame(scores, schema=list(_DETECTORS)).with_columns(segment=pl.Series(segment_of))
    found = frame.select(pl.col(*_DETECTORS).ewm_mean(alpha=alpha, adjust=False).over("segment"))
    return np.asarray(found.to_numpy())


def with_alarm_state(features: torch.Tensor, alarm: torch.Tensor, since: torch.Tensor) -> torch.Tensor:
    """Complete observations [B, F + 2]: `features` [B, F], alarm on or off [B], windows since it changed [B]."""
    age = since.clamp(max=SINCE_CAP).to(features.dtype) / SINCE_CAP
    return torch.cat([features, alarm.to(features.dtype)[:, None], age[:, None]], dim=1)
