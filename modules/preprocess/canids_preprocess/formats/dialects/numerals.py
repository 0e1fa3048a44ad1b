"""Numbers as logs write them, in the spelling that `text.frames_and_rejects` reads: hexadecimal digits."""

import re

import polars as pl

BYTES_IN_HEX = {str(value): f"{value:02X}" for value in range(256)}
"""Of decimal bytes."""


def bytes_of(text: pl.Expr) -> pl.Expr:
    """Bytes of two hexadecimal digits with white space between them; null where it is something else."""
    whole = text.str.contains(r"^(?:[0-9A-Fa-f]{2}(?:\s+|$))*$")
    return pl.when(whole).then(text.str.replace_all(r"\s", "").str.decode("hex", strict=False))


def in_hex(written: pl.Series, decimal: pl.Series) -> pl.Series:
    """Arbitration IDs in hexadecimal digits, where those of `decimal` are written in decimal ones.

    What is no decimal number becomes `'text' in base 10`, which is refused as an ID. Fast where few different IDs occur, as on a bus.
    """
    if not decimal.any():
        return written
    different = written.filter(decimal).unique().drop_nulls().to_list()
    spelling = {
        text: f"{int(text):X}" if re.fullmatch("[0-9]{1,10}", text) else f"{text} in base 10" for text in different
    }
    converted = written.replace_strict(spelling, default=None, return_dtype=pl.String)
    table = pl.DataFrame({"written": written, "converted": converted, "decimal": decimal})
    return table.select(pl.when("decimal").then("converted").otherwise("written").alias(written.name)).to_series()
