"""What the Snakefile of track asks: whether an earlier attempt left something undone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTRACT = "tracked/1"


def attempt(receipt: str) -> Callable[[Any], int]:
    """Params function: the number of the attempt that a receipt (a path with wildcards) asks for.

    A receipt with nothing pending asks for its own, so that nothing is done again; one that owes something for the next,
    and so the rule's params change and Snakemake runs it again.
    """

    def of(wildcards: Any) -> int:
        try:
            found = json.loads(Path(receipt.format(**dict(wildcards))).read_text(encoding="utf-8"))
            return int(found["attempt"]) + bool(found["pending"])
        except (OSError, ValueError, KeyError, TypeError):
            return 1

    return of
