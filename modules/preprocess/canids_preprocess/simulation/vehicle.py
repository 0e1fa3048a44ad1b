"""The vehicles: which ECU sends which arbitration ID, how often, and what its payload holds.

A vehicle's design is drawn from its name alone: every drive of it, whatever the seed, has the same IDs and layouts.
"""

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from canids_preprocess.simulation.driving import CHANNELS
from canids_preprocess.simulation.signals import Checksum, Constant, Counter, Flags, Layout, Sensor, Signal
from canids_shared.errors import CanidsError

# Vehicle: number of ECUs, of messages by period in ms, of event messages.
_VEHICLES = {
    "compact": (6, {10: 12, 20: 8, 50: 4, 100: 5, 200: 2, 500: 1, 1000: 2}, 3),
    "van": (8, {10: 11, 20: 10, 50: 6, 100: 8, 200: 4, 500: 2, 1000: 3}, 4),
    "truck": (10, {10: 9, 20: 14, 50: 10, 100: 10, 200: 5, 500: 3, 1000: 3}, 5),
}
VEHICLES = tuple(_VEHICLES)

_COMMON_IDS = (0x0A0, 0x130, 0x1E5, 0x220, 0x316, 0x3D9, 0x43F, 0x545)
"""IDs that several vehicles use, each for something else."""


@dataclass(frozen=True)
class Message:
    """One arbitration ID.

    Attributes:
        can_id: 11-bit arbitration ID.
        ecu: number of the ECU that sends it.
        period: seconds from frame to frame; of an event message, the shortest interval, held within a burst.
        periodic: whether it is sent all the time, or in bursts after events.
        event_rate: events a second of an event message.
        phase: share of the period by which it follows its ECU's clock.
        jitter: mean delay of a release in seconds.
        layout: the payload.
    """

    can_id: int
    ecu: int
    period: float
    periodic: bool
    event_rate: float
    phase: float
    jitter: float
    layout: Layout


@dataclass(frozen=True)
class Vehicle:
    """A design: messages in the order of their IDs, clock drift of each ECU (relative, such as 50e-6), bus speed in bit/s."""

    name: str
    messages: tuple[Message, ...]
    drift: tuple[float, ...]
    bit_rate: int = 500_000

    def message(self, can_id: int) -> Message:
        """The message with this ID."""
        return next(m for m in self.messages if m.can_id == can_id)


def seed_of(name: str) -> int:
    """A number for the name of a vehicle or an attack, for `SeedSequence`."""
    return zlib.crc32(name.encode())


@cache
def design(name: str) -> Vehicle:
    """The vehicle of that name.

    Raises `CanidsError` listing the vehicles if there is none.
    """
    if name not in _VEHICLES:
        raise CanidsError(f"simulation: no vehicle '{name}'; vehicles: {', '.join(VEHICLES)}")
    n_ecus, periods, n_events = _VEHICLES[name]
    rng = np.random.default_rng(np.random.SeedSequence([seed_of(name)]))
    slots = [(ms, True) for ms, n in periods.items() for _ in range(n)]
    slots += [(int(rng.choice([20, 30, 50])), False) for _ in range(n_events)]
    # Short periods tend to have low IDs, as designers rank by deadline, but not strictly.
    urgency = [np.log(ms if periodic else 100) + 0.8 * rng.standard_normal() for ms, periodic in slots]
    jitters = rng.uniform(20e-6, 200e-6, n_ecus)
    messages = []
    for can_id, slot in zip(_ids(len(slots), rng), np.argsort(urgency), strict=True):
        ms, periodic = slots[slot]
        ecu = int(rng.integers(n_ecus))
        messages.append(
            Message(
                can_id=can_id,
                ecu=ecu,
                period=ms / 1000,
                periodic=periodic,
                event_rate=0.0 if periodic else float(rng.uniform(0.1, 0.5)),
                phase=float(rng.random()),
                jitter=float(jitters[ecu] * rng.uniform(0.7, 1.5)),
                layout=_layout(ms / 1000 if periodic else 0.0, rng),
            )
        )
    return Vehicle(name, tuple(messages), tuple(rng.uniform(-80e-6, 80e-6, n_ecus).tolist()))


def _ids(n: int, rng: np.random.Generator) -> list[int]:
    common = rng.choice(_COMMON_IDS, size=4, replace=False).tolist()
    own = rng.choice(np.setdiff1d(np.arange(0x040, 0x7E0), _COMMON_IDS), size=n - len(common), replace=False).tolist()
    return sorted(common + own)


def _layout(period: float, rng: np.random.Generator) -> Layout:
    """Draw a payload; `period` in seconds, 0 for an event message."""
    dlc = 8 if rng.random() < 0.78 else int(rng.integers(2, 8))
    checksum = None
    if dlc >= 4 and rng.random() < 0.45:
        checksum = Checksum(str(rng.choice(["xor", "crc8"])), int(rng.integers(256)))
    end = 8 * (dlc - 1 if checksum else dlc)
    signals: list[Signal] = []
    if checksum or rng.random() < 0.4:
        bits = int(rng.choice([4, 8]))
        signals.append(Counter(end - bits, bits))
        if bits == 4:
            signals.append(Constant(end - 8, 4, int(rng.integers(16))))
        end -= 8
    # Flags of periodic messages change about every half minute; an event is a change.
    toggle = 0.03 * period if period else 0.3
    start = 0
    while start < end:
        signals += _next_signals(start, end - start, toggle, sensors=period > 0, rng=rng)
        start = signals[-1].start + signals[-1].bits
    return Layout(dlc, tuple(signals), checksum)


def _next_signals(start: int, room: int, toggle: float, sensors: bool, rng: np.random.Generator) -> list[Signal]:
    """One or two bytes of signals at bit `start`, where `room` bits are left."""
    kind = rng.choice(["sensor", "flags", "constant", "unused"], p=[0.6, 0.12, 0.12, 0.16])
    if kind == "sensor" and sensors:
        bits = 8 if room == 8 else int(rng.choice([8, 12, 16]))
        full = 2**bits - 1
        low, high = full * rng.uniform(0, 0.1), full * rng.uniform(0.5, 1.0)
        channel = str(rng.choice(CHANNELS))
        noise = float(rng.uniform(0.2, 0.6) if bits == 8 else rng.uniform(0.5, 2.0 ** (bits - 10)))
        sensor: Signal = Sensor(start, bits, channel, float(low), float(high), noise)
        return [sensor, Flags(start + 12, 4, int(rng.integers(16)), toggle)] if bits == 12 else [sensor]
    if kind == "flags" or (kind == "sensor" and not sensors):
        return [Flags(start, 8, int(rng.integers(256)), toggle)]
    value = int(rng.integers(256)) if kind == "constant" else int(rng.choice([0x00, 0xFF]))
    return [Constant(start, 8, value)]
