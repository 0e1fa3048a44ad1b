"""Put the results of finished runs into a document: `python -m canids_evaluate.readme README.md DATASET …`.

F1 of every method on every scenario, from the `metrics.json` of the plain run and of all its seeds, between the marks
`<!-- results -->`.
"""

import sys
from pathlib import Path

from canids_evaluate.compare import fold_and_seed, lines_of, overview
from canids_shared.documents import insert
from canids_shared.errors import CanidsError
from canids_shared.workflow import VARIANTS


def _runs(dataset: str) -> list[Path]:
    """Evaluations of all variants and seeds, and the baselines; raises `CanidsError` if one is missing."""
    folder = Path("experimentruns") / dataset
    plain = [*(folder / f"eval_{v}" for v in VARIANTS), Path("results") / dataset / "baselines"]
    for run in plain:
        if not (run / "metrics.json").exists():
            raise CanidsError(f"{run}/metrics.json: no such file; run the pipeline first")
    seeds = [r for r in folder.glob("eval_*@*seed-*") if fold_and_seed("@" + r.name.partition("@")[2])[0] == ""]
    return plain + sorted(r for r in seeds if (r / "metrics.json").exists())


def table(dataset: str) -> str:
    """Markdown table of F1, a row per method and variant, a column per scenario."""
    return f"F1 by window, dataset `{dataset}`:\n\n" + overview(lines_of(_runs(dataset)), "f1").markdown()


def main() -> None:
    """Entry point."""
    document, *datasets = sys.argv[1:]
    try:
        insert(Path(document), "results", "\n\n".join(table(d) for d in datasets))
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
