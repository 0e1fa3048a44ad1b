"""A log of several buses: an entry of the manifest for each."""

from collections.abc import Iterator
from typing import Any

import polars as pl


def channels_of(frames: pl.DataFrame) -> list[str]:
    """The buses of frames by name, if there are several."""
    names = sorted(frames["channel"].unique().drop_nulls().to_list())
    return names if len(names) > 1 else []


def entries_by_bus(
    name: str, entry: dict[str, Any], frames: pl.DataFrame | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and entries of the captures that a log is: one for each bus of its first frames, the name of the bus behind its own."""
    channels = [] if frames is None else channels_of(frames)
    if not channels:
        yield name, entry
    for channel in channels:
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in channel)
        yield f"{name}.{plain}", {**entry, "channel": channel}
