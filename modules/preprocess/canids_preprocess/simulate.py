"""Drive a simulated vehicle, attack it, and write its CAN bus as a capture in the format of can-train-and-test.

    python -m canids_preprocess.simulate --output dos.csv --spec '{"wildcards": {}, "config": {}, "capture":
        {"name": "dos", "vehicle": "compact", "attack": "dos",
         "simulation": {"duration": 60, "seed": 1, "episodes": 4, "episode_s": 4, "stealth": "blatant",
                        "changes": 0, "spacing": 0, "parked": false, "ignition": 0}}}'

The vehicle is fixed by its name, its drive by vehicle, seed, changes and state (`parked`, `ignition`), the attack by vehicle, seed and its own name: the same
seed without an attack is the same drive without it. A row is a frame received: its timestamp is the end of the
frame by the logger's clock.

Labels: injected frames are 1, also those of a masquerade. A deleted frame can carry no label, so under `suppression`
every frame received within an episode is 1; label the windows, not the frames, when that attack is evaluated.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from canids_preprocess.simulation.attacks import ATTACKS, MEMORY_S, Episode, Scene, mount, planned_episodes
from canids_preprocess.simulation.bus import Bus
from canids_preprocess.simulation.driving import Journey
from canids_preprocess.simulation.traffic import SECOND, Frames, Traffic, joined
from canids_preprocess.simulation.vehicle import Vehicle, design, seed_of
from canids_shared.errors import CanidsError
from canids_shared.files import written_whole
from canids_shared.jobs.entry_point import Call, run

START = 1_600_000_000
"""Unix time at which every simulated capture begins."""
LEG_S = 30.0
"""Seconds simulated at a time; an episode is never cut."""
_SLEEPING = 0.6
"""Share of the ECUs that sleep until the ignition is on."""
_HEADER = b"timestamp,arbitration_id,data_field,attack\n"
_IDS = pl.Series([f"{can_id:03X}" for can_id in range(0x800)])
"""Every 11-bit ID as it is written."""
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
    episodes: int = 4,
    episode_s: float = 4.0,
    stealth: str = "blatant",
    changes: float = 0.0,
    spacing: float = 0.0,
    parked: bool = False,
    ignition: float = 0.0,
    leg_s: float = LEG_S,
) -> Iterator[Capture]:
    """Simulate `duration` seconds of a vehicle's bus, with `episodes` attack episodes of `episode_s` seconds.

    Some of the vehicle's slow messages are also sent on changes, in `changes` stretches per minute. Injected frames of dos,
    fuzzing and spoofing come every `spacing` seconds (0: as the level of stealth has it). A `parked` vehicle has its engine off.
    Before `ignition` seconds most ECUs are asleep.
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
    planned = planned_episodes(duration, episodes, episode_s, stealth, rng, spacing) if attack else []
    rank = rng.random(0x800)
    journey = Journey([*entropy, 0], parked)
    traffic, bus, logger = Traffic(vehicle, journey, seed, changes), Bus(vehicle.bit_rate), Logger([*entropy, 5])
    memory = late = traffic.between(0.0, 0.0)
    asleep = _asleep(vehicle, np.random.default_rng(np.random.SeedSequence([*entropy, 6]))) if ignition else []
    for start, end in _legs(duration, planned, leg_s):
        released = traffic.between(start, end)
        released = released[~(released.released_in(0.0, ignition) & np.isin(released.can_id, asleep))]
        here = [e for e in planned if start <= e.start < end]
        if attack:
            memory = joined([memory[memory.released_in(start - MEMORY_S, start)], released])
            stretch = journey.drive(start, end)
            scenes = [Scene(vehicle, stretch, memory, rank, e, _rng_of(attacker, e)) for e in here]
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


def _asleep(vehicle: Vehicle, rng: np.random.Generator) -> list[int]:
    """IDs of the ECUs that sleep until the ignition is on: one at least, and never all."""
    sleepers = rng.permutation(len(vehicle.ecus))[: max(1, round(_SLEEPING * len(vehicle.ecus)))]
    return [m.can_id for m in vehicle.messages if m.task.ecu in sleepers]


def _rng_of(attacker: list[int], episode: Episode) -> np.random.Generator:
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
    # Payload words as bytes in their order, then two digits a byte, without those beyond the DLC. Microseconds of a Unix
    # time survive float64, whose steps are a quarter of one there.
    words = pa.Array.from_buffers(pa.binary(8), len(frames), [None, pa.py_buffer(frames.payload.astype(">u8"))])
    digits = pl.Series(pl.from_arrow(words)).bin.encode("hex").str.to_uppercase()
    table = pl.DataFrame(
        {
            "timestamp": (START * 1_000_000 + logged // 1000) / 1e6,
            "arbitration_id": _IDS[frames.can_id],
            "data_field": digits.str.head(pl.Series(2 * frames.dlc)),
            "attack": attacked.astype(np.uint8),
        }
    )
    return table.write_csv(include_header=False, float_precision=6).encode()


def write(parts: Iterable[Capture], path: str | Path) -> tuple[int, int, int]:
    """Write a capture that comes in parts as CSV, whole; no more than one part is held in memory.

    Returns the numbers of frames, attacked frames and episodes.
    """
    counts = np.zeros(3, dtype=np.int64)
    with written_whole(path) as temporary, open(temporary, "wb") as stream:
        stream.write(_HEADER)
        for part in parts:
            stream.write(rows(part.frames, part.logged, part.attacked))
            counts += [len(part.frames), int(part.attacked.sum()), len(part.intervals)]
    frames, attacked, episodes = counts.tolist()
    return frames, attacked, episodes


def main(call: Call) -> None:
    """Entry point; the rule's constant `capture` is the manifest's entry."""
    entry = call.constants["capture"]
    options = entry["simulation"]
    counts = write(record(entry["vehicle"], attack=entry["attack"], **options), call.output["output"])
    log.info(
        "%s: %d frames in %g s, %d attacked, %d episodes", entry["name"], counts[0], options["duration"], *counts[1:]
    )


if __name__ == "__main__":
    run(main, inputs=[])
