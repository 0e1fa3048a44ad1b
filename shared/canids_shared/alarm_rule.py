"""When a score becomes an alarm: one rule for every method, in batch and live.

1. **Evidence.** Of the last n windows of a segment, k must exceed the threshold. The k-th highest of the last n scores says
   so, and takes the score's place (`Evidence`); windows before the segment count as 0. Which k of n, is chosen on `calibrate`.
2. **Threshold.** A vehicle whose attack-free traffic is known (it has windows in `calibrate`, or is enrolled) has a threshold of
   its own (`own_threshold`); one never met has a quantile over the vehicles that are known (`over_vehicles`), not over their
   windows: the vehicle with the longest recording does not decide for the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

BLOCK_S = 1.0
"""Length of the blocks that stand for independent pieces of a vehicle's traffic: twenty windows or so, which resemble each other."""
FEWEST_BLOCKS = 20
"""Blocks of `calibrate` from which on a vehicle has a threshold of its own; of fewer the bound 1 / (blocks + 1) says too little."""
FEWEST_WINDOWS = 50
"""Windows that scales or models of a vehicle's own can be fitted to; one enrolled by fewer is left out of the enrolled scenarios."""
VEHICLES_ABOVE = 0.1
"""Share of vehicles never met that may need a higher threshold than they get."""
TOLERANCE = 0.002
"""Rules whose F1 differs by less count as equal, and the one that asks for the most evidence is taken."""
_CANDIDATES = ((1, 1), (2, 3), (2, 2), (3, 5), (3, 4), (3, 3))


