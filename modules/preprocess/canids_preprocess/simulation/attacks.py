"""The attacks: what an attacker on the bus adds to the vehicle's frames, or takes away.

`dos` floods the bus with ID 0. `fuzzing` sends random IDs with random payloads. `spoofing` sends an existing ID several
times faster than its owner, with forged payloads. `replay` sends again what several IDs said earlier. `masquerade`
silences an ID's sender and goes on in its place with forged sensor values. `suppression` silences an ECU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.driving import Drive
from canids_preprocess.simulation.signals import Sending
from canids_preprocess.simulation.traffic import SECOND, Frames, frames_of, jittered, joined
from canids_preprocess.simulation.vehicle import Message, Vehicle
from canids_shared.errors import CanidsError

_QUIET_SHARE = 0.15
"""Share of the drive, at its beginning, without attacks."""
_QUIET_S = 1.0
"""Least time without attack after each episode, in seconds."""
_SHORTEST_S = 0.1
"""Shortest episode in seconds: a fast message has several frames in it."""


@dataclass(frozen=True)
class Scene:
    """What an attacker can know in an episode.

    Attributes:
        vehicle, drive, genuine: the vehicle, where it goes, and the frames that its own ECUs release.
        rank: random numbers [2048] that put IDs, or ECUs, into the order in which the drive's episodes attack them.
        episode: number of the episode.
        start, end: its interval in seconds.
        rng: the attacker's own chance.
    """

    vehicle: Vehicle
    drive: Drive
    genuine: Frames
    rank: NDArray[np.float64]
    episode: int
    start: float
    end: float
    rng: np.random.Generator

    def target(self, longest_period: float) -> Message:
        """A periodic message with sensors, its frames at most `longest_period` seconds apart; each episode has another."""
        ids = [m.can_id for m in self._readable(longest_period)]
        return self.vehicle.message(self.turn(ids))

    def turn(self, candidates: list[int]) -> int:
        """The candidate (ID or ECU) whose turn it is in this episode."""
        return sorted(candidates, key=lambda c: self.rank[c])[self.episode % len(candidates)]

    def some(self, longest_period: float, size: int) -> list[int]:
        """`size` IDs of periodic messages with sensors."""
        ids = [m.can_id for m in self._readable(longest_period)]
        return [int(i) for i in self.rng.choice(ids, size=min(size, len(ids)), replace=False)]

    def _readable(self, longest_period: float) -> list[Message]:
        return [m for m in self.vehicle.messages if m.periodic and m.period <= longest_period and m.layout.has_sensor]


@dataclass(frozen=True)
class Act:
    """What an episode does: frames to add, and which of the vehicle's frames [n] are never released."""

    added: Frames | None
    silenced: NDArray[np.bool_] | None


