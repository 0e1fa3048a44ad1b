"""What the Snakefile of train_gnn asks of the config: which files a job reads, and which environment it needs."""

from collections.abc import Callable
from typing import Any

from canids_shared.planning.stage import Stage


def teacher(kind: str, variant: str) -> list[str]:
    """The teacher that a variant learns from, if any."""
    return [f"<runs>/{kind}_large{{instance}}/model.safetensors"] if variant == "small_kd" else []


def judge(stage: Stage, kind: str, variant: str) -> Callable[[Any], list[str]]:
    """Input function: the VGAE that tells a GAT's curriculum how hard a window is, if the instance's config wants one."""

    def of(wildcards: Any) -> list[str]:
        by = stage.config[wildcards.instance]["gat"]["curriculum"]["by"]
        return [f"<runs>/vgae_{variant}{{instance}}/model.safetensors"] if kind == "gat" and by == "vgae" else []

    return of


def environment(stage: Stage) -> str:
    """The conda environment that the backends of all instances need."""
    wanted = {config["backend"] for config in stage.config.values()}
    return "environment.dgl.yaml" if "dgl" in wanted else "environment.yaml"
