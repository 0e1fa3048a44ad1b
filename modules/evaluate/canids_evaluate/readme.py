"""Put the results of finished runs into a document: `python -m canids_evaluate.readme README.md DATASET …`.

F1 of every method on every scenario, from the `metrics.json` of the evaluations, between the marks `<!-- results -->`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from canids_shared.documents import insert
from canids_shared.errors import CanidsError
from canids_shared.workflow import VARIANTS

_METHODS = {
    "fusion": "fusion (DQN)",
    "gat": "GAT",
    "vgae": "VGAE",
    "fixed_weight": "fixed weight",
    "hysteresis": "fixed weight, hysteresis",
}
_BASELINES = {
    "id_rate": "ID and rate",
    "extra_trees": "Extra Trees",
    "isolation_forest": "Isolation Forest",
    "always_attack": "always attack",
}


def _scenarios(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CanidsError(f"{path}: no such file; run the pipeline first")
    return dict(json.loads(path.read_text(encoding="utf-8"))["scenarios"])


def _row(name: str, variant: str, values: list[float | None]) -> str:
    return f"| {name} | {variant} | " + " | ".join("–" if v is None else f"{v:.3f}" for v in values) + " |"


def table(dataset: str) -> str:
    """Markdown table of F1, a row per method and variant, a column per scenario."""
    found = {v: _scenarios(Path("experimentruns") / dataset / f"eval_{v}" / "metrics.json") for v in VARIANTS}
    baselines = _scenarios(Path("results") / dataset / "baselines" / "metrics.json")
    names = list(baselines)
    lines = [
        f"F1 by window, dataset `{dataset}`:\n",
        "| method | variant | " + " | ".join(n.replace("_", " ") for n in names) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for method, title in _METHODS.items():
        lines += [_row(title, v, [found[v][n][method]["f1"] for n in names]) for v in VARIANTS]
    lines += [_row(title, "–", [baselines[n][m]["f1"] for n in names]) for m, title in _BASELINES.items()]
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    document, *datasets = sys.argv[1:]
    try:
        insert(Path(document), "results", "\n\n".join(table(d) for d in datasets))
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