def episodes(duration: float, number: int, length: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Start and end of each episode in seconds: one at a random place in each of `number` equal parts of the drive.

    The first 15 % of the drive, and at least a second after each episode, stay free.
    Raises `CanidsError` if the drive is too short for that, or an episode is shorter than 0.1 s.
    """
    if not number:
        return []
    if length < _SHORTEST_S:
        raise CanidsError(f"simulation: episode_s is {length:g}, set it to {_SHORTEST_S:g} s or more")
    part = duration * (1 - _QUIET_SHARE) / number
    slack = part - length - _QUIET_S
    if slack < 0:
        needed = number * (length + _QUIET_S) / (1 - _QUIET_SHARE)
        raise CanidsError(
            f"simulation: {number} episodes of {length:g} s do not fit into {duration:g} s; "
            f"set duration to {np.ceil(needed):g} or more, or have fewer or shorter episodes"
        )
    starts = duration * _QUIET_SHARE + part * np.arange(number) + slack * rng.random(number)
    return [(float(s), float(s) + length) for s in starts]


def _spaced(scene: Scene, spacing: float, spread: float) -> NDArray[np.int64]:
    """Release times of an attacker who sends every `spacing` seconds, each gap off by up to the share `spread`."""
    n = int((scene.end - scene.start) / (spacing * (1 - spread))) + 1
    seconds = scene.start + np.cumsum(spacing * scene.rng.uniform(1 - spread, 1 + spread, n))
    return np.rint(seconds[seconds < scene.end] * SECOND).astype(np.int64)


def _dos(scene: Scene) -> Act:
    release = _spaced(scene, float(scene.rng.uniform(0.3e-3, 0.6e-3)), 0.05)
    return Act(frames_of(0, 8, release, np.zeros(len(release), dtype=np.uint64), injected=True), None)


def _fuzzing(scene: Scene) -> Act:
    release = _spaced(scene, float(scene.rng.uniform(1.3e-3, 3e-3)), 0.25)
    ids = scene.rng.integers(0, 0x800, len(release))
    payload = scene.rng.integers(0, 2**64, len(release), dtype=np.uint64)
    return Act(frames_of(ids, 8, release, payload, injected=True), None)


def _spoofing(scene: Scene) -> Act:
    """Payloads, in turn: plausible but wrong (checksum right), one constant, random."""
    message = scene.target(longest_period=0.1)
    release = _spaced(scene, max(message.period / scene.rng.uniform(3, 6), 1.5e-3), 0.05)
    kind = ("plausible", "constant", "random")[scene.episode % 3]
    n, unused = len(release), np.uint64(64 - 8 * message.layout.dlc)
    if kind == "plausible":
        own = scene.genuine[scene.genuine.can_id == message.can_id]
        last = np.maximum(np.searchsorted(own.release, release) - 1, 0)
        lie = scene.drive.forged(scene.start, float(scene.rng.uniform(0.3, 0.6)), ramp_s=0.0)
        sending = Sending(release / SECOND, np.arange(n), lie, scene.rng)
        payload = message.layout.forged(own.payload[last], sending)
    else:
        drawn = scene.rng.integers(0, 2**64, 1 if kind == "constant" else n, dtype=np.uint64)
        payload = np.broadcast_to(drawn >> unused << unused, n)
    return Act(frames_of(message.can_id, message.layout.dlc, release, payload, injected=True), None)


def _replay(scene: Scene) -> Act:
    """Four to eight IDs; what they said in an earlier stretch of the episode's length, or of all that there was."""
    ids = scene.some(longest_period=0.05, size=int(scene.rng.integers(4, 9)))
    length = min(scene.end - scene.start, scene.start)
    begin = float(scene.rng.uniform(0, scene.start - length))
    recorded = scene.genuine[scene.genuine.released_in(begin, begin + length) & np.isin(scene.genuine.can_id, ids)]
    release = recorded.release + round((scene.start - begin) * SECOND)
    again = Frames(release, recorded.can_id, recorded.dlc, recorded.payload, np.ones(len(release), dtype=np.bool_))
    return Act(again, None)


def _masquerade(scene: Scene) -> Act:
    message = scene.target(longest_period=0.02)
    silenced = scene.genuine.released_in(scene.start, scene.end) & (scene.genuine.can_id == message.can_id)
    replaced = scene.genuine[silenced]
    period = message.period * (1 + scene.rng.uniform(-80e-6, 80e-6))
    seconds = jittered(replaced.release[0] / SECOND + period * np.arange(len(replaced)), message, scene.rng)
    lie = scene.drive.forged(scene.start, float(scene.rng.uniform(0.3, 0.6)), ramp_s=0.5)
    payload = message.layout.forged(replaced.payload, Sending(seconds, np.arange(len(seconds)), lie, scene.rng))
    release = np.rint(seconds * SECOND).astype(np.int64)
    return Act(frames_of(message.can_id, message.layout.dlc, release, payload, injected=True), silenced)


def _suppression(scene: Scene) -> Act:
    fastest = [m.ecu for m in scene.vehicle.messages if m.periodic and m.period <= 0.02]
    ecu = scene.turn(sorted(set(fastest)))
    ids = [m.can_id for m in scene.vehicle.messages if m.ecu == ecu]
    return Act(None, scene.genuine.released_in(scene.start, scene.end) & np.isin(scene.genuine.can_id, ids))


_ATTACKS: dict[str, Callable[[Scene], Act]] = {
    "dos": _dos,
    "fuzzing": _fuzzing,
    "spoofing": _spoofing,
    "replay": _replay,
    "masquerade": _masquerade,
    "suppression": _suppression,
}
ATTACKS = tuple(_ATTACKS)


def mount(
    attack: str,
    *,
    vehicle: Vehicle,
    drive: Drive,
    genuine: Frames,
    intervals: list[tuple[float, float]],
    rng: np.random.Generator,
) -> Frames:
    """The vehicle's frames together with the attacker's, in the order of their release."""
    rank = rng.random(0x800)
    silenced = np.zeros(len(genuine), dtype=np.bool_)
    parts = []
    for episode, (start, end) in enumerate(intervals):
        act = _ATTACKS[attack](Scene(vehicle, drive, genuine, rank, episode, start, end, rng))
        if act.added is not None:
            parts.append(act.added)
        if act.silenced is not None:
            silenced |= act.silenced
    return joined([genuine[~silenced], *parts])
