"""BLF (Vector's binary log), through python-can.

A file is a header and objects; most objects are containers of further ones, compressed. python-can passes over what is cut
off, damaged or of a kind that it does not know, so the containers are opened and counted here, strictly, and only whole
objects that hold frames are handed to it. Objects of other kinds (error frames, statistics, notes) and transmit requests are no rows. Times
count from the start of the measurement.

Source: python-can, `can.BLFReader`, after Tobias Lorenz' description of the format in Vector_BLF.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import can
from can.io import blf

from canids_preprocess.formats.base import MAX_BYTES, Batch
from canids_preprocess.formats.objects import Row, batches
from canids_preprocess.formats.text import first_bytes, report_events
from canids_shared.errors import CanidsError

_CLASSICAL = (blf.CAN_MESSAGE, blf.CAN_MESSAGE2)
_FRAMES = (*_CLASSICAL, blf.CAN_FD_MESSAGE, blf.CAN_FD_MESSAGE_64)
_OBJECT = blf.OBJ_HEADER_BASE_STRUCT
_CONTAINER = blf.LOG_CONTAINER_STRUCT
_DIRECTION, _TX_REQUEST = 0x6F, 2
"""Bits of the direction (and of a line error), and their value in a transmit request, which the frame follows as sent."""
_LONGEST_OBJECT = 1 << 26
"""Bytes; containers hold 128 KiB, as a rule. A damaged length must not fill the memory."""


def _damaged(path: Path, at: int, what: str) -> CanidsError:
    return CanidsError(
        f"{path}, byte {at}: {what}; the file is cut off or damaged, record it again or convert what is left"
    )


def _containers(path: Path, stream: BinaryIO) -> Iterator[bytes]:
    """The content of each container, uncompressed, and each object outside of one."""
    size = path.stat().st_size
    while base := stream.read(_OBJECT.size):
        # An object: its base header (signature, lengths, kind), its body, and up to three bytes of padding.
        at = stream.tell() - len(base)
        if len(base) < _OBJECT.size or not any(base):
            raise _damaged(path, at, "not a whole object")
        signature, _, _, length, kind = _OBJECT.unpack(base)
        if signature != b"LOBJ" or not _OBJECT.size <= length <= min(_LONGEST_OBJECT, size - at):
            raise _damaged(path, at, "no object begins here, or not a whole one")
        body = stream.read(length - _OBJECT.size)
        stream.read(length % 4)  # padding
        if kind != blf.LOG_CONTAINER:
            yield base + body
            continue
        # A container: how it is packed and how long its content is, then the content.
        if len(body) < _CONTAINER.size:
            raise _damaged(path, at, "a container without its header")
        method, length = _CONTAINER.unpack_from(body)
        content = body[_CONTAINER.size :]
        if method == blf.ZLIB_DEFLATE:
            if length > _LONGEST_OBJECT:
                raise _damaged(path, at, f"a container of {length} bytes")
            # One byte more than announced is enough to see that there are too many; a damaged container may unpack to any size.
            unpacker = zlib.decompressobj()
            try:
                content = unpacker.decompress(content, length + 1)
            except zlib.error as error:
                raise _damaged(path, at, f"a container that cannot be unpacked ({error})") from None
        elif method != blf.NO_COMPRESSION:
            raise _damaged(path, at, f"a container packed by the unknown method {method}")
        if len(content) != length or (method == blf.ZLIB_DEFLATE and not unpacker.eof):
            raise _damaged(path, at, f"a container of {len(content)} instead of {length} bytes")
        yield content


def _objects(path: Path, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of each object; one may go on in the next container."""
    rest = b""  # an object that has begun in the container before
    for content in _containers(path, stream):
        data, pos = rest + content, 0
        while True:
            begin = data.find(b"LOBJ", pos, pos + 8)  # up to three bytes of padding come before it
            if begin < 0 and len(data) - pos >= 8:
                raise _damaged(path, stream.tell(), "no object where one should begin, in the container before")
            if begin < 0 or len(data) - begin < _OBJECT.size:
                break
            _, _, _, length, kind = _OBJECT.unpack_from(data, begin)
            if not _OBJECT.size <= length <= _LONGEST_OBJECT:
                raise _damaged(path, stream.tell(), f"an object of {length} bytes, in the container before")
            if begin + length > len(data):
                break
            yield kind, data[begin : begin + length]
            pos = begin + length
        rest = data[pos:]
    if rest.strip(b"\0"):
        raise _damaged(path, stream.tell(), "the last object is not whole")


def _is_request(kind: int, data: bytes) -> bool:
    """Whether an object is a transmit request, no frame."""
    header = {1: blf.OBJ_HEADER_V1_STRUCT, 2: blf.OBJ_HEADER_V2_STRUCT}.get(_OBJECT.unpack_from(data)[2])
    structure = {blf.CAN_FD_MESSAGE: blf.CAN_FD_MSG_STRUCT, blf.CAN_FD_MESSAGE_64: blf.CAN_FD_MSG_64_STRUCT}.get(
        kind, blf.CAN_MSG_STRUCT
    )
    if header is None or len(data) < _OBJECT.size + header.size + structure.size:
        return False
    fields = structure.unpack_from(data, _OBJECT.size + header.size)
    direction: int = fields[12] if kind == blf.CAN_FD_MESSAGE_64 else fields[1] & _DIRECTION
    return direction == _TX_REQUEST


def _message(reader: can.BLFReader, kind: int, data: bytes) -> can.Message | str:
    """The message of one object, or why there is none."""
    try:
        # The reader's inner loop: it parses the objects in some bytes, and stops at the first that is not whole.
        message = next(reader._parse_data(data), None)
    except Exception as error:  # a damaged object raises whatever its fields lead to
        return f"python-can cannot read it: {' '.join(str(error).split()) or type(error).__name__}"
    if message is None:
        return "an object of an unknown version"
    # A classical frame with a DLC of 9 to 15 has eight bytes all the same; python-can gives its DLC, or what CAN FD has.
    if not message.is_fd and MAX_BYTES[False] < message.dlc <= (15 if kind in _CLASSICAL else MAX_BYTES[True]):
        message.dlc = MAX_BYTES[False]
        message.data = message.data[: MAX_BYTES[False]]
    return message


def _rows(path: Path) -> Iterator[Row]:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        try:
            reader = can.BLFReader(io.BytesIO(stream.read(1 << 12)))
        except (blf.BLFParseError, struct.error):
            raise CanidsError(f"{path}: not a BLF file") from None
        # Behind the signature stands how long the file's header is: there the objects begin.
        stream.seek(4)
        (header,) = struct.unpack("<L", stream.read(4))
        if size < max(reader.file_size, header) or header < blf.FILE_HEADER_STRUCT.size:
            raise CanidsError(f"{path}: {size} bytes, not {reader.file_size} as its header says: cut off or damaged")
        reader.start_timestamp = 0.0
        stream.seek(header)
        number = events = 0
        for kind, data in _objects(path, stream):
            if kind in _FRAMES and not _is_request(kind, data):
                number += 1
                yield Row(number, _message(reader, kind, data), data.hex())
            else:
                events += 1
        report_events(path, events)


def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a BLF file; `line` is the number of the frame.

    Raises `CanidsError` if it is cut off or a container is damaged: what it held cannot be counted.
    """
    first_bytes(path)
    return batches(_rows(path))
