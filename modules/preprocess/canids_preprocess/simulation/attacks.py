"""The attacks: frames that an attacker on the bus adds to those of the vehicle, or suppresses.

`dos` floods the bus with a dominant ID; `jamming` does so without a pause, so that nothing else gets through. `fuzzing` sends
random payloads. `spoofing` sends an existing ID beside its owner, with forged payloads. `replay` repeats earlier frames of
several IDs. `masquerade` silences an ID's sender and goes on in its place with forged sensor values. `suppression` silences an
ECU.

The level of stealth is how conspicuous an attack is: `blatant` is the pace of published captures (a flood every 0.4 to 0.8 ms and random
frames every 0.3 to 1.7 ms: HCRL Survival, Han, Kwak and Kim 2018; spoofed frames every 1 ms: HCRL Car-Hacking, Song, Woo and
Kim 2020). `stealthy` is a frame right behind each genuine one, or sensor values that drift away slowly, as in ROAD (Verma et al.
2020). The README of this module has the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.driving import Drive
from canids_preprocess.simulation.signals import Sending
from canids_preprocess.simulation.traffic import SECOND, Frames, frames_of, joined
from canids_preprocess.simulation.vehicle import Message, Vehicle
from canids_shared.errors import CanidsError

LEVELS = ("blatant", "moderate", "stealthy")
STEALTH = (*LEVELS, "mixed")
"""Levels of stealth; `mixed` goes through them from episode to episode."""
_LENGTH = (1.0, 1.0, 0.5)
"""Share of `episode_s` that an episode lasts, by level."""
MEMORY_S = 30.0
"""How far back an attacker remembers what the bus carried, in seconds."""

_QUIET_SHARE = 0.15
"""Share of the drive, at its beginning, without attacks."""
_QUIET_S = 1.0
"""Least time without attack after each episode, in seconds."""
_SHORTEST_S = 0.1
"""Shortest episode in seconds: a fast message has several frames in it."""


@dataclass(frozen=True)
class Episode:
    """Interval of an attack, and its level of stealth.

    Attributes:
        number: from 0.
        level: index into `LEVELS`.
        start, end: its interval in seconds.
        spacing: seconds from one injected frame to the next; 0 leaves it to the level.
    """

    number: int
    level: int
    start: float
    end: float
    spacing: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Knowledge of an attacker in an episode.

    Attributes:
        vehicle, drive, genuine: the vehicle, its drive, and the frames that its own ECUs release, those of the last
            `MEMORY_S` seconds included.
        rank: random numbers by which the drive's episodes attack IDs, or ECUs, one after the other: [2048], or by ID.
        episode: the episode.
        rng: random numbers of the attacker.
    """

    vehicle: Vehicle
    drive: Drive
    genuine: Frames
    rank: NDArray[np.float64] | Mapping[int, float]
    episode: Episode
    rng: np.random.Generator

    def between(self, *bounds: tuple[float, float]) -> float:
        """A random number within the bounds of the episode's level."""
        return float(self.rng.uniform(*bounds[self.episode.level]))

    def spacing(self, *bounds: tuple[float, float]) -> float:
        """Seconds between injected frames: those of the episode, or a random number within the bounds of its level."""
        drawn = self.between(*bounds)
        return self.episode.spacing or drawn

    def target(self, longest_period: float) -> Message:
        """A periodic message with sensors, its frames at most `longest_period` seconds apart; each episode has another."""
        return self.vehicle.message(self.turn(self._readable(longest_period)))

    def turn(self, candidates: list[int]) -> int:
        """The candidate (ID or ECU) whose turn it is in this episode."""
        return sorted(candidates, key=lambda c: self.rank[c])[self.episode.number % len(candidates)]

    def some(self, longest_period: float, size: int) -> list[int]:
        """`size` IDs of periodic messages with sensors."""
        ids = self._readable(longest_period)
        return [int(i) for i in self.rng.choice(ids, size=min(size, len(ids)), replace=False)]

    def fast(self, longest_period: float) -> list[Message]:
        """The periodic messages whose frames come at most `longest_period` seconds apart."""
        return [m for m in self.vehicle.messages if m.periodic and m.period <= longest_period]

    def _readable(self, longest_period: float) -> list[int]:
        return [m.can_id for m in self.fast(longest_period) if m.layout.has_sensor]

    def during(self) -> NDArray[np.bool_]:
        """Mask [n] of the genuine frames released in the episode."""
        return self.genuine.released_in(self.episode.start, self.episode.end)

    def spaced(self, spacing: float, spread: float) -> NDArray[np.int64]:
        """Release times (ns) of frames sent every `spacing` seconds, each gap off by up to the share `spread`."""
        start, end = self.episode.start, self.episode.end
        # Gaps enough for the shortest spacing all along; what goes beyond the episode is cut off.
        n = int((end - start) / (spacing * (1 - spread))) + 1
        seconds = start + np.cumsum(spacing * self.rng.uniform(1 - spread, 1 + spread, n))
        return np.rint(seconds[seconds < end] * SECOND).astype(np.int64)

    def forge(
        self, message: Message, basis: NDArray[np.uint64], seconds: NDArray[np.float64], **how: float
    ) -> NDArray[np.uint64]:
        """Payloads [n] with forged sensor values on the `basis` [n] of genuine ones; `how` as in `Drive.forged`."""
        rngs = self.rng.spawn(len(message.layout.signals))
        drive = self.drive.forged(self.episode.start, **how)
        return message.layout.forged(basis, Sending(seconds, np.arange(len(seconds)), drive, rngs))


