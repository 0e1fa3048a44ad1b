"""What rules need, under labels: a rule says `resources: **needs("gpu_train")`, a profile may give the label's numbers.

A profile names a label where else it would name a rule (Snakemake leaves names that are no rule's alone):

    set-resources:
      gpu_train:
        mem_mb: min(8000 * 2 ** (attempt - 1), 64000)
        slurm_partition: gpu

So nothing about a cluster is written in a rule, and a rule that a pipeline renames keeps its needs.  An entry under a
rule's own name counts more than its label's.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def signed(function: _F) -> _F:
    """Keep a function's signature where `inspect.signature` looks first: Snakemake asks for it with every job."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


def memory(base_mb: int, cap_mb: int = 64_000) -> Callable[..., int]:
    """Resource function: `base_mb` at the first attempt, twice as much at every further one, never above `cap_mb`."""

    @signed
    def of(wildcards: Any, attempt: int) -> int:
        return int(min(base_mb * 2 ** (attempt - 1), cap_mb))

    return of


LABELS: Mapping[str, Mapping[str, Any]] = {
    # A table or a small file: no torch, some minutes at most.
    "small": {"mem_mb": memory(2000), "runtime": 20},
    # Preprocessing, baselines; trainings too where the config wants no GPU.
    "cpu": {"mem_mb": memory(4000), "runtime": 120},
    "gpu_train": {"mem_mb": memory(8000), "runtime": 120, "gpu": 1},
    # A trained detector over one split: short.
    "gpu_eval": {"mem_mb": memory(4000), "runtime": 30, "gpu": 1},
}
"""Label → resources where the profile says nothing: MB of memory (doubled with every attempt), minutes, GPUs."""


def labels(workflow: Any, gpu: bool = True) -> Callable[[str], dict[str, Any]]:
    """The function `needs` of a Snakefile: label → resources of a rule, with the numbers of the profile laid over `LABELS`.

    A rule that wants several GPUs says so: `needs("gpu_train", gpus=2)`.

    Args:
        workflow: Snakemake's, as Snakefiles know it.
        gpu: whether the config wants GPUs; if not, a rule under a `gpu_*` label is one under `cpu`.
    """
    given = workflow.resource_settings.overwrite_resources

    def needs(label: str, gpus: int = 1) -> dict[str, Any]:
        if label.startswith("gpu_") and not gpu:
            label = "cpu"
        found = {**LABELS[label], **{name: _as_written(value) for name, value in given.get(label, {}).items()}}
        return {**found, "gpu": gpus} if gpus > 1 and "gpu" in found else found

    return needs


def _as_written(resource: Any) -> Any:
    """A resource of the profile as a rule may state it: a value, or a function of what Snakemake tells resources."""
    if not resource.is_evaluable():
        return resource.value

    def evaluate(wildcards: Any, input: Any, attempt: int, threads: int, rulename: str, async_run: Any) -> Any:
        known = {"input": input, "attempt": attempt, "threads": threads, "rulename": rulename, "async_run": async_run}
        return resource.evaluate(wildcards, **known).value

    return evaluate
