"""Turn one raw capture into frames: `python -m canids_preprocess.ingest --spec JSON --output X.parquet --capture RAW`.

Rows read = frames: a row that cannot be understood stops the job with file, line and reason.
"""

from pathlib import Path
from typing import Any

import polars as pl

from canids_shared import cli, tables
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of

CTT_HEADER = ["timestamp", "arbitration_id", "data_field", "attack"]
MAX_STANDARD_ID = 0x7FF
MAX_EXTENDED_ID = 0x1FFFFFFF
MAX_BYTES = {False: 8, True: 64}
"""Payload bytes of classical CAN and of CAN FD (ISO 11898-1:2015)."""


def _ragged_line(path: Path) -> str:
    """Say which line has the wrong number of fields or is no text; called only once reading has failed."""
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.count(b",") + 1
            if fields != len(CTT_HEADER):
                return f"{path}, line {number}: {fields} fields instead of {len(CTT_HEADER)}"
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"{path}, line {number}: not text in UTF-8"
    return f"{path}: not a CSV file in UTF-8"


def _printable(text: str, length: int = 160) -> str:
    """`text` on one line of bounded length: a damaged capture may hold anything."""
    return "".join(c if c.isprintable() else "�" for c in text[:length])


def _read_text(path: Path) -> pl.DataFrame:
    """All fields as text, one row a line, in the file's order."""
    try:
        with open(path, "rb") as stream:
            first = stream.readline().decode("utf-8-sig").strip()
    except FileNotFoundError:
        raise CanidsError(f"{path}: no such file; is data_root right?") from None
    except UnicodeDecodeError:
        raise CanidsError(f"{path}, line 1: not text in UTF-8") from None
    if first.split(",") != CTT_HEADER:
        raise CanidsError(f"{path}, line 1: header is '{_printable(first, 80)}', not '{','.join(CTT_HEADER)}'")
    try:
        text = pl.read_csv(
            path,
            has_header=False,
            skip_lines=1,
            new_columns=CTT_HEADER,
            schema=dict.fromkeys(CTT_HEADER, pl.String),
            empty_string_is_null=False,
            missing_columns="raise",
            extra_columns="raise",
            raise_if_empty=False,
            quote_char=None,
        )
    except pl.exceptions.PolarsError:
        raise CanidsError(_ragged_line(path)) from None
    if not len(text):
        raise CanidsError(f"{path}: no frames below the header")
    return text


def _reasons() -> pl.Expr:
    """Why a row cannot be read, or null."""
    payload = pl.col("data_field")
    found = pl.col("arbitration_id").str.to_integer(base=16, dtype=pl.Int64, strict=False)
    return (
        pl.when(pl.col("timestamp").cast(pl.Float64, strict=False).is_finite().fill_null(False).not_())
        .then(pl.format("timestamp '{}' is not a number of seconds", "timestamp"))
        .when(pl.col("arbitration_id").str.contains("^[0-9A-Fa-f]{1,8}$").not_())
        .then(pl.format("arbitration_id '{}' is not a hexadecimal number", "arbitration_id"))
        .when(found > MAX_EXTENDED_ID)
        .then(pl.format("arbitration_id '{}' has more than 29 bits", "arbitration_id"))
        .when(payload.str.contains("^([0-9A-Fa-f]{2})*$").not_())
        .then(pl.format("data_field '{}' is not a row of hexadecimal bytes", "data_field"))
        .when(payload.str.len_bytes() > 2 * MAX_BYTES[True])
        .then(pl.format("data_field has more than {} bytes", pl.lit(MAX_BYTES[True])))
        .when(pl.col("attack").is_in(["0", "1"]).not_())
        .then(pl.format("attack '{}' is neither 0 nor 1", "attack"))
    )


def _refuse_bad_rows(path: Path, text: pl.DataFrame) -> None:
    bad = text.with_row_index("row").select("row", reason=_reasons()).filter(pl.col("reason").is_not_null())
    if len(bad):
        row, reason = bad.row(0)
        more = f" (and {len(bad) - 1} more rows)" if len(bad) > 1 else ""
        raise CanidsError(f"{path}, line {row + 2}: {_printable(reason)}{more}; mend or remove the line")


def _refuse_steps_back(path: Path, timestamp: pl.Series, tolerance: float) -> int:
    """Number of frames whose time lies before the frame above, within the tolerance; beyond it is an error."""
    step = timestamp.diff()
    worst = step.arg_min()
    if worst is not None and step[worst] < -tolerance:
        raise CanidsError(
            f"{path}, line {worst + 2}: the timestamp steps back by {-step[worst]:.6f} s, more than "
            f"timestamp_tolerance ({tolerance} s); sort the capture or cut it there"
        )
    return int((step < 0).sum())


def read_can_train_and_test(path: Path, attack: str | None, content: str, tolerance: float) -> tuple[pl.DataFrame, int]:
    """Read `timestamp,arbitration_id,data_field,attack` (seconds, hex, packed hex, 0/1; Lampe & Meng 2023).

    Returns the frames (`canids_shared.tables.FRAMES`) and how many timestamps step back within the tolerance (seconds).
    Raises `CanidsError` with file and line for the first row that is malformed.
    """
    text = _read_text(path)
    _refuse_bad_rows(path, text)
    label = pl.lit(None, dtype=pl.UInt8) if content == "unlabelled" else pl.col("attack").cast(pl.UInt8)
    size = (pl.col("data_field").str.len_bytes() // 2).cast(pl.UInt8)
    # 11-bit identifiers are written with three digits; a longer one is a 29-bit identifier, however small its value.
    extended = (pl.col("arbitration_id").str.len_bytes() > 3) | (pl.col("can_id") > MAX_STANDARD_ID)
    frames = (
        text.with_columns(can_id=pl.col("arbitration_id").str.to_integer(base=16, dtype=pl.UInt32))
        .with_columns(extended=extended)
        .select(
            timestamp=pl.col("timestamp").cast(pl.Float64),
            can_id="can_id",
            extended="extended",
            remote=pl.lit(False),
            fd=size > MAX_BYTES[False],
            dlc=size,
            payload=pl.col("data_field").str.decode("hex"),
            channel=pl.lit(None, dtype=pl.String),
            label=label,
            attack=pl.when(label == 1).then(pl.lit(attack or "attack")).otherwise(pl.lit("")),
        )
    )
    if content == "attack-free" and frames["label"].max() == 1:
        line = int(frames["label"].arg_max() or 0) + 2
        raise CanidsError(f"{path}, line {line}: an attacked frame, but the manifest calls the capture attack-free")
    return frames, _refuse_steps_back(path, frames["timestamp"], tolerance)


def main(call: cli.Call) -> None:
    """Entry point; the rule's constant `capture` is the manifest's entry."""
    entry: dict[str, Any] = call.constants["capture"]
    (path,) = call.inputs["capture"]
    frames, stepped_back = read_can_train_and_test(
        path, entry["attack"], entry["content"], call.config["timestamp_tolerance"]
    )
    metadata = {
        "capture": entry["name"],
        "vehicle": entry["vehicle"],
        "format": entry["format"],
        "content": entry["content"],
        "attack": entry["attack"],
        "sha256": sha256_of(path),
        "rows_read": len(frames),
        "frames": len(frames),
        "rejects": 0,
        "stepped_back": stepped_back,
    }
    tables.write(call.output["output"], tables.FRAMES, frames, metadata)


if __name__ == "__main__":
    cli.run(main, inputs=["capture"])
