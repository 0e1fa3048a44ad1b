"""Progress of a workflow: a live view on a terminal, elsewhere a line for each finished job."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from workflows import REPOSITORY

SNAKEFILE = """
rule all:
    input: "good", "bad"
rule good:
    output: "good"
    message: "make what is good"
    shell: "touch {output}"
rule bad:
    output: "bad"
    log: "bad.log"
    message: "make what is bad"
    shell: "(echo 'error: x.csv, line 3: no number' >&2; exit 1) 2> {log} || {{ cat {log} >&2; exit 1; }}"
"""


def test_a_finished_job_is_one_line_and_a_failed_one_says_all(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    ran = subprocess.run(
        [sys.executable, "-m", "snakemake", "-c1", "--keep-going", "--logger", "lines"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    lines = ran.stderr.splitlines()
    assert [line for line in lines if "what is good" in line] == ["[1/3] make what is good (0 s)"]
    failed = lines.index("FAILED: make what is bad")
    assert lines[failed + 1] == "    log: bad.log"
    assert "error: x.csv, line 3: no number" in lines[:failed]
    assert not any("Job stats" in line or "Select jobs" in line for line in lines)


def test_make_shows_the_live_view_on_a_terminal_alone() -> None:
    command = ["make", "--dry-run", "--no-print-directory", "hours"]
    piped = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "--logger lines" in piped
    outer, inner = pty.openpty()
    watched = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=inner, text=True, check=True)
    os.close(inner)
    os.close(outer)
    assert "--logger rich" in watched.stdout
