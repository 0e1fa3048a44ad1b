"""Jobs that fail: bad input is not tried again, and the causes come last.

Snakemake tries every job again that failed, as often as `retries` says. An entry point that ends with `error: …` (a
`CanidsError`) found an input, an option or a file wrong, and would find it wrong again; jobs that memory, a time limit, a
preemption or the loss of a node end leave no such line, and those that waited in vain for another one say `busy: …`: they are
tried again.
"""

import logging
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

_ENTRY_POINT = '"$CANIDS_'
"""How the shells of canids begin; other rules of a workflow are retried as Snakemake does."""
_FINAL, _PREFIXES = "error: ", ("error: ", "busy: ")
_LAST_LINES = 10
"""Libraries may write something while the interpreter ends."""
_BEGIN = time.time()


def _last_lines(logs: Iterable[str]) -> list[str]:
    """The last lines of a job's logs; none of a log that this workflow has not written."""
    lines: list[str] = []
    for path in map(Path, logs):
        # A job that was cancelled before it started leaves the log of an earlier workflow (a second: clocks of other nodes).
        if path.is_file() and path.stat().st_mtime > _BEGIN - 1:
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    return [line for line in lines if line.strip()]


def _fault(logs: Iterable[str]) -> str:
    """The line with which an entry point ended, from its logs; empty where it ended otherwise."""
    return next((line for line in reversed(_last_lines(logs)) if line.startswith(_PREFIXES)), "")


def cause(logs: Iterable[str]) -> str | None:
    """The message with which an entry point ended, from its logs; None where it ended otherwise."""
    return _fault(logs).partition(": ")[2] or None


class _Causes(logging.Handler):
    """Writes, when Snakemake closes its log, one line for each job that failed for good: the job, the cause, the log."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[int, str] = {}
        self._failed: dict[int, tuple[list[str], bool]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note names, failures and, after a retry, successes of jobs."""
        facts = record.__dict__
        event = str(getattr(facts.get("event"), "value", ""))
        if event == "job_info":
            self._names[facts["jobid"]] = facts["rule_msg"] or facts["rule_name"]
        elif event == "job_error":
            self._names.setdefault(facts["jobid"], facts["rule_name"])
            # All jobs of a submission are reported as failed if one of them did.
            self._failed[facts["jobid"]] = facts["log"], facts["indent"]
        elif event == "job_finished":
            self._failed.pop(facts["job_id"], None)

    def close(self) -> None:
        """Write the causes, once."""
        lines = []
        for job, (logs, with_others) in self._failed.items():
            text = cause(logs)
            if text is None and not with_others:
                text = (_last_lines(logs) or ["ended without a message: killed, or out of memory?"])[-1]
            if text:
                lines.append(f"  {self._names[job]}: {text} (log: {', '.join(logs) or 'none'})")
        self._failed.clear()
        if lines:
            print("What failed, and why:", *lines, sep="\n", file=sys.stderr, flush=True)
        super().close()


@cache
def attend() -> None:
    """Decide on retries by the cause of a failure, and let the causes of a failed workflow be its last lines.

    Does nothing where no Snakemake reads a Snakefile. Snakemake asks nobody whether a failure can pass at a second attempt,
    hence the replaced properties.
    """
    if (jobs := sys.modules.get("snakemake.jobs")) is None:
        return

    def of_job(job: Any) -> int:
        own = _ENTRY_POINT in (job.rule.shellcmd or "")
        return 0 if own and _fault(job.log).startswith(_FINAL) else int(job.rule.restart_times)

    jobs.Job.restart_times = property(of_job)
    jobs.GroupJob.restart_times = property(lambda group: min(map(of_job, group.jobs)))
    # A Snakemake within a job reports to the one that started it.
    if "--mode" not in sys.argv:
        sys.modules["snakemake.logging"].logger.addHandler(_Causes())
