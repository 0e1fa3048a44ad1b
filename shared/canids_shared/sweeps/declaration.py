"""Sweeps over one stage's options: a declared table or space becomes run instances, and a plan for `evaluate`.

    sweep = sweeps.declared(config, modules)    # config has a section `sweep` (sweep.schema.yaml)
    config = sweep.joined(config)               # instances @sweep-000, @sweep-001, …, and evaluate's plan

A point is an instance. It keeps its number when rows are added below it, and its name where the table has a column
`instance`, as a written `params.tsv` has: rows may then come, go and change places.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import POLICY_KIND, STAGES, Config, merged
from canids_shared.sweeps.metrics import METRICS, changes_meaning, kind_of, metrics_of
from canids_shared.sweeps.points import Points, nested, option_schema, read_points
from canids_shared.sweeps.sampling import refuse_too_many, sample
from canids_shared.sweeps.space import Space

ALL = "all"
"""The sub-space of all points."""
SEEDED = ("train_gnn", "train_drl")
SCHEMA = Path(__file__).with_name("sweep.schema.yaml")


@dataclass(frozen=True)
class Sweep:
    """A declared sweep.

    Attributes:
        space: its points.
        seeds: the seeds of every point; the first is that of the base config.
        subspaces: name → its points' instances, `all` first.
    """

    name: str
    stage: str
    runs: list[str]
    metric: str | None
    space: Space
    seeds: list[int]
    subspaces: dict[str, list[str]]

    @cached_property
    def instances(self) -> dict[str, Config]:
        """Instance (`sweep-017`, `sweep-017-seed-1`) → stage → what it overrides.

        Raises `CanidsError` if a point has the name of another one's seed.
        """
        instances: dict[str, Config] = {}
        for instance, values in self.space.points.items():
            for seed in self.seeds:
                overrides: Config = {self.stage: nested(values)}
                if seed != self.seeds[0]:
                    # From the swept stage on: what lies before it is shared by all seeds.
                    for stage in SEEDED[max(0, STAGES.index(self.stage) - 1) :]:
                        overrides[stage] = merged(overrides.get(stage, {}), {"seed": seed})
                name = _named(instance, seed, self.seeds)
                if name in instances:
                    raise CanidsError(
                        f"sweep.table: instance '{name}' is a point and a seed of one; call the point something else"
                    )
                instances[name] = overrides
        return instances

    @property
    def plan(self) -> Config:
        """The config `sweep` of the module evaluate."""
        seeds = {i: {str(seed): _named(i, seed, self.seeds) for seed in self.seeds} for i in self.space.points}
        metric = {run: self.metric or metrics_of(run)[0] for run in self.runs}
        return {
            "name": self.name,
            "stage": self.stage,
            "points": self.space.points,
            "instances": seeds,
            "metric": metric,
            "subspaces": self.subspaces,
        }

    def joined(self, config: Config) -> Config:
        """The pipeline's config with this sweep's instances and plan; the section `sweep` itself is gone.

        Raises `CanidsError` if an instance of that name is declared already.
        """
        rest = {k: v for k, v in config.items() if k != "sweep"}
        others = config.get("instances") or {}
        if both := sorted(others.keys() & self.instances.keys()):
            raise CanidsError(f"config: instances.{both[0]} is a point of the sweep; give the sweep another name")
        evaluate = {**(config.get("evaluate") or {}), "sweep": self.plan}
        return {**rest, "instances": {**others, **self.instances}, "evaluate": evaluate}


def declared(config: Config, modules: str | Path) -> Sweep:
    """Read and check the section `sweep` of a pipeline's config; `modules` is the folder of the modules' schemas.

    Raises `CanidsError` naming key, or file, row and option: an unknown option, a value that the stage's schema refuses,
    two equal points, a metric that the runs do not have or that a swept option changes, an empty sub-space.
    """
    if not config.get("sweep"):
        raise CanidsError("config: sweep is missing: which stage's options, over which table or space")
    section = check(config["sweep"], load_schema(SCHEMA), where="sweep")
    stage, base = section["stage"], config.get(section["stage"]) or {}
    schema = load_schema(Path(modules) / stage / "config.schema.yaml", common=True)
    first = check(base, schema, where=stage).get("seed", 0)
    points, places = _points(section, schema)
    refuse_too_many(len(points) * section["seeds"], "trainings of each run")
    _check_metric(section, points)
    for instance, values in points.items():
        check(merged(base, nested(values)), schema, where=places[instance])
    space = Space(points)
    if stage == "preprocess":
        first = (config.get("train_gnn") or {}).get("seed", 0)
    subspaces = {ALL: list(points)}
    for name, conditions in section["subspaces"].items():
        try:
            subspaces[name] = list(space.where(conditions).points)
        except CanidsError as error:
            raise CanidsError(f"sweep.subspaces.{name}: {error}") from None
    seeds = list(range(first, first + section["seeds"]))
    return Sweep(section["name"], stage, section["runs"], section["metric"], space, seeds, subspaces)


def _points(section: Config, schema: Config) -> tuple[Points, dict[str, str]]:
    """The points of a checked section, and the place of each for messages."""
    name, space = section["name"], section["space"]
    table = Path(section["table"]) if section["table"] else None
    if section["method"] == "tpe":
        if table is None or not space:
            raise CanidsError("sweep: method tpe needs a space, and a table for the rows of its rounds")
        if not table.exists():
            table = None  # the first round
    elif (table is None) == (not space):
        raise CanidsError("sweep: needs a table, or a space to take points from, and not both")
    if table:
        return read_points(table, schema, name)
    sampled = sample(space, whole_options(space, schema), section["method"], section["points"], section["seed"])
    points = {f"{name}-{n:03d}": point for n, point in enumerate(sampled)}
    return points, {i: f"sweep.space: {i}" for i in points}


def whole_options(space: Config, schema: Config) -> set[str]:
    """The options of a space that are whole numbers; raises `CanidsError` naming one that the stage does not have."""
    return {o for o in space if option_schema(o, schema, "sweep.space").get("type") == "integer"}


def _check_metric(section: Config, points: Points) -> None:
    metric, stage = section["metric"], section["stage"]
    for run in section["runs"]:
        kind = kind_of(run)
        if kind not in METRICS:
            raise CanidsError(f"sweep.runs: no training is called {run}; kinds of training: {', '.join(METRICS)}")
        if STAGES.index("train_drl" if kind == POLICY_KIND else "train_gnn") < STAGES.index(stage):
            raise CanidsError(f"sweep.runs: {run} comes before {stage}, whose options it does not depend on")
        if metric and metric not in METRICS[kind]:
            raise CanidsError(f"sweep.metric: {run} has no {metric}; it has {' and '.join(METRICS[kind])}")
        chosen = metric or METRICS[kind][0]
        for option in (stage, *next(iter(points.values()))):
            if changes_meaning(option, chosen):
                others = [m for m in METRICS[kind] if not changes_meaning(option, m)]
                instead = f"set sweep.metric: {others[0]}" if others else f"points of {run} cannot be compared"
                raise CanidsError(f"sweep: {option} changes what {chosen} means; {instead}")


def _named(instance: str, seed: int, seeds: list[int]) -> str:
    return instance if seed == seeds[0] else f"{instance}-seed-{seed}"
