"""Where the clock of a stream jumps, and which of its frames are wrong."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from canids_preprocess.formats.base import FRAME_COLUMNS, REJECT_COLUMNS, Batch
from canids_preprocess.windowing.stretches import CONFIRMED, FEWEST_REJECTS, PAUSE_S, Stopped, Stretches
from canids_shared.errors import CanidsError

NONE = pl.DataFrame(schema=REJECT_COLUMNS)
USUAL = (10 + np.arange(40) / 1000).tolist()
DAY = 86_400.0


def frames(times: list[float], line: int = 1) -> pl.DataFrame:
    rows = [(line + n, t, 1, False, False, False, 1, b"a", "can0", None) for n, t in enumerate(times)]
    return pl.DataFrame(rows, schema=FRAME_COLUMNS, orient="row")


def batches(times: list[float], size: int) -> Iterator[Batch]:
    for begin in range(0, len(times), size):
        yield Batch(frames(times[begin : begin + size], begin + 1), NONE)


def stretches(
    times: list[float], size: int = 1000, quarantine: bool = True, stopped: bool = False
) -> tuple[list[list[float]], list[int], list[float]]:
    """Times of the frames of each stretch, lines of all rejects, and seconds of the jumps."""
    cut = Stretches("log", batches(times, size), 0.0005, quarantine, lambda: stopped)
    kept: list[list[float]] = []
    wrong, jumps = [], []
    while not cut.ended:
        kept.append([])
        for batch in cut.next():
            kept[-1] += batch.frames["timestamp"].to_list()
            wrong += batch.rejects["line"].to_list()
        jumps += [] if cut.ended else [round(cut.jump.seconds, 3)]
    return kept, wrong, jumps


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("off", [DAY, 3600.0, 5.0, 0.2, -0.01, -0.2, -5.0, -DAY])
@pytest.mark.parametrize("many", [1, CONFIRMED - 1])
def test_few_frames_with_another_time_are_wrong_and_nothing_else_is(size: int, off: float, many: int) -> None:
    if 0 < off < PAUSE_S:
        many = 1  # two are a pause
    strays = [USUAL[19] + off + n / 10_000 for n in range(many)]
    kept, wrong, jumps = stretches([*USUAL[:20], *strays, *USUAL[20:]], size)
    assert (kept, wrong, jumps) == ([USUAL], list(range(21, 21 + many)), [])


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("off", [DAY, 61.0, -0.5, -DAY])
def test_a_clock_that_was_set_begins_a_stretch(size: int, off: float) -> None:
    later = [time + off for time in USUAL]
    kept, wrong, jumps = stretches([*USUAL, *later], size)
    assert (kept, wrong) == ([USUAL, later], [])
    assert jumps == [pytest.approx(later[0] - USUAL[-1], abs=1e-3)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_pause_begins_none_nor_does_a_slow_bus(size: int) -> None:
    later = [time + 50 for time in USUAL]
    assert stretches([*USUAL, *later], size) == ([[*USUAL, *later]], [], [])
    slow = (np.arange(35) * 2.0).tolist()
    assert stretches(slow, size) == ([slow], [], [])


def test_a_frame_behind_a_pause_waits_for_one_more() -> None:
    taken: list[float] = []

    def one_by_one() -> Iterator[Batch]:
        for line, time in enumerate([*USUAL, 12.0, 12.5, 13.0], 1):
            taken.append(time)
            yield Batch(frames([time], line), NONE)

    cut = Stretches("log", one_by_one(), 0.0005, True, lambda: False)
    decided = [(time, taken[-1]) for batch in cut.next() for time in batch.frames["timestamp"].to_list()]
    assert decided == [*((time, time) for time in USUAL), (12.0, 12.5), (12.5, 12.5), (13.0, 13.0)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_vehicle_that_wakes_for_some_frames_is_followed(size: int) -> None:
    woken = [100 + n / 1000 for n in range(5)]
    later = [time + 190 for time in USUAL]
    kept, wrong, jumps = stretches([*USUAL, *woken, *later], size, quarantine=False)
    assert (kept, wrong, len(jumps)) == ([USUAL, woken, later], [], 2)


def test_a_first_frame_that_is_wrong_ends_with_its_own_stretch() -> None:
    assert stretches([DAY, *USUAL], 3) == ([[DAY], USUAL], [], [10.0 - DAY])


def test_a_clock_that_is_a_little_slow_catches_up() -> None:
    late = [USUAL[19] - 0.005 + n / 1000 for n in range(4)]
    assert stretches([*USUAL[:20], *late, *USUAL[20:]]) == ([USUAL], [21, 22, 23, 24], [])


def test_frames_that_nothing_follows_stay_as_in_a_finished_capture() -> None:
    assert stretches([*USUAL, DAY, DAY + 1]) == ([[*USUAL, DAY, DAY + 1]], [], [])
    assert stretches([*USUAL, 1.0]) == ([USUAL], [41], [])


def test_who_stops_need_not_wait_for_what_follows() -> None:
    cut = Stretches("log", batches([*USUAL, DAY], 7), 0.0005, False, lambda: True)
    with pytest.raises(Stopped):
        list(cut.next())


def test_without_quarantine_the_rows_before_a_wrong_one_come_first() -> None:
    for off in (DAY, -DAY):
        cut = Stretches("log", batches([*USUAL[:20], 10.0 + off, *USUAL[20:]], 1000), 0.0005, False, lambda: False)
        before, refused = cut.next()
        assert before.frames["timestamp"].to_list() == USUAL[:20]
        assert refused.rejects["line"].to_list() == [21]
    # A clock that is set ahead makes no row wrong, one that is set back does.
    later = [time + DAY for time in USUAL]
    assert stretches([*USUAL, *later], quarantine=False) == ([USUAL, later], [], [pytest.approx(DAY, abs=0.1)])
    kept, wrong, _ = stretches([*later, *USUAL], quarantine=False)
    assert (kept, wrong) == ([later], [41])


@pytest.mark.parametrize("size", [1, 100])
def test_a_stream_of_rejects_ends(size: int) -> None:
    def rows(good: int) -> Iterator[Batch]:
        """Rows of which this many in five are frames."""
        for begin in range(1, 4 * FEWEST_REJECTS, size):
            lines = np.arange(begin, begin + size)
            kept, bad = lines[lines % 5 < good], lines[lines % 5 >= good]
            numbers = pl.Series("line", kept, dtype=pl.UInt64)
            rejects = {"line": bad, "reason": ["odd"] * len(bad), "text": [""] * len(bad)}
            yield Batch(
                frames((kept / 1000).tolist()).with_columns(numbers), pl.DataFrame(rejects, schema=REJECT_COLUMNS)
            )

    def rejects_of(good: int) -> int:
        cut = Stretches("log", rows(good), 0.0005, True, lambda: False)
        return sum(len(batch.rejects) for batch in cut.next())

    assert rejects_of(3) == pytest.approx(4 * FEWEST_REJECTS * 2 / 5, abs=2)
    with pytest.raises(
        CanidsError, match=r"log, line 1\d+: most of the last 1,[67]\d\d rows are rejects \(this one: odd\)"
    ):
        rejects_of(2)
