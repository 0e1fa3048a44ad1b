"""What the Snakefiles need: config by schema, run instances, ports, params, interpreters.

A module's Snakefile makes one `Stage` from its config; a pipeline hands each module its part by `section`.  An instance
(`@seed-1`, `@without-kia`) is declared once, in the pipeline: name → stage → what it overrides.  A stage makes files
for an instance only if an override reaches it or a stage before it; otherwise its files are those of the first
instance that is equal up to there, so two seeds share their graphs.
"""

import copy
import gc
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from canids_shared import manifest, marks
from canids_shared.config import check, load_schema
from canids_shared.deployment import source
from canids_shared.errors import CanidsError
from canids_shared.interruption import SNAKEMAKE
from canids_shared.needs import signed
from canids_shared.sources import code_hash

STAGES = ("preprocess", "train_gnn", "train_drl", "evaluate")
VARIANTS = ("large", "small_kd", "small_nokd")
PORTS = {
    "graphs": ("preprocess",),
    "states": ("preprocess", "train_gnn"),
    "decisions": ("preprocess", "train_gnn", "train_drl"),
    "baselines": ("preprocess", "evaluate"),
}
"""What a stage may read of another (or, `baselines`, of itself): port → the stages whose overrides make its files differ."""
SECTIONS = (*STAGES, "tracking")
"""What a pipeline's config has a section for."""
_CALLED = {"vehicles": "vehicle", "attacks": "attack", "captures": "name"}
"""Key of `leave_out` → what a capture calls that."""
_COMMON = ("datasets", "data_root")
"""Keys of a pipeline's config that are all its modules' own."""
_INHERITED = ("stand_in", "preset")
"""Keys of a pipeline's config that hold for the modules whose section does not have them."""
_SINGLE = ("stand_in", "accelerator", "devices")
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


def _known(captures: dict[str, manifest.Capture]) -> dict[str, list[str]]:
    """What a fold can leave out of a dataset's training captures: key of `leave_out` → names."""
    training = [c for c in captures.values() if c.role == "train" and not c.companion]
    return {kind: sorted({getattr(c, key) for c in training} - {None}) for kind, key in _CALLED.items()}


def _has(captures: dict[str, manifest.Capture], left_out: Config) -> bool:
    """Whether a dataset has an instance: all but folds that leave none of its training captures out."""
    return not left_out or any(
        name in names for kind, names in _known(captures).items() for name in left_out.get(kind, [])
    )


def targets(config: Config, *patterns: str) -> list[str]:
    """Targets of a pipeline: `patterns` for every dataset and every instance that it has, with `{dataset}` and `{instance}`."""
    left_out = {"": {}, **{"@" + n: _left_out(o) for n, o in (config.get("instances") or {}).items()}}
    captures = {d: manifest.load(d, config["data_root"]) for d in config["datasets"]}
    return [
        pattern.format(dataset=dataset, instance=instance)
        for dataset in captures
        for instance, left in left_out.items()
        if _has(captures[dataset], left)
        for pattern in patterns
    ]


def _refuse_to_replace(outputs: Any) -> None:
    """Raise `CanidsError` if a job that makes stand-ins would replace a result; Snakemake deletes outputs beforehand."""
    if real := [path for path in map(str, outputs) if os.path.exists(path) and not marks.is_marked(path)]:
        raise CanidsError(
            f"{real[0]} is a result, which stand_in: true would replace; run it in another folder (--directory), on "
            "another dataset, or delete the result"
        )


