"""Input functions of a sweep's rules: the trainings of a point, and the points of a sub-space."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from canids_shared.planning.pipeline import POLICY_KIND
from canids_shared.planning.stage import Stage
from canids_shared.sweeps.metrics import kind_of
from canids_shared.sweeps.space import Space


def runs_of_point(stage: Stage, space: Space) -> Callable[[Any], list[str]]:
    """Input function: `run.json` of every training of a point, run by run and seed by seed."""

    def run_files(wildcards: Any) -> list[str]:
        paths = []
        for run in stage.sweep["metric"]:
            # A point may share a training with others; the port of its stage has the instance that holds the files.
            port = "<decisions>" if kind_of(run) == POLICY_KIND else "<states>"
            upstream = stage.upstream(f"{port}{{instance}}")
            for instance in stage.sweep["instances"][space.run_instance(wildcards)].values():
                (path,) = upstream(SimpleNamespace(instance=f"@{instance}"))
                paths.append(f"<runs>/{run}{path.removeprefix(port)}/run.json")
        return paths

    return run_files


def points_of_subspace(stage: Stage, space: Space, file: str) -> Callable[[Any], list[str]]:
    """Input function: a file of every point of a sub-space."""

    def point_files(wildcards: Any) -> list[str]:
        return [file.replace("{point}", space.names[i]) for i in stage.sweep["subspaces"][wildcards.subspace]]

    return point_files
