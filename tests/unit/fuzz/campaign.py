"""A campaign of mutated files: `python -m fuzz.campaign --seed 1 --count 20000`, or `make fuzz FUZZ=20000 SEED=1`.

Each is read within 10 s and 2 GB in a process of its own, and must give the result of the whole file, or a refusal in one line
that names it; where another content can be right (`Kind.other`), another result too. A file that fails is kept, and
`make fuzz CASE=FILE` reads it again.
"""

import argparse
import faulthandler
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zlib import crc32

HANG_S = 10
MOST_BYTES = 2 << 30
ROUND = 20_000
"""Files that are read with one seed; a longer campaign goes on with the next one."""
SAME, OTHER, REFUSED, SNAKEMAKE, FAILED = "same result", "other content", "refused", "refused by Snakemake", "failed"
OUTCOMES = (SAME, OTHER, REFUSED, SNAKEMAKE, FAILED)
HERE = Path(__file__).parent
SHARES = "shares.json"
"""In the folder of the whole files: kind → `Kind.share`."""
KEPT = HERE.parents[2] / "build/fuzz"


class TooLongError(BaseException):
    """Not an `Exception`: readers turn those into refusals."""


@contextmanager
def guarded() -> Iterator[None]:
    """End what takes longer than `HANG_S`: by an exception, or with the process where no Python runs meanwhile."""

    def stop(*_: Any) -> None:
        raise TooLongError(f"still running after {HANG_S} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_S)
    faulthandler.dump_traceback_later(HANG_S + 5, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()


def limit_memory() -> None:
    """Let this process take `MOST_BYTES` more than it has now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now = int(status["VmData"].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (now + MOST_BYTES, resource.RLIM_INFINITY))


def outcome_of(kind: Any, raw: bytes, whole: str | None) -> tuple[str, str]:
    """Read a file of a kind with this content; returns the outcome and what to say of it.

    Args:
        whole: fingerprint of the result of the whole file, None to ask for it: it is what is said.
    """
    from canids_shared.contracts import stand_in_mark  # noqa: PLC0415
    from canids_shared.errors import CanidsError  # noqa: PLC0415
    from fuzz.kinds import OfSnakemakeError, checked, fingerprint  # noqa: PLC0415

    temporary = kind.path.with_name(".fuzz.tmp")
    temporary.write_bytes(raw)
    os.replace(temporary, kind.path)  # another file: an earlier one may be mapped still
    unraised: list[str] = []
    sys.unraisablehook = lambda fault: unraised.append(f"{type(fault.exc_value).__name__} in {fault.object}")
    outcome, said = FAILED, ""
    try:
        with guarded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stand_in_mark.refuse(kind.path)
            said = fingerprint(kind.read(kind.path))
        outcome = SAME if whole in (None, said) else OTHER
    except OfSnakemakeError:
        outcome = SNAKEMAKE
    except CanidsError as error:
        try:
            checked(error, kind.names or (str(kind.path),))
            outcome = REFUSED
        except AssertionError as wrong:
            said = str(wrong)
    except (Exception, TooLongError) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
        place = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[:-4:-1])
        text = (
            f"more than {MOST_BYTES >> 30} GB" if isinstance(error, MemoryError) else " ".join(str(error).split())[:300]
        )
        said = f"{type(error).__name__} at {place}: {text}"
    if outcome == OTHER and not kind.other:
        return FAILED, "accepted, with another result than the whole file's"
    if unraised and outcome != FAILED:
        return FAILED, f"a traceback on standard error: {unraised[0]}"
    return outcome, said


def case_of(kind: Any, whole: bytes, seed: int, number: int) -> bytes:
    """The mutated file of this number."""
    import numpy as np  # noqa: PLC0415

    from fuzz.mutations import mutated  # noqa: PLC0415

    return mutated(whole, kind.mutations, np.random.default_rng([seed, crc32(kind.name.encode()), number]))


def _read(chosen: list[Any], seed: int, todo: dict[str, list[int]], stream: IO[str]) -> None:
    """Read the cases `todo` (kind → from, to): a line of the report before and after each."""
    limit_memory()
    for kind in chosen:
        raw = kind.path.read_bytes()
        outcome, whole = outcome_of(kind, raw, None)
        if outcome != SAME:
            raise SystemExit(f"{kind.name}: the whole file itself is not read: {whole}")
        for number in range(*todo[kind.name]):
            mutated = case_of(kind, raw, seed, number)
            print(json.dumps([kind.name, number]), file=stream, flush=True)
            begin = time.perf_counter()
            outcome, said = outcome_of(kind, mutated, whole)
            if mutated == raw and outcome != FAILED:
                outcome = SAME
            said = said if outcome == FAILED else ""
            print(json.dumps([kind.name, number, outcome, said, time.perf_counter() - begin]), file=stream, flush=True)
        kind.path.write_bytes(raw)


def work(folder: Path, seed: int, todo: dict[str, list[int]], report: Path) -> None:
    """Read the cases `todo` in a process beside this one, and in another one where that dies, which counts as a failure."""
    os.chdir(folder)
    from fuzz.kinds import kinds  # noqa: PLC0415

    chosen = [kind for kind in kinds() if kind.name in todo]
    wholes = {kind.path: kind.path.read_bytes() for kind in chosen}
    with open(report, "a+", encoding="utf-8") as stream:
        while chosen:
            # This process has imported everything and started no thread: a fork of it reads at once.
            if not (process := os.fork()):
                _read(chosen, seed, todo, stream)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if not status:
                return
            stream.seek(0)
            *_, last = [None, *map(json.loads, stream)]
            if last is None or len(last) > 2:
                raise SystemExit(f"the process that reads ended with {status} outside a file")
            name, number = last
            reason = (
                f"died of signal {-status}" if status < 0 else f"still running after {HANG_S + 5} s, in compiled code"
            )
            print(json.dumps([name, number, FAILED, f"the process {reason}", 0.0]), file=stream, flush=True)
            for path, raw in wholes.items():
                path.write_bytes(raw)
            chosen = chosen[[kind.name for kind in chosen].index(name) :]
            todo[name][0] = number + 1


def _again(arguments: list[str], command: list[str] | None = None, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of this module in a process of its own, or another Python command with the same paths."""
    path = os.pathsep.join([str(HERE.parent), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    command = command or [sys.executable, "-m", "fuzz.campaign"]
    return subprocess.run([*command, *arguments], env=environment, text=True, capture_output=True, check=False, **how)


def shared_out(shares: dict[str, float], count: int) -> dict[str, int]:
    """Number of cases of each kind, `count` or a few more in all."""
    return {name: math.ceil(count * share / sum(shares.values())) for name, share in shares.items()}


class Campaign:
    """What came out of a campaign.

    Attributes:
        counts: kind → outcome → number of files.
        failures: kind, seed, number, message and kept file of each failure.
        seconds: kind → seconds in its readers.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.failures: list[tuple[str, int, int, str, Path]] = []
        self.seconds: Counter[str] = Counter()

    def add(self, kind: str, seed: int, number: int, outcome: str, said: str, seconds: float) -> None:
        """Count a case; the file of a failure is to be kept under a name that says which it is."""
        self.counts.setdefault(kind, Counter())[outcome] += 1
        self.seconds[kind] += seconds  # type: ignore[assignment]
        if outcome == FAILED:
            self.failures.append((kind, seed, number, said, KEPT / f"{kind.replace(' ', '-')}~{seed}~{number}"))

    def table(self) -> str:
        """Numbers of files by kind and outcome."""
        rows = [["kind of file", *OUTCOMES, "ms a file"]]
        for kind, counts in self.counts.items():
            each = 1000 * self.seconds[kind] / counts.total()
            rows.append([kind, *(f"{counts[o]:,}" for o in OUTCOMES), f"{each:.1f}"])
        total = sum(self.counts.values(), Counter[str]())
        rows.append([f"{total.total():,} files", *(f"{total[o]:,}" for o in OUTCOMES), ""])
        return "\n".join(f"{name:28}" + "".join(f"{cell:>22}" for cell in cells) for name, *cells in rows)

    def of(self, kind: str) -> list[str]:
        """One line for each failure of a kind: what, and the command that shows it again."""
        return [
            f"{kind}, seed {seed}, {number}: {said}\n    make fuzz CASE={os.path.relpath(path, HERE.parents[2])}"
            for name, seed, number, said, path in self.failures
            if name == kind
        ]


def whole_files(folder: Path) -> None:
    """Make the whole files in a folder."""
    made = _again(["make", str(folder)])
    if made.returncode:
        raise RuntimeError(f"the whole files could not be made:\n{made.stderr[-3000:]}")


def run(
    folder: Path, seed: int, count: int, campaign: "Campaign | None" = None, only: Sequence[str] = ()
) -> "Campaign":
    """Read `count` mutated files, or a few more, of those that `whole_files` made in `folder`; adds them to `campaign`."""
    shares: dict[str, float] = json.loads((folder / SHARES).read_text())
    numbers = shared_out({kind: share for kind, share in shares.items() if not only or kind in only}, count)
    report = folder / "report.jsonl"
    report.unlink(missing_ok=True)
    done = _again(["work", str(folder), str(seed), json.dumps({k: [0, n] for k, n in numbers.items()}), str(report)])
    if done.returncode:
        raise RuntimeError(f"the files could not be read:\n{done.stderr[-3000:]}")
    campaign = campaign or Campaign()
    for kind, number, *said in map(json.loads, report.read_text(encoding="utf-8").splitlines()):
        if said:
            campaign.add(kind, seed, number, *said)
    cases = [(kind, number, str(path)) for kind, of_seed, number, _, path in campaign.failures if of_seed == seed]
    if cases and (kept := _again(["keep", str(folder), str(seed), json.dumps(cases)])).returncode:
        raise RuntimeError(f"failures could not be kept:\n{kept.stderr[-3000:]}")
    return campaign


def main() -> None:
    """Entry point; the commands are those that the campaign runs itself by."""
    commands, arguments = sys.argv[1:2], sys.argv[2:]
    match commands:
        case ["make"]:
            folder = Path(arguments[0])
            folder.mkdir(parents=True, exist_ok=True)
            os.chdir(folder)
            from fuzz import kinds, seeds  # noqa: PLC0415

            seeds.quietly(seeds.make)
            Path(SHARES).write_text(json.dumps({kind.name: kind.share for kind in kinds.kinds()}))
        case ["work"]:
            import logging  # noqa: PLC0415

            logging.disable(logging.CRITICAL)
            work(Path(arguments[0]), int(arguments[1]), json.loads(arguments[2]), Path(arguments[3]))
        case ["keep"]:
            os.chdir(arguments[0])
            from fuzz.kinds import kinds as all_kinds  # noqa: PLC0415

            by_name = {kind.name: kind for kind in all_kinds()}
            KEPT.mkdir(parents=True, exist_ok=True)
            for name, number, path in json.loads(arguments[2]):
                Path(path).write_bytes(
                    case_of(by_name[name], by_name[name].path.read_bytes(), int(arguments[1]), number)
                )
        case _:
            _command_line()


def _command_line() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000, help="files, at least")
    parser.add_argument("--seconds", type=float, help="time, at least, instead of a number of files")
    parser.add_argument("--only", nargs="*", default=[], metavar="KIND", help="kinds of file, by default all")
    parser.add_argument("--case", type=Path, help="a kept file, to be read again, with its traceback")
    options = parser.parse_args()
    folder = HERE.parents[2] / "build/fuzz-seeds"
    shutil.rmtree(folder, ignore_errors=True)
    whole_files(folder)
    if options.case:
        raw, (name, *_) = options.case.read_bytes(), options.case.name.split("~")
        os.chdir(folder)
        from fuzz.kinds import kinds  # noqa: PLC0415

        kind = next(k for k in kinds() if k.name.replace(" ", "-") == name)
        whole = outcome_of(kind, kind.path.read_bytes(), None)[1]
        print(*outcome_of(kind, raw, whole), sep=": ")
        kind.read(kind.path)
        return
    campaign, seed, begin = Campaign(), options.seed, time.perf_counter()
    while True:
        done = sum(counts.total() for counts in campaign.counts.values())
        if (time.perf_counter() - begin > options.seconds) if options.seconds else done >= options.count:
            break
        run(folder, seed, min(ROUND, max(options.count - done, 1)), campaign, options.only)
        seed += 1
    print(campaign.table())
    for kind in campaign.counts:
        print(*campaign.of(kind), sep="\n", end="\n" if campaign.of(kind) else "")
    sys.exit(1 if campaign.failures else 0)


if __name__ == "__main__":
    main()
