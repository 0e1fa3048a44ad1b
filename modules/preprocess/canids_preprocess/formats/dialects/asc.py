"""ASC (Vector), through polars.

A classical frame is `seconds channel ID Rx d DLC bytes …`, a remote one has `r`; an ID that ends with x has 29 bits. Other fields
follow, such as `ID = 256`, which says the ID in decimal where the field holds a name instead. A row `seconds CANFD channel Rx ID …`
says by its flags, the third field behind the data, whether it is a CAN FD frame (0x1000) or a remote one (0x10). `base dec` makes
IDs, DLCs and bytes decimal. Comments, headers, and lines about the bus or the logger are no rows: error frames, statistics, status,
triggers, messages of LIN (`Li`), FlexRay and Ethernet, environment variables (`name := value`), signals (`a::b = value`), transmit requests (`TxRq`; the frame follows as `Tx`), messages of transport protocols.

Times count from the start of the measurement. Source: Vector, "CAN Log and Trigger ASC Format Specification"; python-can, `can.ASCReader`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess.formats.base import MAX_BYTES, Batch, Format
from canids_preprocess.formats.dialects.numerals import BYTES_IN_HEX, in_hex
from canids_preprocess.formats.text import mostly, quoted, read_rows
from canids_shared.errors import CanidsError

SHAPE = "'seconds channel ID Rx d DLC byte ...' or 'seconds CANFD channel Rx ID ...'"
_HEADER = r"(?i)^\s*$|^\s*(date\s|base\s+(hex|dec)|(no\s+)?internal\s+events|//|(begin|end)\s+triggerblock)"
_BASE = r"(?i)^\s*base\s+(hex|dec)"
_RELATIVE = r"(?i)^\s*base\s+(hex|dec)\s+timestamps\s+relative"
_EVENT = (
    r"(?i)^\s*\d+\.\d+\s+((\d+\s+|CAN\s+\d+\s+|CANFD\s+\d+\s+((Rx|Tx)\s+)?)?(ErrorFrame|Status:|Statistic:|J1939TP|OverloadFrame)"
    r"|(\d+\s+\S+|CANFD\s+\d+)\s+TxRq\s|CANFD\s+[^\d\s]"
    r"|Start of measurement|log trigger event|previous log|Trigger|SV:|CPU\s|TFS:|EthernetStatus|CAN\s+\d+\s+Status|LIN|Li\s|L\d+\s|Fr\s|ETH|GPS-|\S+\s*:=|[^\s:]+::\S+\s*=)"
)
_CLASSICAL = r"(?i)^\s*(\d+\.\d+)\s+(\d+)\s+(\S+)\s+(?:Rx|Tx)\s+([dr])(?:\s+([0-9A-F]+))?(\s.*)?$"
_FD = r"(?i)^\s*(\d+\.\d+)\s+CANFD\s+(\d+)\s+(?:Rx|Tx)\s+(\S+)\s+(?:\S*[^\d\s]\S*\s+)?[01]\s+[01]\s+([0-9A-F]+)\s+(\d+)(\s.*)?$"
_ROW = rf"{_HEADER}|{_EVENT}|{_CLASSICAL}|{_FD}"
_NAMES = ["seconds", "channel", "identifier", "kind", "length", "rest"]
_FD_NAMES = ["seconds", "channel", "identifier", "length", "size", "rest"]
_NAME = "^[A-Za-z_]"
_USUAL = "^(?:[0-9A-Fa-f]{2}(?: |$))*$"
_NAMED = r"\bID\s*=\s*([0-9]+)(x?)"
_FD_FLAG, _REMOTE_FLAG, _FLAGS = 0x1000, 0x10, 2


class _Reader:
    """Fields of the rows of one log, for `read_rows`; knows the number base and whether IDs are names from one batch to the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._base: bool | None = None  # whether decimal; None: not declared yet
        self._rows_before = 0  # rows read before a base was declared
        self._names = False

    def fields(self, table: pl.DataFrame) -> pl.DataFrame:
        """The fields of rows; headers and comments are left out."""
        rows = table.with_columns(decimal=self._decimal(table)).filter(~pl.col("text").str.contains(_HEADER))
        rows = rows.with_columns(event=pl.col("text").str.contains(_EVENT))
        if self._base is None:
            self._rows_before += int((~rows["event"]).sum())
        groups = pl.col("text").str.extract_groups(_CLASSICAL).struct.rename_fields(_NAMES)
        rows = rows.with_columns(f=groups).unnest("f").with_columns(fd_row=pl.lit(False), size=pl.lit(None, pl.String))
        if rows["text"].str.contains("CANFD", literal=True).any():
            groups = pl.col("text").str.extract_groups(_FD).struct.rename_fields(_FD_NAMES)
            canfd = rows.select(f=groups).unnest("f")
            canfd = canfd.with_columns(fd_row=canfd["seconds"].is_not_null(), kind=pl.lit(None, pl.String))
            names = (*_NAMES, "size", "fd_row")
            rows = rows.with_columns(canfd[name].zip_with(canfd["fd_row"], rows[name]) for name in names)
        return self._with_payload(self._with_id(rows))

    def _decimal(self, table: pl.DataFrame) -> pl.Series:
        """Whether each line is in base 10. Raises `CanidsError` for times that are relative, or a base behind rows in another."""
        relative = table.filter(pl.col("text").str.contains(_RELATIVE))
        if len(relative):
            raise CanidsError(
                f"{self._path}: timestamps are relative to the last event; export the log with absolute timestamps"
            )
        declared = table["text"].str.extract(_BASE).str.to_lowercase() == "dec"
        first = declared.drop_nulls().first()
        if first is not None:
            at = int(declared.is_not_null().arg_max() or 0)
            above = table[:at].filter(~pl.col("text").str.contains(f"{_HEADER}|{_EVENT}"))
            if self._base is None and first and self._rows_before + len(above):
                raise CanidsError(
                    f"{self._path}, line {table['line'][at]}: base dec below frames in no declared base; move it above them"
                )
        decimal = declared.forward_fill().fill_null(bool(self._base))
        if first is not None:
            self._base = decimal[-1]
        return decimal

    def _with_id(self, rows: pl.DataFrame) -> pl.DataFrame:
        written = pl.col("identifier")
        rows = rows.with_columns(
            written.str.replace("(?i)x$", ""),
            extended=written.str.contains("(?i)x$"),
            decimal_id=pl.when(~pl.col("fd_row")).then(pl.col("rest").str.extract(_NAMED)),
            decimal_x=pl.col("rest").str.extract(_NAMED, 2) == "x",
        )
        # In a log with names for IDs, a name may look like a number: `BAD`.
        is_number = pl.col("identifier").str.contains("^[0-9A-Fa-f]{1,8}$")
        is_name = pl.col("identifier").str.contains(_NAME) & ~is_number
        self._names = self._names or bool(rows.select((is_name & pl.col("decimal_id").is_not_null()).any()).item())
        named = pl.lit(self._names) & pl.col("decimal_id").is_not_null()
        complaint = quoted(
            "arbitration ID", "identifier", "is a name, and no 'ID = ...' follows; export the log with numbers"
        )
        rows = rows.with_columns(
            reason=pl.when(is_name & ~named & pl.col("seconds").is_not_null()).then(complaint),
            extended=pl.when(named).then("decimal_x").otherwise("extended"),
            decimal=pl.when(named).then(True).otherwise("decimal"),  # of the ID
            decimal_bytes=pl.col("decimal"),
            identifier=pl.when(named).then("decimal_id").otherwise("identifier"),
        )
        return rows.with_columns(in_hex(rows["identifier"], rows["decimal"]))

    def _with_payload(self, rows: pl.DataFrame) -> pl.DataFrame:
        """DLC, payload and flags."""
        length = pl.col("length").fill_null("0")
        dlc = (
            pl.when("decimal_bytes").then(length.str.to_integer(strict=False)).otherwise(length.str.to_integer(base=16, strict=False))
        )  # fmt: skip
        size = pl.col("size").str.to_integer(strict=False)
        rows = rows.with_columns(dlc=dlc, rest=pl.col("rest").fill_null("").str.strip_chars_start()).with_columns(
            # A classical frame with a DLC of 9 to 15 has eight bytes all the same.
            announced=pl.when("fd_row")
            .then(size)
            .when(pl.col("dlc").is_between(8, 15))
            .then(MAX_BYTES[False])
            .otherwise("dlc")
        )
        # No frame has more bytes than CAN FD, whatever a damaged row announces.
        count = pl.col("announced").clip(0, MAX_BYTES[True]).fill_null(0)
        # As a rule, one blank lies between two bytes, which needs no list of them.
        usual = pl.col("rest").str.slice(0, (3 * count - 1).clip(0))
        usual = pl.when(usual.str.contains(_USUAL) & ~pl.col("decimal_bytes")).then(
            usual.str.replace_all(" ", "", literal=True)
        )
        rows = rows.with_columns(digits=usual, flags=pl.lit(None, pl.Int64))
        if rows["digits"].null_count():
            byte, data = pl.element(), pl.col("rest").str.extract_all(r"\S+").list.head(count)
            decimal = data.list.eval(byte.replace_strict(BYTES_IN_HEX, default="?")).list.join("")
            unusual = pl.when("decimal_bytes").then(decimal).otherwise(data.list.eval(byte.str.zfill(2)).list.join(""))
            rows = rows.with_columns(digits=pl.coalesce("digits", unusual))
        if rows["fd_row"].any():
            flags = pl.col("rest").str.extract_all(r"\S+").list.get(pl.col("announced") + _FLAGS, null_on_oob=True)
            rows = rows.with_columns(flags=pl.when("fd_row").then(flags.str.to_integer(base=16, strict=False)))
        rows = rows.with_columns(
            data=pl.col("rest").str.strip_chars_end(),
            payload=pl.col("digits").str.decode("hex", strict=False),
            channel=(pl.col("channel").cast(pl.Int64, strict=False) - 1).cast(pl.String),  # as python-can counts
        )
        # Without flags, as python-can has it: a row of length 0 that announces more is a remote frame.
        empty = (pl.col("announced") == 0) & (pl.col("dlc") > 0)
        fd_bit, remote_bit = (pl.col("flags") // bit % 2 == 1 for bit in (_FD_FLAG, _REMOTE_FLAG))
        fd = fd_bit.fill_null(~empty) | (pl.col("announced") > MAX_BYTES[False])
        remote = (
            pl.when("fd_row").then(remote_bit.fill_null(empty) & ~fd).otherwise(pl.col("kind") == "r").fill_null(False)
        )
        asked_for = pl.when("fd_row").then(pl.col("dlc").clip(0, MAX_BYTES[False])).otherwise("announced")
        return rows.with_columns(
            fd=(pl.col("fd_row") & fd).fill_null(False),
            remote=remote,
            payload=pl.when(remote).then(pl.lit(b"")).otherwise("payload"),
            announced=pl.when(remote).then(asked_for).otherwise("announced"),
        )


def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a Vector ASC log. Raises `CanidsError` if its times count from the last event, or a base comes too late."""
    return read_rows(path, _Reader(path).fields, SHAPE)


ASC = Format(
    read,
    lambda path, beginning: mostly(beginning, _ROW) and not mostly(beginning, "^;"),
    labelled=False,
    unit_known=True,
)
