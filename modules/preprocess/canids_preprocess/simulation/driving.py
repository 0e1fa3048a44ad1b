"""A drive: standstill, city and motorway, as the physical channels that a vehicle's sensors measure.

Drives are drawn in blocks of a minute, each from its own random numbers, so a drive of any length needs the memory of a
few minutes, and its beginning does not depend on how long it will be.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEP = 0.02
"""Sampling interval of the channels in seconds."""
_BLOCK = 3000
"""Samples drawn at a time."""
_MARGIN = 1100
"""Samples beyond a block that its channels are smoothed with: more than all moving averages together reach."""

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
    """A stretch of a drive: channels, each [T] sampled every 20 ms, as a share (0 to 1) of the channel's range.

    Attributes:
        channels: the samples.
        first: number of the first sample, counted from the start of the whole drive.
    """

    channels: dict[str, Floats]
    first: int = 0

    def at(self, channel: str, seconds: Floats) -> Floats:
        """Share of the range that `channel` has at the given times [n] of the drive."""
        samples = self.channels[channel]
        return np.interp(seconds / _STEP - self.first, np.arange(len(samples)), samples)

    def forged(self, start: float, shift: float, ramp_s: float) -> "Drive":
        """The drive as an attacker forges it: from `start` on, each channel is off by `shift` of its range.

        The deviation grows over `ramp_s` seconds towards the farther end of the range, so that it is never clipped.
        """
        forged = {}
        for name, samples in self.channels.items():
            elapsed = (self.first + np.arange(len(samples))) * _STEP - start
            grown = np.clip(elapsed / ramp_s, 0, 1) if ramp_s > 0 else (elapsed > -_STEP).astype(np.float64)
            sign = 1 if self.at(name, np.array([start]))[0] < 0.5 else -1
            forged[name] = np.clip(samples + sign * shift * grown, 0, 1)
        return Drive(forged, self.first)


def _smooth(samples: Floats, seconds: float) -> Floats:
    """Moving average over `seconds`, twice: continuous in the first derivative."""
    width = max(1, round(seconds / _STEP))
    for _ in range(2):
        padded = np.concatenate([np.full(width // 2, samples[0]), samples, np.full(width - width // 2, samples[-1])])
        total = np.cumsum(padded)  # differences of a running sum: as fast for any width
        samples = (total[width:] - total[:-width]) / width
    return samples


def _spread(seconds: float) -> float:
    """Standard deviation of white noise of unit spread after `_smooth`."""
    box = np.full(max(1, round(seconds / _STEP)), 1 / max(1, round(seconds / _STEP)))
    return float(np.sqrt(np.sum(np.convolve(box, box) ** 2)))


class Journey:
    """A whole drive through random phases; `drive` returns stretches of it."""

    def __init__(self, entropy: list[int], parked: bool = False) -> None:
        """Draw it from random numbers of its own, seeded by `entropy`; a parked vehicle stands with its engine off."""
        self._entropy, self._parked = entropy, parked
        self._rng = np.random.default_rng(np.random.SeedSequence([*entropy, 0]))
        self._phase = str(self._rng.choice(list(_PHASES)))
        self._cold = float(self._rng.uniform(0, 60))  # °C below the usual temperature of the coolant
        self._tank = float(self._rng.uniform(0.3, 0.9))
        self._until = [-_MARGIN]  # sample at which each stretch of one target speed ends; the first is empty
        self._target = [0.0]  # km/h
        self._blocks: dict[int, dict[str, Floats]] = {}

    def drive(self, start: float, end: float) -> Drive:
        """The drive from `start` (or earlier) to `end` seconds (or later)."""
        first, last = int(start / _STEP) // _BLOCK, int(end / _STEP + 1) // _BLOCK
        self._blocks = {k: self._blocks.get(k) or self._block(k) for k in range(first, last + 1)}
        parts = self._blocks.values()
        return Drive({name: np.concatenate([p[name] for p in parts]) for name in CHANNELS}, first * _BLOCK)

    def _target_speed(self, first: int, last: int) -> Floats:
        """Speed [last - first] in km/h that the driver aims at."""
        while self._until[-1] < last:
            shortest, longest, low, high, following = _PHASES[self._phase]
            end = self._until[-1] + round(self._rng.uniform(shortest, longest) / _STEP)
            while self._until[-1] < end:
                self._until.append(min(end, self._until[-1] + round(self._rng.uniform(3, 8) / _STEP)))
                self._target.append(float(self._rng.uniform(low, high)))
            self._phase = str(self._rng.choice(following))
        # Target speeds hold for a few seconds each; the phase decides how high they are.
        piece = np.searchsorted(self._until, np.arange(first, last), side="right")
        return np.asarray(self._target)[piece] * (not self._parked)

    def _wandering(self, block: int, number: int, seconds: float) -> Floats:
        """Smooth noise of about unit spread that forgets its past within about `seconds`; the block and its margins."""
        white = [
            np.random.default_rng(np.random.SeedSequence([*self._entropy, 1, number, b])).standard_normal(_BLOCK)
            for b in (block, block + 1, block + 2)  # one more than the blocks' own numbers: -1 cannot be a seed
        ]
        noise = np.concatenate(white)[_BLOCK - _MARGIN : 2 * _BLOCK + _MARGIN]
        return _smooth(noise, seconds) / _spread(seconds)

    def _block(self, block: int) -> dict[str, Floats]:
        first, last = block * _BLOCK - _MARGIN, (block + 1) * _BLOCK + _MARGIN
        seconds = np.arange(first, last) * _STEP
        # The driver steers by target speeds; all else follows from the speed, with noise of its own.
        speed = np.maximum(_smooth(self._target_speed(first, last), 4.0), 0)
        speed[speed < 1e-6] = 0  # what rounding leaves of a standstill
        acceleration = np.gradient(speed / 3.6, _STEP)
        gear = np.searchsorted(_GEAR_UP, speed)
        pedal = np.clip(
            0.16 * acceleration + 0.0025 * speed + 0.02 * self._wandering(block, 0, 0.5) * (speed > 1), 0, 1
        )
        steering = 0.35 * self._wandering(block, 1, 1.5) / (1 + speed / 40) * np.minimum(speed / 10, 1)
        yaw_rate = steering * speed / 60
        idle = (_IDLE + 8 * self._wandering(block, 2, 0.4)) * (not self._parked)
        physical = {
            "speed": speed,
            "wheel_left": speed * (1 - 0.05 * yaw_rate),
            "wheel_right": speed * (1 + 0.05 * yaw_rate),
            "acceleration": acceleration,
            "engine_speed": _smooth(np.maximum(idle, speed * _REVOLUTIONS[gear]), 0.3),
            "torque": _smooth(pedal, 0.2) * 0.9 + 0.05,
            "pedal": pedal,
            "brake": _smooth(np.where(speed < 0.5, 0.3, np.clip(-0.25 * acceleration, 0, 1)), 0.3),
            "steering": steering,
            "yaw_rate": yaw_rate,
            "coolant": 90 - self._cold * np.exp(-np.maximum(seconds, 0) / 300) + 0.5 * self._wandering(block, 3, 10.0),
            "fuel": self._tank - 1e-5 * seconds + 0.002 * self._wandering(block, 4, 10.0),
        }
        return {
            name: np.clip((samples[_MARGIN:-_MARGIN] - low) / (high - low), 0, 1)
            for (name, samples), (low, high) in zip(physical.items(), _CHANNELS.values(), strict=True)
        }
