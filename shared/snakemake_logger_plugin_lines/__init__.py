"""Progress of Snakemake without a terminal, such as in CI: one line for each finished job, and all warnings and errors.

    snakemake --logger lines …

Snakemake finds it where canids is installed. On a terminal `--logger rich` shows a live view. The causes of failures, which come
last, are written by `canids_shared.planning.failures`, whatever the logger.
"""

import logging
import sys
import time

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

_NOTHING_TO_DO = "Nothing to be done"
_COMMAND = "RuleException:\nCalledProcessError"
"""Beginning of the message that holds the whole command of a job that failed; its name and its log say more."""


class LogHandler(LogHandlerBase):
    """Writes a line for each job that ends, to the stream of Snakemake's own log."""

    def __post_init__(self) -> None:
        """Start with no jobs."""
        self._stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self._jobs: dict[int, str] = {}
        self._begun: dict[int, float] = {}
        self._finished: list[str] = []
        self._failed = False

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def _write(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Note the start of a job; write its end, warnings and errors."""
        try:
            self._take(record)
        except Exception:  # a log must not end a workflow
            self.handleError(record)

    def _take(self, record: logging.LogRecord) -> None:
        event, facts = getattr(record, "event", None), record.__dict__
        if event == LogEvent.JOB_INFO:
            job = facts["jobid"]
            self._jobs[job] = facts["rule_msg"] or facts["rule_name"]
            self._begun[job] = time.monotonic()
            if self.common_settings.dryrun:
                self._write(f"would {self._jobs[job]}")
        elif event == LogEvent.JOB_FINISHED:
            job = facts["job_id"]
            seconds = time.monotonic() - self._begun.get(job, time.monotonic())
            self._finished.append(f"{self._jobs.get(job, job)} ({seconds:.0f} s)")
        elif event == LogEvent.PROGRESS:
            for job in self._finished:
                self._write(f"[{facts['done']}/{facts['total']}] {job}")
            self._finished.clear()
        elif event == LogEvent.JOB_ERROR:
            self._failed = True
            self._write(f"FAILED: {self._jobs.get(facts['jobid']) or facts['rule_name']}")
            for path in facts["log"] or []:
                self._write(f"    log: {path}")
        elif event == LogEvent.GROUP_ERROR:
            self._failed = True
            for info in facts["job_error_info"]:
                self._write(f"FAILED: {self._jobs.get(info['jobid']) or info['rule_name']}")
        elif str(record.msg).startswith(_COMMAND):
            return
        elif record.levelno >= logging.WARNING or (
            event is None and str(record.msg).startswith((_NOTHING_TO_DO, *(["Complete log"] if self._failed else [])))
        ):
            self._write(record.getMessage())
