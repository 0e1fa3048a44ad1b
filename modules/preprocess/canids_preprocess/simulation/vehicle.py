"""The vehicles: which ECU sends which arbitration ID, how often, and with which payload.

A vehicle's design is drawn from its name alone: every drive of it, whatever the seed, has the same IDs and layouts. Of the
kinds compact, van and truck, how many IDs there are of each period, how regular they are and how much of their payload moves
follows the two vehicles of the HCRL Survival captures (Han, Kwak and Kim 2018, "Anomaly intrusion detection method for
vehicular networks based on survival analysis"). Vehicles of the kind `any` differ as widely as vehicles of several makes do
(`styles.py`).
"""

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from canids_preprocess.simulation.driving import CHANNELS
from canids_preprocess.simulation.signals import Checksum, Constant, Counter, Cycle, Flags, Layout, Sensor, Signal
from canids_preprocess.simulation.styles import Style, drawn_style
from canids_shared.errors import CanidsError

_STYLES = {
    "compact": Style(5, {10: 16, 20: 5, 50: 1, 100: 5, 200: 1, 1000: 2}, 2),
    "van": Style(7, {10: 15, 20: 8, 50: 1, 100: 10, 200: 5, 1000: 5}, 2),
    "truck": Style(9, {10: 12, 20: 13, 50: 8, 100: 8, 200: 4, 500: 2, 1000: 3}, 4),
}
VEHICLES = tuple(_STYLES)
ANY = "any"
"""The kind of vehicles whose style too is drawn from their name."""

_COMMON_IDS = (0x0A0, 0x130, 0x1E5, 0x220, 0x316, 0x3D9, 0x43F, 0x545)
"""IDs that several vehicles use, each for something else."""
_TICK_MS = 10
"""Milliseconds from tick to tick, at which an ECU starts its tasks."""


@dataclass(frozen=True)
class Task:
    """All messages of an ECU that have the same period: they are released together, as one burst on the bus.

    Attributes:
        ecu: number of the ECU.
        period: seconds; of event messages, the interval within a burst.
        offset: seconds after the ECU's own beginning.
        jitter: mean delay of a tick in seconds; delays are uniform from 0 to twice that.
        sway: seconds by which every second tick is late, as behind a slower task that runs every second time.
    """

    ecu: int
    period: float
    offset: float
    jitter: float
    sway: float


@dataclass(frozen=True)
class Ecu:
    """An ECU's clock: seconds from tick to tick, and by which share it is slow (such as 50e-6)."""

    tick: float
    drift: float


@dataclass(frozen=True)
class Message:
    """One arbitration ID.

    Attributes:
        can_id: 11-bit arbitration ID.
        task: the task that sends it.
        periodic: whether it is sent all the time, or in bursts after events.
        event_rate: events per second of an event message.
        layout: the payload.
    """

    can_id: int
    task: Task
    periodic: bool
    event_rate: float
    layout: Layout

    @property
    def period(self) -> float:
        """Seconds from frame to frame; of an event message, the shortest interval, held within a burst."""
        return self.task.period


