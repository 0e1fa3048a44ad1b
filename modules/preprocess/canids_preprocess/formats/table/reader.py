"""Reader of `format: table`: batches by the compiled loop, and the rows in another spelling one by one, with the reason of a fault."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from canids_preprocess.formats.base import (
    FRAME_COLUMNS,
    MAX_BYTES,
    MAX_STANDARD_ID,
    REJECT_COLUMNS,
    Batch,
    Format,
    Piece,
)
from canids_preprocess.formats.dialects.clock import Clock, assumed_rate
from canids_preprocess.formats.last_frame import without_cut_frame
from canids_preprocess.formats.table import kernel
from canids_preprocess.formats.table.mapping import Mapping, of, split
from canids_preprocess.formats.text import FD_LENGTHS, chunks, first_bytes, frames_and_rejects, report_events
from canids_shared.errors import CanidsError

_DAY_S = 86400.0
_SEPARATORS = str.maketrans("-:,[]_", "      ")
_ODD = {
    "seconds": pl.String,
    "timestamp": pl.Float64,
    "identifier": pl.String,
    "data": pl.String,
    "payload": pl.Binary,
    "announced": pl.Int64,
    "channel": pl.String,
    "reason": pl.String,
    **dict.fromkeys(("extended", "remote", "fd"), pl.Boolean),
    "label": pl.UInt8,
}
"""Fields of rows in another spelling, for `frames_and_rejects`."""


def _decoded(text: bytes | bytearray) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _payload(text: str, base: int) -> bytes | None:
    """The bytes of a field, packed or apart; None if it holds something else."""
    parts = text.translate(_SEPARATORS).split()
    if base == 16 and len(parts) == 1:
        digits = parts[0].lower().removeprefix("0x")
        parts = [digits[at : at + 2] for at in range(0, len(digits), 2)] if len(digits) % 2 == 0 else ["odd"]
    numbers = [_number(part, base) for part in parts]
    return bytes(n for n in numbers if n is not None) if all(n is not None and n < 256 for n in numbers) else None


def _number(text: str, base: int) -> int | None:
    """A number of digits alone, with 0x before them, or a fraction of zeros behind; None: something else."""
    text = text.lower()
    if base == 16:
        text = text.removeprefix("0x")
    elif "." in text and not text.partition(".")[2].strip("0"):
        text = text.partition(".")[0]
    allowed = "0123456789abcdef"[:base]
    return int(text, base) if 0 < len(text) <= 12 and not set(text) - set(allowed) else None


def _channels(arrays: dict[str, Any]) -> pl.Series:
    """The channels of frames; null where the field is empty."""
    ends, text = arrays["channel_end"], arrays["channel"].tobytes()
    if not text.isascii():
        return pl.Series([_decoded(text[a:b]) or None for a, b in pairwise(ends.tolist())], dtype=pl.String)
    made = pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(text))
    channels = pl.Series(made, dtype=pl.String)
    return channels if np.diff(ends).all() else channels.replace("", None)


class _Row:
    """One row in another spelling."""

    def __init__(self, mapping: Mapping, text: str) -> None:
        self._mapping = mapping
        fields = [field.strip(" \t") for field in split(text, mapping.delimiter)]
        self._beyond = any(fields[mapping.width :]) if mapping.width else False
        self._short = len(fields) < max(
            mapping.roles.index(role) + 1 for role in (kernel.ID, kernel.TIME) if role in mapping.roles
        )
        fields += [""] * (len(mapping.roles) - len(fields))
        self._cells: dict[int, str] = {}
        self._fields: dict[int, str] = {}
        for role, place, field in zip(mapping.roles, mapping.places, fields, strict=False):
            if role == kernel.BYTE:
                self._cells[place] = field
            else:
                self._fields[role] = field

    def _word(self, role: int, absent: int) -> int:
        spelt = self._fields.get(role, "").lower()
        return next((value for r, text, value in self._mapping.words if (r, text) == (role, spelt)), absent)

    @property
    def is_event(self) -> bool:
        """Whether its direction says that it is no frame."""
        return kernel.DIRECTION in self._fields and self._word(kernel.DIRECTION, -1) == 1

    def values(self) -> dict[str, Any]:
        """The fields `_ODD`."""
        time, identifier = self._fields.get(kernel.TIME, "-"), self._fields[kernel.ID]
        raw = np.frombuffer(time.encode() + b"\n", np.uint8)
        when = kernel.moment(raw, 0, len(raw) - 1, self._mapping.form, self._mapping.delimiter != ",")
        # As loggers mark 29 bits: a number, and x behind it.
        marked = self._mapping.id_base == 16 and identifier[-1:] in "xX" and len(identifier) > 1
        number = _number(identifier[:-1] if marked else identifier, self._mapping.id_base)
        remote = self._word(kernel.REMOTE, 0) == 1
        length, reason = self._length()
        if reason is None and remote and length is None:
            reason = "a remote frame without a DLC"
        payload, announced, fault = (b"", length, None) if remote else self._with_payload(length)
        reason = reason or fault
        label = self._word(kernel.LABEL, self._mapping.other) if self._fields.get(kernel.LABEL) else kernel.REFUSED
        labelled = kernel.LABEL in self._fields
        if reason is None and labelled and label < 0:
            reason = f"label '{self._fields[kernel.LABEL][:40]}' is neither attacked nor normal"
        if self._beyond:
            reason = "more fields than the header has"
        has_extended = kernel.EXTENDED in self._fields
        return {
            "seconds": None if self._short else time,
            "timestamp": when if kernel.TIME in self._fields else 0.0,
            "identifier": identifier if number is None else f"{number:X}",
            "data": " ".join(self._cells.values()).rstrip() or self._fields.get(kernel.PAYLOAD, ""),
            "payload": payload,
            "announced": announced,
            "channel": self._fields.get(kernel.CHANNEL) or None,
            "reason": None if self._short else reason,
            "extended": marked
            or (self._word(kernel.EXTENDED, 0) == 1 if has_extended else (number or 0) > MAX_STANDARD_ID),
            "remote": remote,
            "fd": self._word(kernel.FD, 0) == 1 or len(payload or b"") > MAX_BYTES[False],
            "label": label if labelled and label >= 0 else None,
        }

    def _length(self) -> tuple[int | None, str | None]:
        """The DLC as written, and the reason if it is none."""
        if kernel.DLC not in self._fields:
            return None, None
        written = self._fields[kernel.DLC]
        length = _number(written, 10)
        return length, f"DLC '{written[:40]}' is not a number of bytes" if length is None else None

    def _with_payload(self, length: int | None) -> tuple[bytes | None, int | None, str | None]:
        """The payload (None: undecodable), its length as the row states it, and the reason of a fault."""
        if not self._cells:
            payload = _payload(self._fields[kernel.PAYLOAD], self._mapping.base)
            return payload, self._in_bytes(length, payload), None
        cells = [self._cells[place] for place in sorted(self._cells)]
        if length is None:
            count = next((at for at, cell in enumerate(cells) if not cell), len(cells))
        else:
            in_bits = length > MAX_BYTES[False] and length % 8 == 0 and len(cells) <= MAX_BYTES[False]
            count = length // 8 if in_bits else length
        numbers = [_number(cell, self._mapping.base) for cell in cells[:count]]
        if any(cell and (length is None or _number(cell, self._mapping.base) != 0) for cell in cells[count:]):
            return b"", None, "a byte is missing" if length is None else "more bytes than the DLC says"
        if any(n is None or n > 255 for n in numbers):
            held = len([cell for cell in cells if cell])
            return (
                (None, length, None) if held >= count else (b"", None, f"{held} payload bytes, but a DLC of {length}")
            )
        payload = bytes(n for n in numbers if n is not None)
        return payload, self._in_bytes(length, payload), None

    def _in_bytes(self, length: int | None, payload: bytes | None) -> int | None:
        """A DLC in bytes: it may count bits, or be a code above 8."""
        if length is None or not payload:
            return length
        size = len(payload)
        is_fd = self._word(kernel.FD, 0) == 1
        code = 9 <= length <= 15 and (FD_LENGTHS[length] == size or (size == MAX_BYTES[False] and not is_fd))
        return size if code or length == 8 * size else length


class _Reader:
    """Batches of one file's pieces."""

    def __init__(self, mapping: Mapping, rate: float | None) -> None:
        self._mapping = mapping
        self._how, self._arrays = mapping.how(), mapping.arrays()
        period = _DAY_S if mapping.form == kernel.TIME_OF_DAY else mapping.wraps
        self._clock = Clock(delta=mapping.delta, period=period, rate=rate) if mapping.delta or period or rate else None
        self.events = 0

    def batch(self, piece: Piece) -> Batch:
        """The frames and rejects of a piece, which is not empty."""
        block = piece.text if piece.text.endswith(b"\n") else piece.text + b"\n"
        arrays, odd, spaced = kernel.parse(np.frombuffer(block, np.uint8), piece.most, self._how, *self._arrays)
        frames = self._frames(arrays, piece.line)
        rejects = pl.DataFrame(schema=REJECT_COLUMNS)
        times = frames.select("line", "timestamp") if self._clock else None
        if len(odd):
            rows = self._odd(block, odd, piece.line)
            times = pl.concat([times, rows.select("line", "timestamp")]).sort("line") if times is not None else None
            others = frames_and_rejects(rows, f"'{self._mapping.shape}'")
            frames, rejects = pl.concat([frames, others.frames]).sort("line"), others.rejects
        if times is not None and self._clock:
            # Of rejects too: of times that count from the row above, none may be left out.
            seconds = times.select("line", timestamp=self._clock.seconds(times["timestamp"].fill_nan(None)))
            frames = frames.drop("timestamp").join(seconds, on="line", how="left").select(list(FRAME_COLUMNS))
        # Behind a tab or a blank more of them are part of some layouts, and not remarkable.
        return Batch(frames, rejects, spaced if self._mapping.delimiter in ",;|" else 0)

    def _frames(self, arrays: dict[str, Any], line: int) -> pl.DataFrame:
        n, roles = len(arrays["row"]), self._mapping.roles
        # Arrow's layout of binary values is that of the loop: nothing is copied.
        buffers = [None, pa.py_buffer(arrays["offset"]), pa.py_buffer(arrays["payload"])]
        payload = pa.Array.from_buffers(pa.large_binary(), n, buffers)
        columns: dict[str, Any] = {
            "line": (line + arrays["row"]).view(np.uint64),
            **{name: arrays[name] for name in ("timestamp", "can_id", "extended", "remote", "fd", "dlc")},
            "payload": pl.from_arrow(payload),
            "channel": _channels(arrays) if kernel.CHANNEL in roles else None,
            "label": arrays["label"] if kernel.LABEL in roles else None,
        }
        return pl.DataFrame(
            [
                pl.repeat(None, n, dtype=kind, eager=True).alias(name)
                if columns[name] is None
                else pl.Series(name, columns[name], dtype=kind)
                for name, kind in FRAME_COLUMNS.items()
            ]
        )

    def _odd(self, block: bytes | bytearray, odd: np.ndarray, line: int) -> pl.DataFrame:
        made: list[dict[str, Any]] = []
        for number, begin, end in odd.tolist():
            text = _decoded(block[begin:end]).removesuffix("\r")
            row = _Row(self._mapping, text)
            if row.is_event:
                self.events += 1
            else:
                made.append({"line": line + number, "text": text, **row.values()})
        return pl.DataFrame(made, schema={"line": pl.UInt64, "text": pl.String, **_ODD}, orient="row")