@dataclass(frozen=True)
class Act:
    """Effect of an episode: frames to add, and a mask of the vehicle's frames [n] that are never released."""

    added: Frames | None = None
    silenced: NDArray[np.bool_] | None = None


def planned_episodes(
    duration: float, number: int, length: float, stealth: str, rng: np.random.Generator, spacing: float = 0.0
) -> list[Episode]:
    """The drive's episodes: one at a random place in each of `number` equal parts of it.

    The first 15 % of the drive, and at least a second after each episode, stay free.
    Raises `CanidsError` if the drive is too short for that, an episode is shorter than 0.1 s, or there is no such level.
    """
    if stealth not in STEALTH:
        raise CanidsError(f"simulation: no stealth '{stealth}'; levels: {', '.join(STEALTH)}")
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
    # Equal parts behind the quiet beginning, and in each the episode at a random place.
    starts = duration * _QUIET_SHARE + part * np.arange(number) + slack * rng.random(number)
    levels = [k % len(LEVELS) if stealth == "mixed" else LEVELS.index(stealth) for k in range(number)]
    return [
        Episode(k, level, float(start), float(start) + length * _LENGTH[level], spacing)
        for k, (start, level) in enumerate(zip(starts, levels, strict=True))
    ]


def _flood(scene: Scene, spacing: float, spread: float, random_payload: bool) -> Act:
    """Frames with an ID below every one of the vehicle: 0, or where the attack is stealthy just any."""
    release = scene.spaced(spacing, spread)
    can_id, payload = 0, np.zeros(len(release), dtype=np.uint64)
    if LEVELS[scene.episode.level] == "stealthy":
        can_id = int(scene.rng.integers(1, min(max(scene.vehicle.messages[0].can_id, 2), 0x800)))
    if random_payload:
        payload = scene.rng.integers(0, 2**64, len(release), dtype=np.uint64)
    return Act(frames_of(can_id, 8, release, payload, injected=True))


def _dos(scene: Scene) -> Act:
    spacing = scene.spacing((0.4e-3, 0.8e-3), (0.8e-3, 1.6e-3), (1.6e-3, 3e-3))
    return _flood(scene, spacing, 0.3, random_payload=LEVELS[scene.episode.level] == "stealthy")


def _jamming(scene: Scene) -> Act:
    """Faster than a frame of eight bytes takes on the bus (0.22 ms and more at 500 kbit/s)."""
    spacing = float(scene.rng.uniform(0.1e-3, 0.2e-3))
    return _flood(scene, spacing, 0.05, random_payload=LEVELS[scene.episode.level] != "blatant")


def _fuzzing(scene: Scene) -> Act:
    release = scene.spaced(scene.spacing((0.6e-3, 1.2e-3), (1.2e-3, 3e-3), (3e-3, 8e-3)), 0.65)
    ids = scene.rng.integers(0, 0x800, len(release))
    if LEVELS[scene.episode.level] == "stealthy":
        ids = scene.rng.choice([m.can_id for m in scene.vehicle.messages], len(release))
    payload = scene.rng.integers(0, 2**64, len(release), dtype=np.uint64)
    return Act(frames_of(ids, 8, release, payload, injected=True))


