"""MF4 (ASAM MDF 4 with bus logging), through asammdf, which also finalises what a logger has left unfinished.

`CAN_DataFrame` and `CAN_RemoteFrame` of every channel group of CAN are read, merged by time. Records of other groups
(error frames, other buses) are no rows, and counted in the log. Times count from the start of the measurement. asammdf
follows the links between blocks wherever they lead, so they are followed here once before, in bounded time.

Source: ASAM MDF 4.2 (block structure), and its "Bus Logging" associate standard (names of the channels).
"""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from canids_preprocess.formats.base import (
    FRAME_COLUMNS,
    MAX_STANDARD_ID,
    REJECT_COLUMNS,
    ROWS_A_BATCH,
    Batch,
    Format,
    printable,
)
from canids_preprocess.formats.compressed import unpacking
from canids_preprocess.formats.text import first_bytes, frames_and_rejects, report_events
from canids_shared.errors import CanidsError

_HEADER = 64  # bytes before the first block
_BLOCK = struct.Struct("<4s4xQQ")
_CHAINS: dict[bytes, tuple[int, tuple[int, ...]]] = {
    b"##HD": (-1, (0, 1, 2, 3, 4)),
    b"##DG": (0, (1, 2)),
    b"##CG": (0, (1,)),
    b"##CN": (0, (1,)),
    b"##DL": (0, ()),
    b"##HL": (-1, (0,)),
    b"##FH": (0, ()),
    b"##CH": (0, (1,)),
    b"##AT": (0, ()),
    b"##EV": (0, ()),
}
"""By kind of block: which of its links leads to the next of its kind (-1: none), and which to the first of another."""
_VLSD, _BUS_EVENT = 1, 2  # flags of a channel group
_CAN = 2  # type of a bus
_IDE = 1 << 31  # bit of an ID
_GROUPS = ("CAN_DataFrame", "CAN_RemoteFrame")


def _check_links(path: Path, stream: BinaryIO) -> None:
    """Follow every chain of blocks once; a circle among them would keep asammdf busy for ever."""
    size = path.stat().st_size
    waiting, followed = [_HEADER], 0
    while waiting:
        # Along one chain from its first block to its last; other chains that begin at its blocks wait.
        at = waiting.pop()
        while at:
            followed += 1
            stream.seek(min(at, size))
            block = stream.read(_BLOCK.size)
            if len(block) < _BLOCK.size or not block.startswith(b"##"):
                raise CanidsError(f"{path}: no block at byte {at}; the file is cut off or damaged")
            # A file has no more blocks than fit into it: whoever has followed more is in a circle.
            if followed > size // _BLOCK.size:
                raise CanidsError(f"{path}: its blocks are linked in a circle; the file is damaged")
            kind, _, count = _BLOCK.unpack(block)
            following, children = _CHAINS.get(kind, (-1, ()))
            if count > size // 8 or count < max((following, *children)) + 1:
                raise CanidsError(f"{path}: a block of {count} links at byte {at}; the file is damaged")
            links = struct.unpack(f"<{count}Q", stream.read(8 * count).ljust(8 * count, b"\0"))
            waiting += [links[i] for i in children if links[i]]
            at = links[following] if following >= 0 else 0


