"""Pipelines: a module's section of the config, run instances, targets.

A pipeline hands each module its part of the config by `section`.  An instance (`@seed-1`, `@without-kia`) is declared once, in
the pipeline: name → stage → what it overrides.  A stage makes files for an instance only if an override reaches it or a stage
before it; otherwise its files are those of the first instance that is equal up to there, so two seeds share their graphs.
"""

import copy
import importlib.util
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from canids_shared.contracts import manifest
from canids_shared.errors import CanidsError

STAGES = ("preprocess", "train_gnn", "train_drl", "evaluate")
VARIANTS = ("large", "small_kd", "small_nokd")
PORTS = {
    "graphs": ("preprocess",),
    "states": ("preprocess", "train_gnn"),
    "decisions": ("preprocess", "train_gnn", "train_drl"),
    "window_baselines": ("preprocess", "evaluate"),
}
"""What a stage may read of another (or, `window_baselines`, of itself): port → the stages whose overrides make its files differ."""
SECTIONS = (*STAGES, "tracking")
"""What a pipeline's config has a section for."""
_CALLED = {"vehicles": "vehicle", "attacks": "attack", "captures": "name"}
"""Key of `leave_out` → what a capture calls that."""
_COMMON = ("datasets", "data_root")
"""Keys of a pipeline's config that are all its modules' own."""
_INHERITED = ("stand_in", "preset")
"""Keys of a pipeline's config that hold for the modules whose section does not have them."""
SINGLE = ("stand_in", "accelerator", "devices")
"""Keys that no instance overrides: code, threads and GPUs of a rule are fixed when its Snakefile is read."""
_TOP = (*_COMMON, *_INHERITED, "instances", "modules", *SECTIONS)

Config = dict[str, Any]


def merged(base: Config, over: Config | None) -> Config:
    """`base` with `over` laid on it, nested mappings merged."""
    out = copy.deepcopy(base)
    for key, value in (over or {}).items():
        nested = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if nested else copy.deepcopy(value)
    return out


def with_preset(config: Config, package: str) -> Config:
    """`config` laid on the preset that it names, a file in the folder `presets` of a package; on nothing where there is none.

    The package is installed wherever the module runs, also one whose Snakefile comes from elsewhere.
    """
    preset = _preset(package, str(config.get("preset")))
    return merged(preset, config) if preset else config


@cache
def _preset(package: str, name: str) -> Config | None:
    found = importlib.util.find_spec(package)
    folders = [Path(place, "presets") for place in found.submodule_search_locations or []] if found else []
    file = next((path for folder in folders for path in folder.glob("*.yaml") if path.stem == name), None)
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file else None


def section(config: Config, stage: str) -> Config:
    """A module's config within a pipeline's: its own section, the datasets, its instances, and what they read upstream.

    `stage` is one of the four, also for a module that takes the place of one, or a further module that the pipeline's
    config lists under `modules`; such a one comes after all four.

    Raises `CanidsError` naming the key if the pipeline's config has an unknown one, or a section that is no mapping.
    """
    further = config.get("modules") or []
    if not isinstance(further, list) or not all(isinstance(m, str) for m in further):
        raise CanidsError(f"config: modules must be a list of the names of further modules, not {further!r}")
    if unknown := sorted(set(config) - {*_TOP, *further}):
        raise CanidsError(f"config: unknown key '{unknown[0]}'; known keys: {', '.join((*_TOP, *further))}")
    stages = (*SECTIONS, *further)
    if stage not in stages:
        raise CanidsError(f"config: modules does not list '{stage}'")
    for key in ("instances", *stages):
        if not isinstance(config.get(key) or {}, dict):
            raise CanidsError(f"config: {key} must be a mapping, not {config[key]!r}")
    instances: dict[str, Config] = {"": {}, **(config.get("instances") or {})}
    for name, overrides in instances.items():
        if not isinstance(overrides or {}, dict):
            raise CanidsError(f"config: instances.{name} must be a mapping (stage → overrides), not {overrides!r}")
        if unknown := sorted(set(overrides or {}) - {*STAGES, *further}):
            known = ", ".join((*STAGES, *further))
            raise CanidsError(f"config: instances.{name}: no stage '{unknown[0]}'; stages: {known}")

    def first_equal(stages: tuple[str, ...]) -> dict[str, str]:
        """Instance → the first one that overrides the same of these stages."""
        firsts: dict[Hashable, str] = {}
        same = {n: _hashable([(o or {}).get(s) or {} for s in stages]) for n, o in instances.items()}
        return {name: firsts.setdefault(overrides, name) for name, overrides in same.items()}

    upto = STAGES[: STAGES.index(stage) + 1] if stage in STAGES else (*STAGES, stage)
    own = {n: (instances[n] or {}).get(stage) or {} for n, first in first_equal(upto).items() if n and n == first}
    folds = {n: left for n in own if (left := _left_out(instances[n]))}
    inherited, common = ({k: config[k] for k in keys if k in config} for keys in (_INHERITED, _COMMON))
    firsts = {port: first_equal(stages) for port, stages in PORTS.items()}
    ports = {port: {n: first[n] for n in own} for port, first in firsts.items()}
    return {**inherited, **(config.get(stage) or {}), **common, "instances": own, "ports": ports, "folds": folds}


def _hashable(value: Any) -> Hashable:
    """What is equal if, and only if, two values of a config are."""
    if isinstance(value, dict):
        return frozenset((k, _hashable(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return value if isinstance(value, Hashable) else repr(value)  # sets, say, which the schema refuses


def _left_out(overrides: Config | None) -> Config:
    """What an instance leaves out, which makes it a fold; nothing where it is none."""
    return ((overrides or {}).get("preprocess") or {}).get("leave_out") or {}


def known_to_folds(captures: dict[str, manifest.Capture]) -> dict[str, list[str]]:
    """What a fold can leave out of a dataset's training captures: key of `leave_out` → names."""
    training = [c for c in captures.values() if c.role == "train" and not c.auxiliary]
    return {kind: sorted({getattr(c, key) for c in training} - {None}) for kind, key in _CALLED.items()}


def has_instance(captures: dict[str, manifest.Capture], left_out: Config) -> bool:
    """Whether a dataset has an instance: all but folds that leave none of its training captures out."""
    return not left_out or any(
        name in names for kind, names in known_to_folds(captures).items() for name in left_out.get(kind, [])
    )


def targets(config: Config, *patterns: str) -> list[str]:
    """Targets of a pipeline: `patterns` for every dataset and every instance that it has, with `{dataset}` and `{instance}`."""
    left_out = {"": {}, **{"@" + n: _left_out(o) for n, o in (config.get("instances") or {}).items()}}
    captures = {d: manifest.load(d, config["data_root"]) for d in config["datasets"]}
    return [
        pattern.format(dataset=dataset, instance=instance)
        for dataset in captures
        for instance, left in left_out.items()
        if has_instance(captures[dataset], left)
        for pattern in patterns
    ]
