"""Pipelines: a module's section of the config, run instances, targets.

A pipeline hands each module its part of the config by `section`. Keys on which stages must agree (`COMMON`) stand at the top
level. An instance (`@seed-1`, `@without-kia`) is declared once, in the pipeline: name → stage → overrides, or a common key →
value. A stage makes files for an instance only if an override reaches it or a stage before it; otherwise its files are those of
the first instance that is equal up to there, so two seeds share their graphs.
"""

import copy
import importlib.util
import logging
from collections.abc import Callable, Hashable, Iterable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from canids_shared.contracts import manifest, yaml_file
from canids_shared.contracts.attacks import kind_of
from canids_shared.contracts.config import bounded
from canids_shared.errors import CanidsError

STAGES = ("preprocess", "train_gnn", "train_drl", "evaluate")
VARIANTS = ("large", "small_kd", "small_nokd")
POLICY_KIND = "dqn"
"""Kind of the one training of `train_drl`; the kinds of the other trainings are those of detectors."""
PORTS = {
    "graphs": ("preprocess",),
    "states": ("preprocess", "train_gnn"),
    "decisions": ("preprocess", "train_gnn", "train_drl"),
    "window_baselines": ("preprocess", "evaluate"),
}
"""Ports by which a stage reads another (or, `window_baselines`, itself) → the stages whose overrides make the files differ."""
SECTIONS = (*STAGES, "tracking")
"""The sections of a pipeline's config."""
_NAMED: dict[str, Callable[[manifest.Capture], tuple[str, ...]]] = {
    "vehicles": lambda c: (c.vehicle,),
    "attacks": lambda c: c.attacks,
    "captures": lambda c: (c.name,),
}
"""Key of `leave_out` → what of a capture it names."""
_DATA = ("datasets", "data_root")
"""Keys of a pipeline's config that every module gets."""
_INHERITED = ("stand_in", "preset", "enrolment")
"""Keys of a pipeline's config that hold for the modules whose section does not have them."""
COMMON = ("false_alarm_budget", "evidence")
"""Keys of a pipeline's config on which several stages must agree: no section has them, and every module whose schema has them
gets them."""
_AGREEING = ("train_drl", "evaluate")
"""The stages whose files such a key makes differ."""
SINGLE = ("stand_in", "accelerator", "enrolment")
"""Keys that no instance overrides: a rule's code, threads and GPU are fixed when its Snakefile is read, and the regimes are those of
all instances."""
_OF_FOLDS = ("variants", "ablations")
"""Keys of a config with folds (`canids_shared.planning.folds`), for the modules whose schema has them."""
_TOP = (*_DATA, *_INHERITED, *COMMON, *_OF_FOLDS, "instances", "modules", *SECTIONS)

Config = dict[str, Any]
log = logging.getLogger(__name__)


def merged(base: Config, over: Config | None) -> Config:
    """`base` with `over` laid on it, nested mappings merged."""
    out = copy.deepcopy(base)
    for key, value in (over or {}).items():
        nested = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if nested else copy.deepcopy(value)
    return out


def with_preset(config: Config, package: str) -> Config:
    """`config` laid on the preset that it names, a file in the folder `presets` of a package; `config` where there is none.

    The package is installed wherever the module runs, also where the Snakefile comes from another place.
    """
    preset = _preset(package, str(config.get("preset")))
    return merged(preset, config) if preset else config


@cache
def _preset(package: str, name: str) -> Config | None:
    spec = importlib.util.find_spec(package)
    folders = [Path(place, "presets") for place in spec.submodule_search_locations or []] if spec else []
    file = next((path for folder in folders for path in folder.glob("*.yaml") if path.stem == name), None)
    return yaml_file.load(file) if file else None


