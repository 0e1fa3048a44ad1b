"""Slow messages that are also sent on changes, beside their period: doors, belts, lights, a blinker.

This is the transmission mode MIXED of AUTOSAR (Specification of Communication, classic platform): a signal that changes is
sent at once, then again for a number of repetitions (ComTxModeNumberOfRepetitions) at their own period
(ComTxModeRepetitionPeriod), while the message's period goes on.
"""

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.signals import Constant, Flags
from canids_preprocess.simulation.vehicle import Message, Vehicle, seed_of

_SLOW_S = 0.1
"""Shortest period of a message that is also sent on changes."""
_SHARE = 0.4
"""Share of a vehicle's slow messages that are also sent on changes."""
_SINGLE = 0.4
"""Share of the stretches with one change or two; in the others something blinks."""


class OnChange:
    """Times at which a message is sent on changes, and the bits that differ from then on."""

    def __init__(
        self, message: Message, per_minute: float, design: np.random.Generator, rng: np.random.Generator
    ) -> None:
        """Draw the message's own repetitions, their spacing and its bits from `design`, its changes from `rng`.

        Args:
            message: the message.
            per_minute: stretches per minute in which changes come.
            design, rng: random numbers of the vehicle, and of the drive.
        """
        self._period, self._gap, self._rng = message.period, 60.0 / per_minute, rng
        repetitions = int(design.integers(0, 4))
        # All repetitions are sent before the next tick: the first frame within the first half of the period.
        spacing = float(min(design.choice([0.01, 0.02, 0.03, 0.05, 0.1]), 0.4 * message.period / max(repetitions, 1)))
        self._again = spacing * np.arange(1 + repetitions)
        self._bits = _bits(message, design)
        self._seen, self._begin = 0, 0
        self._tick = np.zeros(0, dtype=np.int64)
        self._delay = np.zeros(0)

    def _plan(self, end: int) -> None:
        """Draw stretches of changes up to the tick `end`; changes follow a tick, at most one each.

        Stretches that follow too closely wait for the end of the last.
        """
        while not len(self._tick) or self._tick[-1] < end:
            self._begin += int(self._rng.exponential(self._gap) / self._period)
            begin = max(self._begin, self._tick[-1] + 1) if len(self._tick) else self._begin
            # One change or two, or a blinker: from 4 changes on, seldom more than 50.
            blinking, count = self._rng.random() >= _SINGLE, self._rng.random()
            number = 4 + int(50 * count**2) if blinking else 1 + int(2 * count)
            pace = max(1, round(float(self._rng.uniform(0.3, 1.2)) / self._period))
            self._tick = np.concatenate([self._tick, begin + pace * np.arange(number)])
            self._delay = np.concatenate([self._delay, self._period * self._rng.uniform(0.05, 0.45, number)])

    def among(self, ticks: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
        """Times [n] of all frames from the next ticks on, and the bits [n] that are flipped in each.

        Args:
            ticks: the next times in seconds at which the period sends it.
        """
        # A change comes shortly after its tick, with its repetitions; `changes` counts them up to each frame.
        number = self._seen + np.arange(len(ticks))
        self._seen += len(ticks)
        self._plan(self._seen)
        before = np.searchsorted(self._tick, number)
        changed = self._tick[before] == number
        sent = ticks[changed] + self._delay[before[changed]]
        seconds = np.concatenate([ticks, (sent[:, None] + self._again).ravel()])
        changes = np.concatenate([before, np.repeat(before[changed] + 1, len(self._again))])
        # A second change takes the first one back: after an odd number the bits are flipped.
        order = np.argsort(seconds, kind="stable")
        return seconds[order], np.where(changes[order] % 2 == 1, self._bits, np.uint64(0))


def _still(message: Message) -> list[Constant | Flags]:
    """Signals of whole bytes that hardly move but for changes."""
    return [s for s in message.layout.signals if isinstance(s, Constant | Flags) and s.bits == 8]


def _bits(message: Message, rng: np.random.Generator) -> np.uint64:
    """One to three neighbouring bits of such a signal."""
    still = _still(message)
    signal = still[int(rng.integers(len(still)))]
    width = int(rng.integers(1, 4))
    shift = 64 - signal.start - width - int(rng.integers(9 - width))
    return np.uint64((1 << width) - 1) << np.uint64(shift)


def sent_on_change(vehicle: Vehicle, per_minute: float, entropy: list[int]) -> dict[int, OnChange]:
    """By ID, the vehicle's messages that are sent on changes in this drive.

    The vehicle decides which ones and how, so this is the same in all its drives; the drive decides when.

    Args:
        vehicle: the vehicle.
        per_minute: stretches per minute in which changes come, of all messages together; fewer where those of a message
            would overlap, none with 0.
        entropy: seed of the drive.
    """
    slow = [m for m in vehicle.messages if m.periodic and m.period >= _SLOW_S and _still(m)]
    if not per_minute or not slow:
        return {}
    design = np.random.default_rng(np.random.SeedSequence([seed_of(vehicle.name), 6]))
    size = max(1, round(_SHARE * len(slow)))
    chosen = [slow[i] for i in np.sort(design.choice(len(slow), size=size, replace=False))]
    return {
        m.can_id: OnChange(
            m, per_minute / size, design, np.random.default_rng(np.random.SeedSequence([*entropy, 7, m.can_id]))
        )
        for m in chosen
    }
