"""Clock of a capture: times of its frames, looked up in constant memory."""

from collections.abc import Callable, Iterator

import numpy as np

EPISODE_GAP = 1.0
"""Attacked frames closer than this (seconds) belong to the same episode."""


class Clock:
    """Times of a capture's frames, from a pass over its pieces; to look a time up, its piece is read again.

    Where timestamps step back (within the tolerance) a frame counts as recorded at the latest time so far.

    Attributes:
        frames: how many there are.
        begin, end: lowest and highest timestamp, seconds.
        episodes: first and last time (seconds) of every attack episode.
    """

    def __init__(
        self, pieces: Iterator[tuple[np.ndarray, np.ndarray]], timestamps: Callable[[int], np.ndarray]
    ) -> None:
        """Pass over a capture.

        Args:
            pieces: timestamps [n] (seconds) and whether frames are attacked [n] bool, piece by piece; a bus may be silent in one.
            timestamps: reads those of a piece again, by its number.
        """
        self._timestamps = timestamps
        self.begin, self.end = np.inf, -np.inf
        self.episodes: list[tuple[float, float]] = []
        borders, latest = [0], []
        for timestamp, attacked in pieces:
            if len(timestamp):
                running = np.maximum(np.maximum.accumulate(timestamp), self.end)
                self.begin, self.end = min(self.begin, float(timestamp.min())), float(running[-1])
                self._extend(running[attacked])
            borders.append(borders[-1] + len(timestamp))
            latest.append(self.end)
        self._borders, self._latest = np.array(borders), np.array(latest)
        self.frames = borders[-1]
        self._held: tuple[int, np.ndarray] = (-1, np.zeros(0))

    def _extend(self, times: np.ndarray) -> None:
        """Add the times [n] of a piece's attacked frames to the episodes."""
        if not len(times):
            return
        # A gap longer than `EPISODE_GAP` between attacked frames ends one episode and begins the next.
        breaks = np.flatnonzero(np.diff(times) > EPISODE_GAP)
        first, last = times[[0, *(breaks + 1)]].tolist(), times[[*breaks, -1]].tolist()
        # An episode may go on from the piece before.
        if self.episodes and first[0] - self.episodes[-1][1] <= EPISODE_GAP:
            first[0] = self.episodes.pop()[0]
        self.episodes += zip(first, last, strict=True)

    def _running(self, piece: int) -> np.ndarray:
        """Latest time so far at each frame of a piece; that of the piece looked up last is kept."""
        if self._held[0] != piece:
            running = np.maximum.accumulate(self._timestamps(piece))
            self._held = (piece, np.maximum(running, self._latest[piece - 1]) if piece else running)
        return self._held[1]

    def frame_at(self, time: float) -> int:
        """The first frame at or after `time`; the number of frames if there is none."""
        # First the piece, by the latest time of each, then the frame within it: one piece is read at most.
        piece = int(np.searchsorted(self._latest, time))
        if piece == len(self._latest):
            return self.frames
        return int(self._borders[piece] + np.searchsorted(self._running(piece), time))

    def time_of(self, frame: int) -> float:
        """When a frame was recorded; for one beyond the last, when that was."""
        frame = min(frame, self.frames - 1)
        piece = int(np.searchsorted(self._borders, frame, side="right")) - 1
        return float(self._running(piece)[frame - self._borders[piece]])
