"""The capture formats: each a reader, how its files are recognised, and whether they can be labelled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from canids_preprocess.formats.base import Batch, Format
from canids_preprocess.formats.can_train_and_test import CAN_TRAIN_AND_TEST
from canids_preprocess.formats.candump import CAN_MIRGU, CANDUMP, ROAD
from canids_preprocess.formats.compressed import unpacking
from canids_preprocess.formats.dialects import DIALECTS
from canids_preprocess.formats.dialects.python_can_csv import PYTHON_CAN_CSV
from canids_preprocess.formats.hcrl import CAR_HACKING, OTIDS, SURVIVAL
from canids_preprocess.formats.mf4 import MF4
from canids_preprocess.formats.table.reader import TABLE
from canids_preprocess.formats.text import first_bytes
from canids_preprocess.formats.textlogs import TRC
from canids_shared.errors import CanidsError


def _read_blf(path: Path, entry: dict[str, Any]) -> Iterator[Batch]:
    from canids_preprocess.formats import blf  # noqa: PLC0415 (python-can takes two seconds to import)

    return blf.read(path, entry)


BLF = Format(
    read=unpacking(_read_blf),
    matches=lambda path, beginning: beginning.startswith(b"LOGG"),
    labelled=False,
    unit_known=True,
)
FORMATS: dict[str, Format] = {
    "can-train-and-test": CAN_TRAIN_AND_TEST,
    "hcrl-car-hacking": CAR_HACKING,
    "hcrl-survival": SURVIVAL,
    "otids": OTIDS,
    "road": ROAD,
    "candump": CANDUMP,
    "can-mirgu": CAN_MIRGU,
    "blf": BLF,
    "trc": TRC,
    "mf4": MF4,
    "python-can-csv": PYTHON_CAN_CSV,
    **DIALECTS,
    "table": TABLE,
}
"""By the names that a manifest uses."""


def fitting(path: Path) -> list[str]:
    """The names of the formats that a file may be in, from its first bytes. Raises `CanidsError` if it is absent or empty."""
    beginning = first_bytes(path)
    return [name for name, capture_format in FORMATS.items() if capture_format.matches(path, beginning)]


def recognise(path: Path) -> str:
    """The name of the format that a file is in, from its first bytes.

    Raises `CanidsError` if the file is absent or empty, or not exactly one format fits.
    """
    fits = fitting(path)
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise CanidsError(f"{path}: may be {' or '.join(fits)}; name the format in the manifest (format: {fits[0]})")
    raise CanidsError(
        f"{path}: its beginning fits no known format; name the format in the manifest if it is one of {', '.join(FORMATS)} "
        "(table: any table, by a mapping that draft proposes)"
    )
