"""Latency of a model: measured one window at a time, written and read whole."""

from pathlib import Path

import pytest

from canids_shared.errors import CanidsError
from canids_shared.jobs import latency


@pytest.mark.parametrize(("windows", "measured", "judged"), [(3, 3, 6), (50, 50, 60), (1000, 200, 210), (0, 0, 0)])
def test_first_windows_are_judged_one_by_one(windows: int, measured: int, judged: int) -> None:
    seen: list[int] = []
    seconds = latency.measure(seen.append, windows)
    assert (len(seconds), len(seen)) == (measured, judged)
    assert seen[-measured or len(seen) :] == list(range(measured))
    assert all(s > 0 for s in seconds)


def test_the_median_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    latency.write(path, [0.001] * 90 + [0.003] * 10, "cpu")
    assert latency.read(path) == (pytest.approx(1.0), "cpu")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file; delete the folder"),
        ("{", "damaged"),
        ("[1]", "damaged"),
        ('{"contract": "latency/1"}', "damaged"),
        ('{"contract": "latency/0", "median_ms": 1}', "contract latency/0, not latency/1"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "latency.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CanidsError, match=rf"latency\.json: {complaint}"):
        latency.read(path)
