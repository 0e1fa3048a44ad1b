"""One stage as its Snakefile sees it: checked config, ports, params, interpreter."""

import copy
import gc
import json
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from canids_shared.contracts import manifest, stand_in_mark
from canids_shared.contracts.config import bounded, check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.jobs.interruption import SNAKEMAKE
from canids_shared.planning import failures
from canids_shared.planning.code_hash import code_hash
from canids_shared.planning.deployment import source
from canids_shared.planning.pipeline import (
    PORTS,
    SINGLE,
    Config,
    attacks_learnt,
    has_instance,
    known_to_folds,
    left_out_captures,
    merged,
    with_preset,
)
from canids_shared.planning.resource_labels import with_signature

LOGGED = " 2> {log} || {{ cat {log} >&2; exit 1; }}"
"""The end of every rule's shell: messages go to the job's log, and to the terminal too where the job fails."""
_FROM_PIPELINE = ("instances", "ports", "training_captures", "folds", "sweep")
"""Keys of a module's config that a pipeline writes for all instances at once (`canids_shared.planning.pipeline.section`)."""


def _refuse_to_replace(outputs: Any) -> None:
    """Raise `CanidsError` if a job that makes stand-ins would replace a result; Snakemake deletes outputs beforehand."""
    if real := [path for path in map(str, outputs) if os.path.exists(path) and not stand_in_mark.is_marked(path)]:
        raise CanidsError(
            f"{real[0]} is a result, which stand_in: true would replace; run it in another folder (--directory), on "
            "another dataset, or delete the result"
        )


@cache
def remember_producers() -> None:
    """Let Snakemake look for the rules that make a file once, and not for every job that reads it, and only among those that fit.

    It holds a path against the patterns of all outputs of every rule of which one begins and ends alike: with a dozen rules that
    make a `model.safetensors`, that is a tenth of planning. Here a path is held against the patterns that end with its name, or
    with a wildcard within it. Does nothing where no Snakemake reads a Snakefile.
    """
    if (index := sys.modules.get("snakemake.output_index")) is None:
        return
    begin, look_up = index.OutputIndex.__init__, index.OutputIndex.match_producers

    def __init__(self: Any, rules: Any) -> None:  # noqa: N807
        rules = list(rules)
        begin(self, rules)
        self.known_producers, self.by_name = {}, {}
        for rule in rules:
            for product in rule.products():
                # What is constant may be the whole name, or only its end.
                ends = str(product.constant_prefix()), str(product.constant_suffix())
                _, slash, name = ends[1].rpartition("/")
                self.by_name.setdefault(name if slash else "", []).append((*ends, rule, product))

    def match_producers(self: Any, targetfile: str) -> Any:
        known = self.known_producers
        if targetfile not in known:
            fitting = chain(self.by_name.get(os.path.basename(targetfile), ()), self.by_name.get("", ()))
            try:
                known[targetfile] = {
                    rule
                    for prefix, suffix, rule, product in fitting
                    if targetfile.startswith(prefix) and targetfile.endswith(suffix) and product.match(targetfile)
                }
            except ValueError:  # Snakemake's message names the rule
                known[targetfile] = look_up(self, targetfile)
        return known[targetfile]

    index.OutputIndex.__init__, index.OutputIndex.match_producers = __init__, match_producers