def _spoofing(scene: Scene) -> Act:
    """Payloads, in turn: plausible but wrong (checksum right), one constant, random; stealthy ones are plausible."""
    message = scene.target(longest_period=0.1)
    episode, genuine = scene.episode, scene.genuine[scene.genuine.can_id == message.can_id]
    kind = ("plausible", "constant", "random")[(episode.number + episode.number // 3) % 3]
    if LEVELS[episode.level] == "stealthy" and not episode.spacing:
        # One right behind each genuine frame: a receiver that keeps the latest value sees the forged one.
        followed = genuine.release[genuine.released_in(episode.start, episode.end)]
        release = followed + np.rint(scene.rng.uniform(0.2e-3, 0.8e-3, len(followed)) * SECOND).astype(np.int64)
        kind = "plausible"
    else:
        pace = max(message.period / scene.between((4, 10), (2, 4), (1, 1)), 1e-3)
        release = scene.spaced(episode.spacing or pace, 0.1)
    n, unused = len(release), np.uint64(64 - 8 * message.layout.dlc)
    if kind == "plausible":
        # Counters and flags as in the latest genuine frame; only the sensors are forged.
        last = np.maximum(np.searchsorted(genuine.release, release) - 1, 0)
        shift = scene.between((0.3, 0.6), (0.2, 0.4), (0.1, 0.3))
        payload = scene.forge(message, genuine.payload[last], release / SECOND, shift=shift, ramp_s=0.0)
    else:
        drawn = scene.rng.integers(0, 2**64, 1 if kind == "constant" else n, dtype=np.uint64)
        payload = np.broadcast_to(drawn >> unused << unused, n)
    return Act(frames_of(message.can_id, message.layout.dlc, release, payload, injected=True))


def _replay(scene: Scene) -> Act:
    """The IDs' frames of an earlier stretch, as long as the episode or as the attacker's memory."""
    start, end = scene.episode.start, scene.episode.end
    size = round(scene.between((4, 8), (2, 4), (1, 1)))
    ids = scene.some(longest_period=0.05, size=size)
    # A stretch that lies wholly before the episode and within memory, moved to the episode's start.
    reach = min(start, MEMORY_S)
    length = min(end - start, reach)
    begin = start - reach + float(scene.rng.uniform(0, reach - length))
    recorded = scene.genuine[scene.genuine.released_in(begin, begin + length) & np.isin(scene.genuine.can_id, ids)]
    release = recorded.release + round((start - begin) * SECOND)
    again = Frames(release, recorded.can_id, recorded.dlc, recorded.payload, np.ones(len(release), dtype=np.bool_))
    return Act(again)


def _masquerade(scene: Scene) -> Act:
    message = scene.target(longest_period=0.02)
    # The sender falls silent; the attacker goes on at its pace, clock error and jitter included, with its latest counters.
    silenced = scene.during() & (scene.genuine.can_id == message.can_id)
    replaced = scene.genuine[silenced]
    period = message.period * (1 + scene.vehicle.ecus[message.task.ecu].drift + scene.rng.uniform(-80e-6, 80e-6))
    jitter = scene.rng.uniform(0, 2 * message.task.jitter, len(replaced))
    seconds = replaced.release[0] / SECOND + period * np.arange(len(replaced)) + jitter
    shift, ramp = scene.between((0.4, 0.6), (0.3, 0.5), (0.1, 0.3)), (0.0, 0.5, 1.0)[scene.episode.level]
    payload = scene.forge(message, replaced.payload, seconds, shift=shift, ramp_s=ramp)
    release = np.rint(seconds * SECOND).astype(np.int64)
    return Act(frames_of(message.can_id, message.layout.dlc, release, payload, injected=True), silenced)


def _suppression(scene: Scene) -> Act:
    """An ECU and all that it sends; moderate: one of its fast messages; stealthy: every second frame of one."""
    fast = scene.fast(0.02)
    level = LEVELS[scene.episode.level]
    if level == "blatant":
        ecu = scene.turn(sorted({m.task.ecu for m in fast}))
        ids = [m.can_id for m in scene.vehicle.messages if m.task.ecu == ecu]
    else:
        ids = [scene.turn([m.can_id for m in fast])]
    silenced = scene.during() & np.isin(scene.genuine.can_id, ids)
    if level == "stealthy":
        silenced[np.flatnonzero(silenced)[1::2]] = False
    return Act(silenced=silenced)


_ATTACKS: dict[str, Callable[[Scene], Act]] = {
    "dos": _dos,
    "jamming": _jamming,
    "fuzzing": _fuzzing,
    "spoofing": _spoofing,
    "replay": _replay,
    "masquerade": _masquerade,
    "suppression": _suppression,
}
ATTACKS = tuple(_ATTACKS)


def act(attack: str, scene: Scene) -> Act:
    """The effect of an episode of one of `ATTACKS`."""
    return _ATTACKS[attack](scene)


def mount(attack: str, scenes: list[Scene], genuine: Frames) -> Frames:
    """The vehicle's frames with the effect of the attacks in the scenes, in the order of their release.

    Args:
        attack: one of `ATTACKS`.
        scenes: the episodes within the frames.
        genuine: the frames [n]; every scene's `genuine` ends with them, and those before are memory alone.
    """
    silenced = np.zeros(len(genuine), dtype=np.bool_)
    parts = []
    for scene in scenes:
        effect = act(attack, scene)
        if effect.added is not None:
            parts.append(effect.added)
        if effect.silenced is not None and len(genuine):
            silenced |= effect.silenced[-len(genuine) :]
    return joined([genuine[~silenced], *parts])
