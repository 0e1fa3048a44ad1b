"""What the rules of a sweep ask: the files behind a point, and the points of a sub-space."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from canids_shared.planning.stage import Stage
from canids_shared.sweeps.space import Space


def runs_of_point(stage: Stage, space: Space) -> Callable[[Any], list[str]]:
    """Input function: the model of every training behind a point of a sweep, run by run and seed by seed."""
    ports = {"vgae": "states", "gat": "states", "dqn": "decisions"}

    def of(wildcards: Any) -> list[str]:
        found = []
        for run in stage.sweep["metric"]:
            port = f"<{ports[run.partition('_')[0]]}>"
            read = stage.upstream(f"{port}{{instance}}")
            for instance in stage.sweep["instances"][space.run_instance(wildcards)].values():
                (own,) = read(SimpleNamespace(instance=f"@{instance}"))
                found.append(f"<runs>/{run}{own.removeprefix(port)}/model.safetensors")
        return found

    return of


def points_of_subspace(stage: Stage, space: Space, file: str) -> Callable[[Any], list[str]]:
    """Input function: a file of every point of a sub-space."""

    def of(wildcards: Any) -> list[str]:
        return [file.replace("{point}", space.names[i]) for i in stage.sweep["subspaces"][wildcards.subspace]]

    return of
