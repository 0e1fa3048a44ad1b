"""Captures as people store them: compressed (gz, xz, bz2, zst, a zip of one file), or UTF-16 text.

Both show in the first bytes, whatever the file is called, and both are unpacked while the file is read, in constant memory.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, cast

import pyarrow as pa

from canids_preprocess.formats.base import Batch, printable
from canids_preprocess.formats.growing import Growing
from canids_shared.errors import CanidsError

_PART = 1 << 20
_MAGIC = {
    b"\x1f\x8b": "gz",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zst",
    b"PK\x03\x04": "zip",
}
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)
"""What the libraries raise at a file that is cut off, damaged or encrypted (pyarrow: an `OSError`)."""


def _compression(beginning: bytes) -> str | None:
    return next((name for magic, name in _MAGIC.items() if beginning.startswith(magic)), None)


def _member(path: Path, stack: ExitStack) -> BinaryIO:
    """The only file in a zip. Raises `CanidsError` if it holds none, or several."""
    archive = stack.enter_context(zipfile.ZipFile(path))
    files = [f for f in archive.infolist() if not f.is_dir() and not re.search(r"^__MACOSX/|(^|/)\.[^/]*$", f.filename)]
    if len(files) != 1:
        raise CanidsError(
            f"{path}: a zip of {len(files)} files, not of one; unpack it, each capture is a file of its own"
        )
    return cast(BinaryIO, stack.enter_context(archive.open(files[0])))


def _unpacked(path: Path, compression: str) -> Iterator[bytes]:
    openers: dict[str, Callable[[Path], Any]] = {
        "gz": gzip.open,
        "xz": lzma.open,
        "bz2": bz2.open,
        "zst": lambda path: pa.input_stream(str(path), compression="zstd"),
    }
    try:
        with ExitStack() as stack:
            opener = openers.get(compression)
            stream = stack.enter_context(opener(path)) if opener else _member(path, stack)
            while part := stream.read(_PART):
                yield part
    except _DAMAGE as error:
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        raise CanidsError(
            f"{path}: cannot be unpacked ({compression}: {reason}); it is cut off, damaged or encrypted"
        ) from None


def _as_utf_8(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    with stream:
        while part := stream.read(_PART):
            yield decoder.decode(part).removeprefix("\ufeff").encode()
        yield decoder.decode(b"", final=True).encode()


class _Parts(io.RawIOBase):
    """Parts of a content as a file that can be read from."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _buffered(parts: Iterator[bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Parts(parts), _PART)


def open_capture(path: Path) -> io.BufferedReader:
    """Open a capture: its content unpacked where it is compressed, as UTF-8 where it is UTF-16.

    Reading raises `CanidsError` naming the file if it is cut off, damaged, encrypted, or a zip of several files; opening, if
    it is a log that is still being written, which is read as it is.
    """
    stream = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    compression = _compression(stream.peek(8))
    if compression:
        stream.close()
        stream = _buffered(_unpacked(path, compression))
    encoding = _UTF_16.get(stream.peek(2)[:2])
    if encoding:
        stream = _buffered(_as_utf_8(stream, encoding))
    if isinstance(path, Growing) and (compression or encoding):
        stream.close()
        raise CanidsError(
            f"{path}: {compression or encoding} cannot be read while it is written; score the finished file"
        )
    return stream


def name_of(path: Path) -> str:
    """Name of a capture's file, without the suffix of its compression."""
    return path.stem if path.suffix.lower().removeprefix(".") in _MAGIC.values() else path.name


def unpacking(
    read: Callable[[Path, dict[str, Any]], Iterator[Batch]],
) -> Callable[[Path, dict[str, Any]], Iterator[Batch]]:
    """A reader of a binary format that takes compressed files too: it is given a copy, since it goes to and fro in the file."""

    def read_unpacked(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
        beginning = b""
        if path.is_file():
            with open(path, "rb") as stream:
                beginning = stream.read(8)
        if not _compression(beginning):
            yield from read(path, entry)
            return
        with TemporaryDirectory(prefix="canids-unpacked-") as folder:
            copy = Path(folder) / name_of(path)
            with open_capture(path) as packed, open(copy, "wb") as plain:
                shutil.copyfileobj(packed, plain, _PART)
            try:
                yield from read(copy, entry)
            except CanidsError as error:
                raise CanidsError(str(error).replace(str(copy), str(path))) from None

    return read_unpacked
