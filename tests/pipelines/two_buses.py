"""Two captures as one `candump -l` log of two buses: python tests/pipelines/two_buses.py CAN0.csv CAN1.csv LOG."""

import sys
from pathlib import Path

import polars as pl


def bus(path: str, channel: str) -> pl.DataFrame:
    """Time, as written, and line of each frame of a capture in can-train-and-test's format."""
    frames = pl.read_csv(path, infer_schema=False)
    line = pl.format("({}) " + channel + " {}#{}", "timestamp", "arbitration_id", "data_field")
    return frames.select("timestamp", line=line)


def main(first: str, second: str, log: str) -> None:
    """Merge them by time; frames of one bus keep their order."""
    frames = pl.concat([bus(first, "can0"), bus(second, "can1")])
    lines = frames.sort(pl.col("timestamp").cast(pl.Float64), maintain_order=True)["line"]
    Path(log).write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
