"""Follow a growing log, or a bus: the graph of every window as soon as its last frame is there (contract `follow/2`).

    python -m canids_preprocess.follow drive.log --window 100 --stride 100 | python -m canids_train_gnn.follow …
    python -m canids_preprocess.follow socketcan:can0 …

Reading, features and windows are those of the rules ingest and graphs, so the graphs are equal too. Where the clock jumps the
past starts again, empty or with the vehicle's profile (`--profile`), as another capture. It stops on Ctrl-C or SIGTERM, at the end of the log (`--exit-at-end`), or when nothing
has come for a while (`--idle`).
"""

import argparse
import csv
import gc
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa

from canids_preprocess.enrolment import profiles
from canids_preprocess.features.relative import BusState
from canids_preprocess.formats import FORMATS, buses, recognise
from canids_preprocess.formats.base import FRAME_COLUMNS, PER_SECOND, REJECT_COLUMNS, Batch, Format
from canids_preprocess.formats.growing import POLL, Enough, Growing, IdleTimeout, Wanted
from canids_preprocess.formats.table.reader import in_file_unit
from canids_preprocess.ingest import RowCounts, of_buses, read
from canids_preprocess.timestamps import in_seconds
from canids_preprocess.windowing.cutting import check_windows
from canids_preprocess.windowing.frames import ALL, Frames, arrays_of
from canids_preprocess.windowing.stretches import Stopped, Stretches
from canids_preprocess.windowing.windows import FEATURES, windows_of
from canids_shared.contracts import streams
from canids_shared.contracts.manifest import table_in
from canids_shared.errors import CanidsError
from canids_shared.jobs.options import DAY_S, number

MOST_IDS = 1 << 16
"""Arbitration IDs whose past is kept. Above this number those seen least are forgotten, and only then can a followed log differ
from the finished one: a bus has hundreds, an attacker who draws 29-bit IDs at random a hundred thousand in half a minute."""
LINES = tuple(name for name in FORMATS if name not in ("blf", "mf4"))
"""Formats of a log that can be read while it grows: those in text."""
MOST_JUMPS = 10
"""Jumps of the clock back without a whole window between them after which it is an error."""
_LATEST_S, _TOGETHER_S = 0.1, 0.01
"""Seconds after which frames are read though they complete no window of frames, so that faults are
reported soon; and seconds whose frames are read together where windows are cut by time."""
_SAID_EVERY_S = 1.0
"""Seconds between two messages about rejects."""
_HEAD = 1 << 12
_ROW = re.compile(rb"^\s*\d.*\n", re.M)
"""A row of ASC or TRC."""
_OF_A_WINDOW = ("window", "t_start", "t_end")
_OF_EDGES = ("edge_source", "edge_target", "edge_attr")
_ENTRY: dict[str, Any] = {"attack": None, "content": "unlabelled", "attacked": [], "timestamp_unit": "s"}
"""What a manifest would say of the source, once its timestamps are in seconds."""
log = logging.getLogger(__name__)


def _format(path: Growing, name: str, above: int = 0) -> str:
    """Format of a log, as soon as its first lines are there; where the header has several lines (`above`), with the first row."""
    while True:
        more = path.arrive(_HEAD)
        if not path.exists():
            raise CanidsError(f"{path}: no such file")
        try:
            recognised = recognise(path) if name == "auto" else name
        except CanidsError:
            if not more:
                raise
            recognised = ""
        if recognised and recognised not in LINES:
            raise CanidsError(f"{path}: {recognised} cannot be read while it is written; score the finished file")
        # The readers of ASC and TRC look at the header, which is whole only once a row follows it.
        headed = recognised in ("asc", "trc")
        beginning = path.read_bytes()[:_HEAD] if more and (headed or above) else b""
        if (
            not (beginning and ((headed and not _ROW.search(beginning)) or beginning.count(b"\n") <= above))
            and recognised
        ):
            return recognised
        time.sleep(POLL)


