"""A vehicle as a recording of its bus shows it, and an attacker who knows no more than that.

The attacks are those of `attacks`. What they take from the design of a simulated vehicle is here estimated from the recording:
the period of each ID, whether it is periodic, its length, and the byte of its payload that looks most like a measurement.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.attacks import Episode, Scene
from canids_preprocess.simulation.driving import Drive
from canids_preprocess.simulation.shared_bus import USUAL_RATE
from canids_preprocess.simulation.signals import Layout, Words, as_bytes
from canids_preprocess.simulation.traffic import SECOND, Frames
from canids_preprocess.simulation.vehicle import Ecu, Message, Task, Vehicle
from canids_shared.errors import CanidsError

INJECTABLE = ("dos", "fuzzing", "spoofing", "replay", "suppression", "masquerade")
"""The attacks that can be put into a recording. Jamming is not among them: it would hold back all of it."""
_FEWEST = 10
"""Frames of an ID of which anything can be estimated."""
_REGULAR = (0.5, 1.5)
"""Intervals of a periodic ID, as shares of their median; half of them lie within."""
_SLOW = 16.0
"""A byte that changes by less than this from frame to frame on average may be a measurement; a checksum jumps."""
_VALUES = 4
"""Fewest values of such a byte."""
_COUNTS = 0.6
"""A byte of whose changes more than this share are the same is a counter."""
_TOGETHER = 4
"""IDs with one period that count as one ECU's; which ECU sends them a recording does not show."""
_CHOICE = 4
"""IDs among which an attack chooses at least, also where the bus is slower than the attack would like."""


@dataclass(frozen=True)
class ObservedLayout(Layout):
    """Length of a payload, and the position of the byte that looks most like a measurement, if one does."""

    measured: int | None = None

    @property
    def has_sensor(self) -> bool:
        """Whether a byte looks like a measurement."""
        return self.measured is not None


def _measured(payload: Words, dlc: int) -> int | None:
    """Position of the byte with the most values of those that change slowly and are no counter."""
    steps = np.diff(as_bytes(payload)[:, :dlc].astype(np.int64), axis=0)
    best, most = None, _VALUES - 1
    for position, (column, values) in enumerate(zip(steps.T, as_bytes(payload).T, strict=False)):
        changes = column[column != 0]
        if not len(changes) or np.abs(column).mean() >= _SLOW:
            continue
        usual = np.unique(changes, return_counts=True)[1].max() / len(changes)
        if usual <= _COUNTS and (number := len(np.unique(values))) > most:
            best, most = position, number
    return best


def observe(name: str, frames: Frames, bit_rate: int) -> Vehicle:
    """The vehicle that a recording shows, messages in the order of their IDs; IDs with fewer than ten frames are left out.

    Raises `CanidsError` if no ID has more.
    """
    messages: list[Message] = []
    groups: dict[tuple[float, int], int] = {}
    members: dict[float, int] = {}
    order = np.argsort(frames.can_id, kind="stable")
    numbers, starts = np.unique(frames.can_id[order], return_index=True)
    for number, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        if len(rows) < _FEWEST:
            continue
        interval = np.diff(frames.release[rows]) / SECOND
        period = float(max(np.median(interval), 1e-4))
        low, high = (share * period for share in _REGULAR)
        regular = bool(((interval >= low) & (interval <= high)).mean() >= 0.5)
        jitter = float(min(np.median(np.abs(interval - period)), period / 10)) / 2
        lengths, dlc = np.unique(frames.dlc[rows]), int(np.median(frames.dlc[rows]))
        # A message of several lengths is left to itself: nobody knows what its bytes mean.
        position = _measured(frames.payload[rows], dlc) if len(lengths) == 1 else None
        rounded = round(period, 3)
        members[rounded] = members.get(rounded, -1) + 1
        ecu = groups.setdefault((rounded, members[rounded] // _TOGETHER), len(groups))
        task = Task(ecu, period, 0.0, jitter, 0.0)
        messages.append(Message(number, task, regular, 0.0, ObservedLayout(dlc, (), None, position)))
    if not messages:
        raise CanidsError(f"{name}: no ID has {_FEWEST} frames, so there is nothing that could be attacked")
    return Vehicle(name, tuple(messages), tuple(Ecu(0.01, 0.0) for _ in groups), bit_rate)


class ObservedScene(Scene):
    """Knowledge of an attacker who has the recording alone."""

    def spaced(self, spacing: float, spread: float) -> NDArray[np.int64]:
        """As of a simulated bus; on a slower one by as much slower as its frames are longer."""
        return super().spaced(spacing * max(1.0, USUAL_RATE / self.vehicle.bit_rate), spread)

    def fast(self, longest_period: float) -> list[Message]:
        """The periodic messages as fast as that, or the fastest where there are few; all have frames in the episode."""
        present = np.unique(self.genuine.can_id[self.during()])
        periodic = [m for m in self.vehicle.messages if m.periodic and m.can_id in present]
        limit = sorted(m.period for m in periodic)[:_CHOICE][-1:] or [0.0]
        chosen = [m for m in periodic if m.period <= max(longest_period, limit[0])]
        if not chosen:
            raise CanidsError(
                f"{self.vehicle.name}: no periodic ID between {self.episode.start:.1f} and {self.episode.end:.1f} s to attack"
            )
        return chosen

    def _readable(self, longest_period: float) -> list[int]:
        messages = self.fast(longest_period)
        # Where nothing looks like a measurement, any payload will do.
        return [m.can_id for m in messages if m.layout.has_sensor] or [m.can_id for m in messages if m.layout.dlc]

    def forge(self, message: Message, basis: Words, seconds: NDArray[np.float64], **how: float) -> Words:
        """Payloads [n] of which one byte is off by `shift` of its range, growing over `ramp_s` seconds; all others are genuine.

        A checksum among them is that of the genuine payload: how it is computed a recording does not say.
        """
        layout = message.layout
        position = (layout.measured if isinstance(layout, ObservedLayout) else None) or 0
        shift = np.uint64(56 - 8 * position)
        value = ((basis >> shift) & np.uint64(0xFF)).astype(np.int64)
        elapsed = seconds - self.episode.start
        grown = np.clip(elapsed / how["ramp_s"], 0, 1) if how["ramp_s"] > 0 else np.ones(len(seconds))
        # Towards the farther end of the range, as of a simulated vehicle.
        sign = 1 if len(value) and value[0] < 128 else -1
        forged = np.clip(value + np.rint(sign * how["shift"] * 255 * grown).astype(np.int64), 0, 255)
        return (basis & ~(np.uint64(0xFF) << shift)) | (forged.astype(np.uint64) << shift)


def scene(
    vehicle: Vehicle, genuine: Frames, rank: dict[int, float], episode: Episode, rng: np.random.Generator
) -> ObservedScene:
    """An episode on the bus of an observed vehicle, of whose drive nothing is known."""
    return ObservedScene(vehicle, Drive({}), genuine, rank, episode, rng)
