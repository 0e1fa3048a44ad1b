"""Alarms on scored captures, the arbitration IDs to which they are attributed, drift, and a figure (rule `alarms`).

    python -m canids_evaluate.alarms --spec '{"wildcards": {"dataset": "drive", …}, "config": …}' --alarms alarms.parquet
        --csv alarms.csv --figure timeline.svg --summary summary.md
        --decisions score.parquet --graphs score.safetensors [--fit fit.safetensors]

`fit` is the training split of the run that decided; without it drift is unknown. Reading a test scenario is logged; a capture that is
there to be scored is no test.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from canids_evaluate.pages import curve_figures
from canids_evaluate.runs.reading_log import record
from canids_evaluate.watch import alarm_tracker, drift
from canids_evaluate.watch.alarm_tracker import Alarm, AlarmTracker, Event
from canids_evaluate.watch.attribution import Nodes, feature_columns
from canids_shared.contracts import tables
from canids_shared.contracts.detectors import Detector, declared
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import SCORED
from canids_shared.contracts.tables import DECISIONS
from canids_shared.errors import CanidsError
from canids_shared.files import write_text, written_whole
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call


def alarms_of(
    frame: pl.DataFrame, store: GraphStore, detectors: Sequence[Detector], gap: float, most: int
) -> list[Alarm]:
    """Alarms with their IDs, in the order of the windows.

    Args:
        frame: decisions on the windows of `store`, row by row.
        detectors: those that the decisions declare.
        gap: longest pause (s) within an alarm.
        most: most IDs that are named for an alarm.
    """
    columns, ptr = feature_columns(store.header["node_features"], store.path), store["node_ptr"]
    # The vehicle may have a profile of another bus alone.
    profiled = {name for name, source in store.header.get("sources", {}).items() if source.get("profiled")}
    tracker = AlarmTracker(gap, most, detectors, profiled)
    events: list[Event] = []
    # Row i of the decisions is window i of the store, which has its nodes at ptr[i]:ptr[i + 1].
    for row, decided in enumerate(frame.select(alarm_tracker.decided_columns(detectors)).iter_rows(named=True)):
        rows = slice(ptr[row], ptr[row + 1])
        seconds = decided["t_end"] - decided["t_start"]
        nodes = Nodes(store["node_id"][rows], store["node_count"][rows], store["x"][rows, columns], seconds)
        events += tracker.update(decided, nodes)
    return [event.alarm for event in (*events, *tracker.end()) if event.ended]


def summary(frame: pl.DataFrame, alarms: list[Alarm], drifted: drift.Drift | str, store: GraphStore) -> str:
    """The page in words, Markdown; `drifted` is the drift, or the reason why it is unknown."""
    lines = ["# What was found", ""]
    empty = [name for name, counts in store.header.get("counts", {}).items() if not counts["windows"]]
    lines += [f"**{name}**: shorter than a window, so there is no decision." for name in empty]
    capture_of_node = np.repeat(store["capture"], np.diff(store["node_ptr"]))
    # A paragraph per capture: its size, its labels if it has any, and a line per alarm.
    for (capture,), windows in frame.group_by("capture", maintain_order=True):
        ids = len(np.unique(store["node_id"][capture_of_node == store.header["captures"].index(capture)]))
        raised = [a for a in alarms if a["capture"] == capture]
        seconds = windows["t_end"].max() - windows["t_start"].min()  # type: ignore[operator]
        alarmed = sum(a["duration_s"] for a in raised)
        lines.append(
            f"**{capture}**: {len(windows):,} windows in {seconds:,.1f} s, {ids} arbitration IDs; "
            + (f"{len(raised)} alarms, {alarmed:,.1f} s in all." if raised else "no alarm.")
        )
        labels = windows["label"].drop_nulls()
        if len(labels):
            hits = windows.filter(pl.col("label") == 1)["alarm"].sum()
            false = windows.filter((pl.col("label") == 0) & pl.col("alarm")).height
            lines.append(
                f"By the capture's labels {int(labels.sum()):,} windows are attacked; {hits:,} of them are alarmed, "
                f"and {false:,} others."
            )
        lines += ["", *(f"{n}. {alarm_tracker.in_words(a)}" for n, a in enumerate(raised, 1)), ""]
    lines += ["## Drift", "", *drift.in_words(drifted), ""]
    return "\n".join(lines)


def main(call: Call) -> None:
    """Entry point."""
    (path,), (graphs,) = call.inputs["decisions"], call.inputs["graphs"]
    split, scenarios = call.wildcards["split"], call.constants["scenarios"]
    if split in scenarios and scenarios != [SCORED]:
        record("alarms", call.wildcards, call.constants["code"], [split])
    frame, header = tables.read(path, DECISIONS, **call.made_for("dataset", "variant", "split"))
    detectors = declared(header, path)
    store = GraphStore(graphs, **call.made_for("dataset", "split"))
    if not frame.select("capture", "window").equals(store.keys().select("capture", "window")):
        raise CanidsError(f"{path}: not the windows of {graphs}; delete both and run again")
    alarms = alarms_of(frame, store, detectors, call.config["episode_gap"], call.config["explained_ids"])
    # Drift is an addition: without the training graphs the page gives the reason, and the alarms stand.
    drifted: drift.Drift | str = "the training graphs of this run are not here"
    if call.inputs["fit"]:
        try:
            drifted = drift.measure(store, ~frame["alarm"].to_numpy(), GraphStore(call.inputs["fit"][0], split="fit"))
        except CanidsError as error:
            drifted = str(error)
    with written_whole(call.output["alarms"]) as temporary:
        pl.DataFrame(alarms, schema=alarm_tracker.schema(detectors)).write_parquet(temporary)
    with written_whole(call.output["csv"]) as temporary:
        pl.DataFrame([alarm_tracker.flat(a) for a in alarms], schema=alarm_tracker.csv_schema(detectors)).write_csv(
            temporary
        )
    curve_figures.scored(call.output["figure"], frame, detectors)
    write_text(call.output["summary"], summary(frame, alarms, drifted, store))


if __name__ == "__main__":
    entry_point.run(main, inputs=["decisions", "graphs", "fit"], outputs=["alarms", "csv", "figure", "summary"])