def section(config: Config, stage: str) -> Config:
    """A module's config within a pipeline's: its own section, common keys, the datasets, its instances, and their ports.

    `stage` is one of the four, also for a module that replaces one, or a further module that the pipeline's config lists under
    `modules`; such a one comes after all four.

    Raises `CanidsError` naming the key if the pipeline's config has an unknown one, a section that is no mapping, or a common
    key within a section.
    """
    bounded(config, "config")
    further = config.get("modules") or []
    if not isinstance(further, list) or not all(isinstance(m, str) for m in further):
        raise CanidsError(f"config: modules must be a list of the names of further modules, not {further!r}")
    if unknown := sorted(set(config) - {*_TOP, *further}):
        raise CanidsError(f"config: unknown key '{unknown[0]}'; known keys: {', '.join((*_TOP, *further))}")
    sections = (*SECTIONS, *further)
    if stage not in sections:
        raise CanidsError(f"config: modules does not list '{stage}'")
    for key in ("instances", *sections):
        if not isinstance(config.get(key) or {}, dict):
            raise CanidsError(f"config: {key} must be a mapping, not {config[key]!r}")
    _refuse_common("", {key: config.get(key) for key in sections})
    instances = {"": {}, **_instances(config.get("instances") or {}, further)}

    def first_equal(stages: tuple[str, ...]) -> dict[str, str]:
        """Instance → the first one with the same overrides of these stages."""
        firsts: dict[Hashable, str] = {}
        # Overrides as keys: `setdefault` returns the first instance that has the same ones.
        overrides = {n: _hashable([o.get(s) or {} for s in stages]) for n, o in instances.items()}
        return {name: firsts.setdefault(over, name) for name, over in overrides.items()}

    # A stage makes files for an instance that no earlier instance equals up to and including this stage; of every port it
    # reads the files of the first instance that is equal up to there.
    upto = STAGES[: STAGES.index(stage) + 1] if stage in STAGES else (*STAGES, stage)
    with_files = {n: instances[n].get(stage) or {} for n, first in first_equal(upto).items() if n and n == first}
    firsts = {port: first_equal(stages) for port, stages in PORTS.items()}
    inherited, data, common = (_pick(config, keys) for keys in (_INHERITED, _DATA, (*COMMON, *_OF_FOLDS)))
    return {
        **inherited,
        **(config.get(stage) or {}),
        **data,
        "common": common,
        "instances": with_files,
        "ports": {port: {name: first[name] for name in with_files} for port, first in firsts.items()},
        "training_captures": _training_captures(config, ("", *with_files)),
        "folds": {name: left for name in with_files if (left := _left_out(instances[name]))},
    }


def _instances(declared: dict[str, Any], further: list[str]) -> dict[str, Config]:
    """Instance → stage → overrides; common keys of an instance become overrides of each stage that they reach."""
    stages = (*STAGES, *further)
    instances = {}
    for name, overrides in declared.items():
        if not isinstance(overrides or {}, dict):
            raise CanidsError(f"config: instances.{name} must be a mapping (stage → overrides), not {overrides!r}")
        by_stage = {key: value for key, value in (overrides or {}).items() if key not in COMMON}
        if unknown := sorted(set(by_stage) - set(stages)):
            known = ", ".join((*stages, *COMMON))
            raise CanidsError(f"config: instances.{name}: no stage '{unknown[0]}'; known keys: {known}")
        if wrong := [stage for stage, options in by_stage.items() if not isinstance(options or {}, dict)]:
            raise CanidsError(
                f"config: instances.{name}.{wrong[0]} must be a mapping of options, not {by_stage[wrong[0]]!r}"
            )
        _refuse_common(f"instances.{name}.", by_stage)
        if common := {key: overrides[key] for key in COMMON if key in (overrides or {})}:
            for stage in (*_AGREEING, *further):
                by_stage[stage] = {**(by_stage.get(stage) or {}), "common": common}
        instances[name] = by_stage
    return instances


def _refuse_common(place: str, sections: dict[str, Any]) -> None:
    for name, content in sections.items():
        for key in COMMON:
            if isinstance(content, dict) and key in content:
                raise CanidsError(
                    f"config: {place}{name}.{key}: several stages must agree on it; set {place}{key}, outside the section"
                )


