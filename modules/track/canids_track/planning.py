"""Planning of the rule track: no credentials in the config, and another attempt where runs are pending."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canids_shared.errors import CanidsError
from canids_shared.planning.stage import Stage

CONTRACT = "tracked/1"
CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
"""User and password in a URI, as $MLFLOW_TRACKING_URI may hold them; no log, terminal or receipt shows them."""


def refuse_credentials(stage: Stage) -> None:
    """Raise `CanidsError` if the config's URI holds a user or a password: Snakemake keeps and shows params."""
    if CREDENTIALS.search(stage.config[""]["uri"] or ""):
        raise CanidsError(
            "tracking.uri holds a user or a password, which logs would show; take them out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )


def attempting(spec: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    """Params function: the params of `spec`, and the number of the attempt.

    A receipt (the rule's output) without pending runs keeps its number, so the rule is not run again. One with pending runs
    counts up: the rule's params change, and Snakemake runs it again.
    """

    def with_attempt(wildcards: Any, output: Any) -> str:
        attempt = _next_attempt(Path(output[0]))
        return json.dumps({**json.loads(spec(wildcards, output)), "attempt": attempt}, sort_keys=True)

    return with_attempt


def _next_attempt(receipt: Path) -> int:
    try:
        last = json.loads(receipt.read_text(encoding="utf-8"))
        return int(last["attempt"]) + bool(last["pending"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1
