"""The data sets of the Hacking and Countermeasure Research Lab: Car-Hacking, Survival, OTIDS.

Three layouts of a row, one a file, recognised by the file's first lines:

- attacked: `seconds,ID,DLC,byte,…,byte,flag` without header; the flag comes right after the last byte, T for an injected
  frame, R for any other. Copies begin with a byte order mark or a header, pad short rows with commas, or short payloads with zero
  bytes up to eight; bytes of zero beyond the DLC are therefore left out.
- listed: `seconds,ID,DLC,"byte byte …"` without header, attack-free (Survival).
- text: `Timestamp: seconds  ID: ID  000  DLC: 8  byte byte …`; the field behind the ID is 100 for a remote frame.

IDs have four hexadecimal digits, for 11 bits. Sources: Seo, Song, Kim 2018 (Car-Hacking: "GIDS: GAN based intrusion
detection system for in-vehicle network"); Han, Kwak, Kim 2018 (Survival: "Anomaly intrusion detection method for
vehicular networks based on survival analysis"); Lee, Jeong, Kim 2017 ("OTIDS: a novel intrusion detection system for
in-vehicle network by using remote frame"); the descriptions beside the data on the lab's site.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from canids_preprocess.formats import spreadsheet
from canids_preprocess.formats.base import BOM, MAX_STANDARD_ID, Batch, Format, printable
from canids_preprocess.formats.compressed import name_of
from canids_preprocess.formats.text import first_bytes, head_lines, labelled, mostly, quoted, read_rows
from canids_shared.errors import CanidsError

OTIDS_START = 250.0
"""Seconds after the first frame at which OTIDS's fuzzy and impersonation attacks begin."""
_BYTE = "[0-9A-Fa-f]{2}"
_HEADER = r"(?i)[\"']?time[ _-]?(stamp)?[\"']?,.*(id|dlc)"
"""Names of columns, which some copies have above the rows."""


@dataclass(frozen=True)
class Layout:
    """How a row is written.

    Attributes:
        shape: for the reason of a line that is not so.
        row: regular expression with the groups `names`; of an attacked row, for what follows the DLC.
        sniff: regular expression that tells the layout from the others, damage by a spreadsheet included.
        data: regular expression for the bytes, separators included.
        names: the columns that the groups of `row` become.
    """

    shape: str
    row: str
    sniff: str
    data: str
    names: tuple[str, ...]


ATTACKED = Layout(
    "'seconds,ID,DLC,byte,...,byte,flag' with flag R or T",
    r"^(?:[^,]*,)*[RT],*$",
    r"^[-+.0-9Ee]+,[^,]{1,8},[0-9]{1,2},(?:[0-9A-Fa-f]{1,2},)*[RT],*$",
    rf"^(?:{_BYTE},)*$",
    (),
)
LISTED = Layout(
    "'seconds,ID,DLC,\"byte byte ...\"'",
    r'^([^,]*),([^,]*),([^,]*),"?([^",]*)"?,*$',
    r'^[-+.0-9Ee]+,[^,]{1,8},[0-9]{1,2},"?[0-9A-Fa-f ]*"?,*$',
    rf"^(?:{_BYTE}(?: +|$))*$",
    ("seconds", "identifier", "length", "data"),
)
TEXT = Layout(
    "'Timestamp: seconds ID: ID 000 DLC: n byte byte ...'",
    r"^Timestamp:[ \t]*([^ \t]+)[ \t]+ID:[ \t]*([^ \t]+)[ \t]+([^ \t]+)[ \t]+DLC:[ \t]*([^ \t]+)[ \t]*(.*)$",
    r"^Timestamp:.*ID:.*DLC:",
    rf"^(?:{_BYTE}(?:[ \t]+|$))*$",
    ("seconds", "identifier", "flag", "length", "data"),
)
LAYOUTS = (ATTACKED, LISTED, TEXT)


