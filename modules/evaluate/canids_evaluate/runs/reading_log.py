"""The log of every reading of a test scenario: test figures are made by one command, they are not a tuning loop."""

import datetime
import json
import logging
import subprocess
from pathlib import Path
from types import NoneType
from typing import Any

from canids_shared.contracts.manifest import JUDGED, LEFT_OUT, UNSEEN, base_of
from canids_shared.jobs.locks import locked_folder

READINGS = Path("experimentruns/test_readings.jsonl")
"""In the working directory. No output of any rule: it only ever grows."""
_TEXT = dict.fromkeys(("time", "code", "dataset", "rule", "instance"), str)
_TYPES: dict[str, Any] = {**_TEXT, "commit": (str, NoneType), "dirty": (bool, NoneType)}
"""What report and cards read of a line."""
log = logging.getLogger(__name__)


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        answer = subprocess.run(["git", "-C", str(here), *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def commit() -> tuple[str | None, bool | None]:
    """Commit of this code and whether files differ from it; None for both if it is not run from a checkout."""
    # An installed copy may lie inside a repository of another project, whose commit is not that of this code.
    if (
        _git("ls-files", "--error-unmatch", Path(__file__).name) is None
        or (revision := _git("rev-parse", "HEAD")) is None
    ):
        return None, None
    return revision, bool(_git("status", "--porcelain", "--untracked-files=no"))


def record(rule: str, wildcards: dict[str, str], code: str, scenarios: list[str]) -> None:
    """Append one line for the test scenarios that `rule` is about to read.

    The left-out captures of a fold, those that nothing is trained on, and blocks of the training captures do not count.

    Args:
        wildcards: of the job.
        code: hash of the code that reads them, as in the job's spec.
    """
    tests = [s for s in scenarios if base_of(s) not in (LEFT_OUT, UNSEEN, JUDGED)]
    if not tests:
        return
    revision, dirty = commit()
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": revision,
        "dirty": dirty,
        "code": code,
        "dataset": wildcards["dataset"],
        "rule": rule,
        "instance": wildcards.get("instance", ""),
        "scenarios": tests,
    }
    # Jobs may run side by side on several nodes, and over NFS appending is not atomic.
    with locked_folder(READINGS.parent), open(READINGS, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, sort_keys=True) + "\n")


def rule_of(metrics: dict[str, Any]) -> str:
    """The rule that made a `metrics.json`."""
    return f"eval_{metrics['variant']}" if metrics["variant"] else "window_baselines"


def reading_behind(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The last line of the log for the run and code that made a `metrics.json`; None where there is none, as for folds.

    A damaged line is passed over, and named in the job's log: it holds no result, and a report does without.
    """
    wanted = {"rule": rule_of(metrics), **{k: metrics[k] for k in ("code", "dataset", "instance")}}
    last = None
    lines = READINGS.read_bytes().splitlines() if READINGS.exists() else []
    for number, text in enumerate(lines, start=1):
        try:
            line: dict[str, Any] = json.loads(text)
            if not all(isinstance(line[k], kinds) for k, kinds in _TYPES.items()):
                raise TypeError(text)
            if all(line[k] == v for k, v in wanted.items()):
                last = line
        except (ValueError, KeyError, TypeError, RecursionError):
            log.warning("%s: line %d is damaged and passed over; repair or remove it", READINGS, number)
    return last
