"""Follow a growing log or a bus with a finished run: alarms as they begin and end.

    python -m canids_shared.scoring.following drive.log experimentruns/simulated/dqn_large
    python -m canids_shared.scoring.following socketcan:can0 experimentruns/simulated/dqn_large

Starts the stages' `follow` entries as a chain of processes: each writes windows (`canids_shared.contracts.streams`) to the
next one's standard input. Each runs by the Python that `CANIDS_<STAGE>_PYTHON` names, by default this one. All end
together: at Ctrl-C or SIGTERM, at the end of the log, or when one of them dies.

Exit status 0: it ended as asked, by Ctrl-C, SIGTERM, `--exit-at-end` or `--idle`, and alarms that were open are closed.
1: it failed, for the reason in the line that begins with `error:`. 2: the command line is wrong.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from canids_shared.contracts.streams import CHAINED, GONE
from canids_shared.errors import CanidsError
from canids_shared.jobs.options import DAY_S, number, whole_number
from canids_shared.scoring.captures import DATA_ROOT, plain
from canids_shared.scoring.trained_run import TrainedRun, trained_run

_POLL_S = 0.05
"""Seconds between two looks at the processes."""
_DRAIN_S = 20.0
"""Seconds that the other processes have for the windows under way when one has died."""
_STOP_S = 60.0
"""Seconds that all have to end when they are asked to; service managers kill after 90."""
_PIPE = 1 << 13
"""Bytes of a pipe between two processes: about a window. Where they cannot keep up, frames wait in the log, and are then decided on
together, which takes less time a window; in longer pipes the windows would wait one by one."""
Command = tuple[str, list[str]]
"""Name of a stage, and the command that runs its process."""


def commands(source: str, run: TrainedRun, folder: Path, options: argparse.Namespace) -> list[Command]:
    """The commands of the chain, in the order in which windows pass them."""
    graphs = run.preprocess
    read = ["--window", graphs["window"], "--stride", graphs["stride"], "--window-unit", graphs["window_unit"]]
    read += ["--format", options.format, "--name", name_of(source), "--rejects", folder / "rejects.csv"]
    read += _given(
        options, "on_bad_rows", "timestamp_tolerance", "timestamp_unit", "table", "channel", "profile", "idle"
    )
    read += ["--exit-at-end"] if options.exit_at_end else []
    detect = [argument for kind, model in run.detectors.items() for argument in (f"--{kind}", model)]
    decide = [
        *(["--model", run.policy] if run.policy else []),
        "--fusion_baselines",
        run.fusion_baselines,
        "--fusion",
        run.fusion,
    ]
    decide += _given(options, "recalibrate")
    report = ["--csv", folder / "alarms.csv", *(["--windows", folder / "windows.csv"] if options.windows else [])]
    report += [*_given(options, "episode_gap", "explained_ids"), *(["--fit", *run.fit] if run.fit else [])]
    arguments: dict[str, list[Any]] = {
        "preprocess": [source, *read],
        "train_gnn": detect,
        "train_drl": decide,
        "evaluate": report,
    }
    return [
        (stage, [_python(stage), "-m", f"canids_{stage}.follow", *map(str, given)])
        for stage, given in arguments.items()
    ]


def _given(options: argparse.Namespace, *names: str) -> list[Any]:
    """The options of these names that were given, as the stages' `follow` entries take them."""
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]


def _python(stage: str) -> str:
    return os.environ.get(f"CANIDS_{stage.upper()}_PYTHON") or sys.executable


def name_of(source: str) -> str:
    """Name of the results' folder: the log's name, or interface and channel."""
    return plain(Path(source).stem if Path(source).exists() or "/" in source or ":" not in source else source)


class StageError(CanidsError):
    """A stage has failed, and has written why to standard error."""


