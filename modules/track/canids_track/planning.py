"""What the Snakefile of track asks: whether the store's URI may be written down, and whether an attempt left something undone."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canids_shared.errors import CanidsError
from canids_shared.planning.stage import Stage

CONTRACT = "tracked/1"
CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
"""User and password in a URI, as $MLFLOW_TRACKING_URI may hold them; they go into no log, no terminal and no receipt."""


def refuse_credentials(stage: Stage) -> None:
    """Raise `CanidsError` if the config's URI holds a user or a password: Snakemake keeps and shows what rules are told."""
    if CREDENTIALS.search(stage.config[""]["uri"] or ""):
        raise CanidsError(
            "tracking.uri holds a user or a password, which logs would show; take them out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )


def attempting(spec: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    """Params function: what `spec` says, and the number of the attempt that the rule's receipt, its output, asks for.

    A receipt with nothing pending asks for its own, so that nothing is done again; one that owes something for the next,
    and so the rule's params change and Snakemake runs it again.
    """

    def of(wildcards: Any, output: Any) -> str:
        return json.dumps({**json.loads(spec(wildcards, output)), "attempt": _asked(Path(output[0]))}, sort_keys=True)

    return of


def _asked(receipt: Path) -> int:
    try:
        found = json.loads(receipt.read_text(encoding="utf-8"))
        return int(found["attempt"]) + bool(found["pending"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1