class Stage:
    """One stage as its Snakefile sees it.

    Attributes:
        config: instance (`""`, `"@seed-1"`, …) → checked config with defaults.
        sweep: what the stage is told of a sweep over instances (`canids_shared.sweeps.Sweep.plan`), or nothing where none is swept.
        dataset, instance: regular expressions for the wildcards of these names.
    """

    def __init__(self, name: str, config: Config, schema: str | Path, conda: bool = False, package: str = "") -> None:
        """Check `config` (the module's section, which is called `name`) against `schema` for every instance.

        `package` is the module's Python package, `canids_{name}` unless it is given.

        With `conda`, entry points are run by the `python` of the environment that Snakemake activates, into which pip
        installs `$CANIDS_SOURCE`, by default this canids; else by that of the virtual environment which `environment`
        names, or by Snakemake's own.

        Raises `CanidsError` naming the key, or the manifest's entry, that is wrong.
        """
        # Planning makes millions of objects that live to its end; to look for garbage among them again and again is a sixth of it.
        gc.set_threshold(1_000_000, 50, 100)
        self.name = name
        self._package = package or f"canids_{name}"
        full = load_schema(schema, common=True)
        base = check(with_preset(config, self._package), full, where=name)
        self._ports: dict[str, dict[str, str]] = base.pop("ports")
        self._folds = {"@" + fold: left for fold, left in base.pop("folds").items()}
        instances = base.pop("instances")
        self.sweep: Config = base.pop("sweep", {})
        raw = {k: v for k, v in config.items() if k not in ("instances", "ports", "folds", "sweep")}
        self.config = {"": base}
        for instance, overrides in instances.items():
            own = with_preset(merged(raw, overrides), self._package)
            self.config["@" + instance] = check(own, full, where=f"instances.{instance}.{name}")
        if base.get("leave_out"):
            raise CanidsError(
                f"{name}.leave_out: makes a fold, so it belongs to an instance: "
                f"instances: {{NAME: {{{name}: {{leave_out: …}}}}}}"
            )
        self.datasets: list[str] = base["datasets"]
        self.captures = {d: manifest.load(d, base["data_root"]) for d in self.datasets}
        for fold, left in self._folds.items():
            if not any(self.has(d, fold) for d in self.datasets):
                known = {d: {kind: _known(self.captures[d])[kind] for kind in left} for d in self.datasets}
                raise CanidsError(
                    f"instances.{fold[1:]}: no training capture has what leave_out names, {left}; they have {known}"
                )
        self.stand_in: bool = base["stand_in"]
        for key in _SINGLE:
            if other := [n for n, o in instances.items() if (o or {}).get(key, base.get(key)) != base.get(key)]:
                raise CanidsError(
                    f"instances.{other[0]}.{name}: {key} is one for all instances of a stage; set {name}.{key}"
                )
        if conda:
            os.environ["CANIDS_SOURCE"] = os.environ.get("CANIDS_SOURCE") or source()
        environment = base["environment"]
        self.python = str(Path(environment).absolute() / "bin" / "python") if environment else sys.executable
        if not os.path.exists(self.python):
            raise CanidsError(f"{name}.environment: no Python at {self.python}")
        # Constant text in `shell`, so that another checkout finds the same cache entry.
        os.environ[f"CANIDS_{name.upper()}_PYTHON"] = " ".join(
            ["python" if conda else self.python, *(["-m", self._stand_ins] if self.stand_in else [])]
        )
        os.environ[SNAKEMAKE] = str(os.getpid())
        self.dataset = "|".join(map(re.escape, self.datasets))
        # Without instances the pattern is `()?`; an empty constraint would mean `.+`.
        self.instance = "(" + "|".join(re.escape(i) for i in self.config if i) + ")?"

    @property
    def _stand_ins(self) -> str:
        """The module that makes this stage's stand-ins."""
        return f"{self._package}.{marks.MARK}"

    def require_captures(self) -> None:
        """Raise `CanidsError` naming every capture whose raw file is not there; for the stage that reads them."""
        if absent := [m for d in self.datasets for m in manifest.missing(self.captures[d], d)]:
            raise CanidsError(" | ".join(absent))

    def scenarios(self, dataset: str, instance: str = "") -> list[str]:
        """Test scenarios of a dataset; of a fold, only its left-out captures."""
        return [manifest.LEFT_OUT] if instance in self._folds else manifest.scenarios(self.captures[dataset])

    def has(self, dataset: str, instance: str) -> bool:
        """Whether a dataset has this instance: all but folds that leave none of its training captures out."""
        return _has(self.captures[dataset], self._folds.get(instance, {}))

    def splits(self, dataset: str, instance: str = "") -> list[str]:
        """The four splits of the training captures, then the scenarios."""
        return [*manifest.SPLITS, *self.scenarios(dataset, instance)]

    def targets(self, pattern: str, **values: list[str]) -> list[str]:
        """`pattern` for every dataset, instance and, where it has these wildcards, split and item of `values`."""
        paths = []
        for dataset in self.datasets:
            for instance in (i for i in self.config if self.has(dataset, i)):
                splits = self.splits(dataset, instance) if "{split}" in pattern else [""]
                rows = [{"dataset": dataset, "instance": instance, "split": s} for s in splits]
                for key, items in values.items():
                    rows = [{**row, key: item} for row in rows for item in items]
                paths += [pattern.format(**row) for row in rows]
        return paths

    def upstream(self, *paths: str, splits: Callable[[Any], list[str]] | None = None) -> Callable[[Any], list[str]]:
        """Input function for files of another stage, such as `<graphs>{instance}/{split}.safetensors`.

        `{instance}` becomes the instance that this port has for the rule's instance; `splits` multiplies by splits.
        An instance whose port is not declared is a `CanidsError`: to fall back to the plain one would, in a fold, leak
        what was left out.
        """
        for path in paths:
            if (found := re.match("<(.+?)>", path)) is None or found[1] not in PORTS:
                raise CanidsError(f"{self.name}: '{path}' does not begin with a port; ports: {', '.join(PORTS)}")

        @signed
        def files(wildcards: Any) -> list[str]:
            own = getattr(wildcards, "instance", "")[1:]
            out = []
            for path in paths:
                port = path[1 : path.index(">")]
                if own and own not in self._ports.get(port, {}):
                    raise CanidsError(
                        f"{self.name}: instance '{own}' does not say what it reads; set ports.{port}.{own}"
                    )
                source = self._ports[port][own] if own else ""
                file = path.replace("{instance}", source and "@" + source)
                out += [file.replace("{split}", s) for s in splits(wildcards)] if splits else [file]
            return out

        return files

    def spec(self, entry: str, *keys: str, **constants: Any) -> Callable[[Any], str]:
        """Params function: JSON of the wildcards, the named keys of the instance's config, constants, and the code's hash.

        Params decide reruns and are the key of the cache between workflows, which does not look at wildcards or code
        by itself. Constants that are functions are called with the wildcards. A stand-in's params say that they are.

        Args:
            entry: the module that the shell runs; its hash (`canids_shared.sources.code_hash`) goes in as `code`.
            keys: keys of the stage's config that it uses.
            constants: what else it needs to know.
        """
        code = code_hash(self._stand_ins if self.stand_in else entry, self.python)
        made = {"stand_in": True} if self.stand_in else {}

        @signed
        def of(wildcards: Any, output: Any = ()) -> str:
            if self.stand_in:
                _refuse_to_replace(output)
            config = self.config[getattr(wildcards, "instance", "")]
            extra = {k: v(wildcards) if callable(v) else v for k, v in constants.items()}
            value = {
                "wildcards": dict(wildcards),
                "config": {k: config[k] for k in keys},
                "code": code,
                **made,
                **extra,
            }
            return json.dumps(value, sort_keys=True)

        return of
