"""What vehicles of several makes differ in: how many messages of which periods, how long, how regular, how much of them moves.

`drawn_style` draws a vehicle within the ranges of six recorded ones: Kia Soul and Hyundai Sonata (HCRL Survival), two cars of
can-train-and-test (Lampe and Meng 2023), a Subaru WRX and a Jaguar XF. They have 27 to 98 IDs, 480 to 2,570 frames/s, frames of
6.5 to 8 bytes on average, 30 to 67 % of IDs whose payload never changes, 125 or 500 kbit/s, and three families of periods.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_FRAME_BITS = 130
"""Bits of a frame of eight bytes with its stuffing and the pause behind it."""
_FAMILIES: tuple[tuple[float, ...], ...] = (
    (10, 20, 50, 100, 200, 500, 1000),
    (9, 12, 12.5, 18, 20, 25, 30, 50, 100, 250, 500, 1000, 2000, 5000),
    (15, 30, 40, 50, 60, 80, 90, 100, 120, 180, 225, 250, 300, 360, 450, 600, 720),
)
"""Periods in ms, as in the Kia, Sonata and WRX; the cars of can-train-and-test; the Jaguar."""


@dataclass(frozen=True)
class Style:
    """What a vehicle's design is drawn from.

    Attributes:
        ecus: number of ECUs.
        periods: period in ms → number of messages.
        events: number of event messages.
        bit_rate: of the bus, bit/s.
        jitter: bounds of the logarithm (base 10) of the ECUs' mean delay of a tick in seconds.
        long: share of messages of eight bytes among those of 20 ms, and of 100 ms.
        shortest: bytes of the shortest payloads.
        still: share of messages that never change among those of 10 ms, and of 100 ms.
        sensors: share of the bytes that measure something.
    """

    ecus: int
    periods: Mapping[float, int]
    events: int
    bit_rate: int = 500_000
    jitter: tuple[float, float] = (-4.7, -3.2)
    long: tuple[float, float] = (0.95, 0.8)
    shortest: int = 2
    still: tuple[float, float] = (0.16, 0.62)
    sensors: float = 0.2


def drawn_style(seed: int) -> Style:
    """A style, fixed by its seed."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    family = np.array(_FAMILIES[int(rng.integers(len(_FAMILIES)))])
    ids, rate = int(rng.integers(25, 101)), float(np.exp(rng.uniform(np.log(450), np.log(2900))))
    # As many IDs of each period as make that rate: a period's share is a power of the period.
    counts = _shares(family, float(np.clip(rate / ids, 1.2 * (1000 / family).min(), 0.7 * (1000 / family).max()))) * ids
    drawn = np.floor(counts + rng.random(len(family))).astype(int)
    periods = {float(ms): int(n) for ms, n in zip(family, drawn, strict=True) if n}
    frames_per_s = sum(n * 1000 / ms for ms, n in periods.items())
    # A slow bus where its load would be below a usual one, else 500 kbit/s.
    slow = [rate for rate in (125_000, 250_000) if frames_per_s * _FRAME_BITS < 0.55 * rate]
    bit_rate = int(rng.choice(slow)) if slow and rng.random() < 0.6 else 500_000
    # Cars with short frames have them at every pace; still and moving messages vary together with nothing.
    short, still = float(rng.uniform(0, 0.6)) * (rng.random() < 0.75), float(rng.uniform(0.05, 0.45))
    return Style(
        ecus=int(rng.integers(4, 15)),
        periods=periods,
        events=int(rng.integers(0, 6)),
        bit_rate=bit_rate,
        jitter=(-4.7, float(rng.uniform(-3.6, -2.3))),
        long=(1 - short, 1 - min(1.2 * short, 0.7)),
        shortest=int(rng.integers(1, 3)),
        still=(still, still + 0.3),
        sensors=float(rng.uniform(0.08, 0.3)),
    )


def _shares(family: np.ndarray, rate_of_id: float) -> np.ndarray:
    """Shares of IDs [P] by period such that an ID sends `rate_of_id` frames a second on average: bisection of the power."""
    low, high = -6.0, 6.0
    for _ in range(60):
        power = (low + high) / 2
        share = family**power / (family**power).sum()
        # Higher powers favour long periods, which send less.
        low, high = (power, high) if share @ (1000 / family) > rate_of_id else (low, power)
    return np.asarray(family**power / (family**power).sum())
