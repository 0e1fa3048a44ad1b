"""Learn what is normal on a bus from attack-free traffic, in one pass and constant memory."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from canids_preprocess.enrolment.stretches import Stretch
from canids_preprocess.enrolment.suspicion import TrafficRates
from canids_preprocess.features.frame_kernel import SEEN
from canids_preprocess.features.relative import BusState, step
from canids_preprocess.windowing.frames import ALL, Frames, chunks

MOST_IDS = 1 << 16
"""Arbitration IDs that a profile holds at most; above this number those seen least are forgotten."""
ENOUGH = 5
"""Periods of an arbitration ID after which its profile is worth the name."""


class BusLearner:
    """What is learnt of one bus.

    Attributes:
        channel: its name.
        state: what is remembered of it.
        seconds, frames: traffic so far.
        sources: SHA-256 of each capture's content → its frames so far.
    """

    def __init__(self, channel: str) -> None:
        self.channel, self.state = channel, BusState()
        self.seconds, self.frames, self.sources = 0.0, 0, dict[str, int]()
        self._rates = TrafficRates()

    def learn(self, pieces: Iterable[Frames], sha256: str) -> None:
        """Learn from the next frames of a capture, piece by piece; a new call begins another stretch of traffic."""
        self.state.rest()
        first = latest = None
        for frames in pieces:
            times = frames["timestamp"]
            if first is None:
                first = float(times[0])
                self._rates.begin(first)
            latest = max(float(times.max()), first if latest is None else latest)
            self._rates.add(frames, step(frames, self.state)[0])
            if self.state.ids.count > MOST_IDS:
                self.state.forget(MOST_IDS // 2, np.zeros(0, np.int32))
            self.frames += len(times)
            self.sources[sha256] = self.sources.get(sha256, 0) + len(times)
        if first is not None and latest is not None:
            self.seconds += latest - first

    @property
    def rare(self) -> list[int]:
        """Arbitration IDs (bit 31: 29-bit) of fewer than `ENOUGH` of whose periods were seen, sorted."""
        seen = self.state.by_id.state[: self.state.ids.count, SEEN]
        return sorted(self.state.ids.ids()[seen <= ENOUGH].tolist())

    def warnings(self) -> list[str]:
        """What of the traffic looks like an attack, a sentence each."""
        return self._rates.warnings(self.state)

    def header(self) -> dict[str, Any]:
        """The bus's entry in the header of a profile."""
        return {
            "channel": self.channel,
            "seconds": self.seconds,
            "frames": self.frames,
            "ids": self.state.ids.count,
            "rare": self.rare,
            "warnings": self.warnings(),
            "sources": self.sources,
        }


def learnt(channel: str, stretches: list[Stretch]) -> BusLearner:
    """What some stretches of one bus teach."""
    learner = BusLearner(channel)
    for recording, metadata, block, _ in stretches:
        learner.learn(chunks(recording, block, ALL), metadata["sha256"])
    return learner