@dataclass(frozen=True)
class Vehicle:
    """A design: messages in the order of their IDs, ECUs by number, bus speed in bit/s."""

    name: str
    messages: tuple[Message, ...]
    ecus: tuple[Ecu, ...]
    bit_rate: int = 500_000

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, in the order of their first messages."""
        return tuple(dict.fromkeys(m.task for m in self.messages))

    def message(self, can_id: int) -> Message:
        """The message with this ID."""
        return next(m for m in self.messages if m.can_id == can_id)


def seed_of(name: str) -> int:
    """A number for the name of a vehicle or an attack, for `SeedSequence`."""
    return zlib.crc32(name.encode())


@cache
def design(name: str) -> Vehicle:
    """The vehicle of that name: `van`, or `van-2`, `van-3`, …, others with as many messages of each period; or `any-1`, `any-2`, ….

    Raises `CanidsError` listing the vehicles if there is none.
    """
    kind, hyphen, number = name.partition("-")
    if kind not in (*VEHICLES, ANY) or (hyphen and not number.isdecimal()):
        raise CanidsError(
            f"simulation: no vehicle '{name}'; vehicles: {', '.join((*VEHICLES, ANY))}, or further ones of a kind: van-2, van-3, …"
        )
    style = drawn_style(seed_of(name)) if kind == ANY else _STYLES[kind]
    rng = np.random.default_rng(np.random.SeedSequence([seed_of(name)]))
    n_ecus = style.ecus
    paces = [(ms, True) for ms, n in style.periods.items() for _ in range(n)]
    paces += [(int(rng.choice([20, 30, 50])), False) for _ in range(style.events)]
    # Short periods tend to have low IDs, as designers rank by deadline, but not strictly.
    urgency = [np.log(ms if periodic else 100) + 1.2 * rng.standard_normal() for ms, periodic in paces]
    # Quartz clocks are off by less than 100 ppm; one ECU in three runs on a cheaper one, or on another period than its design has.
    drifts = np.where(rng.random(n_ecus) < 1 / 3, rng.uniform(-8e-3, 8e-3, n_ecus), rng.uniform(-1e-4, 1e-4, n_ecus))
    jitters = 10 ** rng.uniform(*style.jitter, n_ecus)  # seconds
    sways = np.where(rng.random(n_ecus) < 0.3, 10 ** rng.uniform(-3.7, -2.7, n_ecus), 0.0)
    tasks: dict[tuple[int, float, bool], Task] = {}
    messages = []
    for can_id, pace in zip(_ids(len(paces), rng), np.argsort(urgency), strict=True):
        ms, periodic = paces[pace]
        # Engine, brakes and steering send most of what is fast.
        ecu = int(rng.integers(2 * n_ecus // 3 + 1 if ms <= 20 else n_ecus))
        if (ecu, ms, periodic) not in tasks:
            offset = _TICK_MS * int(rng.integers(max(int(ms) // _TICK_MS, 1))) / 1000
            sway = float(sways[ecu]) if ms == _TICK_MS else 0.0
            # Whoever is late comes before its next tick.
            jitter = min(float(jitters[ecu] * rng.uniform(0.5, 1.2)), 0.2 * ms / 1000)
            tasks[ecu, ms, periodic] = Task(ecu, ms / 1000, offset, jitter, sway)
        rate = 0.0 if periodic else float(rng.uniform(0.1, 0.5))
        layout = _layout(ms / 1000 if periodic else 0.0, rng, style)
        messages.append(Message(can_id, tasks[ecu, ms, periodic], periodic, rate, layout))
    return Vehicle(name, tuple(messages), tuple(Ecu(_TICK_MS / 1000, float(d)) for d in drifts), style.bit_rate)


def _ids(n: int, rng: np.random.Generator) -> list[int]:
    common = rng.choice(_COMMON_IDS, size=4, replace=False).tolist()
    others = rng.choice(
        np.setdiff1d(np.arange(0x010, 0x7E0), _COMMON_IDS), size=n - len(common), replace=False
    ).tolist()
    return sorted(common + others)


def _layout(period: float, rng: np.random.Generator, style: Style) -> Layout:
    """Draw a payload; `period` in seconds, 0 for an event message."""
    # Fast messages are long: those of fewer than eight bytes make up few of the frames.
    long = rng.random() < np.interp(period, [0.02, 0.1], style.long)
    dlc = 8 if long else int(rng.integers(style.shortest, 8))
    if rng.random() < np.interp(period, [0.0, 0.009, 0.01, 0.1], [0.0, 0.0, *style.still]):
        # A heartbeat: it only shows that the sender is alive.
        value = [int(rng.integers(256)) if rng.random() < 0.4 else 0 for _ in range(dlc)]
        return Layout(dlc, tuple(Constant(8 * k, 8, v) for k, v in enumerate(value)), None)
    checksum = None
    if dlc >= 4 and period and rng.random() < 0.3:
        checksum = Checksum(str(rng.choice(["xor", "crc8"])), int(rng.integers(256)))
    end = 8 * (dlc - 1 if checksum else dlc)
    signals: list[Signal] = []
    if checksum or rng.random() < 0.4:
        bits = int(rng.choice([2, 4, 4, 4, 8]))
        signals.append(Counter(end - bits, bits))
        if bits < 8:
            signals.append(Constant(end - 8, 8 - bits, int(rng.integers(2 ** (8 - bits)))))
        end -= 8
    # Flags of periodic messages change about every half minute; an event is a change.
    toggle = 0.03 * period if period else 0.3
    # Some messages, such as those of motion sensors, hold little else than measurements.
    sensors = 0.0 if not period else 0.8 if rng.random() < 0.15 else style.sensors
    start = 0
    while start < end:
        signals += _next_signals(start, end - start, toggle, sensors, rng)
        start = signals[-1].start + signals[-1].bits
    return Layout(dlc, tuple(signals), checksum)


def _next_signals(start: int, room: int, toggle: float, sensors: float, rng: np.random.Generator) -> list[Signal]:
    """One or two bytes of signals at bit `start`, where `room` bits are left; `sensors` is the share that measures."""
    kind = rng.choice(["flags", "cycle", "constant", "unused"], p=[0.12, 0.07, 0.25, 0.56])
    if rng.random() < sensors:
        bits = 8 if room == 8 else int(rng.choice([8, 12, 16]))
        full = 2**bits - 1
        # Few sensors use their whole range; the upper bits of many never move.
        low = full * rng.uniform(0, 0.3)
        high = low + (full - low) * 2 ** rng.uniform(-3, 0)
        channel = str(rng.choice(CHANNELS))
        noise = float(10 ** rng.uniform(-1.3, -0.2) * (1 if bits == 8 else rng.choice([1, 4])))
        sensor: Signal = Sensor(start, bits, channel, float(low), float(high), noise)
        return [sensor, Flags(start + 12, 4, int(rng.integers(16)), toggle)] if bits == 12 else [sensor]
    if kind == "flags":
        return [Flags(start, 8, int(rng.integers(256)), toggle)]
    if kind == "cycle":
        values = tuple(int(v) for v in rng.integers(256, size=int(rng.integers(2, 6))))
        return [Cycle(start, 8, values, int(rng.integers(1, 9)))]
    value = int(rng.integers(256)) if kind == "constant" else int(rng.choice([0x00, 0xFF]))
    return [Constant(start, 8, value)]
