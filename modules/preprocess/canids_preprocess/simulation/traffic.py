"""Frames as their senders release them to the bus."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.driving import Drive
from canids_preprocess.simulation.signals import Sending, Words
from canids_preprocess.simulation.vehicle import Message, Vehicle, seed_of

SECOND = 1_000_000_000
"""Times are whole nanoseconds: sums of them are exact, so order and bytes do not depend on rounding."""


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
    """All frames of the parts, in the order of their release."""
    whole = Frames(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Frames)))
    return whole[np.argsort(whole.release, kind="stable")]


def genuine(vehicle: Vehicle, drive: Drive, duration: float, seed: int) -> Frames:
    """What the vehicle's own ECUs release in `duration` seconds of a drive."""
    entropy = [seed, seed_of(vehicle.name)]
    # ECUs wake up at their own moments, so the phase between them is new in every drive.
    wake = np.random.default_rng(np.random.SeedSequence([*entropy, 1])).random(len(vehicle.drift))
    parts = []
    for message in vehicle.messages:
        rng = np.random.default_rng(np.random.SeedSequence([*entropy, 2, message.can_id]))
        releases = _periodic if message.periodic else _bursts
        seconds = releases(message, duration, float(wake[message.ecu]), vehicle.drift[message.ecu], rng)
        number = rng.integers(256) + np.arange(len(seconds))
        payload = message.layout.payloads(Sending(seconds, number, drive, rng))
        parts.append(frames_of(message.can_id, message.layout.dlc, np.rint(seconds * SECOND).astype(np.int64), payload))
    return joined(parts)


def jittered(seconds: NDArray[np.float64], message: Message, rng: np.random.Generator) -> NDArray[np.float64]:
    """Release times [n] with the sender's random delay; it never lets a frame overtake the next of its ID."""
    return seconds + np.minimum(rng.exponential(message.jitter, len(seconds)), message.period / 4)


def _periodic(
    message: Message, duration: float, wake: float, drift: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    period = message.period * (1 + drift)
    first = (wake + message.phase * message.period) % message.period
    return jittered(np.arange(first, duration, period), message, rng)


def _bursts(
    message: Message, duration: float, wake: float, drift: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """An event is told in a burst of two to six frames; events that follow too closely wait for the end of the last."""
    times: list[float] = []
    event = wake + rng.exponential(1 / message.event_rate)
    while event < duration:
        begin = max(event, times[-1] + message.period * 1.5) if times else event
        times += [begin + k * message.period * (1 + drift) for k in range(rng.integers(2, 7))]
        event += rng.exponential(1 / message.event_rate)
    return jittered(np.array([t for t in times if t < duration], dtype=np.float64), message, rng)
