"""Frames from a bus, through python-can: `interface:channel`, such as `socketcan:can0` or `slcan:/dev/ttyUSB0`."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from canids_preprocess.formats.base import Batch
from canids_preprocess.formats.growing import POLL, IdleTimeout, Wanted
from canids_preprocess.formats.objects import Row, batches
from canids_shared.errors import CanidsError

if TYPE_CHECKING:
    import can

_BUS = re.compile(r"([a-z][a-z0-9_]*):(.+)")
_AT_ONCE = 4096
log = logging.getLogger(__name__)


def is_bus(source: str) -> bool:
    """Whether a source is `interface:channel`, and no file. Where it could be a path, the interface has to be known."""
    match = _BUS.fullmatch(source)
    if not match or Path(source).exists():
        return False
    return "/" not in source or match[1] in _interfaces()


def _interfaces() -> frozenset[str]:
    import can  # noqa: PLC0415 (python-can takes two seconds to import, and logs do not need it)

    return frozenset(can.VALID_INTERFACES)


def read(source: str, timeout: IdleTimeout, wanted: Wanted) -> Iterator[Batch]:
    """Frames of a bus, once as many as are `wanted` are there, with python-can's timestamps; the line of a frame is its number from 1.

    Error frames are no frames: they are left out, and counted in the log. Further settings, such as `bitrate` or `fd`, are
    python-can's own (its configuration file, or the environment variable CAN_CONFIG).

    Raises `CanidsError` naming the source if the bus cannot be opened, or fails.
    """
    import can  # noqa: PLC0415 (as above)

    match = _BUS.fullmatch(source)
    assert match
    try:
        bus = can.Bus(interface=match[1], channel=match[2])
    except (can.CanError, OSError, ValueError, TypeError, ImportError) as error:
        known = "" if match[1] in _interfaces() else f"; interfaces: {', '.join(sorted(_interfaces()))}"
        raise CanidsError(f"{source}: cannot be opened: {_line(error)}{known}") from None
    rows: list[Row] = []
    with bus:
        try:
            yield from _read(bus, timeout, wanted, rows)
        except (can.CanError, OSError) as error:
            yield from batches(rows)
            raise CanidsError(f"{source}: fails: {_line(error)}") from None


def _read(bus: can.BusABC, timeout: IdleTimeout, wanted: Wanted, rows: list[Row]) -> Iterator[Batch]:
    """Frames of a bus; those of the next batch wait in `rows`."""
    line, errors, looked, since, over = 0, 0, 0.0, 0.0, False
    while not over:
        first: can.Message | None = bus.recv(POLL)
        if first is not None:
            timeout.renew()
            # What comes in the meantime waits in the bus's own queue: to look for every frame would take a whole core.
            time.sleep(max(0.0, looked + POLL - time.monotonic()))
        looked = time.monotonic()
        since = since if rows else looked
        message = first
        while message is not None:
            line += 1
            if message.is_error_frame:
                errors += 1
            else:
                rows.append(Row(line, message, _text(message)))
            message = bus.recv(0) if len(rows) < _AT_ONCE else None
        over = timeout.stopped or (first is None and timeout.over())
        frames, seconds = wanted()
        if over or len(rows) >= min(frames, _AT_ONCE) or looked - since >= seconds:
            yield from batches(rows)
            rows.clear()
    if errors:
        log.info("%d error frames are no frames and left out", errors)


def _text(message: can.Message) -> str:
    return f"{message.arbitration_id:X}#{message.data.hex()}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
