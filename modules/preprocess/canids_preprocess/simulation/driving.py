"""A drive: standstill, city and motorway, as the physical channels that a vehicle's sensors measure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEP = 0.02
"""Sampling interval of the channels in seconds."""

_CHANNELS = {
    "speed": (0.0, 160.0),  # km/h
    "wheel_left": (0.0, 165.0),  # km/h
    "wheel_right": (0.0, 165.0),  # km/h
    "acceleration": (-6.0, 6.0),  # m/s²
    "engine_speed": (0.0, 5000.0),  # 1/min
    "torque": (0.0, 1.0),  # of the maximum
    "pedal": (0.0, 1.0),  # of its travel
    "brake": (0.0, 1.0),  # of the maximum pressure
    "steering": (-1.0, 1.0),  # of the full lock
    "yaw_rate": (-1.0, 1.0),  # of the sensor's range
    "coolant": (0.0, 120.0),  # °C
    "fuel": (0.0, 1.0),  # of the tank
}
CHANNELS = tuple(_CHANNELS)

# Phase: shortest and longest stay in seconds, lowest and highest speed in km/h, phases that may follow.
_PHASES = {
    "standstill": (10.0, 18.0, 0.0, 0.0, ("city",)),
    "city": (10.0, 25.0, 18.0, 60.0, ("standstill", "standstill", "motorway")),
    "motorway": (15.0, 40.0, 85.0, 130.0, ("city",)),
}
_GEAR_UP = np.array([15.0, 30.0, 50.0, 70.0, 95.0])  # km/h
_REVOLUTIONS = np.array([110.0, 65.0, 45.0, 34.0, 27.0, 22.0])  # 1/min per km/h, by gear
_IDLE = 800.0  # 1/min


@dataclass(frozen=True)
class Drive:
    """Channels of a drive, each [T] sampled every 20 ms, as a share (0 to 1) of the channel's range."""

    channels: dict[str, Floats]

    def at(self, channel: str, seconds: Floats) -> Floats:
        """Share of the range that `channel` has at the given times [n] of the drive."""
        samples = self.channels[channel]
        return np.interp(seconds, np.arange(len(samples)) * _STEP, samples)

    def forged(self, start: float, shift: float, ramp_s: float) -> "Drive":
        """The drive as an attacker tells it: from `start` on, each channel is off by `shift` of its range.

        The lie grows over `ramp_s` seconds and points to the farther end of the range, so that it is never cut short.
        """
        told = {}
        for name, samples in self.channels.items():
            elapsed = np.arange(len(samples)) * _STEP - start
            grown = np.clip(elapsed / ramp_s, 0, 1) if ramp_s > 0 else (elapsed > -_STEP).astype(np.float64)
            sign = 1 if self.at(name, np.array([start]))[0] < 0.5 else -1
            told[name] = np.clip(samples + sign * shift * grown, 0, 1)
        return Drive(told)


def _smooth(samples: Floats, seconds: float) -> Floats:
    """Moving average over `seconds`, twice: continuous in the first derivative."""
    width = max(1, round(seconds / _STEP))
    for _ in range(2):
        padded = np.concatenate([np.full(width // 2, samples[0]), samples, np.full(width - width // 2, samples[-1])])
        total = np.cumsum(padded)
        samples = (total[width:] - total[:-width]) / width
    return samples


def _wandering(n: int, seconds: float, rng: np.random.Generator) -> Floats:
    """Smooth noise [n] of unit spread that forgets its past within about `seconds`."""
    wander = _smooth(rng.standard_normal(n), seconds)
    spread = float(wander.std())
    return wander / spread if spread > 0 else wander


def _target_speed(n: int, rng: np.random.Generator) -> Floats:
    target = np.empty(n)
    phase = str(rng.choice(list(_PHASES)))
    begin = 0
    while begin < n:
        shortest, longest, low, high, following = _PHASES[phase]
        end = begin + round(rng.uniform(shortest, longest) / _STEP)
        while begin < min(end, n):
            until = min(end, begin + round(rng.uniform(3, 8) / _STEP))
            target[begin:until] = rng.uniform(low, high)
            begin = until
        phase = str(rng.choice(following))
    return target


def drive(duration: float, rng: np.random.Generator) -> Drive:
    """Draw a drive of `duration` seconds through random phases."""
    n = int(duration / _STEP) + 2
    seconds = np.arange(n) * _STEP
    speed = np.maximum(_smooth(_target_speed(n, rng), 4.0), 0)
    acceleration = np.gradient(speed / 3.6, _STEP)
    gear = np.searchsorted(_GEAR_UP, speed)
    pedal = np.clip(0.16 * acceleration + 0.0025 * speed + 0.02 * _wandering(n, 0.5, rng) * (speed > 1), 0, 1)
    steering = 0.35 * _wandering(n, 1.5, rng) / (1 + speed / 40)
    yaw_rate = steering * speed / 60
    coolant = 90 - rng.uniform(0, 60) * np.exp(-seconds / 300) + 0.5 * _wandering(n, 10, rng)
    physical = {
        "speed": speed,
        "wheel_left": speed * (1 - 0.05 * yaw_rate),
        "wheel_right": speed * (1 + 0.05 * yaw_rate),
        "acceleration": acceleration,
        "engine_speed": _smooth(np.maximum(_IDLE, speed * _REVOLUTIONS[gear]), 0.3),
        "torque": _smooth(pedal, 0.2) * 0.9 + 0.05,
        "pedal": pedal,
        "brake": _smooth(np.where(speed < 0.5, 0.3, np.clip(-0.25 * acceleration, 0, 1)), 0.3),
        "steering": steering,
        "yaw_rate": yaw_rate,
        "coolant": coolant,
        "fuel": rng.uniform(0.3, 0.9) - np.cumsum(pedal) * _STEP * 3e-5,
    }
    ranges = {
        name: (samples - _CHANNELS[name][0]) / (_CHANNELS[name][1] - _CHANNELS[name][0])
        for name, samples in physical.items()
    }
    return Drive({name: np.clip(samples, 0, 1) for name, samples in ranges.items()})