def _split(table: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """The fields of rows as text."""
    if layout is not ATTACKED:
        groups = pl.col("text").str.extract_groups(layout.row).struct.rename_fields(list(layout.names))
        return table.with_columns(f=groups).unnest("f")
    # Attacked rows fill the largest files, and to split them takes half the time of a regular expression's groups.
    parts = pl.col("text").str.splitn(",", 4).struct.rename_fields(["seconds", "identifier", "length", "rest"])
    rows = table.with_columns(f=parts).unnest("f")
    # What follows the DLC: bytes, each with a comma, then the flag, then commas of copies that pad short rows.
    rest = pl.when(pl.col("rest").str.contains(ATTACKED.row)).then(pl.col("rest").str.strip_chars_end(","))
    return rows.with_columns(rest=rest).with_columns(
        seconds=pl.when(pl.col("rest").is_not_null()).then("seconds"),
        data=pl.col("rest").str.head(-1),
        flag=pl.col("rest").str.tail(1),
    )


def _fields(layout: Layout) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The fields of rows in a layout, for `read_rows`."""
    # What is different between the layouts, once for a file; `fields` then runs for each batch of it.
    length, flag = pl.col("length"), pl.col("flag")
    remote = (flag == "100").fill_null(False) if layout is TEXT else pl.lit(False)
    bad_flag = flag.is_in(["000", "100"]).not_() if layout is TEXT else pl.lit(False)
    label = (flag == "T").cast(pl.UInt8) if layout is ATTACKED else pl.lit(None, dtype=pl.UInt8)

    def fields(table: pl.DataFrame) -> pl.DataFrame:
        rows = _split(table, layout)
        if layout is ATTACKED:
            # Copies that fill payloads up with zeros are cut back to the DLC.
            kept = 3 * length.cast(pl.UInt32, strict=False)  # two digits and a comma a byte
            padded = pl.col("data").str.slice(kept).str.contains("^(?:00,)+$")
            rows = rows.with_columns(data=pl.when(padded).then(pl.col("data").str.slice(0, kept)).otherwise("data"))
        hexadecimal = pl.col("data").str.replace_all(r"[, \t]", "")
        return rows.with_columns(
            announced=length.cast(pl.Int64, strict=False),
            payload=pl.when(pl.col("data").str.contains(layout.data)).then(hexadecimal.str.decode("hex", strict=False)),
            extended=(pl.col("identifier").str.len_bytes() > 4)
            | (pl.col("identifier").str.to_integer(base=16, strict=False) > MAX_STANDARD_ID).fill_null(False),
            remote=remote,
            label=label,
            reason=pl.when(length.str.contains("^[0-9]{1,2}$").not_())
            .then(quoted("DLC", "length", "is not a number of bytes"))
            .when(bad_flag)
            .then(quoted("field", "flag" if layout is TEXT else "length", "behind the ID is neither 000 nor 100")),
        )

    return fields


def _rows(beginning: bytes) -> bytes:
    """The beginning of a file without the names of columns above the rows."""
    first, _, rest = beginning.removeprefix(BOM).partition(b"\n")
    return rest if rest and re.match(_HEADER, first.decode("latin-1")) else beginning


def read(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read a file in any of the three layouts; labels are null unless its rows carry flags R and T.

    Raises `CanidsError` if it is in none of them, or a spreadsheet has mangled it.
    """
    beginning = first_bytes(path, spreadsheet.HEAD)
    layout = next((layout for layout in LAYOUTS if mostly(_rows(beginning), layout.sniff)), None)
    if layout is None:
        first = printable(head_lines(beginning)[0], 80)
        raise CanidsError(f"{path}, line 1: '{first}' begins no capture of Car-Hacking, Survival or OTIDS")
    if layout is not TEXT:
        spreadsheet.refuse(path, pattern=layout.sniff, bytes_apart=True)
    return read_rows(path, _fields(layout), layout.shape, header=_rows(beginning) != beginning, trim=True)


def read_otids(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    """Read OTIDS, whose files carry no labels, and label them by the documentation beside them.

    In the DoS capture the injected frames are those of ID 0. Fuzzy and impersonation begin 250 s after the first frame;
    which frames were injected is not documented, so every one from then on is attacked. `entry["attack"]` is the attack.
    Captures whose `content` is not `labelled`, or with intervals `attacked` of their own, get no labels here.

    Raises `CanidsError` as `read`, or if a labelled capture's attack is none of the three.
    """
    if entry.get("content", "labelled") != "labelled" or entry.get("attacked"):
        return read(path, entry)
    attack = str(entry.get("attack") or "")
    if not re.search("dos|fuzz|imperson", attack.lower()):
        raise CanidsError(
            f"{path}: OTIDS is labelled by its attack: set 'attack' in the manifest to dos, fuzzy or impersonation"
            f", not '{printable(attack, 40)}'"
        )
    dos = "dos" in attack.lower()
    unit = entry.get("timestamp_unit")
    return labelled(read(path, entry), lambda elapsed: pl.col("can_id") == 0 if dos else elapsed >= OTIDS_START, unit)


def _is_otids(path: Path, beginning: bytes) -> bool:
    """Text under one of the names in which OTIDS is published, or with remote frames, which the other sets lack."""
    name = re.fullmatch(
        "(attack_free|dos_attack|fuzzy_attack|impersonation_attack)_dataset", Path(name_of(path)).stem.lower()
    )
    return mostly(beginning, TEXT.sniff) and (
        name is not None or bool(head_lines(beginning).str.contains(r"[ \t]100[ \t]").any())
    )


def _is_car_hacking(path: Path, beginning: bytes) -> bool:
    """Survival's attacked captures and its text are written alike, and read alike."""
    return mostly(_rows(beginning), ATTACKED.sniff) or (
        mostly(beginning, TEXT.sniff) and not _is_otids(path, beginning)
    )


CAR_HACKING = Format(read, _is_car_hacking, labelled=True)
SURVIVAL = Format(read, lambda path, beginning: mostly(_rows(beginning), LISTED.sniff), labelled=True)
OTIDS = Format(read_otids, _is_otids, labelled=True)
