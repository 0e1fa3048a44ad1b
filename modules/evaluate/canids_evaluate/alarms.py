"""What a trained run says of captures, for a person: alarms, the arbitration IDs behind them, a figure, and words (rule `alarms`).

    python -m canids_evaluate.alarms --spec '{"wildcards": {"dataset": "drive", …}, "config": …}' --alarms alarms.parquet
        --csv alarms.csv --figure timeline.svg --summary summary.md
        --decisions score.parquet --graphs score.safetensors [--fit fit.safetensors]

`fit` is the training split of the run that decided; without it nothing is said about drift. A test scenario is logged as read; a
capture that is there to be scored is nobody's test.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_evaluate.pages import curve_figures
from canids_evaluate.runs.reading_log import record
from canids_evaluate.watch import drift
from canids_evaluate.watch.alarm_tracker import DECIDED, SCHEMA, Watch, flat, in_words
from canids_evaluate.watch.attribution import Nodes, columns_of
from canids_shared.contracts import tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import SCORED
from canids_shared.contracts.tables import DECISIONS
from canids_shared.errors import CanidsError
from canids_shared.files import write_text, written_whole
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call


def alarms_of(frame: pl.DataFrame, store: GraphStore, gap: float, most: int) -> list[dict[str, Any]]:
    """Alarms with the IDs behind them, in the order of the windows.

    Args:
        frame: decisions on the windows of `store`, row by row.
        gap: longest pause (s) within an alarm.
        most: IDs named for each, at most.
    """
    columns = columns_of(store.header["node_features"], store.path)
    ptr, found = store["node_ptr"], []
    capture = frame["capture"].rle_id().to_numpy() if len(frame) else np.zeros(0)
    watch = Watch(gap, most)
    for row, decided in enumerate(frame.select(DECIDED).iter_rows(named=True)):
        if row and capture[row] != capture[row - 1]:
            found += watch.end()
            watch = Watch(gap, most)
        own = slice(ptr[row], ptr[row + 1])
        seconds = decided["t_end"] - decided["t_start"]
        nodes = Nodes(store["node_id"][own], store["node_count"][own], store["x"][own, columns], seconds)
        found += [alarm for alarm, over in watch.see(decided, nodes) if over]
    return found + watch.end()


def summary(frame: pl.DataFrame, alarms: list[dict[str, Any]], found: drift.Drift | str, store: GraphStore) -> str:
    """The page in words, Markdown; `found` is the drift, or why it is not known."""
    lines = ["# What was found", ""]
    empty = [name for name, counts in store.header.get("counts", {}).items() if not counts["windows"]]
    lines += [f"**{name}**: too short for a window, so nothing can be said." for name in empty]
    of_node = np.repeat(store["capture"], np.diff(store["node_ptr"]))
    for (capture,), own in frame.group_by("capture", maintain_order=True):
        ids = len(np.unique(store["node_id"][of_node == store.header["captures"].index(capture)]))
        raised = [a for a in alarms if a["capture"] == capture]
        seconds = own["t_end"].max() - own["t_start"].min()  # type: ignore[operator]
        alarmed = sum(a["duration_s"] for a in raised)
        lines.append(
            f"**{capture}**: {len(own):,} windows in {seconds:,.1f} s, {ids} arbitration IDs; "
            + (f"{len(raised)} alarms, {alarmed:,.1f} s in all." if raised else "no alarm.")
        )
        labels = own["label"].drop_nulls()
        if len(labels):
            hits = own.filter(pl.col("label") == 1)["alarm"].sum()
            false = own.filter((pl.col("label") == 0) & pl.col("alarm")).height
            lines.append(
                f"By the capture's own labels {int(labels.sum()):,} windows are attacked; {hits:,} of them are alarmed, "
                f"and {false:,} others."
            )
        lines += ["", *(f"{n}. {in_words(a)}" for n, a in enumerate(raised, 1)), ""]
    lines += ["## Drift", "", *drift.in_words(found), ""]
    return "\n".join(lines)


def _write_csv(path: Path, alarms: list[dict[str, Any]]) -> None:
    with written_whole(path) as temporary:
        pl.DataFrame([flat(a) for a in alarms], schema={**SCHEMA, "ids": pl.String}).write_csv(temporary)


def main(call: Call) -> None:
    """Entry point."""
    (path,), (graphs,) = call.inputs["decisions"], call.inputs["graphs"]
    split, scenarios = call.wildcards["split"], call.constants["scenarios"]
    if split in scenarios and scenarios != [SCORED]:
        record("alarms", call.wildcards, call.constants["code"], [split])
    frame, _ = tables.read(path, DECISIONS)
    store = GraphStore(graphs)
    if not frame.select("capture", "window").equals(store.keys().select("capture", "window")):
        raise CanidsError(f"{path}: not the windows of {graphs}; delete both and run again")
    alarms = alarms_of(frame, store, call.config["episode_gap"], call.config["explained_ids"])
    found: drift.Drift | str = "the training graphs of this run are not here"
    if call.inputs["fit"]:
        try:
            found = drift.measure(store, ~frame["alarm"].to_numpy(), GraphStore(call.inputs["fit"][0]))
        except CanidsError as error:
            found = str(error)
    with written_whole(call.output["alarms"]) as temporary:
        pl.DataFrame(alarms, schema=SCHEMA).write_parquet(temporary)
    _write_csv(call.output["csv"], alarms)
    curve_figures.scored(call.output["figure"], frame)
    write_text(call.output["summary"], summary(frame, alarms, found, store))


if __name__ == "__main__":
    entry_point.run(main, inputs=["decisions", "graphs", "fit"], outputs=["alarms", "csv", "figure", "summary"])
