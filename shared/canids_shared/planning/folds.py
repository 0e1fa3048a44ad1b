"""Folds of the training captures: an instance for every vehicle, or kind of attack, that can be left out.

    config = folds.joined(config)    # config has a section `folds` (folds.schema.yaml)

Training captures alone make folds; test captures are never read. A vehicle without recorded attacks makes none, since no
attack on it could be missed or detected: it stays among the captures that every fold is trained on, and a warning names it.
"""

import logging
from pathlib import Path
from typing import Any

from canids_shared.contracts import manifest
from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import Config, merged

_SCHEMA = Path(__file__).with_name("folds.schema.yaml")
_COMMON = Path(manifest.__file__).with_name("common.schema.yaml")
log = logging.getLogger(__name__)


def joined(config: Config) -> Config:
    """The pipeline's config with an instance for every fold and seed; the section `folds` itself is gone.

    A fold has the same name in all datasets that have what it leaves out; the others have no such fold.

    Raises `CanidsError` naming the key, or the dataset in which nothing can be left out.
    """
    if not config.get("folds"):
        raise CanidsError("config: folds is missing: it says what to leave out")
    section = check(config["folds"], load_schema(_SCHEMA), where="folds")
    data, left_out = _data(config), dict[str, None]()
    for dataset in data["datasets"]:
        left_out |= dict.fromkeys(kinds(dataset, data["data_root"], section["leave_out"]))
    rest = {k: v for k, v in config.items() if k != "folds"}
    instances: dict[str, Config] = dict(config.get("instances") or {})
    for kind in left_out:
        for name, overrides in _instances_of(kind, section, config).items():
            if name in instances:
                raise CanidsError(f"folds: '{name}' is an instance already; set folds.prefix")
            instances[name] = overrides
    return {**rest, "instances": instances}


def _data(config: Config) -> Config:
    """The keys `datasets` and `data_root` of the config, with defaults; raises `CanidsError` naming one that is wrong."""
    shared = load_schema(_COMMON)["properties"]
    schema = {"properties": {key: shared[key] for key in ("datasets", "data_root")}}
    data: Config = check({k: config[k] for k in schema["properties"] if k in config}, schema, where="config")
    return data


def kinds(dataset: str, data_root: str, what: str) -> list[str]:
    """The `vehicles`, or the kinds of `attacks`, of a dataset's training captures that can be left out.

    Raises `CanidsError` if there is nothing that could be left out, or nothing would be left.
    """
    training = [c for c in manifest.load(dataset, data_root).values() if c.role == "train"]
    attacked = [c for c in training if c.content == "labelled"]
    known = {"vehicles": [c.vehicle for c in training], "attacks": [a for c in attacked for a in c.attacks]}[what]
    attackable = list(dict.fromkeys(n for c in attacked for n in ([c.vehicle] if what == "vehicles" else c.attacks)))
    if len(set(known)) < 2 or not attackable:
        has = f"only {known[0]}" if known else "none"
        raise CanidsError(
            f"dataset '{dataset}': to leave one out, its training captures need two {what}; they have {has}"
        )
    for vehicle in dict.fromkeys(k for k in known if k not in attackable):
        log.warning("dataset '%s': %s is recorded without attacks only: no fold leaves it out", dataset, vehicle)
    return [kind for kind in attackable if kind]


def _instances_of(kind: str, section: Config, config: Config) -> dict[str, Config]:
    """The fold that leaves `kind` out, and its further seeds: instance → overrides."""
    name = f"{section['prefix']}without-{kind}"
    overrides = merged(section["overrides"], {"preprocess": {"leave_out": {section["leave_out"]: [kind]}}})
    instances = {name: overrides}
    # Further seeds count from that of the first seeded stage, and are the same in all of them.
    stage = section["seeded"][0]
    first = int(merged(config.get(stage) or {}, overrides.get(stage)).get("seed", 0))
    for seed in range(first + 1, first + section["seeds"]):
        seeds: dict[str, Any] = {s: {"seed": seed} for s in section["seeded"]}
        instances[f"{name}-seed-{seed}"] = merged(overrides, seeds)
    return instances