def batches(source: str, options: argparse.Namespace, timeout: IdleTimeout, wanted: Wanted) -> Iterator[Batch]:
    """Frames and rejects of a log or a bus as they come. Raises `CanidsError` if there is no such log or bus, or it fails."""
    if options.table and (options.timestamp_unit or options.format not in ("auto", "table")):
        raise CanidsError("--table: the mapping says format and unit of time; leave --format and --timestamp-unit out")
    if buses.is_bus(source):
        if options.channel is not None and not options.profile:
            raise CanidsError(f"--channel {options.channel}: belongs to a log; {source} is one channel already")
        yield from buses.read(source, timeout, wanted)
    else:
        path, entry, unit, above = Growing.of(Path(source), timeout, wanted), dict(_ENTRY), options.timestamp_unit, 0
        if options.table:
            entry["table"] = table_in(options.table)
            unit, above = in_file_unit(entry["table"]), entry["table"]["skip"]
        name = _format(path, "table" if options.table else options.format, above)
        yield from _of_channel(path, in_seconds(path, FORMATS[name], entry, unit), options.channel)


def _of_channel(path: Path, batches: Iterator[Batch], channel: str | None) -> Iterator[Batch]:
    """The batches with the frames of one bus alone; as they are if none is named."""
    if channel is None:
        yield from batches
        return
    counts = RowCounts()
    for batch in batches:
        part = of_buses(path, batch, {"channel": (channel,)}, counts)
        if len(part.frames) or len(part.rejects):
            yield part
    if counts.elsewhere and not counts.channels:
        raise CanidsError(
            f"{path}: no frame of channel {channel}; its channels are {', '.join(sorted(counts.elsewhere))}"
        )


@contextmanager
def _rejects_file(path: Path | None) -> Iterator[Any]:
    """A writer of rows for a CSV that grows line by line; without a path the rows go nowhere."""
    try:
        stream = open(path or os.devnull, "w", encoding="utf-8", newline="", buffering=1)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise CanidsError(f"{path}: cannot be written ({error.strerror})") from None
    with stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(REJECT_COLUMNS)
        yield writer


def _frames(source: str, read_batches: Iterator[Batch], rejects: Any) -> Iterator[Frames]:
    """Frames of the batches as arrays; rejects are written to the CSV `rejects`."""
    path = Path(source)
    unsaid, said = 0, -np.inf
    for batch in read_batches:
        if len(batch.rejects):
            rejects.writerows(batch.rejects.iter_rows())
            # A bus gives two hundred batches a second, each of which may hold one.
            unsaid += len(batch.rejects)
            if time.monotonic() - said >= _SAID_EVERY_S:
                line, reason, _ = batch.rejects.row(0)
                more = f", and {unsaid - 1} more" if unsaid > 1 else ""
                log.warning("%s, line %d: %s; put aside%s", source, line, reason, more)
                unsaid, said = 0, time.monotonic()
        if len(batch.frames):
            # The layout of the Parquet files that `graphs` reads: large strings, attacks as a dictionary, one batch.
            table = batch.frames[ALL].to_arrow(compat_level=pl.CompatLevel.oldest())
            table = table.set_column(ALL.index("attack"), "attack", table["attack"].dictionary_encode())
            (part,) = table.combine_chunks().to_batches()
            yield arrays_of(path, part, ALL)


def _warm_up() -> None:
    """Cut a window before there is traffic: the first window would wait a second or two for compiled loops to be loaded."""
    rows = [(n, n / 1e3, 1, False, False, False, 1, b"a", None, None, "") for n in range(2)]
    made = pl.DataFrame(rows, schema={**FRAME_COLUMNS, "attack": pl.String}, orient="row")
    frames = _frames("", iter([Batch(made, pl.DataFrame(schema=REJECT_COLUMNS))]), None)
    config = {"window": 2, "stride": 2, "window_unit": "frames", "features": "relative"}
    list(windows_of(Path(), frames, 0, config, [""], MOST_IDS))


