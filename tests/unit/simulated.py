"""What the tests of the simulator share: one drive with or without an attack, and what to read from it."""

from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from canids_preprocess.simulate import Capture, record
from canids_preprocess.simulation.signals import Sensor
from canids_preprocess.simulation.traffic import SECOND, Frames
from canids_preprocess.simulation.vehicle import design

DRIVE = {"duration": 30.0, "seed": 5, "episodes": 3, "episode_s": 2.0}


def simulate(vehicle: str, **options: Any) -> Capture:
    """All parts of `record` in one, with the same options."""
    parts = list(record(vehicle, **options))
    return Capture(
        frames=Frames(*(np.concatenate([getattr(p.frames, f.name) for p in parts]) for f in fields(Frames))),
        received=np.concatenate([p.received for p in parts]),
        logged=np.concatenate([p.logged for p in parts]),
        attacked=np.concatenate([p.attacked for p in parts]),
        intervals=[interval for p in parts for interval in p.intervals],
    )


@cache
def drive(vehicle: str = "compact", attack: str | None = None) -> Capture:
    return simulate(vehicle, attack=attack, **DRIVE)


def within(capture: Capture, margin: float = 0.0) -> np.ndarray:
    """Frames received in an episode, or at most `margin` seconds outside; with a negative margin, well inside."""
    inside = np.zeros(len(capture.frames), dtype=bool)
    for start, end in capture.intervals:
        inside |= (capture.received >= (start - margin) * SECOND) & (capture.received < (end + margin) * SECOND)
    return inside


def injected_ids(capture: Capture, start: float, end: float) -> set[int]:
    chosen = capture.frames.injected & (capture.received >= start * SECOND) & (capture.received < (end + 0.1) * SECOND)
    return set(capture.frames.can_id[chosen].tolist())


def sensor_values(capture: Capture, can_id: int, chosen: np.ndarray) -> np.ndarray:
    """Raw values of the message's first sensor in its chosen frames, as a share of its range."""
    sensor = next(s for s in design("compact").message(can_id).layout.signals if isinstance(s, Sensor))
    words = capture.frames.payload[chosen & (capture.frames.can_id == can_id)]
    raw = (words >> np.uint64(64 - sensor.start - sensor.bits)) & np.uint64(2**sensor.bits - 1)
    return (raw.astype(np.float64) - sensor.low) / (sensor.high - sensor.low)
