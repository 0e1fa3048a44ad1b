"""Follow a growing log or a bus with a finished run: alarms as they begin and end.

    python -m canids_shared.scoring.following drive.log experimentruns/simulated/dqn_large
    python -m canids_shared.scoring.following socketcan:can0 experimentruns/simulated/dqn_large

Starts the stages' `follow` entries as a chain of processes that tell each other windows (`canids_shared.contracts.streams`), each by the
Python that `CANIDS_<STAGE>_PYTHON` names (by default this one), watches over them, and ends them together: with Ctrl-C, at the end
of the log, or when one of them dies.
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

from canids_shared.contracts.streams import GONE
from canids_shared.errors import CanidsError
from canids_shared.scoring.captures import Trained, plain, trained

_LOOK = 0.05
"""Seconds between two looks at the parts."""
_DRAIN = 20.0
"""Seconds that the others have for what is under way when a part has died."""
Command = tuple[str, list[str]]
"""Name of a stage, and the command that runs its part."""


def commands(source: str, run: Trained, folder: Path, options: argparse.Namespace) -> list[Command]:
    """The commands of the chain, in the order in which windows pass them."""
    seen, models = run.preprocess, run.models
    reading = ["--window", seen["window"], "--stride", seen["stride"], "--window-unit", seen["window_unit"]]
    reading += ["--format", options.format, "--name", name_of(source), "--rejects", folder / "rejects.csv"]
    reading += _given(options, "on_bad_rows", "timestamp_tolerance", "idle")
    reading += ["--exit-at-end"] if options.exit_at_end else []
    deciding = ["--model", models["dqn"], "--fusion_baselines", models["fusion_baselines"], "--fusion", run.fusion]
    deciding += _given(options, "recalibrate")
    telling = ["--csv", folder / "alarms.csv", *(["--windows", folder / "windows.csv"] if options.windows else [])]
    telling += [*_given(options, "episode_gap", "explained_ids"), *(["--fit", *run.fit] if run.fit else [])]
    parts: dict[str, list[Any]] = {
        "preprocess": [source, *reading],
        "train_gnn": ["--vgae", models["vgae"], "--gat", models["gat"]],
        "train_drl": deciding,
        "evaluate": telling,
    }
    return [
        (stage, [_python(stage), "-m", f"canids_{stage}.follow", *map(str, arguments)])
        for stage, arguments in parts.items()
    ]


def _given(options: argparse.Namespace, *names: str) -> list[Any]:
    """Those of these options that were chosen, as the parts of the chain take them."""
    chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
    return [part for name, value in chosen.items() for part in (f"--{name.replace('_', '-')}", value)]


def _python(stage: str) -> str:
    return os.environ.get(f"CANIDS_{stage.upper()}_PYTHON") or sys.executable


def name_of(source: str) -> str:
    """What results on a source are filed under: the log's name, or interface and channel."""
    return plain(Path(source).stem if Path(source).exists() or "/" in source or ":" not in source else source)


class Chain:
    """Processes, each reading what the one before it writes."""

    def __init__(self, parts: list[Command]) -> None:
        """Start them. Ctrl-C, which all processes of a terminal get, is answered by the first part alone."""
        self.names = [name for name, _ in parts]
        self.processes: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._gone = 0.0
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the parts inherit
        try:
            upstream: Any = subprocess.DEVNULL
            for position, (_, command) in enumerate(parts):
                downstream = subprocess.PIPE if position + 1 < len(parts) else None
                self.processes.append(subprocess.Popen(command, stdin=upstream, stdout=downstream))
                if position:
                    upstream.close()
                upstream = self.processes[-1].stdout
        except OSError as error:
            self.kill()
            raise CanidsError(f"{parts[len(self.processes)][0]}: cannot be started: {error}") from None
        finally:
            signal.signal(signal.SIGINT, before)

    def stop(self, *_: Any) -> None:
        """Ask the first part to end; the others then end with what it sent."""
        self._stopping = True

    def wait(self) -> None:
        """Wait for the end of all parts; raises `CanidsError` naming the part that died."""
        while (failed := self._failed()) is None:
            if all(process.poll() is not None for process in self.processes):
                return
            if self._stopping:
                self.processes[0].terminate()
            time.sleep(_LOOK)
        status = self.processes[failed].returncode
        for process in self.processes[:failed]:
            process.terminate()
        until = time.monotonic() + _DRAIN
        while time.monotonic() < until and any(process.poll() is None for process in self.processes):
            time.sleep(_LOOK)
        self.kill()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        raise CanidsError(f"{self.names[failed]} has ended ({how}), and with it the chain; its last message tells why")

    def _failed(self) -> int | None:
        """The part that is to blame: one that died by itself, else one that its neighbours have left, or not understood."""
        codes = [process.poll() for process in self.processes]
        if self._stopping and codes[0] == -signal.SIGTERM:
            return None  # before it could answer
        if died := [position for position, code in enumerate(codes) if code not in (None, 0, GONE)]:
            return died[0]
        if GONE not in codes:
            return None
        self._gone = self._gone or time.monotonic()
        late = None not in codes or time.monotonic() - self._gone > _DRAIN
        return codes.index(GONE) if late else None

    def kill(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()


def follow(source: str, run: Path, options: argparse.Namespace) -> None:
    """Follow a source until it ends; raises `CanidsError` if the run lacks something, or a part of the chain fails."""
    found = trained(run)
    start = datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
    usual = Path("results/scored") / name_of(source) / f"by-{found.by}" / found.variant / "follow" / start
    folder = options.output or usual
    folder.mkdir(parents=True, exist_ok=True)
    print(f"following {source} with {run}; alarms go to {folder / 'alarms.csv'}; Ctrl-C ends it", file=sys.stderr)
    chain = Chain(commands(source, found, folder, options))
    before = {number: signal.signal(number, chain.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        chain.wait()
    finally:
        chain.kill()
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
    made.add_argument("run", type=Path, help="a finished run of the policy, such as experimentruns/simulated/dqn_large")
    made.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where alarms.csv goes; by default a new folder in results/scored"
    )
    made.add_argument(
        "--windows", action="store_true", help="write scores, alarm and action of every window to windows.csv"
    )
    made.add_argument("--exit-at-end", action="store_true", help="end where the log ends for now")
    made.add_argument("--idle", type=float, metavar="S", help="end after so many seconds without a frame")
    made.add_argument("--format", default="auto", help="how a log is written; by default recognised")
    made.add_argument("--on-bad-rows", choices=["error", "quarantine"], help="as in the module preprocess")
    made.add_argument("--timestamp-tolerance", type=float, metavar="S", help="as in the module preprocess")
    made.add_argument(
        "--recalibrate", type=float, metavar="S", help="seconds free of attacks at the beginning, to set scales by"
    )
    made.add_argument("--episode-gap", type=float, metavar="S", help="as in the module evaluate")
    made.add_argument("--explained-ids", type=int, metavar="N", help="as in the module evaluate")
    return made


def main() -> None:
    """Entry point."""
    options = parser().parse_args()
    try:
        follow(options.source, options.run, options)
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
