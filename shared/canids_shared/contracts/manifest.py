"""The dataset manifest: the captures of a dataset and the role of each (contract user → every module).

A manifest is YAML. It is looked for, in this order, as

1. `{data_root}/{dataset}/manifest.yaml`, written by the user;
2. `results/{dataset}/manifest.yaml`, drafted once from the folders `train_*` and `test_*` of `{data_root}/{dataset}`;
3. a built-in one (`canids_shared/contracts/manifests/`): the simulated vehicles.

Paths in it are relative to `{data_root}/{dataset}`, so moving the data means changing `data_root` alone. A manifest may include
those of other datasets in the same `data_root` (`include`), each found as above.
"""

import logging
import math
import os
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from canids_shared.contracts import yaml_file
from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.files import write_text

CONTRACT = "manifest/1"
SPLITS = ("fit", "select", "fuse", "calibrate")
"""Blocks of time into which the training captures are cut."""
JUDGED = "select"
"""The split that is judged where a dataset has no test scenario: the detectors did not learn from it, but were chosen on it."""
INJECTED = "injected"
"""The format of captures that are frames of another one and an attack put between them."""
HOST = "host"
"""The role of attack-free recordings that serve as hosts of injected captures alone."""
LEFT_OUT = "left_out"
"""The scenario of a fold: the training captures that its `leave_out` names."""
UNSEEN = "unseen"
"""The role of captures that nothing is trained on, and the scenario that they make, of folds too: vehicles of other makes, say."""
ENROLMENT = "enrolment"
"""The split of attack-free traffic by which vehicles are enrolled; no window of it is judged."""
ENROLLED = "_enrolled"
"""Ends the name of a scenario that is judged a second time, with its vehicles enrolled."""
SCORED = "score"
"""The role of captures that a finished run is to score; a dataset may consist of them alone."""
ALL_CHANNELS = "all"
"""All buses of a log, each a capture of its own."""
ROAD_METADATA = "capture_metadata.json"
"""ROAD's metadata beside its captures: one object a capture, by the capture's file name without `.log`."""
_HERE = Path(__file__).parent
_SCHEMA = _HERE / "manifest.schema.yaml"
_STATES = ("accessory", "ignition", "idle", "idling", "parked", "driving")
"""States of a vehicle that names of captures have; none is an attack."""
_WILDCARDS = re.compile(r"[{}]|<.*>")
_AS_WRITTEN = (
    *(
        "vehicle",
        "role",
        "attack",
        "content",
        "simulation",
        "timestamp_unit",
        "assume_rate",
        "host",
        "injection",
        "table",
    ),
)
"""Keys of an entry that are attributes of a capture as they are."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Capture:
    """A capture as its manifest describes it.

    Attributes:
        name: unique in the dataset.
        path: the raw file (None: made by the simulator, or from another capture).
        format: one of the formats of `manifest.schema.yaml`; `auto` to recognise it from the file.
        vehicle: the vehicle it was recorded on.
        role: `train`, or the name of a test scenario.
        attack: the kind of attack it holds, or None.
        content: `labelled`, `attack-free` or `unlabelled`.
        simulation: options of the simulator, for `format: simulated`.
        metadata: ROAD's file of metadata, or None.
        attacked: intervals in seconds since the first frame, within which every frame is attacked, each with its kind of attack where
            that is not `attack`; may be empty.
        timestamp_unit: unit of the file's timestamps as the manifest states it, or None: seconds.
        assume_rate: frames a second of a log without times, or None.
        host: of `format: injected`, the capture whose frames it has.
        injection: of `format: injected`, how the attack is put into them.
        table: what the columns mean, for `format: table`.
        channel: buses of the log that it is made of, `ALL_CHANNELS`, or None: the log has but one.
    """

    name: str
    path: Path | None
    format: str
    vehicle: str
    role: str
    attack: str | None
    content: str
    simulation: dict[str, Any] | None
    metadata: Path | None = None
    attacked: tuple[tuple[float, float] | tuple[float, float, str], ...] = ()
    timestamp_unit: str | None = None
    assume_rate: float | None = None
    host: str | None = None
    injection: dict[str, Any] | None = None
    table: dict[str, Any] | None = None
    channel: tuple[str, ...] | str | None = None

    @property
    def attacks(self) -> tuple[str, ...]:
        """The kinds of attack in it: those of its intervals, and its own where an interval, or the file, may be of that."""
        kinds = [kind for _, _, *rest in self.attacked for kind in rest]
        own = [self.attack] if self.attack and (len(kinds) < len(self.attacked) or not kinds) else []
        return tuple(dict.fromkeys([*own, *kinds]))

    @property
    def scored(self) -> bool:
        """Whether it is only to be scored by a finished run."""
        return self.role == SCORED


def entry_of(file: Path, dataset: str) -> dict[str, str]:
    """Draft an entry of a capture in can-train-and-test from a name such as `train_02/DoS-kia.csv` (attack, hyphen, vehicle).

    In `rpm-accessory-1.csv` the number counts captures and `accessory` is a state: both are no vehicle, and no attack.
    """
    words = re.sub("[^A-Za-z0-9_.-]+", "-", file.stem).split("-")
    named = [word for word in words if not word.isdigit() and word not in _STATES]
    # The last word is the vehicle, unless it is the number, the state, or all that there is.
    has_vehicle = words[-1:] == named[-1:] and len(words) > 1 and file.stem != "attack-free"
    vehicle = named.pop() if has_vehicle else dataset
    attack = "-".join(named)
    folder = file.parent.name
    entry = {
        "path": f"{folder}/{file.name}",
        "format": "can-train-and-test",
        "vehicle": vehicle,
        "role": "train" if folder.startswith("train_") else folder,
    }
    if attack in ("", "attack-free"):
        return {**entry, "content": "attack-free"}
    return {**entry, "content": "labelled", "attack": attack}


def _folder_captures(folder: Path, pattern: str = "*.csv") -> list[Path]:
    return sorted(p for p in folder.glob(f"*/{pattern}") if re.match("train_|test_", p.parent.name))


def draft(dataset: str, data_root: str | Path) -> str:
    """The text of a manifest for a folder in the layout of can-train-and-test (`train_*/*.csv`, `test_*/*.csv`).

    Raises `CanidsError` if the folder holds no capture in that layout.
    """
    folder = Path(data_root) / dataset
    files = _folder_captures(folder)
    if not files:
        raise CanidsError(
            f"dataset '{dataset}': no manifest, and no captures train_*/*.csv or test_*/*.csv in {folder}; "
            "set data_root to the folder that holds the dataset, or write a manifest.yaml there"
        )
    captures = {f"{f.parent.name}.{f.stem}": entry_of(f, dataset) for f in files}
    comment = (
        f"# Drafted from the folders of dataset {dataset}: vehicle and attack come from the file names.\n"
        "# Edit it, or delete it to have a new one drafted.\n"
    )
    body: str = yaml.safe_dump({"contract": CONTRACT, "captures": captures}, sort_keys=False)
    return comment + body


def locate(dataset: str, data_root: str | Path) -> Path:
    """Path of the dataset's manifest; drafts one where there is none yet."""
    written = Path(data_root) / dataset / "manifest.yaml"
    drafted = Path("results") / dataset / "manifest.yaml"
    builtin = _HERE / "manifests" / f"{dataset}.yaml"
    for path in (written, drafted, builtin):
        if path.exists():
            return path
    write_text(drafted, draft(dataset, data_root))
    folder = Path(data_root) / dataset
    log.warning("drafted %s from the captures in %s", drafted, folder)
    if others := [str(f.relative_to(folder)) for f in _folder_captures(folder, "[!.]*") if f.suffix != ".csv"]:
        log.warning("it does not list %s; make manifest DIR=%s drafts one of all formats", ", ".join(others), folder)
    return drafted


