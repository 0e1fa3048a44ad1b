"""Drive a simulated vehicle, attack it, and write its CAN bus as a capture in the format of can-train-and-test.

    python -m canids_preprocess.simulate --output dos.csv --spec '{"wildcards": {}, "config": {}, "capture":
        {"name": "dos", "vehicle": "compact", "attack": "dos",
         "simulation": {"duration": 60, "seed": 1, "episodes": 4, "episode_s": 4}}}'

The vehicle is fixed by its name, its drive by vehicle and seed, the attack by vehicle, seed and its own name: the same
seed without an attack is the same drive without it. A row is a frame received: its timestamp is the end of the frame.

Labels: injected frames are 1, also those of a masquerade. A deleted frame can carry no label, so under `suppression`
every frame received within an episode is 1; label the windows, not the frames, when that attack is evaluated.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.attacks import ATTACKS, episodes, mount
from canids_preprocess.simulation.bus import arbitrate
from canids_preprocess.simulation.driving import drive
from canids_preprocess.simulation.signals import as_bytes
from canids_preprocess.simulation.traffic import SECOND, Frames, genuine
from canids_preprocess.simulation.vehicle import design, seed_of
from canids_shared.cli import Call, run
from canids_shared.errors import CanidsError
from canids_shared.files import written_whole

START = 1_600_000_000
"""Unix time at which every simulated capture begins."""
_HEADER = b"timestamp,arbitration_id,data_field,attack\n"
_HEX = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)
_ROWS = 1 << 18
"""Rows formatted at a time."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Capture:
    """What a logger on the bus records, in the order of receipt.

    Attributes:
        frames: the frames [n] that got through.
        received: when each was complete, int64 nanoseconds from the start.
        attacked: labels [n], bool.
        intervals: start and end of the attack's episodes in seconds.
    """

    frames: Frames
    received: NDArray[np.int64]
    attacked: NDArray[np.bool_]
    intervals: list[tuple[float, float]]


def simulate(
    vehicle_name: str,
    *,
    attack: str | None = None,
    duration: float = 60.0,
    seed: int = 0,
    n_episodes: int = 4,
    episode_s: float = 4.0,
) -> Capture:
    """Simulate `duration` seconds of a vehicle's bus, with `n_episodes` attack episodes of `episode_s` seconds.

    Raises `CanidsError` if the vehicle or the attack is unknown, the seed negative, or the drive too short for the
    episodes.
    """
    vehicle = design(vehicle_name)
    if attack is not None and attack not in ATTACKS:
        raise CanidsError(f"simulation: no attack '{attack}'; attacks: {', '.join(ATTACKS)}")
    if seed < 0:
        raise CanidsError(f"simulation: seed is {seed}, set it to 0 or more")
    entropy = [seed, seed_of(vehicle_name)]
    journey = drive(duration, np.random.default_rng(np.random.SeedSequence([*entropy, 0])))
    frames = genuine(vehicle, journey, duration, seed)
    intervals: list[tuple[float, float]] = []
    if attack is not None:
        rng = np.random.default_rng(np.random.SeedSequence([*entropy, 3, seed_of(attack)]))
        intervals = episodes(duration, n_episodes, episode_s, rng)
        frames = mount(attack, vehicle=vehicle, drive=journey, genuine=frames, intervals=intervals, rng=rng)
    received = arbitrate(frames, vehicle.bit_rate)
    order = np.argsort(received, kind="stable")
    order = order[(received[order] >= 0) & (received[order] < duration * SECOND)]
    frames, received = frames[order], received[order]
    attacked = frames.injected
    if attack == "suppression":
        attacked = np.zeros(len(frames), dtype=np.bool_)
        for start, end in intervals:
            attacked |= (received >= start * SECOND) & (received < end * SECOND)
    return Capture(frames, received, attacked, intervals)


def rows(frames: Frames, received: NDArray[np.int64], attacked: NDArray[np.bool_]) -> bytes:
    """CSV rows of frames [n]: Unix seconds with six decimals, hexadecimal ID and payload, 0 or 1."""
    n = len(frames)
    microseconds = START * 1_000_000 + received // 1000
    place = 10 ** np.arange(15, -1, -1, dtype=np.int64)
    digits = (microseconds[:, None] // place % 10 + ord("0")).astype(np.uint8)
    content = as_bytes(frames.payload)
    nibbles = np.stack([content >> 4, content & 15], axis=2).reshape(n, 16)
    can_id = frames.can_id[:, None] >> np.array([8, 4, 0]) & 15

    def column(character: str) -> NDArray[np.uint8]:
        return np.full((n, 1), ord(character), dtype=np.uint8)

    comma, label = column(","), (attacked + ord("0")).astype(np.uint8)[:, None]
    text = np.hstack(
        [
            digits[:, :10],
            column("."),
            digits[:, 10:],
            comma,
            _HEX[can_id],
            comma,
            _HEX[nibbles],
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
    with written_whole(path) as temporary, open(temporary, "wb") as stream:
        stream.write(_HEADER)
        for first in range(0, len(capture.frames), _ROWS):
            part = np.arange(first, min(first + _ROWS, len(capture.frames)))
            stream.write(rows(capture.frames[part], capture.received[part], capture.attacked[part]))


def main(call: Call) -> None:
    """Simulate the capture of the spec."""
    entry = call.constants["capture"]
    options = entry["simulation"]
    capture = simulate(
        entry["vehicle"],
        attack=entry["attack"],
        duration=options["duration"],
        seed=options["seed"],
        n_episodes=options["episodes"],
        episode_s=options["episode_s"],
    )
    write(capture, call.output["output"])
    log.info(
        "%s: %d frames in %g s, %d attacked, %d episodes",
        entry["name"],
        len(capture.frames),
        options["duration"],
        int(capture.attacked.sum()),
        len(capture.intervals),
    )


if __name__ == "__main__":
    run(main, inputs=[])
