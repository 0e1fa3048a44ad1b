"""Frames of a capture as arrays that the compiled loops can rely on, read in constant memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from canids_preprocess.features.frame_kernel import EXTENDED_BIT, MAX_BYTES
from canids_preprocess.formats.base import MAX_EXTENDED_ID, MAX_STANDARD_ID
from canids_preprocess.windowing.clock import Clock
from canids_preprocess.windowing.splits import Block
from canids_shared.contracts import tables
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError

_BUFFER = 1 << 18  # bytes of a column read at once
_CHUNK = 1 << 15  # frames held at once, beside those of the windows begun
_LIGHTER = 8  # times as many frames at once without payloads and features
TIMES_AND_IDS = ["timestamp", "can_id", "extended"]
ALL = [*TIMES_AND_IDS, "payload", "label", "attack"]
UNKNOWN = -1
"""Label of a frame that may be attacked or not."""

Frames = dict[str, np.ndarray]
_WHAT = "table of frames"


class Recording(NamedTuple):
    """Frames of one bus: a file of frames, and the bus if it holds several. As text the file's path, for messages."""

    path: Path
    channel: str | None = None

    def __str__(self) -> str:
        return str(self.path)


def _opened(path: Path) -> pq.ParquetFile:
    tables.read_metadata(path, tables.FRAMES)
    with reading(path, _WHAT, pa.ArrowException):
        source = tables.opened(path, read_dictionary=["attack"], pre_buffer=False, buffer_size=_BUFFER)
    tables.check_columns(path, tables.FRAMES, source.schema_arrow, ALL)
    return source


def clock_of(recording: Recording) -> Clock:
    """Clock of a capture, from a pass over times and labels of its frames."""
    path, source = recording.path, _opened(recording.path)

    def timestamps(group: int) -> np.ndarray:
        times: np.ndarray = _read_row_group(recording, source, group, ["timestamp"])["timestamp"].to_numpy()
        return times

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for group in range(source.num_row_groups):
            part = _read_row_group(recording, source, group, ["timestamp", "label"])
            _refuse_nulls(path, part, ["timestamp"])
            timestamp = part["timestamp"].to_numpy()
            _check_times(path, timestamp)
            yield timestamp, pc.fill_null(pc.equal(part["label"], 1), False).to_numpy()

    return Clock(pieces(), timestamps)


def _of_bus(recording: Recording, columns: list[str]) -> list[str]:
    """The columns to read: also the channel, where the frames are those of one of several."""
    return columns if recording.channel is None else [*columns, "channel"]


def _read_row_group(recording: Recording, source: pq.ParquetFile, number: int, columns: list[str]) -> pa.Table:
    with reading(recording.path, _WHAT, pa.ArrowException):
        part = source.read_row_group(number, columns=_of_bus(recording, columns), use_threads=False)
    return part if recording.channel is None else part.filter(_is_on(part["channel"], recording.channel))


def _is_on(channels: pa.ChunkedArray, channel: str) -> pa.ChunkedArray:
    """Whether frames are those of a bus; an empty name is that of frames without one."""
    return pc.equal(pc.fill_null(channels, ""), channel)


def _batches(
    recording: Recording, source: pq.ParquetFile, groups: list[int], columns: list[str]
) -> Iterator[pa.RecordBatch]:
    size = _CHUNK if columns == ALL else _LIGHTER * _CHUNK
    wanted = _of_bus(recording, columns)
    with reading(recording.path, _WHAT, pa.ArrowException):
        for batch in source.iter_batches(batch_size=size, row_groups=groups, columns=wanted, use_threads=False):
            part = batch if recording.channel is None else batch.filter(_is_on(batch["channel"], recording.channel))
            if len(part):  # a bus may be silent for a while
                yield part


def _row_counts(recording: Recording, source: pq.ParquetFile) -> list[int]:
    """Frames in each row group."""
    if recording.channel is None:
        return [source.metadata.row_group(i).num_rows for i in range(source.num_row_groups)]
    return [len(_read_row_group(recording, source, i, [])) for i in range(source.num_row_groups)]


def _refuse_nulls(path: Path, part: pa.RecordBatch | pa.Table, columns: list[str]) -> None:
    for name in columns:
        if name not in tables.FRAMES.nullable and part[name].null_count:
            raise CanidsError(f"{path}: column '{name}' has nulls")