@cache
def load(dataset: str, data_root: str | Path) -> dict[str, Capture]:
    """All captures of a dataset by name, those of included datasets first, in the manifest's order.

    Raises `CanidsError` naming the manifest and the entry if a key is unknown, missing or repeated, a scenario has the
    name of a split, an attack-free capture has an attack, or there is no training capture (unless all captures have the role
    `score`); also if the data folder holds captures that a drafted manifest does not list, or datasets include each other.
    """
    return _load(dataset, data_root, ())


def _load(dataset: str, data_root: str | Path, includers: tuple[str, ...]) -> dict[str, Capture]:
    if dataset in includers:
        raise CanidsError(f"include: {' includes '.join([*includers, dataset])}, and so itself")
    path = locate(dataset, data_root)
    folder = Path(data_root) / dataset
    content = _content(path)
    captures = {**_included(path, content, data_root, (*includers, dataset)), **_captures(content, folder)}
    _check_roles(path, captures)
    roles = {c.role for c in captures.values()}
    # A dataset may consist of captures to be scored; every other one has captures to train on.
    if roles != {SCORED} and "train" not in roles:
        raise CanidsError(f"{path}: needs at least one capture with role 'train'")
    # A draft is of one moment: captures that were added to the folder since would be left out in silence.
    if path.parent.parent == Path("results"):
        listed = {c.path for c in captures.values()}
        unlisted = [str(f) for f in _folder_captures(folder) if f not in listed]
        if unlisted:
            raise CanidsError(
                f"{path} does not list {', '.join(unlisted)}; add them, or delete the manifest to have a new one drafted"
            )
    return captures