class Stage:
    """One stage as its Snakefile sees it.

    Attributes:
        config: instance (`""`, `"@seed-1"`, …) → checked config with defaults.
        sweep: the plan of a sweep over instances (`canids_shared.sweeps.declaration.Sweep.plan`), empty where none is swept.
        captures: dataset → its captures by name.
        dataset, instance: regular expressions for the wildcards of these names.
        python: the interpreter that runs the stage's entry points.
    """

    def __init__(self, name: str, config: Config, schema: str | Path, conda: bool = False, package: str = "") -> None:
        """Check `config` (the module's section, which is called `name`) against `schema` for every instance.

        `package` is the module's Python package, by default `canids_{name}`.

        With `conda`, entry points are run by the `python` of the environment that Snakemake activates, into which pip
        installs `$CANIDS_SOURCE`, by default this canids; without, by that of the virtual environment which `environment`
        names, or by Snakemake's own.

        Raises `CanidsError` naming the key, or the manifest's entry, that is wrong.
        """
        # Planning makes millions of objects that live to its end; collecting garbage among them takes a sixth of its time.
        gc.set_threshold(1_000_000, 50, 100)
        remember_producers()
        failures.attend()
        self.name = name
        self._package = package or f"canids_{name}"
        plain = self._check_instances(config, load_schema(schema, common=True))
        self.datasets: list[str] = plain["datasets"]
        self.captures = {d: manifest.load(d, plain["data_root"]) for d in self.datasets}
        self._check_folds()
        self.stand_in: bool = plain["stand_in"]
        self._set_interpreter(plain["environment"], conda)
        self.dataset = "|".join(map(re.escape, self.datasets))
        # Without instances the pattern is `()?`; an empty constraint would mean `.+`.
        self.instance = "(" + "|".join(re.escape(i) for i in self.config if i) + ")?"

    def _check_instances(self, config: Config, schema: Config) -> Config:
        """Check and complete the config of every instance; returns that of the plain one."""

        known: dict[str, Config] = {}

        def checked(section: Config, where: str) -> Config:
            common = {k: v for k, v in (section.get("common") or {}).items() if k in schema["properties"]}
            # Most instances change nothing of most stages; repr tells 1 from 1.0 and from True.
            if (same := repr((section, common))) not in known:
                known[same] = check(with_preset({**section, **common}, self._package), schema, where)
            return copy.deepcopy(known[same])

        bounded(config, self.name)
        # The pipeline's own keys are checked with the rest; no rule uses them, so they do not reach params.
        plain = checked(config, self.name)
        from_pipeline = {key: plain.pop(key, {}) for key in _FROM_PIPELINE}
        del plain["common"]
        self._ports: dict[str, dict[str, str]] = from_pipeline["ports"]
        self._learnt_from: dict[str, Config] = {n and f"@{n}": c for n, c in from_pipeline["training_captures"].items()}
        self._folds: dict[str, Config] = {"@" + fold: left for fold, left in from_pipeline["folds"].items()}
        self.sweep: Config = from_pipeline["sweep"]
        self.config = {"": plain}
        shared = {k: v for k, v in config.items() if k not in _FROM_PIPELINE}
        for instance, overrides in from_pipeline["instances"].items():
            place = f"instances.{instance}.{self.name}"
            self.config["@" + instance] = checked(merged(shared, overrides), place)
            for key in SINGLE:
                if (overrides or {}).get(key, plain.get(key)) != plain.get(key):
                    raise CanidsError(f"{place}: {key} is one for all instances of a stage; set {self.name}.{key}")
        if plain.get("leave_out"):
            raise CanidsError(
                f"{self.name}.leave_out: makes a fold, so it belongs to an instance: "
                f"instances: {{NAME: {{{self.name}: {{leave_out: …}}}}}}"
            )
        return plain

    def _check_folds(self) -> None:
        """Raise `CanidsError` if a fold leaves no training capture of any dataset out."""
        for fold, left in self._folds.items():
            if not any(self.has(d, fold) for d in self.datasets):
                known = {d: {kind: known_to_folds(self.captures[d])[kind] for kind in left} for d in self.datasets}
                raise CanidsError(
                    f"instances.{fold[1:]}: no training capture has what leave_out names, {left}; they have {known}"
                )

    def _set_interpreter(self, environment: str | None, conda: bool) -> None:
        """Set the environment variables that the stage's shells and jobs read."""
        if conda:
            os.environ["CANIDS_SOURCE"] = os.environ.get("CANIDS_SOURCE") or source()
        self.python = str(Path(environment).absolute() / "bin" / "python") if environment else sys.executable
        if not os.path.exists(self.python):
            raise CanidsError(f"{self.name}.environment: no Python at {self.python}")
        # Constant text in `shell`, so that another checkout finds the same cache entry. The path may have blanks, so shells
        # quote it; what makes stand-ins is several words, or none, and has a variable of its own.
        variable = f"CANIDS_{self.name.upper()}"
        os.environ[f"{variable}_PYTHON"] = "python" if conda else self.python
        os.environ[f"{variable}_STAND_INS"] = f"-m {self._stand_ins}" if self.stand_in else ""
        os.environ[SNAKEMAKE] = str(os.getpid())

    @property
    def _stand_ins(self) -> str:
        """The module that makes this stage's stand-ins."""
        return f"{self._package}.stand_ins"

    def require_captures(self) -> None:
        """Raise `CanidsError` naming every capture without its raw file; for the stage that reads these."""
        if absent := [m for d in self.datasets for m in manifest.missing(self.captures[d], d)]:
            raise CanidsError(" | ".join(absent))

    def scenarios(self, dataset: str, instance: str = "") -> list[str]:
        """Scenarios that are judged, those with their vehicles enrolled last.

        Test scenarios of a dataset, or `manifest.JUDGED` where it has none; of a fold, its left-out captures, and those that
        nothing is trained on.
        """
        captures = self.captures[dataset]
        scenarios = manifest.scenarios(captures) or [manifest.JUDGED]
        if instance in self._folds:
            scenarios = [manifest.LEFT_OUT, *(s for s in scenarios if s == manifest.UNSEEN)]
        return [*scenarios, *(s + manifest.ENROLLED for s in scenarios if self._can_enrol(dataset, instance, s))]

    def _can_enrol(self, dataset: str, instance: str, scenario: str) -> bool:
        """Whether vehicles are enrolled, and a scenario has attack-free captures to do it by."""
        if not self.config[""]["enrolment"]:
            return False
        captures = self.captures[dataset]
        of_fold = left_out_captures(captures, self._folds.get(instance, {}))
        judged = of_fold if scenario == manifest.LEFT_OUT else [c for c in captures.values() if c.role == scenario]
        return any(c.content == "attack-free" for c in judged)

    def enrolment(self, dataset: str, instance: str = "") -> list[str]:
        """The split `manifest.ENROLMENT`, where a scenario is judged with its vehicles enrolled."""
        enrolled = any(s.endswith(manifest.ENROLLED) for s in self.scenarios(dataset, instance))
        return [manifest.ENROLMENT] if enrolled else []

    def is_fold(self, instance: str) -> bool:
        """Whether an instance is a fold of the training captures."""
        return instance in self._folds

    def left_out(self, instance: str) -> Config:
        """What a fold leaves out (`preprocess.leave_out`); empty of an instance that is none."""
        return self._folds.get(instance, {})

    def training_splits(self, dataset: str) -> list[str]:
        """The four splits of the training captures; none of captures that are only scored."""
        return list(manifest.SPLITS) if any(c.role == "train" for c in self.captures[dataset].values()) else []

    def has(self, dataset: str, instance: str) -> bool:
        """Whether a dataset has this instance: all but folds that leave none of its training captures out."""
        return has_instance(self.captures[dataset], self._folds.get(instance, {}))

    def has_attacks(self, dataset: str, instance: str = "") -> bool:
        """Whether detectors learn from attacks in a dataset; true where no pipeline says how its graphs are made."""
        chosen = self._learnt_from.get(instance)
        return chosen is None or bool(attacks_learnt(self.captures[dataset], chosen))

    def with_attacks(self, *paths: str) -> Callable[[Any], list[str]]:
        """Input function for files that are made where there are attacks to learn from, and only there."""

        @with_signature
        def files(wildcards: Any) -> list[str]:
            return list(paths) if self.has_attacks(wildcards.dataset, wildcards.instance) else []

        return files

    def splits(self, dataset: str, instance: str = "") -> list[str]:
        """The four splits of the training captures, then the scenarios, then what vehicles are enrolled by."""
        further = [*self.scenarios(dataset, instance), *self.enrolment(dataset, instance)]
        return list(dict.fromkeys([*manifest.SPLITS, *further]))

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
        An instance whose port is not declared is a `CanidsError`: a silent use of the plain one would, in a fold, leak
        the captures that were left out.
        """
        for path in paths:
            if (port := re.match("<(.+?)>", path)) is None or port[1] not in PORTS:
                raise CanidsError(f"{self.name}: '{path}' does not begin with a port; ports: {', '.join(PORTS)}")

        # Called for each job: whatever can be checked without wildcards was checked above.
        @with_signature
        def files(wildcards: Any) -> list[str]:
            reader = getattr(wildcards, "instance", "")[1:]
            expanded = []
            for path in paths:
                port = path[1 : path.index(">")]
                if reader and reader not in self._ports.get(port, {}):
                    raise CanidsError(
                        f"{self.name}: instance '{reader}' does not say what it reads; set ports.{port}.{reader}"
                    )
                read = self._ports[port][reader] if reader else ""
                file = path.replace("{instance}", read and "@" + read)
                expanded += [file.replace("{split}", s) for s in splits(wildcards)] if splits else [file]
            return expanded

        return files

    def spec(self, entry: str, *keys: str, **constants: Any) -> Callable[[Any], str]:
        """Params function: JSON of the wildcards, the named keys of the instance's config, constants, and the code's hash.

        Params decide reruns and are the key of the cache between workflows, which looks at neither wildcards nor code.
        Constants that are functions are called with the wildcards. A stand-in's params hold `stand_in: true`.

        Args:
            entry: the module that the shell runs; its hash (`canids_shared.planning.code_hash.code_hash`) goes in as `code`.
            keys: keys of the stage's config that it uses.
            constants: further values that it needs.
        """
        code = code_hash(self._stand_ins if self.stand_in else entry, self.python)
        mark = {"stand_in": True} if self.stand_in else {}

        @with_signature
        def spec_of_job(wildcards: Any, output: Any = ()) -> str:
            if self.stand_in:
                _refuse_to_replace(output)
            config = self.config[getattr(wildcards, "instance", "")]
            extra = {k: v(wildcards) if callable(v) else v for k, v in constants.items()}
            used = {"wildcards": dict(wildcards), "config": {k: config[k] for k in keys}, "code": code}
            return json.dumps({**used, **mark, **extra}, sort_keys=True)

        return spec_of_job
