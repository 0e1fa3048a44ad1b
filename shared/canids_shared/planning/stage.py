"""One stage as its Snakefile sees it: checked config, ports, params, interpreter."""

import gc
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canids_shared.contracts import manifest, stand_in_mark
from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.jobs.interruption import SNAKEMAKE
from canids_shared.planning.code_hash import code_hash
from canids_shared.planning.deployment import source
from canids_shared.planning.pipeline import PORTS, SINGLE, Config, has_instance, known_to_folds, merged, with_preset
from canids_shared.planning.resource_labels import signed

LOGGED = " 2> {log} || {{ cat {log} >&2; exit 1; }}"
"""How every shell of a rule ends: messages go to the job's log, and to the terminal too where the job fails."""


def _refuse_to_replace(outputs: Any) -> None:
    """Raise `CanidsError` if a job that makes stand-ins would replace a result; Snakemake deletes outputs beforehand."""
    if real := [path for path in map(str, outputs) if os.path.exists(path) and not stand_in_mark.is_marked(path)]:
        raise CanidsError(
            f"{real[0]} is a result, which stand_in: true would replace; run it in another folder (--directory), on "
            "another dataset, or delete the result"
        )


class Stage:
    """One stage as its Snakefile sees it.

    Attributes:
        config: instance (`""`, `"@seed-1"`, …) → checked config with defaults.
        sweep: what the stage is told of a sweep over instances (`canids_shared.sweeps.declaration.Sweep.plan`), or nothing where none is swept.
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
                known = {d: {kind: known_to_folds(self.captures[d])[kind] for kind in left} for d in self.datasets}
                raise CanidsError(
                    f"instances.{fold[1:]}: no training capture has what leave_out names, {left}; they have {known}"
                )
        self.stand_in: bool = base["stand_in"]
        for key in SINGLE:
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
        return f"{self._package}.stand_ins"

    def require_captures(self) -> None:
        """Raise `CanidsError` naming every capture whose raw file is not there; for the stage that reads them."""
        if absent := [m for d in self.datasets for m in manifest.missing(self.captures[d], d)]:
            raise CanidsError(" | ".join(absent))

    def scenarios(self, dataset: str, instance: str = "") -> list[str]:
        """Test scenarios of a dataset; of a fold, only its left-out captures."""
        return [manifest.LEFT_OUT] if instance in self._folds else manifest.scenarios(self.captures[dataset])

    def has(self, dataset: str, instance: str) -> bool:
        """Whether a dataset has this instance: all but folds that leave none of its training captures out."""
        return has_instance(self.captures[dataset], self._folds.get(instance, {}))

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
            entry: the module that the shell runs; its hash (`canids_shared.planning.code_hash.code_hash`) goes in as `code`.
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
