"""Which names a new pipeline or module may have."""

import keyword
import re
from pathlib import Path

from canids_shared.errors import CanidsError
from canids_shared.planning.pipeline import PORTS, STAGES

LONGEST = 30
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_RULE = re.compile(
    r"^\s*(?:rule|checkpoint)\s+(\w+)|^use rule \w+ from \w+ as (\w+)|^use rule \w+ as (\w+)", re.MULTILINE
)
_RESERVED = {
    "all",
    "shared",
    "profiles",
    "datasets",
    "data_root",
    "instances",
    "modules",
    "config",
    "captures",
    "frames",
    "runs",
}
"""What a rule, a port or a key of a pipeline's config is called already."""


def check_name(root: Path, kind: str, name: str) -> None:
    """Raise `CanidsError` if `root` is no checkout of canids, or `name` cannot be that of a new `kind`.

    Names of pipelines and modules are unique over both, and no rule's: a pipeline composes rules of all modules, and
    its target is called after it.
    """
    absent = [p for p in ("pyproject.toml", "modules", "pipelines", "tests") if not (root / p).exists()]
    if absent:
        raise CanidsError(f"{root / absent[0]}: not there; run this in the root of a checkout of canids")
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise CanidsError(
            f"name '{name}': must be lower case letters and digits, parts joined by one underscore, beginning with a "
            f"letter, at most {LONGEST} characters, such as late_fusion"
        )
    if keyword.iskeyword(name) or name in _RESERVED | PORTS.keys() | set(STAGES):
        raise CanidsError(f"name '{name}': is taken by the language or by canids itself; choose another")
    for folder in ("pipelines", "modules"):
        if (root / folder / name).exists():
            raise CanidsError(f"name '{name}': {root / folder / name} is there already; choose another")
    for snakefile in sorted(root.glob("*/*/Snakefile")):
        found = {n for names in _RULE.findall(snakefile.read_text(encoding="utf-8")) for n in names}
        if taken := {name, f"all_{name}"} & found:
            raise CanidsError(f"name '{name}': {snakefile} has a rule '{taken.pop()}'; choose another")
