"""When a score becomes an alarm: one rule for every method, in batch and live.

1. **Evidence.** Of the last n windows of a segment, k must exceed the threshold. The k-th highest of the last n scores says
   so, and takes the score's place (`Evidence`); windows before the segment count as 0. Which k of n, is chosen on `calibrate`.
2. **Threshold.** The lowest one at which the share of attack-free windows that alarm, averaged over the vehicles in `calibrate`, is
   at most the false-alarm budget. Each vehicle counts the same, so the one with the longest recording does not decide for the
   others. A vehicle whose attack-free traffic is known (it has windows in `calibrate`, or is enrolled) has a threshold of its own, for
   which that traffic counts half, and all other vehicles together the other half: a minute of one drive does not show all that the
   vehicle does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

BLOCK_S = 1.0
"""Length of the blocks that stand for independent pieces of a vehicle's traffic: twenty windows or so, which resemble each other."""
FEWEST_BLOCKS = 5
"""Blocks of `calibrate` from which on a vehicle has a threshold of its own."""
_STEPS = 64
"""Most steps of the tail of other vehicles that are kept."""
FEWEST_WINDOWS = 50
"""Windows, of all buses together, that scales or models of a vehicle's own can be fitted to; one with fewer is not enrolled."""
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
        counted = np.nan_to_num(last, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        strongest = np.partition(counted, place, axis=1)[:, place] if self.windows > 1 else score
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
        tail: scores in falling order, each with the share of attack-free windows above it, averaged over the vehicles in `calibrate`:
            from none to twice the budget, by which a vehicle that is enrolled gets its threshold (`own_threshold`).
    """

    threshold: float
    vehicles: Mapping[str, float] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
    tail: tuple[tuple[float, float], ...] = ()

    def thresholds(self, vehicle: pl.Series) -> np.ndarray:
        """The threshold of each window, f64 [N], by its vehicle."""
        names = vehicle.unique().to_list()
        by_name = {name: self.vehicles.get(name, self.threshold) for name in names}
        return vehicle.replace_strict(by_name, return_dtype=pl.Float64).to_numpy() if names else np.zeros(0)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value, for headers."""
        k_of_n = [self.evidence.needed, self.evidence.windows]
        tail = [list(step) for step in self.tail]
        return {"threshold": self.threshold, "vehicles": dict(self.vehicles), "evidence": k_of_n, "tail": tail}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AlarmRule":
        """The inverse of `to_json`; raises `ValueError`, `KeyError` or `TypeError` where it is none."""
        tail = tuple((float(score), float(share)) for score, share in value["tail"])
        return cls(float(value["threshold"]), dict(value["vehicles"]), Evidence(*value["evidence"]), tail)


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


def _above(scores: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct scores [T] in falling order, and the weight strictly above each [T], from scores and weights [N]."""
    values, place = np.unique(-scores, return_inverse=True)
    weights = np.bincount(place.reshape(-1), weight, len(values))
    return -values, np.concatenate([[0.0], np.cumsum(weights)[:-1]])


def _by_blocks(block: np.ndarray) -> np.ndarray:
    """Weight of each window [N]: the same for every block, and within it for every window."""
    _, place, size = np.unique(block, return_inverse=True, return_counts=True)
    weight: np.ndarray = 1 / (len(size) * size[place.reshape(-1)])
    return weight


def own_threshold(
    attack_free: np.ndarray, block: np.ndarray, budget: float, tail: Iterable[tuple[float, float]] = ()
) -> float:
    """Threshold of a vehicle whose attack-free traffic is known, from scores [N ≥ 1] in blocks [N].

    The smallest t with R(t) / 2 + S(t) / 2 ≤ budget, where R is the mean over the vehicle's blocks of the share of a block's windows above
    t, and S that of the other vehicles, of which `tail` is the upper end (`AlarmRule.tail`); of an empty tail, with R(t) ≤ budget.

    With m blocks that are exchangeable with a further one of the vehicle's, the expected share of that block's windows that
    alarm is at most `guarantee`: R(t) ≤ 2 budget, hence (m R(t) + 1) / (m + 1) ≤ 2 budget + 1 / (m + 1) = a, so t is no lower than
    the threshold of conformal risk control at level a (Angelopoulos et al. 2022, theorem 1, which extends split conformal prediction from
    errors to shares). Blocks of a drive are not quite exchangeable: the bound grows by at most the mean total-variation distance between
    the sequence of blocks and the one with a block exchanged for the new one (Barber et al. 2023, theorem 2). Of what the vehicle
    does at other times than in these blocks it says nothing: therefore the other vehicles.
    """
    scores, above = _above(attack_free, _by_blocks(block))
    steps = np.array([(np.inf, 0.0), *tail], dtype=np.float64)
    half = 0.5 if len(steps) > 1 else 1.0
    candidates = np.unique(np.concatenate([scores, steps[1:, 0]]))
    # Above t lies what lies above the highest score that is not above t; below the end of the tail, all.
    own = np.append(above, 1.0)[np.searchsorted(-scores, -candidates, side="left")]
    others = np.append(steps[1:, 1], 1.0)[np.searchsorted(-steps[1:, 0], -candidates, side="left")]
    share = half * own + (1 - half) * others
    return float(candidates[np.flatnonzero(share <= budget + 1e-9)[0]])


def guarantee(blocks: int, budget: float) -> float:
    """What `own_threshold` of so many blocks bounds the expected share of false alarms by."""
    return min(2 * budget + 1 / (blocks + 1), 1.0)


def thresholds_by_vehicle(
    score: np.ndarray, keys: pl.DataFrame, budget: float, tail: Iterable[tuple[float, float]] = ()
) -> dict[str, float]:
    """`own_threshold` of each vehicle, on its attack-free windows with a score (not NaN).

    Args:
        score: [N], after `Evidence`.
        keys: key columns of the windows.
        budget: the false-alarm budget.
        tail: of the other vehicles.
    """
    used = (keys["label"].fill_null(2).to_numpy() == 0) & ~np.isnan(score)
    block, vehicle = blocks_of(keys), keys["vehicle"]
    found = {}
    for name in vehicle.filter(used).unique().sort().to_list():
        rows = np.flatnonzero(used & (vehicle == name).to_numpy())
        found[name] = own_threshold(score[rows], block[rows], budget, tail)
    return found


def blocks_by_vehicle(keys: pl.DataFrame) -> dict[str, int]:
    """Blocks with attack-free windows of each vehicle."""
    frame = pl.DataFrame({"vehicle": keys["vehicle"], "block": blocks_of(keys)}).filter(keys["label"].fill_null(2) == 0)
    counted = frame.group_by("vehicle").agg(pl.col("block").n_unique()).sort("vehicle")
    return dict(counted.iter_rows())


def _tail(score: np.ndarray, vehicle: np.ndarray, budget: float) -> tuple[tuple[float, float], ...]:
    """`AlarmRule.tail` of attack-free scores [N] of vehicles [N]; of a long one every so many steps, so that it overstates shares."""
    _, place, size = np.unique(vehicle, return_inverse=True, return_counts=True)
    scores, above = _above(score, 1 / (len(size) * size[place.reshape(-1)]))
    kept = np.flatnonzero(above <= 2 * budget + 1e-9)
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, _STEPS).round().astype(np.int64))]
    return tuple(zip(scores[kept].tolist(), above[kept].tolist(), strict=True))


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
    asks for the most evidence, for it has the fewest false alarms elsewhere. Without an attacked window it is single windows.

    Raises `ValueError` if there is no attack-free window with a score.
    """
    label, segments = keys["label"].fill_null(2).to_numpy(), segments_of(keys)
    free = (label == 0) & ~np.isnan(score)
    if not free.any():
        raise ValueError("attack-free")
    labelled, attacked = (label < 2) & ~np.isnan(score), (label == 1) & ~np.isnan(score)
    rules, quality = [], []
    for evidence in (Evidence(k, n) for k, n in _CANDIDATES if n <= (longest if attacked.any() else 1)):
        strengthened = evidence.over(score, segments)
        rule = _rule(strengthened, keys, free, budget, evidence)
        alarm = labelled & (np.nan_to_num(strengthened) > rule.thresholds(keys["vehicle"]))
        rules.append(rule)
        quality.append(2 * (alarm & attacked).sum() / max(alarm.sum() + attacked.sum(), 1))
    good = [rule for rule, f1 in zip(rules, quality, strict=True) if f1 >= max(quality) - TOLERANCE]
    return max(good, key=lambda rule: (rule.evidence.needed, -rule.evidence.windows))


def _rule(score: np.ndarray, keys: pl.DataFrame, free: np.ndarray, budget: float, evidence: Evidence) -> AlarmRule:
    """The rule with this evidence, from scores after it and the attack-free windows `free` [N]."""
    vehicle, block = keys["vehicle"].to_numpy(), blocks_of(keys)
    tail = _tail(score[free], vehicle[free], budget)
    threshold = next(s for s, above in reversed(tail) if above <= budget + 1e-9)
    own = {}
    for name in np.unique(vehicle[free]).tolist():
        mine, others = free & (vehicle == name), free & (vehicle != name)
        if len(np.unique(block[mine])) >= FEWEST_BLOCKS:
            rest = _tail(score[others], vehicle[others], budget) if others.any() else ()
            own[name] = own_threshold(score[mine], block[mine], budget, rest)
    return AlarmRule(threshold, own, evidence, tail)
