"""A record of a training (`run.json`) for tests that need one and not a training."""

from typing import Any

from canids_shared.contracts.training_run import TrainingRun


def record(kind: str = "gat", variant: str = "large", **changes: Any) -> TrainingRun:
    """A record with little in it; `changes` replaces fields."""
    fields: dict[str, Any] = {
        "kind": kind,
        "label": kind.upper(),
        "detectors": [] if kind == "dqn" else [kind],
        "variant": variant,
        "scale": variant.partition("_")[0],
        "dataset": "d",
        "instance": "",
        "seed": 0,
        "code": "0123456789abcdef",
        "config": {"seed": changes.get("seed", 0)},
        "inputs": {},
        "input_digests": {},
        "parameters": 3,
        "best": 0,
        "history": {},
        "select": {},
        "data": {},
        "latency": {"median_ms": 1.0, "device": "cpu"},
        "sizes": {},
        "digests": {},
    }
    return TrainingRun(**{**fields, **changes})
