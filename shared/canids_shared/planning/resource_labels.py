"""Resources of rules under labels: a rule says `resources: **resources_for("gpu_train")`, a profile may set the label's numbers.

A profile names a label where it could name a rule (Snakemake ignores names that are no rule's):

    set-resources:
      gpu_train:
        mem_mb: min(8000 * 2 ** (attempt - 1), 64000)
        slurm_partition: gpu

So nothing about a cluster is written in a rule, and a rule that a pipeline renames keeps its resources. An entry under a
rule's own name takes precedence over that of its label.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])
_MOST_MB = 64_000


def with_signature(function: _F) -> _F:
    """Store a function's signature where `inspect.signature` looks first: Snakemake asks for it with every job."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


def memory(base_mb: int) -> Callable[..., int]:
    """Resource function: MB of memory, `base_mb` at the first attempt, twice as much at every further one, at most `_MOST_MB`."""

    @with_signature
    def doubled(wildcards: Any, attempt: int) -> int:
        return int(min(base_mb * 2 ** (attempt - 1), _MOST_MB))

    return doubled


LABELS: Mapping[str, Mapping[str, Any]] = {
    # A table or a small file: no torch, some minutes at most.
    "small": {"mem_mb": memory(2000), "runtime": 20},
    # Preprocessing, window baselines, fusion baselines; trainings too where the config wants no GPU.
    "cpu": {"mem_mb": memory(4000), "runtime": 120},
    "gpu_train": {"mem_mb": memory(8000), "runtime": 120, "gpu": 1},
    # Trained detectors over some splits: short.
    "gpu_eval": {"mem_mb": memory(4000), "runtime": 30, "gpu": 1},
}
"""Label → resources where the profile sets none: MB of memory (doubled with every attempt), minutes, GPUs."""


def resources_by_label(workflow: Any, gpu: bool = True) -> Callable[..., dict[str, Any]]:
    """The function `resources_for` of a Snakefile: label → resources of a rule, the profile's numbers laid on `LABELS`.

    `resources_for(label, rule)` also takes what the profile has under the name of a rule: for rules of the same kind that have
    names of their own.

    Args:
        workflow: Snakemake's object of that name.
        gpu: whether the config wants GPUs; if not, a rule under a `gpu_*` label is one under `cpu`.
    """
    profile = workflow.resource_settings.overwrite_resources

    def resources_for(label: str, rule: str = "") -> dict[str, Any]:
        if label.startswith("gpu_") and not gpu:
            label = "cpu"
        given = {**profile.get(label, {}), **profile.get(rule, {})}
        return {**LABELS[label], **{name: _as_written(value) for name, value in given.items()}}

    return resources_for


def _as_written(resource: Any) -> Any:
    """A resource of the profile as a rule may state it: a value, or a function with the arguments that Snakemake passes."""
    if not resource.is_evaluable():
        return resource.value

    def evaluate(wildcards: Any, input: Any, attempt: int, threads: int, rulename: str, async_run: Any) -> Any:
        known = {"input": input, "attempt": attempt, "threads": threads, "rulename": rulename, "async_run": async_run}
        return resource.evaluate(wildcards, **known).value

    return evaluate
