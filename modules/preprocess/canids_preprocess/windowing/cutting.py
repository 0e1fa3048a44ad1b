"""Cut a stream of frames into windows, by count of frames or by time, chunk by chunk."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canids_preprocess.windowing.frames import Frames
from canids_shared.errors import CanidsError

_MOST_WINDOWS = 1 << 20  # of time, between two frames; and in all, beside those of the next line
_PER_FRAME = 16  # windows of time for each frame: windows may overlap, but most of such many hold none
_LONGEST = int(np.iinfo(np.int16).max)  # frames; nodes of a window are numbered in 16 bits


def check_windows(config: dict[str, Any]) -> None:
    """Raise `CanidsError` unless `window` and `stride` can be cut, in their `window_unit`."""
    window, stride = config["window"], config["stride"]
    if config["window_unit"] == "seconds":
        if not (0 < window < np.inf and 0 < stride < np.inf):
            raise CanidsError(f"window {window}, stride {stride}: numbers of seconds above 0")
    elif not (2 <= window <= _LONGEST and window % 1 == 0 and stride >= 1 and stride % 1 == 0):
        raise CanidsError(
            f"window {window}, stride {stride}: whole numbers of frames, from 2 (to {_LONGEST}) and 1; "
            "for seconds set window_unit to seconds"
        )


@dataclass
class FrameWindows:
    """Windows of `window` frames, one every `stride` frames; the incomplete tail is left out.

    Attributes:
        window, stride: frames.
        done: windows cut so far.
        ahead: pending frames before the start of the next window; more than are pending where `stride` is longer.
    """

    window: int
    stride: int
    done: int = 0
    ahead: int = 0

    def cut(self, timestamp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First frame, end and number of each window that is complete in the pending frames, int64 [W] each."""
        # The next window begins `ahead` frames into the pending ones; from there on, count those that fit whole.
        usable = len(timestamp) - self.ahead - self.window
        count = usable // self.stride + 1 if usable >= 0 else 0
        starts = self.ahead + self.stride * np.arange(count)
        number = self.done + np.arange(count)
        self.done += count
        self.ahead += self.stride * count
        return starts, starts + self.window, number

    def release(self, pending: int) -> int:
        """Number of pending frames that no later window needs."""
        free = min(self.ahead, pending)
        self.ahead -= free
        return free


@dataclass
class TimeWindows:
    """Windows of `window` seconds, one every `stride` seconds from `origin`; those of fewer than two frames are left out.

    A frame that steps back in time belongs to the window of the frame before it.

    Attributes:
        window, stride: seconds.
        origin: time of the first frame.
        done: windows so far, those left out included.
        free: pending frames before the start of the next window.
        frames: frames so far.
        held: those of them that are still pending.
    """

    window: float
    stride: float
    origin: float | None = None
    done: int = 0
    free: int = 0
    frames: int = 0
    held: int = 0

    def cut(self, timestamp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `FrameWindows.cut`; a window is complete once a frame behind it is there."""
        if not len(timestamp):
            return (np.zeros(0, np.int64),) * 3
        running = np.maximum.accumulate(timestamp)
        self.frames += len(timestamp) - self.held
        if self.origin is None:
            self.origin = float(running[0])
        # A clock that was set, or times in another unit, would make millions of empty windows.
        at = int(np.argmax(np.diff(running))) if len(running) > 1 else 0
        if len(running) > 1 and (running[at + 1] - running[at]) / self.stride > _MOST_WINDOWS:
            raise CanidsError(
                f"the timestamps jump by {running[at + 1] - running[at]:.0f} s, from {running[at]:.6f} to "
                f"{running[at + 1]:.6f}: was the clock set? Cut the capture there, or choose a longer stride"
            )
        # The last window that ends before the latest frame.
        count = (running[-1] - self.origin - self.window) / self.stride
        if count > _MOST_WINDOWS + _PER_FRAME * self.frames:
            raise CanidsError(
                f"{count:.3g} windows of time for {self.frames} frames, which come every "
                f"{(running[-1] - self.origin) / self.frames:.3g} s: are the timestamps in seconds "
                "(`timestamp_unit` in the manifest)? Else choose a longer stride"
            )
        last = int(np.floor(count))
        # Both ends of every window by binary search: time never steps back in `running`.
        number = np.arange(self.done, last + 1)
        begin = self.origin + self.stride * number
        starts, stops = np.searchsorted(running, begin), np.searchsorted(running, begin + self.window)
        self.done = max(self.done, last + 1)
        self.free = int(np.searchsorted(running, self.origin + self.stride * self.done))
        whole = stops - starts >= 2
        return starts[whole], stops[whole], number[whole]

    def release(self, pending: int) -> int:
        """Number of pending frames that no later window needs."""
        free = min(self.free, pending)
        self.held = pending - free
        return free


class Cut(NamedTuple):
    """Pending frames, the first of which is frame `begin` of the block, and the windows that are complete in them."""

    frames: Frames
    begin: int
    starts: np.ndarray
    stops: np.ndarray
    number: np.ndarray


def cuts(
    path: Path, source: Iterable[Frames], skip: int, config: dict[str, Any], prepare: Callable[[Frames, Frames], Frames]
) -> Iterator[Cut]:
    """Windows of the frames behind the first `skip`, chunk by chunk.

    Args:
        path: where the frames come from, for messages.
        source: the frames, chunk by chunk.
        skip: frames at the beginning that are prepared (they warm up the running statistics), but in no window.
        config: `window`, `stride` and `window_unit`.
        prepare: makes of a chunk's frames what is cut, `timestamp` among it. It is also given the pending frames: its
            `features`, the widest array, reserve rows for them in front, so that they need not be copied.
    """
    cutter: FrameWindows | TimeWindows
    if config["window_unit"] == "frames":
        cutter = FrameWindows(int(config["window"]), int(config["stride"]))
    else:
        cutter = TimeWindows(config["window"], config["stride"])
    begin = 0
    pending: Frames = {}
    for frames in source:
        # Frames left over from the chunk before, then the new ones; of the new ones the first `skip` only warm up.
        held = pending_count(pending)
        new = prepare(frames, pending)
        warm = min(skip, len(new["timestamp"]))
        skip -= warm
        pending = _joined(pending, new, held) if held else {k: v[warm:] for k, v in new.items()}
        try:
            starts, stops, number = cutter.cut(pending["timestamp"])
        except CanidsError as error:
            raise CanidsError(f"{path}: {error}") from None
        if len(starts) and (stops - starts).max() > _LONGEST:
            raise CanidsError(f"{path}: a window of more than {_LONGEST} frames; choose shorter ones")
        yield Cut(pending, begin, starts, stops, number)
        # Frames before the next window's start go, the others wait for the next chunk.
        free = cutter.release(len(pending["timestamp"]))
        begin += free
        pending = {k: v[free:] for k, v in pending.items()}


def pending_count(pending: Frames) -> int:
    """Number of pending frames; there are no arrays before the first chunk."""
    return len(pending["timestamp"]) if pending else 0


def _joined(pending: Frames, new: Frames, held: int) -> Frames:
    joined = {k: np.concatenate([pending[k], v]) for k, v in new.items() if k != "features"}
    if "features" in new:
        joined["features"] = new["features"]
        joined["features"][:held] = pending["features"]
    return joined
