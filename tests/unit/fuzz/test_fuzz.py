"""Four thousand mutated files of all kinds: the same result, a refusal in one line, or, where it can be right, another content."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from canids_shared.errors import CanidsError
from fuzz import campaign
from fuzz.kinds import Kind

COUNT, SEED = 4_000, 0


@pytest.mark.slow
def test_mutated_files_are_read_alike_or_refused_in_one_line(tmp_path: Path) -> None:
    begin = time.perf_counter()
    campaign.whole_files(tmp_path)
    result = campaign.run(tmp_path, SEED, COUNT)
    print(f"{result.table()}\n{time.perf_counter() - begin:.0f} s")
    total = sum(counts.total() for counts in result.counts.values())
    assert total >= COUNT
    # Of each kind some are refused, or the mutations do not reach its reader. Damaged lines of the log are passed over and named.
    accepted = {kind for kind, counts in result.counts.items() if not counts[campaign.REFUSED]}
    assert accepted <= {"log of readings"}
    assert not [line for kind in result.counts for line in result.of(kind)]


def of(read: object, other: bool = False) -> Kind:
    return Kind("kind", Path("file"), read, [], other)  # type: ignore[arg-type]


class TwoLinesError(CanidsError):
    def __str__(self) -> str:
        return f"{super().__str__()}:\nno"


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("kind", "outcome", "said"),
    [
        (of(lambda p: p.read_bytes()), campaign.FAILED, "accepted, with another result than the whole file's"),
        (of(lambda p: p.read_bytes(), other=True), campaign.OTHER, ""),
        (of(lambda p: len(p.read_bytes())), campaign.SAME, ""),
        (of(lambda p: _raise(CanidsError(f"{p}: no"))), campaign.REFUSED, ""),
        (of(lambda p: _raise(CanidsError("no"))), campaign.FAILED, "a message without the file's name (file): 'no'"),
        (of(lambda p: _raise(TwoLinesError(str(p)))), campaign.FAILED, "a message of several lines"),
        (of(lambda p: _raise(KeyError("x"))), campaign.FAILED, "KeyError at test_fuzz.py"),
        (of(lambda p: time.sleep(9)), campaign.FAILED, "TooLongError at test_fuzz.py"),
    ],
)
def test_outcomes(workplace: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, outcome: str, said: str) -> None:
    monkeypatch.setattr(campaign, "HANG_S", 1)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    whole = campaign.outcome_of(
        of(lambda p: b"whole" if said.startswith("accepted") or outcome == campaign.OTHER else 7), b"", None
    )[1]
    actual, message = campaign.outcome_of(kind, b"mutated", whole)
    assert (actual, said in message) == (outcome, True)


LIMITS = """
import os, sys
from pathlib import Path
import fuzz.kinds, numpy as np
from fuzz import campaign
from fuzz.kinds import Kind

Path("whole").write_bytes(b"whole")

def read(path):
    raw = path.read_bytes()
    number = int(raw) if raw.isdigit() else 0
    if number == 1:
        os.abort()
    return np.zeros(3 << 30 if number == 2 else 1, np.uint8).sum()

campaign.case_of = lambda kind, raw, seed, number: b"%d" % number
fuzz.kinds.kinds = lambda: [Kind("kind", Path("whole"), read, [])]
campaign.work(Path("."), 0, {"kind": [0, 4]}, Path("report"))
"""


def test_memory_is_limited_and_a_campaign_goes_on_behind_a_death(tmp_path: Path) -> None:
    done = campaign._again([], command=[sys.executable, "-c", LIMITS], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    outcomes = [(line[1], line[2], line[3][:26]) for line in lines if len(line) > 2]
    assert outcomes == [
        (0, campaign.SAME, ""),
        (1, campaign.FAILED, "the process died of signal"),
        (2, campaign.FAILED, "MemoryError at <string>:15"),
        (3, campaign.SAME, ""),
    ]


def test_a_failure_names_the_command_that_shows_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "KEPT", tmp_path)
    result = campaign.Campaign()
    result.add("run.json of a GAT", 4, 7, campaign.FAILED, "KeyError at a.py:3", 0.5)
    result.add("run.json of a GAT", 4, 8, campaign.SAME, "", 0.5)
    (line,) = result.of("run.json of a GAT")
    kept = os.path.relpath(tmp_path / "run.json-of-a-GAT~4~7", campaign.HERE.parents[2])
    assert line == f"run.json of a GAT, seed 4, 7: KeyError at a.py:3\n    make fuzz CASE={kept}"
    assert result.table().splitlines()[-1].split()[:3] == ["2", "files", "1"]
