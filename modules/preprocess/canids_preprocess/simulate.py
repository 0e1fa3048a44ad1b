"""Drive a simulated vehicle, attack it, and write its CAN bus as a capture in the format of can-train-and-test.

    python -m canids_preprocess.simulate --output dos.csv --spec '{"wildcards": {}, "config": {}, "capture":
        {"name": "dos", "vehicle": "compact", "attack": "dos",
         "simulation": {"duration": 60, "seed": 1, "episodes": 4, "episode_s": 4, "stealth": "blatant",
                        "changes": 0}}}'

The vehicle is fixed by its name, its drive by vehicle, seed and changes, the attack by vehicle, seed and its own name: the same
seed without an attack is the same drive without it. A row is a frame received: its timestamp is the end of the
frame by the logger's clock.

Labels: injected frames are 1, also those of a masquerade. A deleted frame can carry no label, so under `suppression`
every frame received within an episode is 1; label the windows, not the frames, when that attack is evaluated.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.attacks import ATTACKS, MEMORY_S, Episode, Scene, episodes, mount
from canids_preprocess.simulation.bus import Bus
from canids_preprocess.simulation.driving import Journey
from canids_preprocess.simulation.signals import as_bytes
from canids_preprocess.simulation.traffic import SECOND, Frames, Traffic, joined
from canids_preprocess.simulation.vehicle import design, seed_of
from canids_shared.errors import CanidsError
from canids_shared.files import written_whole
from canids_shared.jobs.entry_point import Call, run

START = 1_600_000_000
"""Unix time at which every simulated capture begins."""
LEG_S = 30.0
"""Seconds simulated at a time; an episode is never cut."""
_HEADER = b"timestamp,arbitration_id,data_field,attack\n"
_HEX = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)
_TWO_NIBBLES = _HEX[np.arange(256)[:, None] >> np.array([4, 0]) & 15]
_FOUR_DIGITS = _HEX[np.arange(10_000)[:, None] // np.array([1000, 100, 10, 1]) % 10]
_ROWS = 1 << 18
"""Rows formatted at a time."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Capture:
    """Recording of a logger on the bus, in the order of receipt.

    Attributes:
        frames: the frames [n] that got through.
        received: when each was complete, int64 nanoseconds from the start.
        logged: the same by the logger's clock, int64 nanoseconds from the start.
        attacked: labels [n], bool.
        intervals: start and end of the attack's episodes in seconds.
    """

    frames: Frames
    received: NDArray[np.int64]
    logged: NDArray[np.int64]
    attacked: NDArray[np.bool_]
    intervals: list[tuple[float, float]]


def record(
    vehicle_name: str,
    *,
    attack: str | None = None,
    duration: float = 60.0,
    seed: int = 0,
    n_episodes: int = 4,
    episode_s: float = 4.0,
    stealth: str = "blatant",
    changes: float = 0.0,
    leg_s: float = LEG_S,
) -> Iterator[Capture]:
    """Simulate `duration` seconds of a vehicle's bus, with `n_episodes` attack episodes of `episode_s` seconds.

    Some of the vehicle's slow messages are also sent on changes, in `changes` stretches per minute.
    The capture comes in parts of `leg_s` seconds, or as long as an episode needs; their length makes no difference to the
    capture, only to the memory that it takes.
    Raises `CanidsError` if the vehicle, the attack or the level of stealth is unknown, the seed negative, or the drive too
    short for the episodes.
    """
    vehicle = design(vehicle_name)
    if attack is not None and attack not in ATTACKS:
        raise CanidsError(f"simulation: no attack '{attack}'; attacks: {', '.join(ATTACKS)}")
    if seed < 0:
        raise CanidsError(f"simulation: seed is {seed}, set it to 0 or more")
    entropy = [seed, seed_of(vehicle_name)]
    attacker = [*entropy, 4, seed_of(attack or "")]
    rng = np.random.default_rng(np.random.SeedSequence(attacker))
    # Vehicle, drive, attacker and logger draw from separate random numbers: the same seed without an attack is the same drive.
    planned = episodes(duration, n_episodes, episode_s, stealth, rng) if attack else []
    rank = rng.random(0x800)
    journey = Journey([*entropy, 0])
    traffic, bus, logger = Traffic(vehicle, journey, seed, changes), Bus(vehicle.bit_rate), Logger([*entropy, 5])
    memory = late = traffic.between(0.0, 0.0)
    for start, end in _legs(duration, planned, leg_s):
        released = traffic.between(start, end)
        here = [e for e in planned if start <= e.start < end]
        if attack:
            memory = joined([memory[memory.released_in(start - MEMORY_S, start)], released])
            stretch = journey.drive(start, end)
            scenes = [Scene(vehicle, stretch, memory, rank, e, _chance(attacker, e)) for e in here]
            # What an attacker releases behind the leg's end belongs to the next.
            released = joined([late, mount(attack, scenes, released)])
        # The bus carries what is released in this stretch; frames on it at the end are complete in the next.
        due = released.released_in(start, end)
        late = released[~due]
        frames, received = bus.carry(released[due], round(end * SECOND))
        kept = received < round(duration * SECOND)
        frames, received = frames[kept], received[kept]
        attacked = frames.injected
        if attack == "suppression":
            attacked = np.zeros(len(frames), dtype=np.bool_)
            for e in planned:
                attacked |= (received >= e.start * SECOND) & (received < e.end * SECOND)
        yield Capture(frames, received, logger.stamp(received), attacked, [(e.start, e.end) for e in here])


