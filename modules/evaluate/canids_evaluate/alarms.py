"""What a trained run says of captures, for a person: alarms, the arbitration IDs behind them, a figure, and words (rule `alarms`).

    python -m canids_evaluate.alarms --spec '{"wildcards": {"dataset": "drive", …}, "config": …}' --alarms alarms.parquet
        --csv alarms.csv --figure timeline.svg --summary summary.md
        --decisions score.parquet --graphs score.safetensors [--fit fit.safetensors]

An alarm is a run of alarmed windows of one capture whose gaps are at most `episode_gap` seconds. `fit` is the training split of
the run that decided; without it nothing is said about drift.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_evaluate import curve_figures, drift
from canids_evaluate.explanation import Explainer, Suspect, name_of
from canids_shared import cli, tables
from canids_shared.cli import Call
from canids_shared.errors import CanidsError
from canids_shared.files import write_text, written_whole
from canids_shared.graphstore import GraphStore
from canids_shared.tables import DECISIONS

_PAST = 2000
"""Windows before an alarm that are looked at, at most."""


def _runs(frame: pl.DataFrame, gap: float) -> list[np.ndarray]:
    """Rows of every alarm."""
    rows = np.flatnonzero(frame["alarm"].to_numpy())
    start, end, capture = (frame[c].to_numpy() for c in ("t_start", "t_end", "capture"))
    breaks = [i + 1 for i, (a, b) in enumerate(pairwise(rows)) if capture[a] != capture[b] or start[b] - end[a] > gap]
    return [part for part in np.split(rows, breaks) if len(part)]


def alarms_of(frame: pl.DataFrame, store: GraphStore, gap: float, most: int) -> list[dict[str, Any]]:
    """Alarms with the IDs behind them, in the order of the windows.

    Args:
        frame: decisions on the windows of `store`, row by row.
        gap: longest pause (s) within an alarm.
        most: IDs named for each, at most.
    """
    explainer = Explainer(store)
    quiet = np.flatnonzero(~frame["alarm"].to_numpy())
    start, end, capture = (frame[c].to_numpy() for c in ("t_start", "t_end", "capture"))
    first = {name: float(start[capture == name].min()) for name in set(capture)}
    found = []
    for rows in _runs(frame, gap):
        name = str(capture[rows[0]])
        past = quiet[(quiet < rows[0]) & (capture[quiet] == name)][-_PAST:]
        suspects = explainer.suspects(rows, past, most)
        new_ids, new_rate = explainer.newcomers(rows)
        labels = frame["label"][rows.tolist()].drop_nulls()
        found.append(
            {
                "capture": name,
                "start": float(start[rows[0]]),
                "end": float(end[rows[-1]]),
                "after_s": float(start[rows[0]]) - first[name],
                "duration_s": float(end[rows[-1]] - start[rows[0]]),
                "windows": len(rows),
                **{f"{m}_score": float(frame[f"{m}_score"][rows.tolist()].max()) for m in ("fusion", "gat", "vgae")},
                "attacked": float(labels.mean()) if len(labels) else None,  # type: ignore[arg-type]
                "new_ids": new_ids,
                "new_frames_per_s": new_rate,
                "ids": [_record(s) for s in suspects],
            }
        )
    return found


def _record(suspect: Suspect) -> dict[str, Any]:
    deviation = suspect.deviation if np.isfinite(suspect.deviation) else None
    return {**vars(suspect), "can_id": name_of(suspect.can_id), "deviation": deviation}


_IDS = pl.Struct(
    {
        "can_id": pl.String,
        "frames": pl.Int64,
        "frames_per_s": pl.Float64,
        "usual_frames_per_s": pl.Float64,
        "interval": pl.Float64,
        "novel_bits": pl.Float64,
        "deviation": pl.Float64,
        "what": pl.String,
    }
)
SCHEMA: dict[str, Any] = {
    "capture": pl.String,
    **dict.fromkeys(("start", "end", "after_s", "duration_s"), pl.Float64),
    "windows": pl.Int64,
    **dict.fromkeys(("fusion_score", "gat_score", "vgae_score", "attacked"), pl.Float64),
    "new_ids": pl.Int64,
    "new_frames_per_s": pl.Float64,
    "ids": pl.List(_IDS),
}
"""Columns of `alarms.parquet`; `attacked` is the share of the labelled windows that are, null without labels; `new_ids` are
arbitration IDs that the capture did not have before the alarm."""


def _in_words(alarm: dict[str, Any]) -> str:
    ids = [f"{i['can_id']}: {i['what']}" for i in alarm["ids"]]
    if alarm["new_ids"] > 2:
        ids.insert(0, f"{alarm['new_ids']:,} IDs never seen before, together {alarm['new_frames_per_s']:,.0f} frames/s")
    if not ids:
        ids = ["too little quiet traffic before it to compare with"]
    return f"after {alarm['after_s']:.2f} s, for {alarm['duration_s']:.2f} s (score {alarm['fusion_score']:.2f}). {'; '.join(ids)}"


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
        lines += ["", *(f"{n}. {_in_words(a)}" for n, a in enumerate(raised, 1)), ""]
    lines += ["## Drift", "", *_drift_words(found), ""]
    return "\n".join(lines)


def _drift_words(found: drift.Drift | str) -> list[str]:
    if isinstance(found, str):
        return [f"Not known: {found}."]
    moved = ", ".join(f"{name} {by:+.1f}" for name, by in found.features.items())
    far = {i: by for i, by in found.by_id.items() if by > drift.OF_AN_ID}
    warn = found.overall > drift.OVERALL
    lines = [
        ("**Warning**: this traffic is unlike what the detectors were trained on. " if warn else "")
        + f"Overall {found.overall:.2f} standard deviations of the training traffic (warning above {drift.OVERALL}); most in {moved}."
    ]
    if warn:
        lines.append(
            "Thresholds may not hold: set them anew on the capture's first, attack-free seconds (`recalibrate`)."
        )
    if far:
        names = ", ".join(f"{name_of(i)} ({by:.1f})" for i, by in list(far.items())[:10])
        lines.append(f"{len(far)} arbitration IDs beyond {drift.OF_AN_ID}: {names}.")
    return lines


def _write_csv(path: Path, alarms: list[dict[str, Any]]) -> None:
    flat = [{**a, "ids": "; ".join(f"{i['can_id']} ({i['what']})" for i in a["ids"])} for a in alarms]
    with written_whole(path) as temporary:
        pl.DataFrame(flat, schema={**SCHEMA, "ids": pl.String}).write_csv(temporary)


def main(call: Call) -> None:
    """Entry point."""
    (path,), (graphs,) = call.inputs["decisions"], call.inputs["graphs"]
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
    cli.run(main, inputs=["decisions", "graphs", "fit"], outputs=["alarms", "csv", "figure", "summary"])
