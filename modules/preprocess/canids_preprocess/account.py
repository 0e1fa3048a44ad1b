"""Account for every row of a dataset's captures: `python -m canids_preprocess.account --spec JSON --output X.csv --frames …`.

One line a capture: rows read = frames + rejects, steps back in time, attacked frames, seconds.
"""

import polars as pl

from canids_shared.contracts import tables
from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.jobs import entry_point

_METADATA = ("capture", "vehicle", "attack", "content", "format", "rows_read", "frames", "rejects", "stepped_back")


def main(call: entry_point.Call) -> None:
    """Entry point. Raises `CanidsError` naming the file if its rows do not add up."""
    rows = []
    for path in call.inputs["frames"]:
        head = tables.read_metadata(path, tables.FRAMES)
        found = (
            pl.scan_parquet(path)
            .select(
                count=pl.len(),
                attacked=(pl.col("label") == 1).sum(),
                seconds=pl.col("timestamp").max() - pl.col("timestamp").min(),
            )
            .collect()
        )
        count, attacked, seconds = found.row(0)
        if not head["rows_read"] - head["rejects"] == head["frames"] == count:
            raise CanidsError(
                f"{path}: {head['rows_read']} rows read, {head['rejects']} rejects, {count} frames: they do not add up; "
                "delete it and run again"
            )
        rows.append({**{key: head[key] for key in _METADATA}, "attacked": attacked, "seconds": seconds})
    write_text(call.output["output"], pl.DataFrame(rows, infer_schema_length=None).write_csv())


if __name__ == "__main__":
    entry_point.run(main, inputs=["frames"])
