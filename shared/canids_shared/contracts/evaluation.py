"""Results of evaluations (contracts metrics/6 and curves/5): `metrics.json` and `curves.json`, written and read by one pair of functions.

They lie in `eval_{variant}{instance}` of a dataset's runs, or in `window_baselines{instance}` of its results.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canids_shared.contracts.whole import read_json, write_json

METRICS_CONTRACT, CURVES_CONTRACT = "metrics/6", "curves/5"
LEADERBOARD_CONTRACT = "leaderboard/1"
"""Folds, seeds and regimes in one document (`leaderboard.json`)."""


def read_evaluation(path: Path, contract: str, **wanted: str) -> dict[str, Any]:
    """`metrics.json` or `curves.json`, by its contract; `wanted` is what it must say, such as `dataset`.

    Raises `CanidsError` naming the file if it is absent, damaged, edited, of another contract or a stand-in, breaks its schema, or is
    another one than `wanted` and its folder say.
    """
    return read_json(path, contract, "result of an evaluation", **wanted)


def write_evaluation(metrics: Path, curves: Path, content: Mapping[str, Any], drawn: Mapping[str, Any]) -> None:
    """Write both files of an evaluation, whole; raises `CanidsError` naming the key that breaks a schema."""
    write_json(metrics, METRICS_CONTRACT, content)
    write_json(curves, CURVES_CONTRACT, drawn, indent=None)


def read_leaderboard(path: Path) -> dict[str, Any]:
    """`leaderboard.json`; raises `CanidsError` naming the file as `read_evaluation` does."""
    return read_json(path, LEADERBOARD_CONTRACT, "leaderboard")