def wanted_after(frames: int, options: argparse.Namespace) -> Enough:
    """What to read together after so many `frames` of a stretch: those that complete the next window of frames."""
    if options.window_unit == "seconds":
        return Enough(sys.maxsize, _TOGETHER_S)
    window, stride = int(options.window), int(options.stride)
    return Enough(window - frames if frames < window else stride - (frames - window) % stride, _LATEST_S)


def past_of_stretches(options: argparse.Namespace) -> tuple[Callable[[], BusState | None], dict[str, str]]:
    """Function that makes what is known of the bus where a stretch begins: the profile, if one is named; and vehicle → its digest.

    Raises `CanidsError` if it is damaged, or has several buses and none is named.
    """
    if not options.profile:
        return lambda: None, {}
    profile = profiles.load(options.profile)
    channel = options.channel or (options.source.partition(":")[2] if buses.is_bus(options.source) else "")
    # Of a log of several buses, one that has no name in the profile is the one that was named.
    alone = not options.channel or profile.channels == [""]
    if (number := profile.number_of(channel, alone)) is None:
        names = ", ".join(name or "none" for name in profile.channels)
        raise CanidsError(f"{options.profile}: has the buses {names}, not '{channel}'; name one of them (--channel)")
    if channel and profile.channels[number] not in ("", channel):
        log.warning("%s: is of bus %s, the traffic of %s", options.profile, profile.channels[number], channel)
    digests = {profile.header["vehicle"]: profile.header["digest"]}
    return lambda: profiles.past_of(profile, channel, alone), digests


def header_of(source: str, options: argparse.Namespace) -> dict[str, Any]:
    """Header of the stream, with keys as in that of a graph store."""
    kind = FEATURES["relative"]
    return {
        "source": source,
        "window": options.window,
        "stride": options.stride,
        "window_unit": options.window_unit,
        "features": "relative",
        "node_features": list(kind.NODE_FEATURES),
        "edge_features": list(kind.EDGE_FEATURES),
    }


def _batch(schema: pa.Schema, name: str, vehicle: str, arrays: dict[str, np.ndarray]) -> pa.RecordBatch:
    count = len(arrays["y"])
    columns: dict[str, Any] = {
        "capture": pa.array([name] * count, pa.large_string()),
        "vehicle": pa.array([vehicle] * count, pa.large_string()),
        "label": pa.nulls(count, pa.uint8()),
        "attack": pa.array([""] * count, pa.large_string()),
        **{key: pa.array(arrays[key]).cast(schema.field(key).type) for key in _OF_A_WINDOW},
        **{key: streams.lists(arrays[key], arrays["node_counts"]) for key in ("x", "node_id", "node_count")},
        **{key: streams.lists(arrays[key], arrays["edge_counts"]) for key in _OF_EDGES},
    }
    return pa.RecordBatch.from_arrays([columns[field.name] for field in schema], schema=schema)