@cache
def auxiliary_captures(name: str) -> dict[str, Capture]:
    """The training captures of a built-in dataset, all simulated, which join the recorded training captures of other datasets.

    Raises `CanidsError` if there is none of this name.
    """
    path = _HERE / "manifests" / f"{name}.yaml"
    if not path.exists():
        raise CanidsError(f"auxiliary_captures: no built-in manifest '{name}'")
    return {c.name: c for c in read(path, path.parent).values() if c.role == "train"}


def _included(path: Path, content: Any, data_root: str | Path, includers: tuple[str, ...]) -> dict[str, Capture]:
    """Captures of the datasets that a manifest includes, by their names in it."""
    captures = {}
    for dataset, chosen in content.get("include", {}).items():
        there = _load(dataset, data_root, includers)
        for pattern in chosen["captures"]:
            if not any(fnmatchcase(c.name, pattern) and c.role in chosen["roles"] for c in there.values()):
                known = ", ".join(c.name for c in there.values() if c.role in chosen["roles"]) or "none"
                raise CanidsError(
                    f"{path}: include.{dataset}.captures: '{pattern}' names no capture with a role of "
                    f"{', '.join(chosen['roles'])}; they are: {known}"
                )
        named = [c for c in there.values() if any(fnmatchcase(c.name, p) for p in chosen["captures"])]
        members = [c for c in named if c.role in chosen["roles"]]
        hosts = [there[name] for name in dict.fromkeys(c.host for c in members if c.host)]
        for c in (*members, *(host for host in hosts if host not in members)):
            role = c.role if c.role == HOST else chosen.get("as_role", c.role)
            name = f"{dataset}.{c.name}"
            captures[name] = replace(c, name=name, role=role, host=f"{dataset}.{c.host}" if c.host else None)
    return captures


def read(path: Path, folder: Path) -> dict[str, Capture]:
    """Read and check a manifest whose paths are relative to `folder`; without the captures of datasets that it includes."""
    captures = _captures(_content(path), folder)
    _check_roles(path, captures)
    return captures


def _content(path: Path) -> Any:
    return check(yaml_file.load(path), load_schema(_SCHEMA), where=str(path))


def _file(folder: Path, entry: dict[str, Any], key: str) -> Path | None:
    """A file that an entry names; one beside the dataset's folder (`../hcrl_sa/…`) also where that folder does not exist."""
    if key not in entry:
        return None
    return folder / entry[key] if folder.exists() else Path(os.path.normpath(folder / entry[key]))


def _captures(content: Any, folder: Path) -> dict[str, Capture]:
    return {
        name: Capture(
            name=name,
            path=_file(folder, entry, "path"),
            format="road" if entry["format"] == "auto" and "metadata" in entry else entry["format"],
            metadata=_file(folder, entry, "metadata"),
            attacked=tuple((float(start), float(end), *kind) for start, end, *kind in entry.get("attacked", [])),
            channel=_channel(entry.get("channel")),
            **{key: entry.get(key) for key in _AS_WRITTEN},
        )
        for name, entry in content["captures"].items()
    }


def _channel(written: Any) -> tuple[str, ...] | str | None:
    """The buses that an entry names, as text."""
    if written is None:
        return None
    if written == ALL_CHANNELS:
        return ALL_CHANNELS
    return tuple(map(str, written)) if isinstance(written, list) else (str(written),)


def table_in(path: Path) -> dict[str, Any]:
    """The mapping of a table in a file of its own: the value of `table` alone, or a manifest whose entries have one between them.

    Raises `CanidsError` if it is neither, or the manifest has several.
    """
    content = yaml_file.load(path)
    if isinstance(content, dict) and isinstance(content.get("captures"), dict):
        entries = [
            entry["table"] for entry in content["captures"].values() if isinstance(entry, dict) and "table" in entry
        ]
        if not entries or any(table != entries[0] for table in entries):
            raise CanidsError(
                f"{path}: has {'several' if entries else 'no'} tables; write the one that is meant into a file"
            )
        content = entries[0]
    properties = load_schema(_SCHEMA)["properties"]["captures"]["additionalProperties"]["properties"]
    table: dict[str, Any] = check(content, properties["table"], where=str(path))
    return table


