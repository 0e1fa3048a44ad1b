"""Payloads: signals laid out in bits, counters, checksums.

A payload is one uint64 word with its first byte in the highest place, whatever its length; bytes beyond the DLC are 0.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canids_preprocess.simulation.driving import Drive

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Sending:
    """Circumstances in which frames [n] of one message are built.

    Attributes:
        seconds: times of building, from the start of the drive.
        number: running number.
        drive: channels to measure.
        rngs: random numbers, separate for each signal: so a message's frames can be built in any number of parts.
        before: payload word of the frame before, or none.
    """

    seconds: NDArray[np.float64]
    number: NDArray[np.int64]
    drive: Drive
    rngs: list[np.random.Generator]
    before: int | None = None


@dataclass(frozen=True)
class Signal(ABC):
    """Bits `start` to `start + bits - 1` of the payload, counted from the highest bit of its first byte."""

    start: int
    bits: int

    @abstractmethod
    def raw(self, sending: Sending, rng: np.random.Generator) -> Words:
        """Values [n], each below `2**bits`."""


@dataclass(frozen=True)
class Sensor(Signal):
    """A channel of the drive, scaled to the raw range `low` to `high`, with normal noise of `noise` raw steps."""

    channel: str
    low: float
    high: float
    noise: float

    def raw(self, sending: Sending, rng: np.random.Generator) -> Words:
        """Values [n] of the channel at the time of sending."""
        share = sending.drive.at(self.channel, sending.seconds)
        noise = self.noise * rng.standard_normal(len(share))
        value = np.rint(self.low + (self.high - self.low) * share + noise)
        words: Words = np.clip(value, 0, 2**self.bits - 1).astype(np.uint64)
        return words


@dataclass(frozen=True)
class Flags(Signal):
    """Single bits that start at `value` and toggle with probability `toggle` a frame."""

    value: int
    toggle: float

    def raw(self, sending: Sending, rng: np.random.Generator) -> Words:
        """Values [n]; the toggled bits accumulate."""
        # Per frame, whether a bit toggles and which; a running XOR accumulates them from the frame before on.
        drawn = rng.random((len(sending.number), 2))
        toggled = np.where(drawn[:, 0] < self.toggle, 1 << (drawn[:, 1] * self.bits).astype(np.int64), 0)
        before = self.value
        if sending.before is not None:
            before = sending.before >> (64 - self.start - self.bits) & (2**self.bits - 1)
        return np.bitwise_xor.accumulate(np.concatenate([[before], toggled]))[1:].astype(np.uint64)


@dataclass(frozen=True)
class Constant(Signal):
    """Bits that never change, but for a message sent on changes: a constant, or unused bits at 0 or 1."""

    value: int

    def raw(self, sending: Sending, rng: np.random.Generator) -> Words:
        """The value [n]."""
        return np.full(len(sending.number), self.value, dtype=np.uint64)


@dataclass(frozen=True)
class Counter(Signal):
    """A rolling count of the frames sent, modulo `2**bits`."""

    def raw(self, sending: Sending, rng: np.random.Generator) -> Words:
        """The running number [n], wrapped."""
        wrapped: Words = (sending.number % 2**self.bits).astype(np.uint64)
        return wrapped


@dataclass(frozen=True)
class Cycle(Signal):
    """Values in turn, each for `hold` frames: a multiplexor and what it selects, or pulses."""

    values: tuple[int, ...]
    hold: int

    def raw(self, sending: Sending, rng: np.random.Generator) -> Words:
        """The value [n] whose turn it is."""
        return np.array(self.values, dtype=np.uint64)[sending.number // self.hold % len(self.values)]


def _crc_table() -> Bytes:
    """CRC-8 SAE J1850: polynomial 0x1D."""
    table = np.arange(256, dtype=np.uint16)
    for _ in range(8):
        table = np.where(table & 0x80, (table << 1) ^ 0x11D, table << 1)
    return table.astype(np.uint8)


_CRC = _crc_table()


@dataclass(frozen=True)
class Checksum:
    """The payload's last byte, over the bytes before it.

    Attributes:
        kind: `xor`, or `crc8` (SAE J1850: start and final XOR 0xFF, `data_id` ahead of the bytes).
        data_id: a constant of the message that enters too, so that its payload is not valid under another ID (the data
            ID of AUTOSAR's E2E profiles).
    """

    kind: str
    data_id: int

    def of(self, content: Bytes) -> Bytes:
        """Checksums [n] of the content bytes [n, DLC - 1]."""
        if self.kind == "xor":
            xor: Bytes = np.bitwise_xor.reduce(content, axis=1) ^ np.uint8(self.data_id)
            return xor
        # The start value and the data ID enter before the bytes: one look-up gives the state behind both.
        crc: Bytes = np.full(len(content), _CRC[0xFF ^ self.data_id], dtype=np.uint8)
        for column in content.T:
            crc = _CRC[crc ^ column]
        crc ^= np.uint8(0xFF)
        return crc


@dataclass(frozen=True)
class Layout:
    """Layout of a message's payload: length in bytes, signals, checksum."""

    dlc: int
    signals: tuple[Signal, ...]
    checksum: Checksum | None

    @property
    def has_sensor(self) -> bool:
        """Whether the payload holds anything that the drive moves."""
        return any(isinstance(s, Sensor) for s in self.signals)

    def payloads(self, sending: Sending) -> Words:
        """Payload words [n]."""
        words = np.zeros(len(sending.number), dtype=np.uint64)
        return self._with(words, self.signals, sending)

    def forged(self, words: Words, sending: Sending) -> Words:
        """Payloads [n] with the sensors' values replaced by those of `sending.drive`, and a checksum that is right."""
        return self._with(words, tuple(s for s in self.signals if isinstance(s, Sensor)), sending)

    def _with(self, words: Words, signals: tuple[Signal, ...], sending: Sending) -> Words:
        # Each signal draws from its own random numbers, and only if it is wanted: the others' values do not depend on it.
        for signal, rng in zip(self.signals, sending.rngs, strict=True):
            if signal not in signals:
                continue
            # Clear the signal's bits in every word, then put its values there.
            shift = np.uint64(64 - signal.start - signal.bits)
            field = np.uint64((1 << signal.bits) - 1) << shift
            words = (words & ~field) | (signal.raw(sending, rng) << shift)
        return self.sealed(words)

    def sealed(self, words: Words) -> Words:
        """Payloads [n] with the right checksum."""
        if not self.checksum:
            return words
        shift = np.uint64(64 - 8 * self.dlc)
        content = as_bytes(words)[:, : self.dlc - 1]
        return (words & ~(np.uint64(0xFF) << shift)) | (self.checksum.of(content).astype(np.uint64) << shift)


def as_bytes(words: Words) -> Bytes:
    """Payload bytes [n, 8] of payload words [n]."""
    return words.astype(">u8").view(np.uint8).reshape(-1, 8)