def follow(options: argparse.Namespace, timeout: IdleTimeout, stream: BinaryIO) -> int:
    """Write the windows of a source to a stream until waiting is over; returns how many.

    Raises `CanidsError` as `ingest.read`, once the windows before the row that it names are written; also if most of the recent
    rows are rejects, or the clock jumps again and again.
    """
    source, quarantine = options.source, options.on_bad_rows == "quarantine"
    name = capture = options.name or Path(source).stem
    config = {key: getattr(options, key) for key in ("window", "stride", "window_unit")} | {"features": "relative"}
    past, digests = past_of_stretches(options)
    schema = streams.schema_of_graphs({**header_of(source, options), **({"profiles": digests} if digests else {})})
    counts, sent, jumps, in_vain, before = RowCounts(), 0, 0, 0, 0

    def wanted() -> Enough:
        return wanted_after(counts.frames - before, options)

    with streams.sending(stream, schema) as send, _rejects_file(options.rejects) as rejects, suppress(Stopped):
        _warm_up()
        gc.freeze()
        timeout.begin(source)
        rows = batches(source, options, timeout, wanted)
        stretches = Stretches(source, rows, options.timestamp_tolerance, quarantine, lambda: timeout.stopped)
        form = Format(lambda *_: stretches.next(), lambda *_: True, labelled=False)
        while not stretches.ended:
            # The times of a stretch have nothing to do with those of the last one.
            counts.last, counts.late, counts.on_time, before = None, 0, 0, counts.frames
            tolerance = options.timestamp_tolerance
            checked = read(Path(source), form, _ENTRY, tolerance=tolerance, quarantine=quarantine, counts=counts)
            frames = _frames(source, checked, rejects)
            for arrays in windows_of(Path(source), frames, 0, config, [""], MOST_IDS, past()):
                send(_batch(schema, capture, options.vehicle, arrays))
                timeout.window_sent()
                sent, in_vain = sent + len(arrays["y"]), 0
            if not stretches.ended:
                line, seconds = stretches.jump
                # A bus that sleeps is ahead whenever it wakes; only a clock goes back.
                jumps, in_vain = jumps + 1, in_vain + (seconds < 0)
                if in_vain == MOST_JUMPS:
                    raise CanidsError(
                        f"{source}, line {line}: the clock has jumped back {in_vain} times without a whole window in between; "
                        "set the clock, and follow the source again"
                    )
                capture, how = f"{name}-{jumps + 1}", "ahead" if seconds > 0 else "back"
                text = "%s, line %d: the clock jumps %s by %.3f s; the past starts again, and capture %s begins"
                log.warning(text, source, line, how, abs(seconds), capture)
    log.info("%s: %d frames, %d rejects, %d windows", source, counts.frames, counts.rejects, sent)
    return sent


def main(options: argparse.Namespace) -> None:
    """Entry point. Raises `CanidsError` if window and stride do not go together."""
    check_windows(vars(options))
    timeout = IdleTimeout(options.exit_at_end, options.idle)

    def stop(*_: Any) -> None:
        timeout.stopped = True

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, stop)
    follow(options, timeout, sys.stdout.buffer)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command_line = argparse.ArgumentParser(prog="canids_preprocess.follow", description=__doc__)
    command_line.add_argument("source", help="a log, or interface:channel of python-can")
    command_line.add_argument(
        "--window", type=number(0.0001, 32767), default=100, help="length of a window, in its unit"
    )
    command_line.add_argument(
        "--stride",
        type=number(0.0001, 1_000_000),
        default=100,
        help="from the start of a window to that of the next",
    )
    command_line.add_argument("--window-unit", choices=["frames", "seconds"], default="frames")
    command_line.add_argument(
        "--format", default="auto", choices=["auto", *LINES], help="format of a log; by default recognised"
    )
    command_line.add_argument(
        "--timestamp-unit", choices=list(PER_SECOND), help="unit of a log's timestamps; by default seconds"
    )
    command_line.add_argument(
        "--table", type=Path, metavar="FILE", help="what the columns of a table mean: a mapping, or a manifest with it"
    )
    command_line.add_argument("--channel", metavar="NAME", help="the bus of a log of several, or of a profile")
    command_line.add_argument("--name", help="name of the capture in results; by default the log's")
    command_line.add_argument("--vehicle", default="unknown", help="name of the vehicle in results")
    command_line.add_argument(
        "--on-bad-rows", choices=["error", "quarantine"], default="error", help="as in config.schema.yaml"
    )
    command_line.add_argument(
        "--timestamp-tolerance", type=number(0, 60), default=0.0005, help="as in config.schema.yaml (s)"
    )
    command_line.add_argument(
        "--profile", type=Path, metavar="FILE", help="profile of the vehicle (canids_preprocess.enrol) to begin with"
    )
    command_line.add_argument("--rejects", type=Path, metavar="CSV", help="file for rows that are put aside")
    command_line.add_argument("--exit-at-end", action="store_true", help="stop at the present end of the log")
    command_line.add_argument(
        "--idle",
        type=number(0, DAY_S, above=True),
        metavar="S",
        help="stop after this many seconds without a new frame",
    )
    return command_line


if __name__ == "__main__":
    streams.run(main, parser())
