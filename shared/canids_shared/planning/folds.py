"""Folds of the training captures: an instance for every vehicle, or kind of attack, that can be left out, or for captures.

    config = folds.joined(config)    # config has a section `folds` (folds.schema.yaml)

Training captures alone make folds; test captures are never read. A vehicle without recorded attacks makes none, since no
attack on it could be missed or detected: it stays among the captures that every fold is trained on, and a warning names it.
"""

import logging
from pathlib import Path
from typing import Any

from canids_shared.contracts import manifest
from canids_shared.contracts.attacks import kind_of
from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import Config, merged

_SCHEMA = Path(__file__).with_name("folds.schema.yaml")
_COMMON = Path(manifest.__file__).with_name("common.schema.yaml")
KNOWN = "known"
"""The fold that leaves captures of every vehicle out, so that nothing in them is unknown."""
log = logging.getLogger(__name__)


class NothingLeftOutError(CanidsError):
    """A dataset in which nothing of a kind can be left out, or nothing would be left."""


def joined(config: Config) -> Config:
    """The pipeline's config with an instance for every fold, ablation and seed; the section `folds` itself is gone.

    A fold has the same name in all datasets that have what it leaves out; the others have no such fold. Folds come first, each
    with its seeds, then the ablations, which read whatever they do not change from the folds.

    Raises `CanidsError` naming the key, or the dataset in which nothing can be left out; of a list of kinds, only where there is
    nothing of any of them.
    """
    if not config.get("folds"):
        raise CanidsError("config: folds is missing: it says what to leave out")
    section = check(config["folds"], load_schema(_SCHEMA), where="folds")
    chosen = section["leave_out"]
    kinds = chosen if isinstance(chosen, list) else [chosen]
    data, folds = _data(config), dict[str, Config]()
    if KNOWN in kinds and len(data["datasets"]) > 1:
        raise CanidsError(f"folds.leave_out: '{KNOWN}' is of one dataset; the manifest of one can include others")
    refused: CanidsError | None = None
    for dataset in data["datasets"]:
        for kind in kinds:
            try:
                folds |= _folds_of(dataset, data["data_root"], kind)
            except NothingLeftOutError as error:
                if not isinstance(chosen, list):
                    raise
                # Of several kinds, those that a dataset has.
                refused = error
                log.warning("%s: no such fold", error)
    if refused and not folds:
        raise refused
    rest = {k: v for k, v in config.items() if k != "folds"}
    instances: dict[str, Config] = dict(config.get("instances") or {})
    ablations = section["ablations"]
    for ablation in ("", *ablations):
        overrides = merged(section["overrides"], ablations[ablation]["overrides"] if ablation else {})
        for fold, left_out in folds.items():
            # What an ablation changes is judged where vehicles are left out, unless no fold does that.
            if ablation and "vehicles" in kinds and "vehicles" not in left_out:
                continue
            for name, more in _instances_of(fold, ablation, overrides, section, config):
                if name in instances:
                    raise CanidsError(f"folds: '{name}' is an instance already; set folds.prefix")
                instances[name] = merged(more, {"preprocess": {"leave_out": left_out}})
    said = {name: ablation["without"] for name, ablation in ablations.items()}
    return {**rest, "instances": instances, "variants": section["variants"], "ablations": said}


def _data(config: Config) -> Config:
    """The keys `datasets` and `data_root` of the config, with defaults; raises `CanidsError` naming one that is wrong."""
    shared = load_schema(_COMMON)["properties"]
    schema = {"properties": {key: shared[key] for key in ("datasets", "data_root")}}
    data: Config = check({k: config[k] for k in schema["properties"] if k in config}, schema, where="config")
    return data


def _folds_of(dataset: str, data_root: str, what: str) -> dict[str, Config]:
    """The folds of a dataset's training captures by name (`without-kia`), each with what it leaves out.

    Attacks are left out by kind: all of a kind (`contracts.attacks.kind_of`) together, whatever a data set calls them.

    Args:
        dataset, data_root: of the manifest.
        what: `vehicles`, `attacks`, or `known`: the last one of a vehicle's captures with the same attack, or without any.

    Raises `NothingLeftOutError` if there is nothing that could be left out, or nothing would be left.
    """
    training = [c for c in manifest.load(dataset, data_root).values() if c.role == "train"]
    attacked = [c for c in training if c.content == "labelled"]
    if what == KNOWN:
        alike: dict[tuple[str, ...], list[str]] = {}
        for c in training:
            alike.setdefault((c.vehicle, *c.attacks), []).append(c.name)
        last = [names[-1] for names in alike.values() if len(names) > 1]
        if not last:
            raise NothingLeftOutError(
                f"dataset '{dataset}': no vehicle has two training captures of the same attack, or without"
            )
        return {KNOWN: {"captures": last}}
    known = {"vehicles": [c.vehicle for c in training], "attacks": [a for c in attacked for a in c.attacks]}[what]
    attackable = list(dict.fromkeys(n for c in attacked for n in ([c.vehicle] if what == "vehicles" else c.attacks)))
    groups: dict[str, list[str]] = {}
    for name in attackable:
        groups.setdefault((what == "attacks" and kind_of(name)) or name, []).append(name)
    if not groups or len({*known} - {*next(iter(groups.values()))}) == 0:
        has = f"only {', '.join(dict.fromkeys(known))}" if known else "none"
        raise NothingLeftOutError(
            f"dataset '{dataset}': to leave one out, its training captures need two {what}; they have {has}"
        )
    for vehicle in dict.fromkeys(k for k in known if k not in attackable):
        log.warning("dataset '%s': %s is recorded without attacks only: no fold leaves it out", dataset, vehicle)
    return {f"without-{'-and-'.join(names)}": {what: names} for names in groups.values()}


def _instances_of(
    fold: str, ablation: str, overrides: Config, section: Config, config: Config
) -> list[tuple[str, Config]]:
    """The instances of a fold, or of one of its ablations: the first seed, and the further ones, each with its overrides."""
    name = section["prefix"] + fold + (ablation and f"-{ablation}")
    instances = [(name, overrides)]
    # Further seeds count from that of the first seeded stage, and are the same in all of them.
    stage = section["seeded"][0]
    first = int(merged(config.get(stage) or {}, overrides.get(stage)).get("seed", 0))
    for seed in range(first + 1, first + section["seeds"]):
        seeds: dict[str, Any] = {s: {"seed": seed} for s in section["seeded"]}
        instances.append((f"{name}-seed-{seed}", merged(overrides, seeds)))
    return instances
