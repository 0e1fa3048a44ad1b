"""What the policy sees of a window: one definition for training, decisions and the live path.

With D detectors:

| part | width | content |
|---|---|---|
| scores | D | all detectors on the common scale (`scale.QuantileScale`), in [0, 1] |
| history | 4 D | of each: the previous score, exponential means over two time constants, the maximum of the last k |
| raw outputs | C or 0 | every detector output, standardised on attack-free `calibrate` windows, clipped to ±`CLIP` |
| alarm state | 2 | whether the alarm is on, and for how long it has been so |

All but the alarm state follow from the detectors' outputs up to and including the window; actions do not change them.
"""

from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import polars as pl
import torch

from canids_shared.contracts.detectors import Detector
from canids_shared.errors import CanidsError
from canids_train_drl.environment.scale import QuantileScale
from canids_train_drl.environment.states import States

CLIP = 5.0
_FEW = 16
"""Windows of which exponential means are computed one by one."""
AGE_CAP = 32
"""Windows after which the age of an alarm state counts as old."""


@dataclass(frozen=True)
class ObserverState:
    """What the observer remembers of a segment between two windows, float64; its size does not grow.

    Attributes:
        scores: [k, D], of the last windows, k at most `Observer.recent`.
        means: [2 D], the fast and the slow exponential means.
    """

    scores: np.ndarray
    means: np.ndarray


