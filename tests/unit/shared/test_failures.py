"""Jobs that fail: which ones are tried again, and what stands at the end."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake.jobs

from canids_shared.planning import failures

SNAKEFILE = """
from canids_shared.planning import failures
failures.attend()
rule all:
    input: "bad", "busy", "killed", "lost", "other"
rule bad:
    output: "bad"
    log: "bad.log"
    message: "read a bad capture"
    shell: '"$CANIDS_X_PYTHON" bad.py >> tries; (echo "error: x.csv, line 3: no number" >&2; exit 1) 2> {log}'
rule busy:
    output: "busy"
    log: "busy.log"
    shell: '"$CANIDS_X_PYTHON" busy.py >> tries; (echo "busy: run: process 7 still works" >&2; exit 1) 2> {log}'
rule killed:
    output: "killed"
    log: "killed.log"
    shell: '"$CANIDS_X_PYTHON" killed.py >> tries; test $(grep -c killed tries) -gt 1 2> {log} || kill -9 $$; touch {output}'
rule lost:
    output: "lost"
    log: "lost.log"
    shell: '"$CANIDS_X_PYTHON" lost.py >> tries; echo "ValueError: a fault" > {log}; exit 1'
# Of another project.
rule other:
    output: "other"
    log: "other.log"
    shell: 'echo other >> tries; (echo "error: busy" >&2; exit 1) 2> {log}'
"""


def test_bad_input_is_not_tried_again_and_the_causes_come_last(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    ran = subprocess.run(
        [sys.executable, "-m", "snakemake", "-c1", "--keep-going", "--retries", "2"],
        cwd=tmp_path,
        env={**os.environ, "CANIDS_X_PYTHON": "echo"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    tries = (tmp_path / "tries").read_text().split()
    counts = {name: tries.count(name) for name in ("bad.py", "busy.py", "killed.py", "lost.py", "other")}
    assert counts == {"bad.py": 1, "busy.py": 3, "killed.py": 2, "lost.py": 3, "other": 3}
    text, _, causes = ran.stderr.partition("What failed, and why:\n")
    assert "At least one job did not complete successfully" in text
    assert sorted(causes.splitlines()) == [
        "  busy: run: process 7 still works (log: busy.log)",
        "  lost: ValueError: a fault (log: lost.log)",
        "  other: busy (log: other.log)",
        "  read a bad capture: x.csv, line 3: no number (log: bad.log)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("error: a\n", "a"),
        ("epoch 1\nerror: a\nerror: b\nwarning: leaked\n", "b"),
        ("error: a\n" + "epoch 1\n" * 10, None),
        ("Terminated\n", None),
        ("", None),
    ],
)
def test_the_cause_is_among_the_last_lines_of_the_log(tmp_path: Path, text: str, expected: str | None) -> None:
    (tmp_path / "log.txt").write_text(text)
    assert failures.cause([str(tmp_path / "absent.txt"), str(tmp_path / "log.txt")]) == expected


def test_the_log_of_an_earlier_workflow_is_no_cause(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("error: a\n")
    os.utime(log, (time.time() - 86_400,) * 2)
    assert failures.cause([str(log)]) is None


def test_a_submission_that_holds_bad_input_is_not_tried_again(tmp_path: Path) -> None:
    failures.attend.cache_clear()
    failures.attend()
    retries = snakemake.jobs.GroupJob.restart_times.fget
    rule = SimpleNamespace(shellcmd='"$CANIDS_X_PYTHON" -m x', restart_times=5)
    (tmp_path / "bad.txt").write_text("error: a\n")
    (tmp_path / "killed.txt").write_text("Killed\n")
    bad, killed = (SimpleNamespace(rule=rule, log=[str(tmp_path / f"{name}.txt")]) for name in ("bad", "killed"))
    assert retries(SimpleNamespace(jobs=[killed, killed])) == 5
    assert retries(SimpleNamespace(jobs=[killed, bad])) == 0
