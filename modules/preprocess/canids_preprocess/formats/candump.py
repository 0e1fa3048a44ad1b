"""`candump -l` of can-utils, and ROAD, whose captures are such logs beside a metadata file that says what was injected.

A line is `(seconds) interface ID#payload`: three hexadecimal digits are an 11-bit ID, eight a 29-bit one; `ID#R` or
`ID#R4` is a remote frame (with its DLC), `ID##1AABB` a CAN FD frame with its flags, the ending
`_9` to `_F` of a payload the raw DLC of a classical frame with eight bytes. A trailing R or T is the direction (received,
sent), no label. CAN-MIRGU (Rajapaksha et al. 2024) has a label behind each frame, 0 or 1. A line whose ID is SocketCAN's error flag (0x20000000) with classes of errors is an error message, no frame.

Source: can-utils, `man candump`, and `lib.h` (`sprint_canframe`, `parse_canframe`); Linux `include/uapi/linux/can.h` and
`can/error.h`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess.formats.base import Batch, Format
from canids_preprocess.formats.compressed import name_of
from canids_preprocess.formats.growing import Growing
from canids_preprocess.formats.last_frame import ends_amid_a_line, without_cut_frame
from canids_preprocess.formats.text import first_bytes, head_lines, labelled, mostly, quoted, read_rows
from canids_shared.contracts.manifest import ROAD_METADATA
from canids_shared.errors import CanidsError

SHAPE = "'(seconds) interface ID#payload'"
_LINE = r"^\(([^)]*)\) +([^ ]+) +([^ #]+)#([^ ]*)(?: +[RT])?[ \t]*$"
_SNIFF = r"^\([0-9.]+\) +[^ ]+ +[0-9A-Fa-f]{1,8}#[^ ]*(?: +[RT])?[ \t]*$"
_PLAIN = re.compile(
    r"^\(([0-9]{1,12}\.[0-9]{1,9})\) ([\w.:-]+) ([0-7][0-9A-F]{2}|[01][0-9A-F]{7})#((?:[0-9A-F]{2}){0,8})(?: [RT])?\r?\n",
    re.ASCII | re.IGNORECASE | re.MULTILINE,
)
"""Most lines: those of classical frames that are no remote frames."""
_ERROR = "^20000[0-3][0-9A-Fa-f]{2}$"
"""The error flag, and the classes of errors that there are (up to `CAN_ERR_CNT`, 0x200)."""
_LONGEST_S = 31_536_000  # a year, as for the manifest's own intervals
_REMOTE = r"^R([0-9A-Fa-f]?)(?:_[9A-Fa-f])?$"
_LABEL = r"[ \t]+([01])[ \t]*$"
_LABELLED = rf"^\([^)]*\) +[^ ]+ +[^ #]+#[^ ]*(?: +[RT])?{_LABEL}"


def _fields(table: pl.DataFrame) -> pl.DataFrame:
    # FD and remote frames are rare: their columns are made only where a batch has some.
    rows = table.with_columns(
        pl.col("text").str.extract_groups(_LINE).struct.rename_fields(["seconds", "channel", "identifier", "data"]).alias("f")
    ).unnest("f")  # fmt: skip
    digits = pl.col("identifier").str.len_bytes()
    rows = rows.with_columns(
        extended=digits == 8,
        remote=pl.col("data").str.starts_with("R").fill_null(False),
        fd=pl.col("data").str.starts_with("#").fill_null(False),
        event=pl.col("identifier").str.contains(_ERROR),
        reason=pl.when(digits.is_in([3, 8]).not_()).then(
            quoted("arbitration ID", "identifier", "has neither three digits (11 bits) nor eight (29 bits)")
        ),
        written=pl.col("data"),
    )
    if rows["fd"].any():
        no_flags = pl.col("fd") & pl.col("data").str.contains("^#[0-9A-Fa-f]").not_()
        rows = rows.with_columns(
            written=pl.when("fd").then(pl.col("data").str.slice(2)).otherwise("written"),
            reason=pl.coalesce("reason", pl.when(no_flags).then(quoted("payload", "data", "has no CAN FD flags"))),
        )
    if rows["remote"].any():
        length = pl.col("data").str.extract(_REMOTE)
        rows = rows.with_columns(
            announced=pl.when("remote").then(length.replace("", "0").str.to_integer(base=16, strict=False)),
            written=pl.when("remote").then(pl.lit("")).otherwise("written"),
            reason=pl.coalesce(
                "reason",
                pl.when(pl.col("remote") & length.is_null()).then(
                    quoted("remote frame", "data", "is not R and its DLC")
                ),
            ),
        )
    # `_9` to `_F` behind eight bytes: the raw DLC of a classical frame, whose length is eight all the same.
    raw_dlc = pl.col("written").str.contains("^[0-9A-Fa-f]{16}_[9A-Fa-f]$") & ~pl.col("fd")
    written = pl.when(raw_dlc).then(pl.col("written").str.slice(0, 16)).otherwise("written")
    return rows.with_columns(payload=written.str.decode("hex", strict=False))


def _refuse(path: Path, rows: pl.DataFrame) -> None:
    """Raise `CanidsError` at the first of the rows that differ from the others in having a label, or none."""
    if len(rows):
        raise CanidsError(
            f"{path}, line {rows['line'][0]}: some rows have a label (0 or 1) behind the frame and others none; write 0 behind "
            "those (format: can-mirgu), or remove the labels and give 'attacked' intervals"
        )


def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a log of `candump -l`; labels are null. Raises `CanidsError` if some rows have a label: they would be rejects."""

    def fields(table: pl.DataFrame) -> pl.DataFrame:
        rows = _fields(table)
        _refuse(path, rows.filter(pl.col("seconds").is_null()).filter(pl.col("text").str.contains(_LABELLED)))
        return rows

    batches = read_rows(path, fields, SHAPE, trim=True, plain=_PLAIN)
    # A log that is followed gives whole lines only.
    return batches if isinstance(path, Growing) else without_cut_frame(path, batches)


