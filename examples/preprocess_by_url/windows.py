"""Count the windows of every split, the attacked ones among them, and their arbitration IDs.

The rule `windows` runs this script; Snakemake defines the global `snakemake`.
"""

import csv
from typing import Any

import numpy as np

from canids_shared.contracts.graph_store import GraphStore


def rows(paths: list[str], splits: list[str]) -> list[dict[str, Any]]:
    """One row per split: windows, attacked windows, mean number of arbitration IDs.

    Raises `CanidsError` naming the file that is not a whole graph store of this contract.
    """
    table = []
    for path, split in zip(paths, splits, strict=True):
        store = GraphStore(path)
        ids = float(np.diff(store["node_ptr"]).mean()) if len(store) else 0.0
        table.append(
            {"split": split, "windows": len(store), "attacked": int((store["y"] == 1).sum()), "ids": f"{ids:.2f}"}
        )
    return table


def main(job: Any) -> None:
    """Write the table of a job."""
    table = rows(list(job.input), job.params.splits)
    with open(job.output[0], "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main(globals()["snakemake"])