class Chain:
    """Processes, each reading what the one before it writes."""

    def __init__(self, parts: list[Command]) -> None:
        """Start the processes. Ctrl-C, which a terminal sends to all of them, is ignored by them; `stop` answers it."""
        self.names = [name for name, _ in parts]
        self.processes: list[subprocess.Popen[bytes]] = []
        self._stopping = 0.0
        self._gone = 0.0
        # One thread each, as there are more processes than cores: polars would hand small batches from thread to thread.
        environment = {"POLARS_MAX_THREADS": "1", **os.environ, CHAINED: "1"}
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the processes
        try:
            # Each process reads the pipe into which the one before it writes; the last one writes to the terminal.
            upstream: Any = subprocess.DEVNULL
            for position, (_, command) in enumerate(parts):
                downstream = subprocess.PIPE if position + 1 < len(parts) else None
                process = subprocess.Popen(command, stdin=upstream, stdout=downstream, env=environment, pipesize=_PIPE)
                self.processes.append(process)
                if position:
                    upstream.close()  # the process has it: its own copy here would keep the pipe open
                upstream = process.stdout
        except OSError as error:
            self.kill()
            raise CanidsError(f"{parts[len(self.processes)][0]}: cannot be started: {error}") from None
        finally:
            signal.signal(signal.SIGINT, before)

    def stop(self, *_: Any) -> None:
        """Ask the first process to end; the others end after the windows that it sent."""
        self._stopping = self._stopping or time.monotonic()

    def wait(self) -> None:
        """Wait for the end of all processes.

        Raises `CanidsError` naming the stage whose process died, `StageError` if that has said why, and `CanidsError` if they
        do not end in `_STOP_S` after `stop`.
        """
        while (failed := self._failed()) is None:
            if all(process.poll() is not None for process in self.processes):
                return
            running = [process.returncode is None for process in self.processes]
            # One that was asked to end by itself has no use for further windows.
            if any(
                before and process.returncode == 0 for before, process in zip(running, self.processes[1:], strict=False)
            ):
                self.stop()
            if self._stopping:
                self._terminate(running)
            time.sleep(_POLL_S)
        status = self.processes[failed].returncode
        # The processes before it have no reader any more; those behind it still have windows to decide on and to report.
        for process in self.processes[:failed]:
            process.terminate()
        until = time.monotonic() + _DRAIN_S
        while time.monotonic() < until and any(process.poll() is None for process in self.processes):
            time.sleep(_POLL_S)
        self.kill()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        kind = StageError if status == 1 else CanidsError
        raise kind(f"{self.names[failed]} has ended ({how}), and with it the chain")

    def _terminate(self, running: list[bool]) -> None:
        """Ask the first process to end: again and again, since it may not have installed its handler yet."""
        self.processes[0].terminate()
        if self.processes[0].returncode == -signal.SIGTERM:
            # It has sent nothing, and the others need not load their models.
            for process in self.processes:
                process.terminate()
        if time.monotonic() - self._stopping > _STOP_S:
            late = [name for name, runs in zip(self.names, running, strict=True) if runs]
            self.kill()
            raise CanidsError(f"{', '.join(late)}: did not end within {_STOP_S:.0f} s, and was killed")

    def _failed(self) -> int | None:
        """Position of the process that failed, or None.

        One that died by itself goes before one that left because a neighbour was gone, or sent something else (`GONE`): the
        latter counts only once all have ended, or after `_DRAIN_S`.
        """
        codes = [process.poll() for process in self.processes]
        # A process that was stopped before its handler was installed dies of the signal, and its neighbours miss it.
        orderly = {None, 0, GONE} | ({-signal.SIGTERM} if self._stopping else set())
        if died := [position for position, code in enumerate(codes) if code not in orderly]:
            return died[0]
        if GONE not in codes or self._stopping:
            return None
        self._gone = self._gone or time.monotonic()
        late = None not in codes or time.monotonic() - self._gone > _DRAIN_S
        return codes.index(GONE) if late else None

    def kill(self) -> None:
        """Kill the processes that still run."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()


def follow(source: str, folder: Path, options: argparse.Namespace) -> None:
    """Follow a source with the run in `folder` until it ends, or Ctrl-C or SIGTERM ends it.

    Raises `CanidsError` if the run lacks a file, or a process of the chain fails.
    """
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    # From the first moment on: models are looked for, and processes started, before there is a chain to stop.
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in numbers}
    try:
        run = trained_run(folder)
        start = datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
        usual = DATA_ROOT / name_of(source) / f"by-{run.by}" / run.variant / "follow" / start
        output = options.output or usual
        output.mkdir(parents=True, exist_ok=True)
        print(
            f"following {source} with {folder}; alarms go to {output / 'alarms.csv'}; Ctrl-C ends it", file=sys.stderr
        )
        chain = Chain(commands(source, run, output, options))
        for number in numbers:
            signal.signal(number, chain.stop)
        if asked:
            chain.stop()
        try:
            chain.wait()
        finally:
            chain.kill()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="canids_shared.scoring.following",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("source", help="a log that may grow, or interface:channel of python-can, such as socketcan:can0")
    made.add_argument("run", type=Path, help="a finished run, as for make score: experimentruns/simulated/dqn_large")
    made.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where alarms.csv goes; by default a new folder in results/scored"
    )
    made.add_argument(
        "--windows", action="store_true", help="write scores, alarm and action of every window to windows.csv"
    )
    made.add_argument("--exit-at-end", action="store_true", help="end where the log ends for now")
    made.add_argument(
        "--idle", type=number(0, DAY_S, above=True), metavar="S", help="end after so many seconds without a frame"
    )
    made.add_argument("--format", default="auto", help="how a log is written; by default recognised")
    made.add_argument("--timestamp-unit", choices=["s", "ms", "us", "ns"], help="unit of a log's timestamps")
    made.add_argument(
        "--table", metavar="FILE", help="what the columns of a table mean: a mapping, or a manifest with it"
    )
    made.add_argument("--channel", metavar="NAME", help="the bus of a log of several, or of the profile")
    made.add_argument(
        "--profile", metavar="FILE", help="profile of the vehicle to begin with: python -m canids_preprocess.enrol"
    )
    made.add_argument("--on-bad-rows", choices=["error", "quarantine"], help="as in the module preprocess")
    made.add_argument("--timestamp-tolerance", type=number(0, 60), metavar="S", help="as in the module preprocess")
    made.add_argument(
        "--recalibrate",
        type=number(0, DAY_S),
        metavar="S",
        help="seconds free of attacks at the beginning, to set scales by",
    )
    made.add_argument("--episode-gap", type=number(0, DAY_S), metavar="S", help="as in the module evaluate")
    made.add_argument("--explained-ids", type=whole_number(1, 1000), metavar="N", help="as in the module evaluate")
    return made


def main() -> None:
    """Entry point."""
    options = parser().parse_args()
    try:
        follow(options.source, options.run, options)
    except StageError:
        sys.exit(1)
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
