"""Input and params functions of the Snakefile of preprocess: which files a job reads, and what the manifest has on them."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from canids_shared.contracts import manifest
from canids_shared.contracts.manifest import Capture
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import left_out_captures
from canids_shared.planning.stage import Stage

_READ = (
    "name",
    "vehicle",
    "format",
    "attack",
    "content",
    "attacked",
    "scored",
    "timestamp_unit",
    "assume_rate",
    "table",
    "channel",
)
"""Keys of a capture's entry in the manifest by which it is read."""
_MOST = 60
"""Captures that one job simulates: all their paths and entries stand on its command line."""


class SimulatedCaptures(NamedTuple):
    """Captures that one job simulates and reads: those of a role, training or a test scenario.

    Attributes:
        rule: the rule's name.
        dataset: their dataset, which may be one of auxiliary captures.
        role: their role.
        captures: the captures.
    """

    rule: str
    dataset: str
    role: str
    captures: list[Capture]

    @property
    def each(self) -> list[dict[str, Any]]:
        """What the calls of the rule's entry point have of their own (`canids_shared.jobs.entry_point.calls_of`)."""
        return [{"capture": _entry(capture, *_READ, "simulation")} for capture in self.captures]

    def outputs(self, captures: str, frames: str) -> dict[str, str]:
        """The rule's outputs in the two folders: raw captures, then frames, then rejects; the cache wants a name for each."""
        kinds = {"capture": f"{captures}/{{}}.csv", "frames": f"{frames}/{{}}.parquet"}
        kinds["rejects"] = f"{frames}/rejects/{{}}.parquet"
        return {f"{kind}_{c.name}": path.format(c.name) for kind, path in kinds.items() for c in self.captures}


def simulated_captures(stage: Stage) -> list[SimulatedCaptures]:
    """All captures that the simulator makes, job by job: those of the datasets, and the auxiliary captures that join them."""
    datasets = {**stage.captures, **{fleet: manifest.auxiliary_captures(fleet) for fleet in auxiliary_datasets(stage)}}
    jobs: list[SimulatedCaptures] = []
    for dataset, captures in datasets.items():
        by_role: dict[str, list[Capture]] = {}
        for capture in captures.values():
            if capture.format == "simulated":
                by_role.setdefault(capture.role, []).append(capture)
        for role, members in by_role.items():
            for start in range(0, len(members), _MOST):
                # The first has the name that profiles know; the others are rules of their own.
                part = f"_{start // _MOST + 1}" if start else ""
                name = f"simulate_{dataset}_{role}{part}" if jobs else "simulate"
                jobs.append(SimulatedCaptures(name, dataset, role + part, members[start : start + _MOST]))
    return jobs


def auxiliary_dataset(stage: Stage, dataset: str, instance: str) -> str:
    """The dataset whose captures join the training captures of a dataset; none ("") where these are all simulated."""
    fleet: str = stage.config[instance]["auxiliary_captures"]
    recorded = any(c.format != "simulated" and c.role == "train" for c in stage.captures[dataset].values())
    return fleet if recorded and fleet != "none" else ""


def auxiliary_datasets(stage: Stage) -> list[str]:
    """The auxiliary datasets of all datasets and instances.

    Raises `CanidsError` if a dataset of the user's own has the name of one: both would lie in the same folder.
    """
    pairs = ((dataset, instance) for dataset in stage.datasets for instance in stage.config)
    names = list(dict.fromkeys(name for pair in pairs if (name := auxiliary_dataset(stage, *pair))))
    for name in names:
        if stage.captures.get(name, (built_in := manifest.auxiliary_captures(name))) != built_in:
            raise CanidsError(f"dataset '{name}': auxiliary captures have this name; rename the dataset's folder")
    return names


def injected_captures(stage: Stage) -> str:
    """Regular expression for the names of captures that are made of others; it matches none where there are none.

    Raises `CanidsError` if such a name means a recording in another dataset, since one rule makes all files of a name.
    """
    by_format = {
        kind: {c.name: d for d in stage.datasets for c in stage.captures[d].values() if (c.host is not None) == kind}
        for kind in (True, False)
    }
    if both := sorted(by_format[True].keys() & by_format[False].keys()):
        where = f"dataset '{by_format[True][both[0]]}', capture '{both[0]}'"
        raise CanidsError(
            f"{where}: injected, and dataset '{by_format[False][both[0]]}' has a recording of that name; rename one"
        )
    return "|".join(map(re.escape, by_format[True])) or "(?!)"


def host(stage: Stage) -> Callable[[Any], str]:
    """Input function: frames of the host of an injected capture."""
    return lambda wildcards: f"<frames>/{stage.captures[wildcards.dataset][wildcards.capture].host}.parquet"


def raw_capture(stage: Stage) -> Callable[[Any], dict[str, Any]]:
    """Input function: the raw file of a recorded capture, and its metadata file."""

    def files(wildcards: Any) -> dict[str, Any]:
        capture = stage.captures[wildcards.dataset][wildcards.capture]
        metadata = capture.metadata
        if capture.path and not metadata and capture.content == "labelled" and capture.format in ("auto", "road"):
            beside = capture.path.with_name(manifest.ROAD_METADATA)
            metadata = beside if capture.format == "road" or beside.exists() else None
        return {"capture": str(capture.path), "metadata": [str(metadata)] if metadata else []}

    return files