def _below(pieces: Iterator[Piece], skip: int) -> Iterator[Piece]:
    """The pieces without the first `skip` lines of the file."""
    for line, most, text in pieces:
        above, begin = skip + 1 - line, 0
        for _ in range(max(above, 0)):
            begin = text.find(b"\n", begin) + 1
            if not begin:
                break
        if above <= 0 or (begin and begin < len(text)):
            yield Piece(line + max(above, 0), most, text[begin:] if above > 0 else text)


def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a table by its mapping, `entry["table"]`.

    Raises `CanidsError` if the mapping does not fit the header, or there is none; or times are missing and no rate is assumed.
    """
    first_bytes(path)
    if not entry.get("table"):
        raise CanidsError(f"{path}: format: table needs 'table', which says what each column means (draft proposes it)")
    mapping = of(path, entry["table"])
    reader = _Reader(mapping, assumed_rate(path, entry, timed=mapping.timed))

    def batches() -> Iterator[Batch]:
        for piece in _below(chunks(path), mapping.skip):
            yield reader.batch(piece)
        report_events(path, reader.events)

    # A payload that ends the row looks like a shorter one where the file was cut off.
    last = mapping.roles[-1] in (kernel.PAYLOAD, kernel.BYTE) and kernel.DLC not in mapping.roles
    yield from without_cut_frame(path, batches()) if last else batches()


def in_file_unit(table: dict[str, Any]) -> str | None:
    """Unit of the timestamps that `read` yields: seconds of a date, the unit that the mapping states, or None."""
    time = table.get("time", {})
    return "s" if time.get("form", "number") not in ("number", "delta") else time.get("unit")


TABLE = Format(read, lambda path, beginning: False, labelled=True, untimed=True)
