"""Profile of a vehicle (contract preprocess → preprocess, score, follow): what is normal on its buses, from attack-free traffic.

`results/{dataset}/profiles{instance}/{vehicle}.safetensors`. Bus number n has these tensors, a row for each of its N arbitration IDs
in the order of their first sighting; times are in seconds after the end of what was learnt from, and `NEVER` stands for never.

| tensor | type, shape | content |
|---|---|---|
| `{n}.ids` | u32 [N] | arbitration ID (bit 31: 29-bit) |
| `{n}.bus` | f64 [B] | pace of the bus: time of the last frame, running level of the gap between frames, number of frames, …: the header's `bus_columns` |
| `{n}.state` | f64 [N, C] | sightings, period and its scatter, payload distance and its scatter, length, …: the header's `columns` |
| `{n}.toggled` | u64 [N, 8] | bits that ever changed |
| `{n}.usual_change` | f32 [N, 64] | running median of each byte's change |
| `{n}.…` | u64 [N, 8] | the last payloads |

Which tensors there are beside `ids` and `bus` is a matter of the frame features (`canids_preprocess.features`), whose code reads them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canids_shared.contracts.model_file import Arrays, load_arrays, save_arrays
from canids_shared.contracts.whole import AGAIN
from canids_shared.errors import CanidsError

CONTRACT = "profile/1"
NEVER = -1e18
"""Stands for minus infinity in times, since files hold finite numbers."""


@dataclass(frozen=True)
class Profile:
    """A profile as it was read.

    Attributes:
        path: the file.
        header: see `profile.schema.yaml`.
        buses: the arrays of each bus, by name without the number.
    """

    path: Path
    header: dict[str, Any]
    buses: list[Arrays]

    @property
    def channels(self) -> list[str]:
        """Names of the buses; empty where their log has none."""
        return [bus["channel"] for bus in self.header["buses"]]

    def number_of(self, channel: str, alone: bool) -> int | None:
        """Number of the bus of this name; None if there is no such bus.

        Where the traffic is of one bus alone (`alone`) and so is the profile, names say how a log was written, and may differ.
        """
        if channel in self.channels:
            return self.channels.index(channel)
        return 0 if alone and len(self.channels) == 1 else None


def write(path: str | Path, header: dict[str, Any], buses: list[Arrays]) -> None:
    """Write a profile whole; equal content gives equal bytes. Raises `CanidsError` if the header breaks the contract."""
    arrays = {f"{number}.{name}": array for number, bus in enumerate(buses) for name, array in bus.items()}
    finite = {name: np.maximum(array, NEVER) if array.dtype == np.float64 else array for name, array in arrays.items()}
    save_arrays(path, finite, {**header, "contract": CONTRACT})


def read(path: str | Path) -> Profile:
    """Read a profile.

    Raises `CanidsError` naming the file if it is absent, damaged, edited, of another contract, or a tensor has another number of rows
    than there are arbitration IDs, or an ID twice.
    """
    arrays, header = load_arrays(path, CONTRACT)
    buses = [
        {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{number}.")}
        for number in range(len(header["buses"]))
    ]
    for number, (bus, known) in enumerate(zip(buses, header["buses"], strict=True)):
        ids = bus.get("ids", np.zeros(0, np.uint32))
        if ids.dtype != np.uint32 or len(np.unique(ids)) != len(ids) or len(ids) != known["ids"]:
            raise CanidsError(f"{path}: tensor '{number}.ids' does not hold {known['ids']} arbitration IDs; {AGAIN}")
        if wrong := [name for name, array in bus.items() if name != "bus" and array.shape[:1] != ids.shape]:
            raise CanidsError(f"{path}: tensor '{number}.{wrong[0]}' has no row for each arbitration ID; {AGAIN}")
    return Profile(Path(path), header, buses)
