"""Profiles as captures use them: where a capture's judged frames begin, and the past that its first one has."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from canids_preprocess.enrolment.learning import BusLearner
from canids_preprocess.enrolment.stretches import bus_name
from canids_preprocess.enrolment.suspicion import id_name
from canids_preprocess.features.frame_kernel import BUS_COLUMNS, COLUMNS, out_of_range
from canids_preprocess.features.relative import BusState
from canids_preprocess.windowing.frames import Recording
from canids_shared.contracts.arrays import profile
from canids_shared.contracts.arrays.profile import Profile
from canids_shared.contracts.model_file import check_arrays
from canids_shared.errors import CanidsError

log = logging.getLogger(__name__)


def save(path: Path, learners: Iterable[BusLearner], header: dict[str, Any]) -> dict[str, Any]:
    """Write the profile of a vehicle's buses, and log what of them is little known; returns its header."""
    buses = list(learners)
    columns = {"columns": list(COLUMNS), "bus_columns": list(BUS_COLUMNS)}
    made = {**header, **columns, "buses": [bus.header() for bus in buses]}
    profile.write(path, made, [bus.state.arrays() for bus in buses])
    for bus in made["buses"]:
        name = f"{header['vehicle']}{' ' if bus['channel'] else ''}{bus['channel']}"
        log.info("%s: %.1f s, %d frames, %d arbitration IDs", name, bus["seconds"], bus["frames"], bus["ids"])
        if bus["rare"]:
            log.info("%s: fewer than five periods seen of %s", name, ", ".join(map(id_name, bus["rare"])))
        for warning in bus["warnings"]:
            log.warning("%s: looks attacked: %s", name, warning)
    return made


def load(path: Path, may_be_empty: bool = False) -> Profile:
    """Read a profile for the frame features of this version.

    Raises `CanidsError` naming the file if it is of others, holds values that cannot be, or, unless it may, knows no bus: of a vehicle
    whose enrolment was too short.
    """
    read = profile.read(path)
    if not read.buses and not may_be_empty:
        raise CanidsError(f"{path}: knows no bus, its traffic was too short; enrol the vehicle by longer traffic")
    if (read.header["columns"], read.header["bus_columns"]) != (list(COLUMNS), list(BUS_COLUMNS)):
        raise CanidsError(f"{path}: was made for other frame features; enrol the vehicle again")
    for number, (bus, known) in enumerate(zip(read.buses, read.header["buses"], strict=True)):
        expected = BusState.layout(known["ids"])
        named = {f"{number}.{name}": shape for name, shape in expected.items()}
        check_arrays(path, {f"{number}.{name}": array for name, array in bus.items()}, named)
        if wrong := out_of_range(bus["state"], bus["bus"]):
            raise CanidsError(f"{path}: bus {number}: impossible values in {wrong}; enrol the vehicle again")
    return read


def past_of(known: Profile, channel: str, alone: bool) -> BusState | None:
    """The past that traffic on a bus begins with, fresh for each call; None where the profile has no such bus (`Profile.number_of`)."""
    number = known.number_of(channel, alone)
    return None if number is None else BusState.of(known.buses[number])


class Profiles:
    """The profiles of a job.

    Attributes:
        by_vehicle: vehicle → its profile; under the name None one that holds for all captures.
    """

    def __init__(self, paths: Iterable[Path], for_all: bool = False) -> None:
        """Read profiles; `for_all`: there is one at most, whatever the vehicle's name. Vehicles of which no bus is known have none."""
        read = [load(path, may_be_empty=not for_all) for path in paths]
        named = {None if for_all else p.header["vehicle"]: p for p in read if p.buses}
        self.by_vehicle: dict[str | None, Profile] = named

    def of(self, metadata: dict[str, Any]) -> Profile | None:
        """The profile of a capture's vehicle, if there is one."""
        return self.by_vehicle.get(None) or self.by_vehicle.get(metadata["vehicle"])

    def state(self, recording: Recording, metadata: dict[str, Any]) -> BusState | None:
        """The past that a capture begins with, fresh for each call; None where its bus has no profile."""
        known = self.of(metadata)
        return past_of(known, bus_name(recording, metadata), recording.channel is None) if known else None

    def enrolled_frames(self, metadata: dict[str, Any]) -> int:
        """How many frames of a capture, from its beginning, its vehicle's profile was learnt from."""
        known = self.of(metadata)
        buses = known.header["buses"] if known else []
        return max((int(bus["sources"].get(metadata["sha256"], 0)) for bus in buses), default=0)

    @property
    def digests(self) -> dict[str, str]:
        """Vehicle → digest of its profile."""
        return {p.header["vehicle"]: p.header["digest"] for p in self.by_vehicle.values()}
