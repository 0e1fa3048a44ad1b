"""Statistics of several captures' traffic side by side, printed as a Markdown table.

    python -m canids_preprocess.compare_traffic results/simulated/frames/attack-free-van.parquet …

Files are `frames/2` (`canids_shared.contracts.tables.FRAMES`). Frames labelled as attacked are left out, so that captures with and
without attacks can be compared. Statistics per arbitration ID cover the IDs with at least eight such frames;
quantiles over IDs are the 10th, 50th and 90th percentile.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl

from canids_preprocess.simulation.bus import frame_bits
from canids_shared.contracts import tables
from canids_shared.errors import CanidsError

BIT_RATE = 500_000
"""Bit/s of the bus whose load is stated."""
_COLUMNS = ["timestamp", "can_id", "extended", "dlc", "payload", "label"]
_FEWEST = 8
"""Frames that an ID must have to be described."""
_PERIODIC = 0.25
"""Coefficient of variation of the intervals below which an ID counts as periodic."""
_ADJACENT_S = 0.3e-3
"""Seconds from frame to frame up to which the bus was busy without a pause: a frame of 8 bytes takes 0.24 ms."""


def describe(frames: pl.DataFrame) -> dict[str, str]:
    """Statistics of a capture: row of the table → text.

    Args:
        frames: the columns timestamp (s), can_id, extended, dlc, payload and label of `canids_shared.contracts.tables.FRAMES`.

    Raises `CanidsError` if no two frames without an attack are left, or they all have the same timestamp.
    """
    frames = frames.filter(pl.col("label").fill_null(0) == 0)
    seconds = frames["timestamp"].to_numpy()
    span = float(seconds.max() - seconds.min()) if len(seconds) else 0.0
    if span <= 0:
        raise CanidsError("no two frames without an attack at different times; compare captures with usual traffic")
    # Gaps between episodes of an attack stay in `span`: usual traffic goes on during them.
    share = frames.group_by("can_id", "extended").len()["len"].to_numpy() / len(frames)
    gaps = np.diff(seconds)
    per_id = _per_id(frames)
    return {
        "frames": f"{len(frames):,}",
        "seconds": f"{span:.1f}",
        "frames/s": f"{len(frames) / span:,.0f}",
        f"bus load at {BIT_RATE // 1000} kbit/s": f"{frame_bits(frames['dlc'].to_numpy().astype(np.int64)).sum() / BIT_RATE / span:.1%}",
        "frames behind another without a pause": f"{(gaps < _ADJACENT_S).mean():.0%}",
        "IDs": f"{len(share)}",
        "entropy of IDs (bits)": f"{-(share * np.log2(share)).sum() + 0.0:.2f}",
        "periodic IDs": f"{(per_id['variation'] < _PERIODIC).mean():.0%}",
        "variation of intervals per ID": _quantiles(per_id["variation"]),
        "alternation of intervals per ID": _quantiles(per_id["alternation"]),
        "IDs whose payload never changes": f"{(per_id['bits'] == 0).mean():.0%}",
        "bits that change per ID": _quantiles(per_id["bits"], 0),
        "bits that flip from frame to frame, per ID": _quantiles(per_id["distance"]),
        "Hamming distance of payloads, all frames (share of bits)": f"{np.average(per_id['share'], weights=per_id['frames']):.3f}",
    }


def _quantiles(values: np.ndarray, decimals: int = 2) -> str:
    return " / ".join(f"{q:.{decimals}f}" for q in np.quantile(values, [0.1, 0.5, 0.9]))


def _per_id(frames: pl.DataFrame) -> dict[str, np.ndarray]:
    """Statistics of each ID with frames enough.

    `variation`: coefficient of variation of its intervals; `alternation`: minus their autocorrelation at lag 1; `bits`: bits
    that ever change; `distance`: bits that flip from a frame to the next on average, `share` of the payload's bits; `frames`.
    """
    rows = []
    for _, one in frames.group_by("can_id", "extended", maintain_order=True):
        if len(one) < _FEWEST:
            continue
        interval = np.diff(one["timestamp"].to_numpy())
        mean, spread = float(interval.mean()), float(interval.std())
        off = interval - mean
        width = int(one["dlc"].max())  # type: ignore[arg-type]
        # Payloads as rows of bytes of equal length: XOR of neighbouring rows gives the bits that flip.
        content = np.frombuffer(b"".join(p.ljust(width, b"\0") for p in one["payload"]), dtype=np.uint8)
        content = content.reshape(len(one), width)
        flipped = content[1:] ^ content[:-1]
        distance = float(np.bitwise_count(flipped).sum(dtype=np.int64)) / len(flipped)
        rows.append(
            {
                "variation": spread / mean if mean > 0 else 0.0,
                "alternation": -float((off[1:] * off[:-1]).mean()) / spread**2 if spread > 0 else 0.0,
                "bits": float(np.bitwise_count(np.bitwise_or.reduce(flipped, axis=0)).sum(dtype=np.int64)),
                "distance": distance,
                "share": distance / max(8 * width, 1),
                "frames": len(one),
            }
        )
    if not rows:
        raise CanidsError(f"no ID has {_FEWEST} frames without an attack; compare longer captures")
    return {column.name: column.to_numpy() for column in pl.DataFrame(rows)}


def table(paths: list[Path]) -> str:
    """The Markdown table of the given `frames` files, a column each.

    Raises `CanidsError` naming the file that is damaged, of another contract, or holds no usual traffic.
    """
    columns: dict[str, dict[str, str]] = {}
    for path in paths:
        frames, metadata = tables.read(path, tables.FRAMES, _COLUMNS)
        try:
            columns[str(metadata.get("capture", path.stem))] = describe(frames)
        except CanidsError as error:
            raise CanidsError(f"{path}: {error}") from None
    lines = [["", *columns], ["---", *("---:" for _ in columns)]]
    rows = next(iter(columns.values()))
    lines += [[row, *(column[row] for column in columns.values())] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Command line: the `frames` files to compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="+", type=Path, help="frames of captures (Parquet)")
    try:
        print(table(parser.parse_args().frames))
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
