"""Stretches of a stream between two jumps of its clock; what is checked at the end of a capture is checked here as rows come."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from canids_preprocess.formats.base import FRAME_COLUMNS, REJECT_COLUMNS, Batch
from canids_shared.errors import CanidsError

STEP_S = 0.1
"""Seconds by which a frame may be ahead before the frames behind it decide; NTP slews a clock that is less wrong, and sets others."""
PAUSE_S = 60.0
"""Longest pause after which the past still counts (s): no bus sends fewer than one frame a minute."""
CONFIRMED = 10
"""Frames in a row that show that the clock has jumped; where fewer agree, they are wrong. Of a pause two are enough: a bus that
rests often would be followed late."""
RECENT = 10_000
"""Rows of which most have to be frames."""
FEWEST_REJECTS = 1_000
"""Rejects among them with which a stream goes on in any case: half a second of a bus."""


class Stopped(Exception):  # noqa: N818 (no error: someone asked to stop)
    """The stream has ended on request, so it need not hold what a finished capture must."""


class Jump(NamedTuple):
    """A clock that was set: line of the first frame by the new time, and seconds from the latest one by the old time."""

    line: int
    seconds: float


class Stretches:
    """Rows of a stream, cut where its clock jumps.

    A frame that is more than `STEP_S` ahead of the latest one, or steps back by more, waits for the next ones. If one of them
    continues the old time, the frame is wrong: a reject. If `CONFIRMED` frames in a row continue the new time, the clock was
    set: a new stretch begins, unless the frames are ahead by no more than a pause of `PAUSE_S`. Frames that step back by less
    than `STEP_S` and more than the tolerance are rejects at once: the clock catches up.

    Attributes:
        ended: whether there is no further stretch.
        jump: the jump that ended the last stretch.
    """

    def __init__(
        self, source: str, batches: Iterator[Batch], tolerance: float, quarantine: bool, stopped: Callable[[], bool]
    ) -> None:
        """Cut a stream.

        Args:
            source: where it comes from, for messages.
            batches: its frames and rejects, as the reader of a format yields them.
            tolerance: seconds by which a timestamp may step back.
            quarantine: whether a new stretch begins where the clock is set back; else the first frame behind is a reject.
            stopped: whether someone asked to stop.
        """
        self.ended, self.jump = False, Jump(0, 0.0)
        self._source, self._batches, self._stopped = source, batches, stopped
        self._tolerance, self._quarantine = tolerance, quarantine
        self._frames = pl.DataFrame(schema=FRAME_COLUMNS)  # undecided: off the clock, and those behind them
        self._rejects = pl.DataFrame(schema=REJECT_COLUMNS)
        self._refused: Batch | None = None  # from the first row on that ends the stream
        self._exhausted = False
        self._channels: list[str | None] = []  # that of the first frame, once there is one
        self._recent = np.zeros(0, dtype=bool)  # whether the last rows are rejects

    def next(self) -> Iterator[Batch]:
        """Batches of the next stretch, to be read to their end.

        The rows before one that `ingest.read` refuses come in a batch of their own, so that they count. Raises `Stopped` at
        the end if someone asked to stop, and `CanidsError` if most of the recent rows are rejects.
        """
        latest = -np.inf
        if not len(self._frames):
            self._fetch()
        while True:
            timestamp = self._frames["timestamp"].to_numpy()
            wrong, decided, latest, jump = self._decide(timestamp, latest)
            if wrong and not self._quarantine:
                first = min(wrong)
                batch = self._take({}, first)
                self._refused, self._exhausted, jump = self._take({0: wrong[first]}, 1), True, False
            else:
                batch = self._take(wrong, decided)
            if len(batch.frames) or len(batch.rejects):
                yield batch
                self._check_rejects(batch)
            if jump:
                self.jump = Jump(self._frames["line"][0], float(timestamp[decided] - latest))
                return
            if self._exhausted:
                break
            self._fetch()
        if self._stopped():
            raise Stopped
        self.ended = True
        if self._refused:
            yield self._refused

    def _fetch(self) -> None:
        """Add the next rows to those that are undecided."""
        try:
            batch = next(self._batches, None)
        except CanidsError:
            # Who stops a log before its first line need not hear that it is empty.
            if not self._stopped():
                raise
            batch = None
        if batch is None:
            self._exhausted = True
            return
        frames = pl.concat([self._frames, batch.frames]) if len(self._frames) else batch.frames
        # The first row that ends the stream: a reject, where they are refused, or a frame of another bus.
        lines = [] if self._quarantine else batch.rejects["line"][:1].to_list()
        if len(frames):
            self._channels = self._channels or [frames["channel"][0]]
            if (channels := frames["channel"].to_list()) != self._channels * len(channels):
                lines += frames.filter(pl.col("channel").ne_missing(self._channels[0]))["line"][:1].to_list()
        self._frames, self._rejects = frames, batch.rejects
        if lines:
            before = pl.col("line") < min(lines)
            self._refused = Batch(frames.filter(~before), batch.rejects.filter(~before))
            self._frames, self._rejects = frames.filter(before), batch.rejects.filter(before)
            self._exhausted = True

    def _decide(self, timestamp: np.ndarray, latest: float) -> tuple[dict[int, str], int, float, bool]:
        """Decide on frames by their times [n] (s), where the latest one before them is known (else -infinity).

        Returns positions of wrong frames with the reasons, the number of frames decided on, the latest time among them, and
        whether the clock jumps behind them.
        """
        count = len(timestamp)
        if not count:
            return {}, 0, latest, False
        latest = timestamp[0] if np.isinf(latest) else latest
        before = np.maximum.accumulate(np.concatenate([[latest], timestamp[:-1]]))  # [n]
        off = np.flatnonzero((timestamp - before > STEP_S) | (before - timestamp > self._tolerance))
        if not len(off):
            return {}, count, max(latest, float(timestamp.max())), False
        wrong: dict[int, str] = {}
        row, latest = int(off[0]), float(before[off[0]])
        times = timestamp.tolist()
        while row < count:
            step = times[row] - latest
            if latest - times[row] <= self._tolerance and step <= STEP_S:
                latest, row = max(latest, times[row]), row + 1
                continue
            # Those behind it that go on from its time; one that goes back shows that it is wrong.
            enough = 2 if 0 < step <= PAUSE_S else CONFIRMED
            agreeing = 1 if step < -STEP_S or step > 0 else 0
            run = times[row]
            for time in times[row + 1 : row + enough] if agreeing else ():
                on_old = latest - time <= self._tolerance and time - latest <= STEP_S
                if on_old or run - time > self._tolerance:
                    agreeing = 0
                    break
                if (
                    time - run > PAUSE_S
                ):  # ahead once more, as of a vehicle that wakes for some frames: the old time is over
                    break
                agreeing, run = agreeing + 1, max(run, time)
            else:
                if 0 < agreeing < enough and not self._exhausted:
                    return wrong, row, latest, False
            if agreeing and step > 0 and (step <= PAUSE_S or (self._exhausted and row + agreeing == count)):
                latest, row = run, row + agreeing
            elif agreeing and (step > 0 or (agreeing == CONFIRMED and self._quarantine)):
                return wrong, row, latest, True
            else:
                ahead = f"lies {step:.6f} s ahead of those around it"
                wrong[row] = f"the timestamp {ahead if step > 0 else f'steps back by {-step:.6f} s'}"
                row += 1
        return wrong, count, latest, False

    def _take(self, wrong: dict[int, str], decided: int) -> Batch:
        """The frames that are decided on, without the wrong ones, and the rejects with them."""
        frames, rejects = self._frames[:decided], self._rejects
        self._frames, self._rejects = self._frames[decided:], rejects.clear()
        if wrong:
            keep = np.ones(decided, dtype=bool)
            keep[list(wrong)] = False
            text = pl.format("{}", "timestamp")
            added = frames.filter(~keep).select("line", reason=pl.Series(list(wrong.values())), text=text)
            frames, rejects = frames.filter(keep), pl.concat([rejects, added]).sort("line")
        return Batch(frames, rejects)

    def _check_rejects(self, batch: Batch) -> None:
        """Raise `CanidsError` if most of the last rows are rejects: nothing is decided on any more then."""
        line = np.concatenate([batch.frames["line"].to_numpy(), batch.rejects["line"].to_numpy()])
        rejected = np.repeat([False, True], [len(batch.frames), len(batch.rejects)])[np.argsort(line, kind="stable")]
        recent = np.concatenate([self._recent, rejected])
        self._recent = recent[-RECENT:]
        if not len(batch.rejects):
            return
        # The window of `RECENT` rows slides over each new row: where a batch begins makes no difference.
        total = np.concatenate([np.zeros(RECENT, np.int64), np.cumsum(recent)])
        rejects = total[RECENT:] - total[:-RECENT]
        rows = np.minimum(np.arange(len(recent)) + 1, RECENT)
        if (rejects > np.maximum(rows - rejects, FEWEST_REJECTS)).any():
            number, reason, _ = batch.rejects.row(-1)
            raise CanidsError(
                f"{self._source}, line {number}: most of the last {min(len(recent), RECENT):,} rows are rejects (this one: "
                f"{reason}), so nothing can be decided; check the source and its format, and follow it again"
            )