def _stored(mdf: Any, index: int) -> int:
    """Number of records of a group by the size of its data, to compare with that in its header."""
    group = mdf.groups[index]
    width = group.channel_group.samples_byte_nr + group.channel_group.invalidation_bytes_nr
    size = sum(block.original_size for block in group.get_data_blocks())
    return int(size // width) if width else 0


def _column(samples: NDArray[Any], name: str) -> NDArray[Any] | None:
    return samples[name] if name in (samples.dtype.names or ()) else None


def _rows(signal: Any, name: str) -> pl.DataFrame:
    """The columns that `frames_and_rejects` reads, of some records of a group."""
    samples = signal.samples
    n = len(samples)
    can_id = samples[f"{name}.ID"].astype(np.int64)
    extended = _column(samples, f"{name}.IDE")
    # Where there is no IDE, the highest bit may stand for it; anything else above 29 bits is damage.
    extended = (can_id >> 31 == 1) | (can_id > MAX_STANDARD_ID) if extended is None else extended.astype(np.bool_)
    number = np.where(extended, can_id & ~_IDE, can_id)
    fd = _column(samples, f"{name}.EDL")
    length = _column(samples, f"{name}.DataLength")
    length = samples[f"{name}.DLC"] if length is None or name == "CAN_RemoteFrame" else length
    length = length.astype(np.int64)
    # A classical frame with a DLC of 9 to 15 has eight bytes all the same.
    is_fd = np.zeros(n, np.bool_) if fd is None else fd.astype(np.bool_)
    length = np.where(~is_fd & (length > 8) & (length <= 15), 8, length)
    payload = [b""] * n
    if name == "CAN_DataFrame":
        # Every record has room for the longest payload; of each the bytes that its length announces count.
        data = np.ascontiguousarray(samples[f"{name}.DataBytes"], dtype=np.uint8)
        width, flat = data.shape[1], data.tobytes()
        payload = [flat[i * width : i * width + min(size, width)] for i, size in enumerate(length.tolist())]
    channel = _column(samples, f"{name}.BusChannel")
    return pl.DataFrame(
        {
            "seconds": pl.Series(signal.timestamps.astype(np.float64)),
            "identifier": pl.Series([f"{v:X}" for v in number.tolist()], dtype=pl.String),
            "payload": pl.Series(payload, dtype=pl.Binary),
            "announced": pl.Series(length),
            "extended": extended,
            "remote": np.full(n, name == "CAN_RemoteFrame"),
            "fd": is_fd,
            "channel": pl.Series([None] * n if channel is None else channel.tolist()).cast(pl.String),
        }
    )


def _records(path: Path, mdf: Any, index: int, name: str) -> Iterator[pl.DataFrame]:
    """All records of a group, a batch at a time."""
    cycles = mdf.groups[index].channel_group.cycles_nr
    if (stored := _stored(mdf, index)) != cycles:
        raise CanidsError(
            f"{path}: data of {stored} frames, but {cycles} by its header; the file is cut off or damaged"
        )
    for offset in range(0, cycles, ROWS_A_BATCH):
        count = min(ROWS_A_BATCH, cycles - offset)
        signal = mdf.get(name, index, record_offset=offset, record_count=count, raw=False)
        if len(signal.timestamps) != count:
            raise CanidsError(f"{path}: {offset + len(signal.timestamps)} of {cycles} frames; the file is damaged")
        yield _rows(signal, name)


def _merged(streams: list[Iterator[pl.DataFrame]]) -> Iterator[pl.DataFrame]:
    """Rows of several groups in the order of time, in constant memory."""
    waiting = [next(stream, None) for stream in streams]
    while any(table is not None for table in waiting):
        present = [(k, table) for k, table in enumerate(waiting) if table is not None]
        if len(present) == 1:
            ((k, table),) = present
            yield table
            waiting[k] = next(streams[k], None)
            continue
        # Up to here no group can still bring an earlier row; the group that ends there goes on with its next batch.
        last = [(table["seconds"].max(), k) for k, table in present]
        limit, first = min(last)  # type: ignore[type-var]
        yield pl.concat([table.filter(pl.col("seconds") <= limit) for _, table in present]).sort(
            "seconds", maintain_order=True
        )
        for k, table in present:
            rest = table.filter(pl.col("seconds") > limit)
            waiting[k] = rest if k != first and len(rest) else next(streams[k], None)


def _batches(path: Path, mdf: Any) -> Iterator[Batch]:
    streams, events = [], 0
    for index, group in enumerate(mdf.groups):
        header = group.channel_group
        # The group's source says which kind of bus it is, and a channel's name which kind of event.
        bus = header.acq_source.bus_type if header.flags & _BUS_EVENT and header.acq_source else None
        name = next((channel.name for channel in group.channels if channel.name in _GROUPS), None)
        if bus == _CAN and name and header.cycles_nr:
            streams.append(_records(path, mdf, index, name))
        elif not header.flags & _VLSD:  # a group of that kind holds the payloads of another
            events += header.cycles_nr
    number = 1
    for table in _merged(streams):
        rows = table.with_row_index("line", offset=number).with_columns(
            pl.col("line").cast(pl.UInt64),
            text=pl.format(
                "{} s, ID {}, {} bytes: {}", "seconds", "identifier", "announced", pl.col("payload").bin.encode("hex")
            ),
            seconds=pl.col("seconds").cast(pl.String),
            data=pl.lit(""),
        )
        number += len(rows)
        yield frames_and_rejects(rows, "a record")
    if number == 1:
        yield Batch(pl.DataFrame(schema=FRAME_COLUMNS), pl.DataFrame(schema=REJECT_COLUMNS))
    report_events(path, events)


def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read an MF4 file, finalised or not; `line` is the number of the frame, labels are null.

    Raises `CanidsError` if it is no MDF of version 4, or damaged.
    """
    beginning = first_bytes(path, _HEADER)
    from asammdf import MDF  # noqa: PLC0415 (takes a second to import, and needed for this format alone)

    logging.getLogger("asammdf").setLevel(logging.CRITICAL)  # it prints tracebacks; complaints are made here
    if not _is_mf4(path, beginning):
        raise CanidsError(f"{path}: not an MDF file of version 4")
    with open(path, "rb") as stream:
        _check_links(path, stream)
    # asammdf finalises a copy, which it would leave behind if that failed.
    with TemporaryDirectory(prefix="canids-mf4-") as scratch:
        mdf, reason = None, ""
        try:
            options: dict[str, Any] = {"process_bus_logging": False, "temporary_folder": scratch}
            mdf = MDF(path, **options)
            yield from _batches(path, mdf)
        except CanidsError:
            raise
        except Exception as error:  # damaged blocks raise whatever their fields lead to
            reason = printable(" ".join(str(error).split()) or type(error).__name__)
        finally:
            if mdf is not None:
                mdf.close()
        if reason:  # raised here, where asammdf's remains are gone: they would complain about the missing folder
            raise CanidsError(f"{path}: asammdf cannot read it, the file is damaged: {reason}")


def _is_mf4(path: Path, beginning: bytes) -> bool:
    return beginning[:8] in (b"MDF     ", b"UnFinMF ") and beginning[8:9] == b"4"


MF4 = Format(unpacking(read), _is_mf4, labelled=False, unit_known=True)