@dataclass(frozen=True)
class Evidence:
    """`needed` of the last `windows` windows have to exceed the threshold."""

    needed: int = 1
    windows: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.needed <= self.windows:
            raise ValueError("evidence")

    def step(self, score: np.ndarray, past: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The k-th highest of the last n scores, at each of the next m windows of a segment.

        Args:
            score: [m] in [0, 1], or NaN where a method has none.
            past: scores of the `windows` − 1 windows before; None at the beginning of a segment.

        Returns:
            Scores [m] of the same type, and what to remember.
        """
        before = np.zeros(self.windows - 1, score.dtype) if past is None else past
        known = np.concatenate([before, score])
        last = np.lib.stride_tricks.sliding_window_view(known, self.windows) if len(score) else known[:0, None]
        place = self.windows - self.needed
        strongest = np.partition(last, place, axis=1)[:, place] if self.windows > 1 else score
        return np.where(np.isnan(score), score, strongest), known[len(score) :]

    def over(self, score: np.ndarray, segments: np.ndarray) -> np.ndarray:
        """`step` mapped over whole segments, [S + 1] first windows and the end, of scores [N]."""
        if self.windows == 1:
            return score
        parts = [self.step(score[begin:end])[0] for begin, end in pairwise(segments)]
        return np.concatenate(parts) if parts else score


@dataclass(frozen=True)
class AlarmRule:
    """The rule of one method.

    Attributes:
        threshold: a score above it is an alarm on a vehicle never met.
        vehicles: thresholds of the vehicles whose attack-free traffic is known.
        evidence: how many windows an alarm takes.
    """

    threshold: float
    vehicles: Mapping[str, float] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)

    def thresholds(self, vehicle: pl.Series) -> np.ndarray:
        """The threshold of each window, f64 [N], by its vehicle."""
        names = vehicle.unique().to_list()
        by_name = {name: self.vehicles.get(name, self.threshold) for name in names}
        return vehicle.replace_strict(by_name, return_dtype=pl.Float64).to_numpy() if names else np.zeros(0)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value, for headers."""
        k_of_n = [self.evidence.needed, self.evidence.windows]
        return {"threshold": self.threshold, "vehicles": dict(self.vehicles), "evidence": k_of_n}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AlarmRule":
        """The inverse of `to_json`; raises `ValueError`, `KeyError` or `TypeError` where it is none."""
        return cls(float(value["threshold"]), dict(value["vehicles"]), Evidence(*value["evidence"]))


def segments_of(keys: pl.DataFrame) -> np.ndarray:
    """First window of each stretch of one capture with consecutive numbers, then N: int64 [S + 1] of key columns [N]."""
    capture, window = keys["capture"].rle_id().to_numpy(), keys["window"].to_numpy().astype(np.int64)
    begins = np.append(True, (np.diff(capture) != 0) | (np.diff(window) != 1))[: len(keys)]
    return np.append(np.flatnonzero(begins), len(keys)).astype(np.int64)


def blocks_of(keys: pl.DataFrame) -> np.ndarray:
    """Number of each window's block of `BLOCK_S` seconds, int64 [N]; a block lies within one segment."""
    segments, start = segments_of(keys), keys["t_start"].to_numpy()
    sizes = np.diff(segments)
    within = np.floor((start - np.repeat(start[segments[:-1]], sizes)) / BLOCK_S).astype(np.int64)
    number = np.stack([np.repeat(np.arange(len(sizes)), sizes), within], axis=1)
    return np.unique(number, axis=0, return_inverse=True)[1].reshape(-1)


def within_budget(attack_free: np.ndarray, budget: float) -> float:
    """Smallest threshold that at most the share `budget` (0 ≤ budget < 1) of the attack-free scores [N ≥ 1] exceeds.

    Scores equal to it raise no alarm, so ties can only make the false alarms fewer.
    """
    # The sum keeps a product such as .005 · 400 = 1.9999… from losing the window that the budget has.
    allowed = int(np.floor(budget * len(attack_free) + 1e-9))
    return float(np.sort(attack_free)[::-1][allowed])


def own_threshold(attack_free: np.ndarray, block: np.ndarray, budget: float) -> float:
    """Smallest threshold that keeps the budget on a vehicle's further traffic, from scores [N ≥ 1] in blocks [N].

    Conformal risk control (Angelopoulos et al. 2022, theorem 1), the extension of split conformal prediction (Angelopoulos and
    Bates 2021) from errors to a share: with m blocks and R(t) the mean over blocks of the share of a block's windows above t,
    the smallest t with (m R(t) + 1) / (m + 1) ≤ budget. If the vehicle's blocks of attack-free traffic are exchangeable,
    the expected share of a further block's windows that are alarmed is at most the budget (`guarantee`). Where not even the
    highest score reaches that (fewer than 1 / budget − 1 blocks), the highest score is the threshold, and the bound is 1 / (m + 1).
    Blocks of a drive are not quite exchangeable: the bound grows by at most the mean total-variation distance between the sequence of
    blocks and the one with a block exchanged for the new one (Barber et al. 2023, theorem 2).
    """
    _, place, size = np.unique(block, return_inverse=True, return_counts=True)
    m = len(size)
    allowed = max(budget * (m + 1) - 1, 0.0) / m
    order = np.argsort(-attack_free, kind="stable")
    ordered, weight = attack_free[order], (1 / (m * size[place.reshape(-1)]))[order]
    # Weight strictly above each score: of equal scores that before the first of them.
    above = np.concatenate([[0.0], np.cumsum(weight)[:-1]])
    first = np.searchsorted(-ordered, -ordered, side="left")
    return float(ordered[np.flatnonzero(above[first] <= allowed + 1e-9)[-1]])


def guarantee(blocks: int, budget: float) -> float:
    """What `own_threshold` of so many blocks bounds the expected share of false alarms by."""
    return max(budget, 1 / (blocks + 1))


def over_vehicles(thresholds: Iterable[float]) -> float:
    """The threshold of a vehicle never met, from those [V ≥ 1] that V vehicles would each need to keep the budget.

    The k-th smallest, k = ⌈(1 − `VEHICLES_ABOVE`) (V + 1)⌉, the highest where k > V. Split conformal prediction with vehicles
    as units (Dunn, Wasserman and Ramdas 2023, "subsampling once" with a statistic of each group): if the vehicle is
    exchangeable with the V, the probability that it needs a higher one is at most `VEHICLES_ABOVE`, and 1 / (V + 1) where k > V.
    """
    ordered = sorted(thresholds)
    place = int(np.ceil((1 - VEHICLES_ABOVE) * (len(ordered) + 1) - 1e-9))
    return ordered[min(place, len(ordered)) - 1]


def thresholds_by_vehicle(score: np.ndarray, keys: pl.DataFrame, budget: float, fewest: int = 1) -> dict[str, float]:
    """`own_threshold` of each vehicle with at least `fewest` blocks, on its attack-free windows with a score (not NaN).

    Args:
        score: [N], after `Evidence`.
        keys: key columns of the windows.
    """
    used = (keys["label"].fill_null(2).to_numpy() == 0) & ~np.isnan(score)
    block, vehicle = blocks_of(keys), keys["vehicle"]
    found = {}
    for name in vehicle.filter(used).unique().sort().to_list():
        rows = np.flatnonzero(used & (vehicle == name).to_numpy())
        if len(np.unique(block[rows])) >= fewest:
            found[name] = own_threshold(score[rows], block[rows], budget)
    return found


def blocks_by_vehicle(keys: pl.DataFrame) -> dict[str, int]:
    """Blocks with attack-free windows of each vehicle."""
    frame = pl.DataFrame({"vehicle": keys["vehicle"], "block": blocks_of(keys)}).filter(keys["label"].fill_null(2) == 0)
    counted = frame.group_by("vehicle").agg(pl.col("block").n_unique()).sort("vehicle")
    return dict(counted.iter_rows())


def enrolled_vehicles(keys: pl.DataFrame) -> tuple[list[str], list[str]]:
    """Vehicles of the split `enrolment` with at least `FEWEST_WINDOWS` attack-free windows, and what to say of each other one.

    All methods ask here, those that decide and those that evaluate, so that they judge the same vehicles.
    """
    counted = keys.group_by("vehicle").agg((pl.col("label") == 0).sum().alias("windows")).sort("vehicle")
    enough = counted.filter(pl.col("windows") >= FEWEST_WINDOWS)["vehicle"].to_list()
    few = [
        f"{vehicle} is enrolled by {windows} windows, too few to learn from ({FEWEST_WINDOWS} at least), and left out; "
        "set enrolment to more seconds, or give it a longer attack-free capture"
        for vehicle, windows in counted.filter(pl.col("windows") < FEWEST_WINDOWS).iter_rows()
    ]
    return enough, few


def fit(score: np.ndarray, keys: pl.DataFrame, budget: float, longest: int = 1) -> AlarmRule:
    """The rule of a method from its scores [N] on `calibrate`; `longest` is the most windows that evidence may span.

    Of the rules that keep the budget, that with the highest F1 on the labelled windows is best; of those about as good, that which
    asks for the most evidence, for it has the fewest false alarms elsewhere. Without an attacked window all are equally good.

    Raises `ValueError` if there is no attack-free window with a score.
    """
    label, segments = keys["label"].fill_null(2).to_numpy(), segments_of(keys)
    free = (label == 0) & ~np.isnan(score)
    if not free.any():
        raise ValueError("attack-free")
    labelled, attacked = (label < 2) & ~np.isnan(score), (label == 1) & ~np.isnan(score)
    rules, quality = [], []
    for evidence in (Evidence(k, n) for k, n in _CANDIDATES if n <= longest):
        strengthened = evidence.over(score, segments)
        needed = [
            within_budget(strengthened[free & (keys["vehicle"] == name).to_numpy()], budget)
            for name in keys["vehicle"].filter(free).unique().sort().to_list()
        ]
        own = thresholds_by_vehicle(strengthened, keys, budget, FEWEST_BLOCKS)
        rule = AlarmRule(over_vehicles(needed), own, evidence)
        alarm = labelled & (np.nan_to_num(strengthened) > rule.thresholds(keys["vehicle"]))
        rules.append(rule)
        quality.append(2 * (alarm & attacked).sum() / max(alarm.sum() + attacked.sum(), 1) if attacked.any() else 0.0)
    good = [rule for rule, f1 in zip(rules, quality, strict=True) if f1 >= max(quality) - TOLERANCE]
    return max(good, key=lambda rule: (rule.evidence.needed, -rule.evidence.windows))
