"""Frames as their senders release them."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.changes import OnChange, sent_on_change
from canids_preprocess.simulation.driving import Drive, Journey
from canids_preprocess.simulation.signals import Sending, Words
from canids_preprocess.simulation.vehicle import Message, Task, Vehicle, seed_of

SECOND = 1_000_000_000
"""Times are whole nanoseconds: sums of them are exact, so order and bytes do not depend on rounding."""
_AHEAD_S = 2.0
"""Seconds of the drive beyond those asked for: a burst of frames goes on a little."""


@dataclass(frozen=True)
class Frames:
    """Frames [n] of one or many messages.

    Attributes:
        release: when the sender hands the frame to its controller, int64 nanoseconds from the start.
        can_id: 11-bit arbitration IDs, int64.
        dlc: payload lengths, int64 bytes.
        payload: payload words (see `signals`), uint64.
        injected: whether an attacker sends it, bool.
    """

    release: NDArray[np.int64]
    can_id: NDArray[np.int64]
    dlc: NDArray[np.int64]
    payload: Words
    injected: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.release)

    def __getitem__(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Frames":
        return Frames(*(getattr(self, f.name)[index] for f in fields(self)))

    def released_in(self, start: float, end: float) -> NDArray[np.bool_]:
        """Mask [n] of the frames released between `start` (included) and `end` seconds."""
        return (self.release >= round(start * SECOND)) & (self.release < round(end * SECOND))


def frames_of(
    can_id: int | NDArray[np.int64], dlc: int, release: NDArray[np.int64], payload: Words, injected: bool = False
) -> Frames:
    """Frames [n] of one length, by one sender, with one ID or an ID each."""
    n = len(release)
    ids = np.broadcast_to(np.asarray(can_id, dtype=np.int64), n)
    return Frames(release, ids, np.full(n, dlc, dtype=np.int64), payload, np.full(n, injected))


def joined(parts: list[Frames]) -> Frames:
    """All frames of the parts, in the order of their release; of equal ones, the lower ID first."""
    whole = Frames(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Frames)))
    return whole[np.lexsort((whole.can_id, whole.release))]


class Ticking:
    """The releases of a task, or of whatever else takes turns at its pace."""

    def __init__(self, task: Task, first: float, drift: float, rng: np.random.Generator) -> None:
        """From `first` seconds on, by a clock that is fast or slow by `drift`."""
        self._task, self._first, self._rng = task, first, rng
        self._period = task.period * (1 + drift)
        self._next = 0

    def until(self, end: float) -> NDArray[np.float64]:
        """The next ticks [n] in seconds, as many as are due before `end`; late ones may come behind it.

        Every second one is late by the task's sway, and each by a delay of its own of up to twice its jitter.
        """
        last = max(self._next, int(np.ceil((end - self._first) / self._period)))
        count = np.arange(self._next, last)
        self._next = last
        # By count from the first tick, not from the tick before: rounding does not add up, and parts do not matter.
        due = self._first + count * self._period
        return due + self._task.sway * (count % 2) + self._rng.uniform(0, 2 * self._task.jitter, len(count))


class Events:
    """Releases of an event message: each event makes a burst of two to six frames.

    An event that follows too closely waits for the end of the burst before.
    """

    def __init__(self, message: Message, first: float, rng: np.random.Generator) -> None:
        """From `first` seconds on."""
        self._message, self._rng = message, rng
        self._event = first + float(rng.exponential(1 / message.event_rate))
        self._free = 0.0

    def until(self, end: float) -> NDArray[np.float64]:
        """The releases [n] in seconds of the events before `end`; the last burst may go on behind it."""
        period, times = self._message.task.period, []
        while self._event < end:
            begin = max(self._event, self._free)
            burst = begin + period * np.arange(2 + int(5 * self._rng.random()))
            times.append(burst)
            self._free = float(burst[-1]) + 1.5 * period
            self._event += float(self._rng.exponential(1 / self._message.event_rate))
        return np.concatenate([np.zeros(0), *times])


class Sender:
    """Builds the frames of one message; their number at a time makes no difference to them."""

    def __init__(self, message: Message, entropy: list[int], on_change: OnChange | None = None) -> None:
        """With random numbers of its own, seeded by `entropy`; `on_change` has the times beside its ticks."""
        rng = np.random.default_rng(np.random.SeedSequence([*entropy, message.can_id]))
        self._message = message
        self._rngs = rng.spawn(len(message.layout.signals))
        self._number = int(rng.integers(256))
        self._before: int | None = None
        self._on_change = on_change

    def frames(self, ticks: NDArray[np.float64], drive: Drive) -> Frames:
        """The frames [n] released at the given times, and those on changes in between."""
        seconds, turned = self._on_change.among(ticks) if self._on_change else (ticks, np.uint64(0))
        # Counters go on from the last call; flags go on from its last payload.
        number = self._number + np.arange(len(seconds))
        layout = self._message.layout
        payload = layout.payloads(Sending(seconds, number, drive, self._rngs, self._before))
        if len(seconds):
            self._number += len(seconds)
            self._before = int(payload[-1])
        if self._on_change:
            payload = layout.sealed(payload ^ turned)
        return frames_of(self._message.can_id, layout.dlc, np.rint(seconds * SECOND).astype(np.int64), payload)


class Traffic:
    """Frames that the vehicle's own ECUs release, one stretch of time after the other."""

    def __init__(self, vehicle: Vehicle, journey: Journey, seed: int, changes: float = 0.0) -> None:
        """Start the vehicle's ECUs; `seed`, `changes` and the vehicle's name fix all frames to come.

        Args:
            vehicle: the vehicle.
            journey: its drive.
            seed: of the drive.
            changes: stretches per minute in which one of the slow messages is also sent on changes.
        """
        entropy = [seed, seed_of(vehicle.name)]
        on_change = sent_on_change(vehicle, changes, entropy)
        self._journey = journey
        # ECUs wake up at their own moments, so the phase between them is new in every drive.
        wake = np.random.default_rng(np.random.SeedSequence([*entropy, 1])).random(len(vehicle.ecus))
        self._sources: list[tuple[Ticking | Events, list[Sender]]] = []
        for number, task in enumerate(vehicle.tasks):
            rng = np.random.default_rng(np.random.SeedSequence([*entropy, 2, number]))
            messages = [m for m in vehicle.messages if m.task == task]
            senders = [Sender(m, [*entropy, 3], on_change.get(m.can_id)) for m in messages]
            ecu = vehicle.ecus[task.ecu]
            # The clock of the ECU starts at `wake`, and the task at its offset from there.
            first = float((wake[task.ecu] * ecu.tick + task.offset) % task.period)
            if messages[0].periodic:
                self._sources.append((Ticking(task, first, ecu.drift, rng), senders))
            else:
                # Each event message has its own random numbers, or how far others are simulated would change its events.
                rngs = [rng, *rng.spawn(len(messages) - 1)]
                self._sources += [(Events(m, first, r), [s]) for m, r, s in zip(messages, rngs, senders, strict=True)]
        self._late = frames_of(0, 0, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64))

    def between(self, start: float, end: float) -> Frames:
        """The frames [n] released from `start` seconds, where the last call ended, to `end`, in the order of release."""
        drive = self._journey.drive(start, end + _AHEAD_S)
        # Jitter and bursts may push releases beyond the end: these frames wait for the next stretch.
        parts = [self._late]
        for source, senders in self._sources:
            # All messages of a task leave in the same burst, each with its payload at that time.
            ticks = source.until(end)
            parts += [sender.frames(ticks, drive) for sender in senders]
        frames = joined(parts)
        late = frames.release >= round(end * SECOND)
        self._late = frames[late]
        return frames[~late]