def simulate(vehicle_name: str, **options: Any) -> Capture:
    """All parts of `record` in one, with the same options."""
    parts = list(record(vehicle_name, **options))
    return Capture(
        frames=Frames(*(np.concatenate([getattr(p.frames, f.name) for p in parts]) for f in fields(Frames))),
        received=np.concatenate([p.received for p in parts]),
        logged=np.concatenate([p.logged for p in parts]),
        attacked=np.concatenate([p.attacked for p in parts]),
        intervals=[interval for p in parts for interval in p.intervals],
    )


def _chance(attacker: list[int], episode: Episode) -> np.random.Generator:
    """Random numbers of one episode: those of another one do not depend on how many it draws."""
    return np.random.default_rng(np.random.SeedSequence([*attacker, episode.number]))


def _legs(duration: float, planned: list[Episode], leg_s: float) -> Iterator[tuple[float, float]]:
    """Start and end of the stretches that are simulated at a time; an end within an episode moves to the episode's end."""
    start = 0.0
    while start < duration:
        end = min(start + leg_s, duration)
        end = next((e.end for e in planned if e.start <= end < e.end), end)
        yield start, end
        start = end


class Logger:
    """Device that records frames with timestamps.

    Its stamps are late by some microseconds, and once in thirty frames by up to 60 µs, as in HCRL Survival.
    """

    def __init__(self, entropy: list[int]) -> None:
        self._rng = np.random.default_rng(np.random.SeedSequence(entropy))
        self._last = 0

    def stamp(self, received: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times [n] of receipt by the logger's clock (ns), at least a microsecond apart."""
        drawn = self._rng.random((len(received), 2))
        late = 6e3 * drawn[:, 0] + np.where(drawn[:, 1] < 1 / 30, 60e3 * 30 * drawn[:, 1], 0)
        # Less a microsecond per frame, the stamps need only not decrease; the microseconds come back below.
        order = 1000 * np.arange(len(received))
        stamps: NDArray[np.int64] = np.maximum.accumulate(
            np.maximum(received + late.astype(np.int64) - order, self._last)
        )
        stamps += order
        self._last = int(stamps[-1]) + 1000 if len(stamps) else self._last
        return stamps


def rows(frames: Frames, logged: NDArray[np.int64], attacked: NDArray[np.bool_]) -> bytes:
    """CSV rows of frames [n]: Unix seconds with six decimals, hexadecimal ID and payload, 0 or 1."""
    n = len(frames)
    microseconds = START * 1_000_000 + logged // 1000
    # Digits by tables, four at a time: formatting numbers one by one would take most of the simulation.
    digits = np.hstack([_FOUR_DIGITS[microseconds // 10**k % 10**4] for k in (12, 8, 4, 0)])
    payload = _TWO_NIBBLES[as_bytes(frames.payload)].reshape(n, 16)
    can_id = np.hstack([_HEX[frames.can_id >> 8 & 15][:, None], _TWO_NIBBLES[frames.can_id & 255]])

    def column(character: str) -> NDArray[np.uint8]:
        return np.full((n, 1), ord(character), dtype=np.uint8)

    comma, label = column(","), (attacked + ord("0")).astype(np.uint8)[:, None]
    text = np.hstack(
        [
            digits[:, :10],
            column("."),
            digits[:, 10:],
            comma,
            can_id,
            comma,
            payload,
            comma,
            label,
            column("\n"),
        ]
    )
    # Payloads are padded to eight bytes up to here: leave out the nibbles beyond the DLC.
    kept = np.ones(text.shape, dtype=np.bool_)
    kept[:, 22:38] = np.arange(16) < 2 * frames.dlc[:, None]
    return text[kept].tobytes()


def write(capture: Capture, path: str | Path) -> None:
    """Write a capture as CSV, whole."""
    write_parts([capture], path)


def write_parts(parts: Iterable[Capture], path: str | Path) -> None:
    """Write a capture that comes in parts as CSV, whole; no more than one part is held in memory."""
    with written_whole(path) as temporary, open(temporary, "wb") as stream:
        stream.write(_HEADER)
        for part in parts:
            for first in range(0, len(part.frames), _ROWS):
                chosen = np.arange(first, min(first + _ROWS, len(part.frames)))
                stream.write(rows(part.frames[chosen], part.logged[chosen], part.attacked[chosen]))


def main(call: Call) -> None:
    """Entry point; the rule's constant `capture` is the manifest's entry."""
    entry = call.constants["capture"]
    options = entry["simulation"]
    counts = np.zeros(3, dtype=np.int64)

    def counted(parts: Iterator[Capture]) -> Iterator[Capture]:
        for part in parts:
            counts[:] += [len(part.frames), int(part.attacked.sum()), len(part.intervals)]
            yield part

    parts = record(
        entry["vehicle"],
        attack=entry["attack"],
        duration=options["duration"],
        seed=options["seed"],
        n_episodes=options["episodes"],
        episode_s=options["episode_s"],
        stealth=options["stealth"],
        changes=options["changes"],
    )
    write_parts(counted(parts), call.output["output"])
    log.info(
        "%s: %d frames in %g s, %d attacked, %d episodes", entry["name"], counts[0], options["duration"], *counts[1:]
    )


if __name__ == "__main__":
    run(main, inputs=[])