def _hashable(value: Any) -> Hashable:
    """A value that is equal for two configs if, and only if, these are equal."""
    if isinstance(value, dict):
        return frozenset((k, _hashable(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return value if isinstance(value, Hashable) else repr(value)  # sets, say, which the schema refuses


def _left_out(overrides: Config | None) -> Config:
    """The captures that an instance leaves out, which makes it a fold; empty where it is none."""
    return ((overrides or {}).get("preprocess") or {}).get("leave_out") or {}


def known_to_folds(captures: dict[str, manifest.Capture]) -> dict[str, list[str]]:
    """Names that a fold can leave out of a dataset's training captures, by key of `leave_out`."""
    training = [c for c in captures.values() if c.role == "train"]
    return {kind: sorted({name for c in training for name in named(c)}) for kind, named in _NAMED.items()}


def has_instance(captures: dict[str, manifest.Capture], left_out: Config) -> bool:
    """Whether a dataset has an instance: all but folds that leave none of its training captures out."""
    return not left_out or any(
        name in names for kind, names in known_to_folds(captures).items() for name in left_out.get(kind, [])
    )


def left_out_captures(captures: dict[str, manifest.Capture], left_out: Config) -> list[manifest.Capture]:
    """A dataset's training captures that a fold leaves out, as far as their manifest shows them."""
    training = [c for c in captures.values() if c.role == "train"]
    return [c for c in training if any({*_NAMED[kind](c)} & {*names} for kind, names in left_out.items())]


def attacks_learnt(captures: dict[str, manifest.Capture], learnt_from: Config) -> str:
    """Where a dataset has the attacks from that detectors learn: `recorded`, `simulated`, or empty where it has none.

    Injected attacks are simulated ones, also where the captures around them are recorded.

    Args:
        captures: of the dataset.
        learnt_from: `auxiliary_captures` and `leave_out` of the config of preprocess.
    """
    left = learnt_from.get("leave_out") or {}
    training = [c for c in captures.values() if c.role == "train"]
    without = left_out_captures(captures, left)
    kept = [c for c in training if c not in without]
    labelled = [c for c in kept if c.content == "labelled"]
    if any(c.path for c in labelled):
        return "recorded"
    # As `members` of preprocess has it: a name that shows no kind of attack leaves all attacks of auxiliary captures out.
    unknown = any(kind_of(attack) is None for attack in left.get("attacks", []))
    joined = (
        learnt_from.get("auxiliary_captures") != "none"
        and any(c.format != "simulated" for c in training)
        and not unknown
    )
    return "simulated" if joined or labelled else ""


def _announce(dataset: str, captures: dict[str, manifest.Capture], learnt_from: Config, instance: str) -> None:
    """Say what is left out, and what is learnt or judged otherwise than on recordings."""
    place, attacks = f"dataset '{dataset}'{' ' + instance if instance else ''}", attacks_learnt(captures, learnt_from)
    if not attacks:
        log.warning(
            "%s: no attack to learn from, so GAT, policy and the fusion baselines that learn are left out; the VGAE alarms above a "
            "threshold (auxiliary_captures: simulated_fleet lets simulated attacks join recorded captures)",
            place,
        )
    elif attacks == "simulated" and any(c.format != "simulated" for c in captures.values()) and not instance:
        log.warning("%s: no recorded attack to learn from: all attacks in training are simulated", place)
    if not instance and not manifest.scenarios(captures):
        log.warning("%s: no test scenario: blocks of its training captures are judged", place)


def _training_captures(config: Config, instances: Iterable[str]) -> dict[str, Config]:
    """Instance → the keys of preprocess that decide which captures it learns from."""
    section = with_preset({**_pick(config, _INHERITED), **(config.get("preprocess") or {})}, "canids_preprocess")
    keys = ("auxiliary_captures", "leave_out")
    overrides = {name: (config.get("instances") or {}).get(name) or {} for name in instances}
    return {name: merged(_pick(section, keys), _pick(o.get("preprocess") or {}, keys)) for name, o in overrides.items()}


def _pick(config: Config, keys: tuple[str, ...]) -> Config:
    return {key: config[key] for key in keys if key in config}


def targets(config: Config, *patterns: str) -> list[str]:
    """Targets of a pipeline: `patterns` for every dataset and every instance that it has, with `{dataset}` and `{instance}`.

    What cannot be learnt or judged for want of attacks is left out, and said.
    """
    left_out = {"": {}, **{"@" + n: _left_out(o) for n, o in (config.get("instances") or {}).items()}}
    captures = {d: manifest.load(d, config["data_root"]) for d in config["datasets"]}
    learnt_from = _training_captures(config, [name[1:] for name in left_out])
    for dataset, instance in product(captures, left_out):
        _announce(dataset, captures[dataset], learnt_from[instance[1:]], instance)
    return [
        pattern.format(dataset=dataset, instance=instance)
        for dataset in captures
        for instance, left in left_out.items()
        if has_instance(captures[dataset], left)
        for pattern in patterns
    ]
