"""Inventory of a dataset's captures: `python -m canids_preprocess.capture_inventory --spec JSON --output X.csv --frames …`.

A line per capture: rows read = frames + rejects, steps back in time, frames with trimmed fields, frames a second where the log has
no times and they are assumed, the host of one with injected attacks, attacked frames, seconds.
"""

import polars as pl

from canids_shared.contracts import tables
from canids_shared.contracts.whole import AGAIN, reading
from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.jobs import entry_point

_METADATA = ("capture", "vehicle", "attack", "content", "format", "rows_read", "frames", "rejects", "stepped_back")
_OPTIONAL = ("trimmed", "assumed_rate", "host")


def main(call: entry_point.Call) -> None:
    """Entry point. Raises `CanidsError` naming the file if its rows do not add up."""
    rows = []
    for path in call.inputs["frames"]:
        metadata = tables.read_metadata(path, tables.FRAMES)
        with reading(path, "table of frames"):
            row = {key: metadata[key] for key in _METADATA} | {key: metadata.get(key) for key in _OPTIONAL}
        totals = pl.scan_parquet(path).select(
            count=pl.len(),
            attacked=(pl.col("label") == 1).sum(),
            seconds=pl.col("timestamp").max() - pl.col("timestamp").min(),
        )
        count, attacked, seconds = totals.collect().row(0)
        if not row["rows_read"] - row["rejects"] == row["frames"] == count:
            raise CanidsError(
                f"{path}: {row['rows_read']} rows read, {row['rejects']} rejects and {count} frames do not add "
                f"up; {AGAIN}"
            )
        rows.append({**row, "attacked": attacked, "seconds": seconds})
    write_text(call.output["output"], pl.DataFrame(rows, infer_schema_length=None).write_csv())


if __name__ == "__main__":
    entry_point.run(main, inputs=["frames"])
