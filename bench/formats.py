"""Time that each capture format takes: the table in the README of preprocess.

    python bench/formats.py [--frames 200000]

Each sample is written first (by the dialects' writers of the tests, python-can's for the loggers' formats) and then read twice, on one core;
the shorter processor time counts, against that of can-train-and-test.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import can
from common import one_core
from preprocess import AS_TABLE

from canids_preprocess.formats import FORMATS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit"))
from dialect_writers import DIALECTS, Frame

LOGGERS = {"trc": "trc", "blf": "blf", "mf4": "mf4", "python-can-csv": "csv"}
"""Formats that python-can writes, and their suffixes."""
BASE = "can-train-and-test"


def traffic(count: int) -> list[Frame]:
    """Frames of eight bytes of fifty IDs."""
    random = Random(0)
    ids = random.sample(range(0x100, 0x7FF), 50)
    return [
        Frame(1_600_000_000_000_000 + 500 * n, random.choice(ids), False, random.randbytes(8), label=int(n % 50 == 0))
        for n in range(count)
    ]


def seconds(path: Path, name: str) -> tuple[int, float]:
    """Frames of a file, and the processor time of reading it."""
    entry = {"content": "unlabelled", "attack": None, "table": AS_TABLE, "assume_rate": None}
    entry |= {"assume_rate": 2000.0} if name == "ciciov" else {}
    begin = time.process_time()
    frames = sum(len(batch.frames) for batch in FORMATS[name].read(path, entry))
    return frames, time.process_time() - begin


def main() -> None:
    """Write the samples, read them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200_000)
    frames = traffic(parser.parse_args().frames)
    one_core()
    writers = {d.name: d for d in reversed(DIALECTS.values()) if d.timed or d.name == "ciciov"}
    with tempfile.TemporaryDirectory() as folder:
        samples: dict[str, Path] = {}
        for name, dialect in writers.items():
            samples[name] = Path(folder, name)
            samples[name].write_text(dialect.write(frames))
        samples["table"] = samples[BASE]
        for name, suffix in LOGGERS.items():
            samples[name] = Path(folder, f"log.{suffix}")
            with can.Logger(str(samples[name])) as logger:
                for f in frames:
                    logger.on_message_received(
                        can.Message(
                            timestamp=f.us / 1e6,
                            arbitration_id=f.can_id,
                            is_extended_id=False,
                            data=f.payload,
                            channel=0,
                        )
                    )
        found = {
            name: min((seconds(path, name) for _ in range(2)), key=lambda pair: pair[1])
            for name, path in samples.items()
        }
    print("| format | frames | s | ÷ |\n|---|---:|---:|---:|")
    for name, (count, took) in sorted(found.items(), key=lambda item: item[1][1]):
        print(f"| `{name}` | {count:,} | {took:.2f} | {took / found[BASE][1]:.1f} |")


if __name__ == "__main__":
    main()