def training_frames(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: frames of a dataset's training captures, auxiliary captures aside."""
    return lambda wildcards: _frames(stage, wildcards.dataset, "train")


def auxiliary_frames(stage: Stage, folder: str) -> Callable[[Any], list[str]]:
    """Input function: frames of the auxiliary captures; `folder` is that of a dataset's frames, with `{dataset}`."""

    def files(wildcards: Any) -> list[str]:
        if not (fleet := auxiliary_dataset(stage, wildcards.dataset, wildcards.instance)):
            return []
        return [f"{folder}/{name}.parquet".replace("{dataset}", fleet) for name in manifest.auxiliary_captures(fleet)]

    return files


def frames_of_scenario(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: frames of a scenario's captures; of the scenario of a fold, those of all training captures.

    A scenario that the instance does not have is a `CanidsError`: no misspelt one is made of training captures.
    """

    def files(wildcards: Any) -> list[str]:
        known = stage.splits(wildcards.dataset, wildcards.instance)
        if wildcards.split not in known:
            place = wildcards.dataset + wildcards.instance
            raise CanidsError(f"{place} has no split or scenario '{wildcards.split}'; it has {', '.join(known)}")
        if wildcards.split == manifest.ENROLMENT:
            return frames_of(enrolled_captures(stage, wildcards.dataset, wildcards.instance))
        scenario = manifest.base_of(wildcards.split)
        return _frames(stage, wildcards.dataset, "train" if scenario == manifest.LEFT_OUT else scenario)

    return files


def frames_of(captures: list[Capture]) -> list[str]:
    """Frames of some captures of the job's dataset."""
    return [f"<frames>/{capture.name}.parquet" for capture in captures]


def enrolled_captures(stage: Stage, dataset: str, instance: str, vehicle: str | None = None) -> list[Capture]:
    """The attack-free captures by whose beginnings vehicles are enrolled, all or those of one: of all scenarios that are judged twice."""
    captures, config = stage.captures[dataset], stage.config[instance]
    twice = {manifest.base_of(s) for s in stage.scenarios(dataset, instance) if s.endswith(manifest.ENROLLED)}
    judged = [c for c in captures.values() if c.role in twice]
    if manifest.LEFT_OUT in twice:
        judged += left_out_captures(captures, config["leave_out"])
    return [c for c in judged if c.content == "attack-free" and vehicle in (None, c.vehicle)]


def frames_of_enrolment(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: frames of the captures by which the vehicle of a job is enrolled. Raises `CanidsError` where there are none."""

    def files(wildcards: Any) -> list[str]:
        captures = enrolled_captures(stage, wildcards.dataset, wildcards.instance, wildcards.vehicle)
        if not captures:
            raise CanidsError(
                f"{wildcards.dataset}{wildcards.instance}: no scenario has an attack-free capture of vehicle '{wildcards.vehicle}' "
                "to enrol it by (enrolment, in seconds, is 0 by default)"
            )
        return frames_of(captures)

    return files


def profiles_of_scenario(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: profiles of the vehicles of a scenario, which say where the frames to be judged begin; none without enrolment.

    Of captures that are only scored it is the one that the config names, if any.
    """

    def files(wildcards: Any) -> list[str]:
        dataset, instance, scenario = wildcards.dataset, wildcards.instance, manifest.base_of(wildcards.split)
        if scenario == manifest.ENROLMENT:
            return []
        if scenario == manifest.SCORED:
            given = stage.config[instance]["profile"]
            return [given] if given else []
        captures = stage.captures[dataset]
        left_out = left_out_captures(captures, stage.config[instance]["leave_out"])
        of_scenario = (
            left_out if scenario == manifest.LEFT_OUT else [c for c in captures.values() if c.role == scenario]
        )
        enrolled = {capture.vehicle for capture in enrolled_captures(stage, dataset, instance)}
        vehicles = sorted(enrolled & {capture.vehicle for capture in of_scenario})
        return [f"<profiles>{instance}/{vehicle}.safetensors" for vehicle in vehicles]

    return files


def _frames(stage: Stage, dataset: str, role: str) -> list[str]:
    return frames_of([c for c in stage.captures[dataset].values() if c.role == role])


def frames_of_dataset(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: frames of all captures of a dataset."""
    return lambda wildcards: [f"<frames>/{name}.parquet" for name in stage.captures[wildcards.dataset]]


def entry(stage: Stage, *keys: str) -> Callable[[Any], dict[str, Any]]:
    """Params function: keys of a capture's entry in the manifest; without any, those by which a raw file is read."""
    return lambda wildcards: _entry(stage.captures[wildcards.dataset][wildcards.capture], *(keys or _READ))


def _entry(capture: Capture, *keys: str) -> dict[str, Any]:
    """Keys of a capture's entry; without paths, or another checkout would miss the cache."""
    # Some formats are recognised, and labelled, by the file's name.
    file = {"file": capture.path.name} if capture.path else {}
    return {**file, **{key: getattr(capture, key) for key in keys}}
