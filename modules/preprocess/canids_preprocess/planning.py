"""Input and params functions of the Snakefile of preprocess: which files a job reads, and what the manifest has on them."""

import re
from collections.abc import Callable
from typing import Any

from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError
from canids_shared.planning.stage import Stage


def auxiliary_captures(stage: Stage, dataset: str, instance: str) -> list[str]:
    """Names of the captures that join the training captures of a dataset; none where these are all simulated."""
    fleet = stage.config[instance]["auxiliary_captures"]
    recorded = any(c.format != "simulated" and c.role == "train" for c in stage.captures[dataset].values())
    return list(manifest.auxiliary_captures(fleet)) if recorded and fleet != "none" else []


def add_auxiliary_captures(stage: Stage) -> None:
    """Add the auxiliary captures that any instance needs to the captures of every dataset."""
    for dataset in stage.datasets:
        for instance, config in stage.config.items():
            if auxiliary_captures(stage, dataset, instance):
                fleet = manifest.auxiliary_captures(config["auxiliary_captures"])
                stage.captures[dataset] = {**stage.captures[dataset], **fleet}


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
    """Input function: the raw file of a capture (the simulator's, if it has none of its own), and its metadata file."""

    def files(wildcards: Any) -> dict[str, Any]:
        capture = stage.captures[wildcards.dataset][wildcards.capture]
        metadata = capture.metadata
        if capture.path and not metadata and capture.content == "labelled" and capture.format in ("auto", "road"):
            beside = capture.path.with_name(manifest.ROAD_METADATA)
            metadata = beside if capture.format == "road" or beside.exists() else None
        return {
            "capture": str(capture.path or "<captures>/{capture}.csv"),
            "metadata": [str(metadata)] if metadata else [],
        }

    return files


def auxiliary_captures_of_split(stage: Stage) -> Callable[[Any], list[str]]:
    """Params function: names of the split's auxiliary captures; test scenarios have none."""

    def names(wildcards: Any) -> list[str]:
        training = wildcards.split in manifest.SPLITS
        return auxiliary_captures(stage, wildcards.dataset, wildcards.instance) if training else []

    return names


def frames_of_split(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: frames of a split's captures, of all training captures or those of a scenario.

    A split that the instance does not have is a `CanidsError`: no misspelt scenario is made of training captures.
    """
    auxiliary = auxiliary_captures_of_split(stage)

    def files(wildcards: Any) -> list[str]:
        known = stage.splits(wildcards.dataset, wildcards.instance)
        if wildcards.split not in known:
            place = wildcards.dataset + wildcards.instance
            raise CanidsError(f"{place} has no split or scenario '{wildcards.split}'; it has {', '.join(known)}")
        captures = stage.captures[wildcards.dataset]
        role = wildcards.split if wildcards.split in manifest.scenarios(captures) else "train"
        names = [c.name for c in captures.values() if c.role == role and not c.auxiliary]
        return [f"<frames>/{name}.parquet" for name in [*names, *auxiliary(wildcards)]]

    return files


def frames_of_dataset(stage: Stage) -> Callable[[Any], list[str]]:
    """Input function: frames of all captures of a dataset."""
    return lambda wildcards: [f"<frames>/{name}.parquet" for name in stage.captures[wildcards.dataset]]


def entry(stage: Stage, *keys: str) -> Callable[[Any], dict[str, Any]]:
    """Params function: keys of a capture's entry in the manifest; without paths, or another checkout would miss the cache."""

    def values(wildcards: Any) -> dict[str, Any]:
        capture = stage.captures[wildcards.dataset][wildcards.capture]
        # Some formats are recognised, and labelled, by the file's name.
        file = {"file": capture.path.name} if capture.path else {}
        return {**file, **{key: getattr(capture, key) for key in keys}}

    return values
