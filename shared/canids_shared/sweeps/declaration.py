"""Sweeps over one stage's options: a declared table or space becomes run instances, and a plan that `evaluate` reads.

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
from canids_shared.planning.pipeline import STAGES, Config, merged
from canids_shared.sweeps.points import Points, nested, option_schema, read_points
from canids_shared.sweeps.sampling import points_of
from canids_shared.sweeps.space import Space

ALL = "all"
"""The sub-space of all points."""
SEEDED = ("train_gnn", "train_drl")
METRICS = {"vgae": ("auroc", "loss"), "gat": ("auroc", "loss"), "dqn": ("reward", "f1")}
"""Kind of training → what can be read of it on `select`; the first is the default."""
_STAGE_OF = {"vgae": "train_gnn", "gat": "train_gnn", "dqn": "train_drl"}
_SHIFTING = {
    "loss": ("preprocess", "vgae.edge_weight", "vgae.divergence_weight"),
    "reward": ("reward", "detector_dropout", "attack_splicing", "episode_length"),
    "f1": ("episode_length",),
}
"""Options, or all of a stage, that change what a metric means, so that points could not be compared by it."""
_SCHEMA = Path(__file__).with_name("sweep.schema.yaml")


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

        Raises `CanidsError` if a point is called what a seed of another one is.
        """
        found: dict[str, Config] = {}
        for instance, values in self.space.points.items():
            for seed in self.seeds:
                overrides: Config = {self.stage: nested(values)}
                if seed != self.seeds[0]:
                    for stage in SEEDED[max(0, STAGES.index(self.stage) - 1) :]:
                        overrides[stage] = merged(overrides.get(stage, {}), {"seed": seed})
                name = _named(instance, seed, self.seeds)
                if name in found:
                    raise CanidsError(
                        f"sweep.table: instance '{name}' is a point and a seed of one; call the point something else"
                    )
                found[name] = overrides
        return found

    @property
    def plan(self) -> Config:
        """What the module evaluate is told, as its config's `sweep`."""
        seeds = {i: {str(seed): _named(i, seed, self.seeds) for seed in self.seeds} for i in self.space.points}
        metric = {run: self.metric or METRICS[run.partition("_")[0]][0] for run in self.runs}
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
        own = config.get("instances") or {}
        if both := sorted(own.keys() & self.instances.keys()):
            raise CanidsError(f"config: instances.{both[0]} is a point of the sweep; give the sweep another name")
        evaluate = {**(config.get("evaluate") or {}), "sweep": self.plan}
        return {**rest, "instances": {**own, **self.instances}, "evaluate": evaluate}


def declared(config: Config, modules: str | Path) -> Sweep:
    """Read and check the section `sweep` of a pipeline's config; `modules` is the folder of the modules' schemas.

    Raises `CanidsError` naming key, or file, row and option: an unknown option, a value that the stage's schema refuses,
    two equal points, a metric that the runs do not have or that a swept option changes, an empty sub-space.
    """
    if not config.get("sweep"):
        raise CanidsError("config: sweep is missing: which stage's options, over which table or space")
    section = check(config["sweep"], load_schema(_SCHEMA), where="sweep")
    stage, base = section["stage"], config.get(section["stage"]) or {}
    schema = load_schema(Path(modules) / stage / "config.schema.yaml", common=True)
    if bool(section["table"]) == bool(section["space"]):
        raise CanidsError("sweep: needs a table, or a space to take points from, and not both")
    if section["table"]:
        points, places = read_points(Path(section["table"]), schema, section["name"])
    else:
        whole = {o for o in section["space"] if option_schema(o, schema, "sweep.space").get("type") == "integer"}
        how = (section["method"], section["points"], section["seed"])
        drawn = points_of(section["space"], whole, *how, "sweep.space")
        points = {f"{section['name']}-{n:03d}": point for n, point in enumerate(drawn)}
        places = {i: f"sweep.space: {i}" for i in points}
    _check_metric(section, points)
    for instance, values in points.items():
        check(merged(base, nested(values)), schema, where=places[instance])
    space = Space(points)
    first = check(base, schema, where=stage).get("seed", 0)
    if stage == "preprocess":
        first = (config.get("train_gnn") or {}).get("seed", 0)
    subspaces = {ALL: list(points)}
    for name, condition in section["subspaces"].items():
        try:
            subspaces[name] = list(space.query(condition).points)
        except CanidsError as error:
            raise CanidsError(f"sweep.subspaces.{name}: {error}") from None
        if not subspaces[name]:
            raise CanidsError(f"sweep.subspaces.{name}: no point has {condition}")
    seeds = list(range(first, first + section["seeds"]))
    return Sweep(section["name"], stage, section["runs"], section["metric"], space, seeds, subspaces)


def _check_metric(section: Config, points: Points) -> None:
    metric, stage = section["metric"], section["stage"]
    for run in section["runs"]:
        kind = run.partition("_")[0]
        if STAGES.index(_STAGE_OF[kind]) < STAGES.index(stage):
            raise CanidsError(f"sweep.runs: {run} comes before {stage}, whose options it does not see")
        if metric and metric not in METRICS[kind]:
            raise CanidsError(f"sweep.metric: {run} has no {metric}; it has {' and '.join(METRICS[kind])}")
        read = metric or METRICS[kind][0]
        for option in (stage, *next(iter(points.values()))):
            if _shifts(option, read):
                others = [m for m in METRICS[kind] if not _shifts(option, m)]
                instead = f"set sweep.metric: {others[0]}" if others else f"points of {run} cannot be compared"
                raise CanidsError(f"sweep: {option} changes what {read} means; {instead}")


def _shifts(option: str, metric: str) -> bool:
    return any(option == o or option.startswith(f"{o}.") for o in _SHIFTING.get(metric, ()))


def _named(instance: str, seed: int, seeds: list[int]) -> str:
    return instance if seed == seeds[0] else f"{instance}-seed-{seed}"