def read_mirgu(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a log with a label behind each frame. Raises `CanidsError` if some rows have none: are they attacked or not?

    A last line without line end that has none was cut, and is a reject.
    """
    cut = ends_amid_a_line(path)
    held = pl.DataFrame(schema={"line": pl.UInt64})

    def fields(table: pl.DataFrame) -> pl.DataFrame:
        nonlocal held
        if len(held) and len(table) and table["line"][-1] > held["line"][0]:
            _refuse(path, held)
        label, text = table["text"].str.extract(_LABEL), table["text"]
        unlabelled = table.filter(label.is_null() & text.str.contains(_LINE))
        if cut and len(unlabelled) == 1 and unlabelled["line"][0] == table["line"][-1]:
            held, unlabelled = unlabelled, unlabelled.clear()
        _refuse(path, unlabelled)
        rows = _fields(table.with_columns(text.str.replace(_LABEL, "")))
        no_label = pl.lit("the last line has neither label nor line end: it was cut")
        reason = pl.when(pl.col("line").is_in(held["line"].implode())).then(no_label).otherwise("reason")
        return rows.with_columns(text, label=label.cast(pl.UInt8), reason=reason)

    return read_rows(path, fields, SHAPE.replace("payload'", "payload label'"), trim=True)


@dataclass(frozen=True)
class Injection:
    """The attack on a capture by ROAD's metadata.

    Attributes:
        interval: seconds since the first frame, both ends included; None: the whole capture.
        can_id: the injected ID; None: every ID.
        data: regular expression for the whole payload in capital hexadecimal digits; None: every payload.
        digits: length of the pattern; shorter payloads are filled up with zeros on the left, as ROAD's own code does.
    """

    interval: tuple[float, float] | None
    can_id: int | None
    data: str | None
    digits: int

    def attacked(self, elapsed: pl.Expr) -> pl.Expr:
        """Whether a frame, `elapsed` seconds after the first one, is attacked."""
        attacked = pl.lit(True)
        if self.interval:
            attacked = attacked & elapsed.is_between(*self.interval)
        if self.can_id is not None:
            attacked = attacked & (pl.col("can_id") == self.can_id)
        if self.data is not None:
            digits = pl.col("payload").bin.encode("hex").str.to_uppercase().str.pad_start(self.digits, "0")
            attacked = attacked & digits.str.contains(self.data)
        return attacked


def _interval(value: Any, place: str) -> tuple[float, float] | None:
    if value is None:
        return None
    numbers = isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) for v in value)
    # JSON as Python reads it may hold NaN, which compares false, and integers beyond any float.
    if not numbers or not 0 <= value[0] <= value[1] <= _LONGEST_S:
        raise CanidsError(f"{place}: injection_interval is {json.dumps(value)[:80]}, not [from, to] in seconds")
    return float(value[0]), float(value[1])


def injection_of(metadata: Path, capture: str) -> Injection:
    """The attack on a capture (its file name without `.log`) by ROAD's metadata file.

    Raises `CanidsError` naming the file and the key if there is no such entry, or one that cannot be understood.
    """
    try:
        content = json.loads(metadata.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CanidsError(f"{metadata}: no such file; set 'metadata' in the manifest to ROAD's metadata") from None
    except OSError as error:
        raise CanidsError(f"{metadata}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise CanidsError(f"{metadata}: not JSON") from None
    # Either the entry of one capture alone, or entries by the captures' names.
    known = content if isinstance(content, dict) else {}
    injection = known if "injection_interval" in known else known.get(capture)
    if not isinstance(injection, dict):
        raise CanidsError(f"{metadata}: no entry '{capture}', the capture's file name without .log")
    place = f"{metadata}: {capture}"
    if "injection_interval" not in injection:
        raise CanidsError(f"{place}: no injection_interval; give [from, to] in seconds, or null for the whole capture")
    # The paper's repository and copies of the data name these two keys differently.
    written_id = injection.get("injection_id", injection.get("injected_aid"))
    written_data = injection.get("injection_data_str", injection.get("injection_data"))
    can_id = None
    if written_id is not None and not re.fullmatch("[Xx]+", str(written_id)):
        if not re.fullmatch("(0[xX])?[0-9A-Fa-f]{1,8}", str(written_id)):
            raise CanidsError(f"{place}: injection_id is '{str(written_id)[:40]}', not a hexadecimal ID, XXX or null")
        can_id = int(str(written_id), 16)
    pattern = None
    if written_data is not None:
        if not re.fullmatch("[0-9A-Fa-fXx]{0,128}", str(written_data)):
            raise CanidsError(
                f"{place}: injection_data_str is '{str(written_data)[:40]}', not hexadecimal digits and X"
            )
        pattern = str(written_data).upper()
    return Injection(
        interval=_interval(injection.get("injection_interval"), place),
        can_id=can_id,
        data=None if pattern is None else f"^{pattern.replace('X', '.')}$",
        digits=len(pattern or ""),
    )


def read_road(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a capture of ROAD (Verma et al. 2024, "A comprehensive guide to CAN IDS data and introduction of the ROAD dataset").

    A frame is attacked if it lies within `injection_interval`, has the injected ID, and its payload fits
    `injection_data_str`, where X stands for any digit. An ID of null (or XXX) means any: in the fuzzing captures,
    frames of all IDs with the payload FFFFFFFFFFFFFFFF were injected, so the payload alone decides. The accelerator
    attacks name neither ID nor payload: the vehicle had been brought into another state before, no frame of the capture
    was injected, and so every frame of the interval (where it is null: of the capture) is attacked. In masquerade
    captures the replaced frames are the ones that fit.

    `entry["metadata"]` is the metadata file; without it, `capture_metadata.json` beside the capture. Only captures whose
    `content` is `labelled` need one; the others, and those with intervals `attacked` instead, get no labels here.

    Raises `CanidsError` if the metadata is absent or unfit.
    """
    first_bytes(path)
    injection = None
    intervals_alone = entry.get("attacked") and not entry.get("metadata")
    if entry.get("content", "labelled") == "labelled" and not intervals_alone:
        injection = injection_of(Path(entry.get("metadata") or path.with_name(ROAD_METADATA)), Path(name_of(path)).stem)
    return labelled(read(path, entry), injection.attacked if injection else None, entry.get("timestamp_unit"))


def _has_labels(beginning: bytes) -> bool:
    return bool(head_lines(beginning).str.contains(_LABELLED).any())


def _is_candump(beginning: bytes) -> bool:
    return mostly(beginning, _SNIFF) and not _has_labels(beginning)


def _is_road(path: Path, beginning: bytes) -> bool:
    """A log whose folder's `capture_metadata.json` has an entry of its name."""
    if not _is_candump(beginning):
        return False
    try:
        content = json.loads(path.with_name(ROAD_METADATA).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and Path(name_of(path)).stem in content


CANDUMP = Format(read, lambda path, beginning: _is_candump(beginning) and not _is_road(path, beginning), labelled=False)
ROAD = Format(read_road, _is_road, labelled=True)
CAN_MIRGU = Format(
    read_mirgu,
    lambda path, beginning: _has_labels(beginning) and mostly(beginning, f"{_SNIFF}|{_LABELLED}"),
    labelled=True,
)
