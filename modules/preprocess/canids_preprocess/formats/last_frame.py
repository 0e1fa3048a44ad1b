"""The last line of a log that was cut off, which may look like a shorter frame."""

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from canids_preprocess.formats.base import FRAME_COLUMNS, Batch
from canids_preprocess.formats.compressed import open_capture
from canids_preprocess.formats.growing import Growing
from canids_preprocess.formats.text import first_bytes

_COLUMNS = ["can_id", "extended", "dlc"]


def ends_amid_a_line(path: Path) -> bool:
    """Whether a finished log has no line end at its end; one that is followed gives whole lines only."""
    if isinstance(path, Growing):
        return False
    first_bytes(path)
    with open_capture(path) as stream:
        if stream.seekable():
            stream.seek(-1, os.SEEK_END)
        end = b""
        while part := stream.read(1 << 20):  # the last byte, or all of what is unpacked
            end = part[-1:]
    return end != b"\n"


def without_cut_frame(path: Path, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; a last frame without line end is a reject if it is shorter than any other of its ID.

    Its payload is the end of the line, so a line that was cut in it looks like that of a shorter frame.
    """
    if not ends_amid_a_line(path):
        yield from batches
        return
    held, shortest = None, pl.DataFrame(schema={name: FRAME_COLUMNS[name] for name in _COLUMNS})
    for batch in batches:
        if held is not None:
            yield held
            sent = pl.concat([shortest, held.frames.filter(~pl.col("remote")).select(_COLUMNS)])
            shortest = sent.group_by("can_id", "extended").agg(pl.col("dlc").min())
        held = batch
    if held is None:
        return
    frames, rejects, _ = held
    last, before = frames[-1:], frames[:-1].filter(~pl.col("remote")).select(_COLUMNS)
    others = pl.concat([shortest, before]).join(last, on=["can_id", "extended"], how="semi")
    whole = not len(others) or last["remote"][0] or last["dlc"][0] >= others["dlc"].min()
    if whole or last["line"][0] < (rejects["line"].max() or 0):
        yield held
        return
    text = pl.format("#{}", pl.col("payload").bin.encode("hex"))
    reason = pl.lit("the last line has no line end, and its payload is shorter than any other of this ID: it was cut")
    yield held._replace(frames=frames[:-1], rejects=pl.concat([rejects, last.select("line", reason=reason, text=text)]))