def _check_times(path: Path, timestamp: np.ndarray) -> None:
    if not np.isfinite(timestamp).all():
        raise CanidsError(f"{path}: column 'timestamp' holds NaN or infinity")


def _check(path: Path, frames: Frames) -> None:
    """Raise `CanidsError` unless the frames keep to what the compiled loops rely on: they check no bounds."""
    _check_times(path, frames["timestamp"])
    if "offset" in frames and np.diff(frames["offset"]).max(initial=0) > MAX_BYTES:
        raise CanidsError(f"{path}: column 'payload' holds more than {MAX_BYTES} bytes")
    can_id, extended = frames["can_id"], frames["node_id"] >> EXTENDED_BIT
    # Few captures hold wide IDs at all: the first comparison spares the others the arrays of the second.
    if (
        can_id.max(initial=0) > MAX_STANDARD_ID
        and (can_id > np.where(extended, np.uint32(MAX_EXTENDED_ID), np.uint32(MAX_STANDARD_ID))).any()
    ):
        raise CanidsError(f"{path}: column 'can_id' holds more than 11 bits, or more than 29 if extended")


def arrays_of(path: Path, part: pa.RecordBatch, columns: list[str]) -> Frames:
    """Some frames (contract `frames/2`, text and bytes as large ones, attacks as a dictionary) as arrays.

    `timestamp` f64 s, `can_id` u32, `node_id` u32 (bit 31 set if extended), each [n]; with payloads also `offset` i64
    [n+1] into `payload` u8, `label` i8 [n], `attack` [n] into the names `attacks`.
    Raises `CanidsError` naming `path` unless they keep to what the compiled loops rely on.
    """
    _refuse_nulls(path, part, columns)
    frames = {
        "timestamp": part["timestamp"].to_numpy(),
        "can_id": part["can_id"].to_numpy(),
    }
    frames["node_id"] = frames["can_id"]
    if part["extended"].true_count:
        extended = part["extended"].to_numpy(zero_copy_only=False)
        frames["node_id"] = frames["can_id"] | extended.astype(np.uint32) << EXTENDED_BIT
    if "payload" in columns:
        # Arrow's own buffers, without a copy: one array of all bytes, and where each payload begins in it.
        payload = part["payload"].cast("large_binary")
        data = payload.buffers()[2]
        frames["offset"] = np.frombuffer(payload.buffers()[1], np.int64, len(part) + 1, 8 * payload.offset)
        frames["payload"] = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
        label = part["label"]
        known = label.to_numpy() if not label.null_count else pc.fill_null(label.cast("int8"), UNKNOWN).to_numpy()
        frames["label"] = known.view(np.int8)
        frames["attack"] = part["attack"].indices.to_numpy()
        frames["attacks"] = np.asarray(part["attack"].dictionary.to_pylist(), dtype=object)
    _check(path, frames)
    return frames


def chunks(recording: Recording, block: Block, columns: list[str]) -> Iterator[Frames]:
    """The frames `block.prime:block.stop` of a capture as arrays, chunk by chunk; `columns` are `TIMES_AND_IDS` or `ALL`."""
    path, source = recording.path, _opened(recording.path)
    begins = np.cumsum([0, *_row_counts(recording, source)])
    groups = np.flatnonzero((begins[:-1] < block.stop) & (begins[1:] > block.prime)).tolist()
    position = int(begins[groups[0]]) if groups else 0
    for batch in _batches(recording, source, groups, columns):
        first, last = max(block.prime - position, 0), min(block.stop - position, len(batch))
        position += len(batch)
        if first >= last:
            continue
        part = batch.slice(first, last - first)
        yield arrays_of(path, part, columns)
        if position >= block.stop:
            return


def attack_index(path: Path, frames: Frames, attacks: list[str]) -> np.ndarray:
    """Index of each frame's attack in `attacks` (0: none), int16 [n]."""
    attacked = frames["label"] == 1
    if not attacked.any():
        return np.zeros(len(attacked), np.int16)
    known = {name: index for index, name in enumerate(attacks)}
    index = np.array([known.get(name, -1) for name in frames["attacks"]], np.int16)
    of_frames = np.where(attacked, index[frames["attack"]], np.int16(0))
    if of_frames.min() < 0:
        raise CanidsError(
            f"{path}: column 'attack' holds a name that the file's metadata lacks; delete it and run again"
        )
    return of_frames
