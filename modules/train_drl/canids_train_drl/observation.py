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

    def features(self, values: np.ndarray, segment_of: np.ndarray) -> np.ndarray:
        """Everything but the alarm state: float32 [N, len(layout) − 2] of `values` [N, C].

        History never crosses the border of a segment (`segment_of`, [N]); a segment's first window is its own past.
        """
        frame = pl.DataFrame(self.scores(values).astype(np.float64), schema=list(_DETECTORS))
        frame = frame.with_columns(segment=pl.Series(segment_of))
        both = pl.col(*_DETECTORS)
        parts = [
            both.name.keep(),
            both.shift(1).over("segment").fill_null(both).name.suffix("_previous"),
            both.ewm_mean(alpha=1 - float(np.exp(-1 / self.fast)), adjust=False).over("segment").name.suffix("_fast"),
            both.ewm_mean(alpha=1 - float(np.exp(-1 / self.slow)), adjust=False).over("segment").name.suffix("_slow"),
            both.rolling_max(self.recent, min_samples=1).over("segment").name.suffix("_recent_maximum"),
        ]
        history = frame.select(parts).to_numpy().astype(np.float32)
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


def with_alarm_state(features: torch.Tensor, alarm: torch.Tensor, since: torch.Tensor) -> torch.Tensor:
    """Complete observations [B, F + 2]: `features` [B, F], alarm on or off [B], windows since it changed [B]."""
    age = since.clamp(max=SINCE_CAP).to(features.dtype) / SINCE_CAP
    return torch.cat([features, alarm.to(features.dtype)[:, None], age[:, None]], dim=1)