def _check_roles(path: Path, captures: dict[str, Capture]) -> None:
    for c in captures.values():
        simulated, injected = c.format == "simulated", c.format == INJECTED
        host = captures.get(c.host or "")
        # Message → whether it applies; the first one that does is raised.
        wrong = {
            f".role: a scenario cannot be named '{c.role}': a split has that name": c.role
            in (*SPLITS, LEFT_OUT, ENROLMENT)
            or c.role.endswith(ENROLLED),
            f".path: {str(c.path)!r}: rename what has braces or <…> in its name, which are wildcards of Snakemake": any(
                _WILDCARDS.search(str(file)) for file in (c.path, c.metadata)
            ),
            ": needs 'path', or 'format: simulated' and no path": (simulated or injected) != (c.path is None),
            ": 'host' and 'injection' belong to 'format: injected', and both only there": injected
            != (c.host is not None)
            or injected != (c.injection is not None),
            f".host: no capture '{c.host}' with role '{HOST}'": injected and (host is None or host.role != HOST),
            ": a host must be an attack-free recording": c.role == HOST and (c.content != "attack-free" or injected),
            ".channel: a host is one bus, so it names one": c.role == HOST
            and (c.channel == ALL_CHANNELS or len(c.channel or ()) > 1),
            f".path: '{_same_file(c, captures)}' has the same file, and frames of a host belong into injected captures alone": c.role
            == HOST
            and _same_file(c, captures),
            ": 'channel', 'timestamp_unit' and 'assume_rate' of an injected capture are its host's": injected
            and (c.channel or c.timestamp_unit or c.assume_rate),
            f": the vehicle is not its host's, '{host and host.vehicle}'": host and host.vehicle != c.vehicle,
            ".attacked: injected captures are labelled by what is injected": injected and c.attacked,
            ": injected captures are 'labelled' with an attack, or 'attack-free' parts of their host": injected
            and (c.content == "labelled") != (c.attack is not None),
            f".injection.part: overlaps that of '{_overlapping(c, captures)}', and frames of a host belong into one capture alone": injected
            and _overlapping(c, captures),
            ": 'simulation' belongs to 'format: simulated', and only there": simulated != (c.simulation is not None),
            ".timestamp_unit: simulated captures are in seconds": simulated and c.timestamp_unit,
            ": 'table' belongs to 'format: table', and only there": (c.format == "table") != (c.table is not None),
            ".timestamp_unit: of a table, it is table.time.unit": c.table and c.timestamp_unit,
            ".metadata: belongs to 'format: road', and only there": c.metadata and c.format != "road",
            **{f".attacked: [{a:g}, {b:g}] does not end after it begins": a >= b for a, b, *_ in c.attacked},
            f": has 'attacked' intervals, so its content is 'labelled', not '{c.content}'": c.attacked
            and c.content != "labelled",
            f": has the attack '{c.attack}', so its content is not 'attack-free'": c.attack
            and c.content == "attack-free",
            ": an unlabelled capture cannot be trained on; is it 'attack-free'?": c.role == "train"
            and c.content == "unlabelled",
        }
        if message := next((text for text, holds in wrong.items() if holds), None):
            raise CanidsError(f"{path}: captures.{c.name}{message}")


def _same_file(capture: Capture, captures: dict[str, Capture]) -> str:
    """Name of another capture that has frames of the same bus of the same file; empty where none has."""
    for other in captures.values():
        apart = (
            isinstance(capture.channel, tuple)
            and isinstance(other.channel, tuple)
            and not {*capture.channel} & {*other.channel}
        )
        if other.name != capture.name and other.path and other.path == capture.path and not apart:
            return other.name
    return ""


def _overlapping(capture: Capture, captures: dict[str, Capture]) -> str:
    """Name of an earlier capture that has frames of the same host; empty where none has."""
    start, end = _part(capture)
    for other in captures.values():
        if other.name == capture.name:
            break
        if other.host and other.host == capture.host and start < _part(other)[1] and _part(other)[0] < end:
            return other.name
    return ""


def _part(capture: Capture) -> tuple[float, float]:
    start, end = (capture.injection or {}).get("part") or (0, math.inf)
    return start, end


def scenarios(captures: dict[str, Capture]) -> list[str]:
    """Names of the test scenarios, in the manifest's order."""
    return list(dict.fromkeys(c.role for c in captures.values() if c.role not in ("train", HOST)))


def base_of(scenario: str) -> str:
    """The scenario whose captures a scenario has: its own name, without `ENROLLED` where its vehicles are enrolled."""
    return scenario.removesuffix(ENROLLED)


def missing(captures: dict[str, Capture], dataset: str) -> list[str]:
    """One message per raw file, or file of metadata, that does not exist."""
    return [
        f"dataset '{dataset}', capture '{c.name}': no file {path}; is data_root right?"
        for c in captures.values()
        for path in (c.path, c.metadata)
        if path is not None and not path.exists()
    ]