@dataclass(frozen=True)
class Observer:
    """Turns detector outputs into observations; saved with the policy.

    Attributes:
        detectors: the D detectors.
        columns: names of the C detector outputs that it was fitted to.
        scales: common scale of each detector's score.
        usual: raw score of each detector that nine in ten attack-free windows of any training vehicle do not exceed, D floats.
        centre, spread: median and scaled interquartile range of each column, C floats.
        fast, slow: time constants of the exponential means, windows.
        recent: length of the running maximum, windows.
        raw: whether the standardised outputs are part of the observation.
    """

    detectors: tuple[Detector, ...]
    columns: tuple[str, ...]
    scales: tuple[QuantileScale, ...]
    usual: tuple[float, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    fast: float
    slow: float
    recent: int
    raw: bool

    @classmethod
    def fit(cls, calibrate: States, config: dict[str, Any]) -> "Observer":
        """Fit to the attack-free windows of `calibrate`; `config` has `history` and `raw_columns`."""
        attack_free = calibrate.values[calibrate.labels == 0].astype(np.float64)
        low, middle, high = np.quantile(attack_free, [0.25, 0.5, 0.75], axis=0)
        # 1.349: the interquartile range of a normal distribution in standard deviations.
        spread = np.maximum((high - low) / 1.349, 1e-3 * np.maximum(1.0, np.abs(middle)))
        score_columns = [calibrate.columns.index(detector.score) for detector in calibrate.detectors]
        vehicle = calibrate.keys["vehicle"].to_numpy()[calibrate.labels == 0]
        scores = attack_free[:, score_columns]
        by_vehicle = [np.quantile(scores[vehicle == name], 0.9, axis=0) for name in sorted(set(vehicle))]
        return cls(
            detectors=calibrate.detectors,
            columns=calibrate.columns,
            scales=tuple(QuantileScale.fit(attack_free[:, column]) for column in score_columns),
            usual=tuple(map(float, np.max(by_vehicle, axis=0))),
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
        names = [part.format(detector.name) for part in parts for detector in self.detectors]
        return [*names, *(self.columns if self.raw else ()), "alarm", "since_change"]

    def check_columns(self, states: States) -> None:
        """Raise `CanidsError` unless `states` has the detectors and the columns, in order, that the observer was fitted to."""
        if (states.columns, states.detectors) == (self.columns, self.detectors):
            return
        differing = sorted(set(states.columns) ^ set(self.columns))
        raise CanidsError(
            f"{states.path}: other detector outputs than the policy was trained on "
            f"({', '.join(differing[:5]) or 'another order'}); train the policy again on these detectors"
        )

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Scores on the common scale, float32 [N, D], of `values` [N, C]."""
        columns = [self.columns.index(detector.score) for detector in self.detectors]
        return np.stack([s.score(values[:, c]) for s, c in zip(self.scales, columns, strict=True)], axis=1)

    def even_odds(self) -> dict[str, float]:
        """Detector → its score, on the common scale, of a window that is attacked with probability one half, where it has one."""
        return {
            detector.name: float(scale.score(np.array([detector.even_odds]))[0])
            for detector, scale in zip(self.detectors, self.scales, strict=True)
            if detector.even_odds is not None
        }

    def step(self, values: np.ndarray, state: ObserverState | None) -> tuple[np.ndarray, ObserverState]:
        """Observe the next windows of a segment.

        Args:
            values: detector outputs [n, C], n > 0.
            state: what the windows before left; None at the beginning of a segment, whose first score then also stands for its past.

        Returns:
            Everything but the alarm state, float32 [n, len(layout) − 2], the D scores first; and the state after these windows.
        """
        # `known` begins with what is remembered, or with the first score in its place.
        scores, count = self.scores(values).astype(np.float64), len(values)
        known = np.concatenate([state.scores if state else scores[:1], scores])
        # The oldest known score, repeated, fills up the first windows of the running maximum and changes none of them.
        filled = np.pad(known, ((self.recent - 1, 0), (0, 0)), "edge")
        highest = np.lib.stride_tricks.sliding_window_view(filled, self.recent, axis=0).max(axis=-1)[-count:]
        means = self._means(scores, state)
        # [n, D] of scores and previous scores, [n, 2 D] of means, [n, D] of maxima; the order is that of `layout`.
        parts = [scores, known[-count - 1 : -1], means, highest]
        if self.raw:
            standard = (values.astype(np.float64) - np.array(self.centre)) / np.array(self.spread)
            parts.append(np.clip(standard, -CLIP, CLIP))
        left = ObserverState(known[-self.recent :], means[-1])
        return np.concatenate(parts, axis=1).astype(np.float32), left

    def _means(self, scores: np.ndarray, state: ObserverState | None) -> np.ndarray:
        """Exponential means of scores [n, D], float64 [n, 2 D]: the fast ones, then the slow ones.

        m_t = (1 − a) m_{t−1} + a x_t with a = 1 − exp(−1 / windows), and m_0 = x_0. The last mean before these windows therefore
        stands for a first score: the numbers are the same as if there were no break.
        """
        count = scores.shape[1]
        twice = np.concatenate([scores, scores], axis=1)
        # Polars begins with m_0 = x_0, so the last mean in front goes on from where it stopped; its row is cut off again.
        rows = twice if state is None else np.concatenate([state.means[None], twice])
        alphas = np.repeat([1 - float(np.exp(-1 / windows)) for windows in (self.fast, self.slow)], count)
        if len(rows) <= _FEW:
            # As polars computes it, to the last bit; its threads would take as long as all the rest of a followed window.
            return np.stack(list(accumulate(rows, lambda mean, row: mean + alphas * (row - mean))))[-len(scores) :]
        means = pl.DataFrame(rows, orient="row").select(
            pl.nth(column).ewm_mean(alpha=float(alpha), adjust=False) for column, alpha in enumerate(alphas)
        )
        return np.asarray(means.to_numpy()[-len(scores) :])

    def observe(self, values: np.ndarray, segments: np.ndarray) -> np.ndarray:
        """`step` mapped over whole segments [S + 1]: float32 [N, len(layout) − 2] of `values` [N, C]."""
        # The order in memory is part of the result: on it depend the last bits of what a linear layer computes.
        features = np.empty((len(values), len(self.layout) - 2), np.float32, order="C" if self.raw else "F")
        for begin, end in pairwise(segments):
            features[begin:end], _ = self.step(values[begin:end], None)
        return features

    def to_json(self) -> dict[str, Any]:
        """As a JSON value, for the policy file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Observer":
        """The inverse of `to_json`; raises `ValueError` where the parts do not fit together."""
        tuples = {name: tuple(value[name]) for name in ("columns", "usual", "centre", "spread")}
        scales = tuple(QuantileScale(tuple(s["knots"]), tuple(s["levels"]), s["slope"]) for s in value["scales"])
        detectors = tuple(Detector(**detector) for detector in value["detectors"])
        observer = cls(**{**value, **tuples, "scales": scales, "detectors": detectors})
        lengths = {len(observer.columns), len(observer.centre), len(observer.spread)}
        absent = {detector.score for detector in detectors} - set(observer.columns)
        if (
            len(lengths) > 1
            or absent
            or {len(scales), len(observer.usual)} != {len(detectors)}
            or not all(s.is_rising for s in scales)
        ):
            raise ValueError("observer")
        return observer


def with_alarm_state(features: torch.Tensor, alarm: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
    """Complete observations [B, F + 2]: `features` [B, F], alarm on or off [B], windows since it changed [B]."""
    old = age.clamp(max=AGE_CAP).to(features.dtype) / AGE_CAP
    return torch.cat([features, alarm.to(features.dtype)[:, None], old[:, None]], dim=1)
