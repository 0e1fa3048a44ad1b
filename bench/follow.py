"""Latency of a followed bus: from the arrival of a window's last frame in the log to the window's line in the output.

    python bench/follow.py [--run RUN] [--seconds 20] [--frames 1000000] [--folder DIR] [--output bench/results.json]

A process appends a simulated drive, in the format of candump, at the rate of a car and of a saturated bus of 1 Mbit/s, every
millisecond whatever has come by then. Windows' lines go into a named pipe, so that they have a time without looking for them.
Then the log is there all at once, for the frames per second and for the memory: `--frames 10000000` shows that it is flat.
Models have the widths of the defaults and are trained once, in a minute or two, unless `--run` names the folder of a policy.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from threading import Thread

import numpy as np
from common import publish, result

from canids_preprocess.simulate import START, record
from canids_shared.scoring import following
from canids_shared.scoring.trained_run import trained_run

ROOT = Path(__file__).parents[1]
LIMITS_MS = {2_000: 30.0, 9_000: 50.0}
"""Frames a second → limit of the 99th percentile."""
FIRST = 1_000
"""Frames that are decided on before the measurement: models are loaded by then."""
TICK_S = 0.001
QUICK = """
preset: demo
train_gnn: {gat: {epochs: 1}, vgae: {epochs: 1}}
train_drl: {steps: 200, evaluate_every: 100, environments: 64}
"""


def trained(folder: Path) -> Path:
    """The run of a policy over the simulated vehicles, trained in `folder` unless it is there and up to date."""
    run = folder / "experimentruns/simulated/dqn_large"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quick.yaml").write_text(QUICK, encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--profile", str(ROOT / "shared/profiles/local"), "--quiet", "all"]
    command += ["-s", str(ROOT / "pipelines/kd_fusion/Snakefile"), "--directory", str(folder)]
    targets = [run.with_name(f"{kind}_large") / "model.safetensors" for kind in ("dqn", "fusion_baselines")]
    command += ["--configfile", str(folder / "quick.yaml"), "--", *(str(t.relative_to(folder)) for t in targets)]
    subprocess.run(command, check=True)
    return run


def lines(frames: int, rate: float) -> Iterator[bytes]:
    """Lines of candump: a drive with some attacks, again and again, `rate` frames a second, evenly as on a saturated bus."""
    parts = list(record("van", attack="fuzzing", duration=120.0, episodes=2, seed=1))
    rests = [
        f" can0 {can_id:03X}#{word.to_bytes(8).hex()[: 2 * dlc]}\n"
        for part in parts
        for can_id, word, dlc in zip(
            *(getattr(part.frames, key).tolist() for key in ("can_id", "payload", "dlc")), strict=True
        )
    ]
    for number, rest in zip(range(frames), cycle(rests)):
        yield f"({START + number / rate:.6f}){rest}".encode()


def append(log: Path, frames: int, rate: float) -> None:
    """Append frames to a log: the first ones at once; the others, when a line comes on standard input, at their time.

    Prints JSON: number of frames in the log, and the time of this, chunk by chunk.
    """
    made, arrivals = list(lines(frames, rate)), []
    with open(log, "wb", buffering=0) as stream:
        stream.write(b"".join(made[:FIRST]))
        sys.stdin.readline()
        begin, done = time.monotonic() - FIRST / rate, FIRST
        while done < frames:
            time.sleep(TICK_S)
            now = time.monotonic()
            due = min(int((now - begin) * rate), frames)
            if due > done:
                arrivals.append((due, now))
                stream.write(b"".join(made[done:due]))
                done = due
    print(json.dumps(arrivals))


class Followed:
    """A chain that follows a log, and the times of its windows' lines.

    Attributes:
        seen: time (s, monotonic clock) of each line, by the window's number.
    """

    def __init__(self, log: Path, run: Path, *options: str) -> None:
        output = log.parent / f"{log.name}.output"
        output.mkdir()
        os.mkfifo(output / "windows.csv")
        self.seen: dict[int, float] = {}
        self._reader = Thread(target=self._read, args=(output / "windows.csv",), daemon=True)
        self._reader.start()
        arguments = following.parser().parse_args([str(log), str(run), "--windows", *options])
        self.chain = following.Chain(following.commands(str(log), trained_run(run), output, arguments))

    def _read(self, pipe: Path) -> None:
        with open(pipe, "rb", buffering=0) as stream:
            rest = b""
            while data := stream.read(1 << 16):
                now = time.monotonic()
                *whole, rest = (rest + data).split(b"\n")
                self.seen |= {int(line.split(b",")[0]): now for line in whole if line[:1].isdigit()}

    def wait_for(self, windows: int) -> None:
        """Wait until so many windows have a line, or the chain has ended."""
        while len(self.seen) < windows and any(p.poll() is None for p in self.chain.processes):
            time.sleep(0.05)

    def memory(self) -> list[float]:
        """Resident memory of each process, MiB."""
        pages = [Path(f"/proc/{p.pid}/statm").read_text(encoding="utf-8").split()[1] for p in self.chain.processes]
        return [int(count) * os.sysconf("SC_PAGE_SIZE") / 2**20 for count in pages]

    def end(self) -> None:
        """Stop the chain, and wait for it."""
        self.chain.stop()
        self.chain.wait()
        self._reader.join()


def latency(run: Path, folder: Path, rate: int, seconds: float) -> np.ndarray:
    """Milliseconds [W] from the arrival of each window's last frame to its line."""
    preprocess, log = trained_run(run).preprocess, folder / f"{rate}.log"
    window, stride = preprocess["window"], preprocess["stride"]
    frames = FIRST + int(rate * seconds)
    first, count = ((n - window) // stride + 1 for n in (FIRST, frames))
    command = [sys.executable, __file__, "--append", str(log), "--frames", str(frames), "--rate", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        followed = Followed(log, run)
        followed.wait_for(first)
        time.sleep(1.0)
        arrivals = np.array(json.loads(writer.communicate("go\n")[0]))
        followed.wait_for(count)
        followed.end()
    last = stride * np.arange(first, count) + window  # frames in the log once a window is whole
    arrived = arrivals[np.searchsorted(arrivals[:, 0], last), 1]
    return 1e3 * (np.array([followed.seen[n] for n in range(first, count)]) - arrived)


def full_speed(run: Path, folder: Path, frames: int) -> tuple[float, float, float]:
    """Frames a second from a log that is there already; largest memory of all processes, and the growth of one, MiB.

    Growth is from the second quarter of the frames to the last: queues and caches are full by then.
    """
    log = folder / "whole.log"
    with open(log, "wb") as stream:
        stream.writelines(lines(frames, max(LIMITS_MS)))
    followed, samples = Followed(log, run, "--exit-at-end"), []
    count = frames // trained_run(run).preprocess["stride"]
    followed.wait_for(1)
    while len(followed.seen) < count - 1 and all(p.poll() is None for p in followed.chain.processes[1:]):
        samples.append((len(followed.seen) / count, followed.memory()))
        time.sleep(0.1)
    followed.end()
    done = np.array([share for share, _ in samples])
    memory = np.array([sizes for _, sizes in samples])
    early, late = (np.median(memory[(done > a) & (done <= b)], axis=0) for a, b in ((0.25, 0.5), (0.75, 1.0)))
    span = followed.seen[max(followed.seen)] - followed.seen[min(followed.seen)]
    return frames / span, float(memory.sum(axis=1).max()), float((late - early).max())


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("bench/data"))
    parser.add_argument("--output", type=Path, default=Path("bench/results.json"))
    parser.add_argument("--append", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.append:
        append(options.append, options.frames, options.rate)
        return
    output = options.output.resolve()
    run = (options.run or trained(options.folder.resolve() / "follow")).resolve()
    # The training graphs, the reference for drift, are named relative to where the run was made.
    os.chdir(run.parents[2])
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rate, limit in LIMITS_MS.items():
            ms = latency(run, folder, rate, options.seconds)
            note = f"median {np.median(ms):.1f}, longest {ms.max():.1f} ms"
            rows.append(result(f"follow_p99_ms_{rate}", float(np.quantile(ms, 0.99)), "ms", most=limit, note=note))
        speed, peak, growth = full_speed(run, folder, options.frames)
    note = f"{options.frames:,} frames"
    rows += [
        result("follow_frames_per_s", speed, "frames/s", least=max(LIMITS_MS)),
        result("follow_peak_rss_mb", peak, "MiB", most=2048, note=note),
        result("follow_rss_growth_mb", growth, "MiB", most=16, note=note),
    ]
    publish(rows, output)


if __name__ == "__main__":
    main()
