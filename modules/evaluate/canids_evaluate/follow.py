"""Alarms as they begin and end, of the windows on standard input (contract `follow/2`).

    … | python -m canids_train_drl.follow … | python -m canids_evaluate.follow --csv alarms.csv

An alarm that has ended is at once a line of the file, as the rule `alarms` writes it; one that is still open at the end of the
stream ends with it, also where the stream breaks off. With the training split of the run
(`--fit`) messages also say when the traffic begins to drift from it, and when that ends.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from canids_evaluate.watch import alarm_tracker, drift
from canids_evaluate.watch.alarm_tracker import AlarmTracker, Event
from canids_evaluate.watch.attribution import Nodes, feature_columns
from canids_shared.contracts import streams
from canids_shared.contracts.detectors import declared
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.jobs.options import DAY_S, number, whole_number

_STREAM = "standard input"
log = logging.getLogger(__name__)


def windows(
    batch: pa.RecordBatch, decided: list[str], features: list[int], width: int
) -> Iterator[tuple[dict[str, Any], Nodes]]:
    """Decision and nodes of every window of a batch.

    Args:
        decided: columns of the decision.
        features: positions of `attribution.FEATURES` among the node features.
        width: number of node features.
    """
    ends = np.cumsum(streams.counts(batch, "node_id"))  # [W], last node of each window
    ids, counts = streams.flat(batch, "node_id"), streams.flat(batch, "node_count")  # [ΣN] each
    x = streams.flat(batch, "x").reshape(-1, width)[:, features]  # [ΣN, 5]
    begin = 0
    for decision, end in zip(batch.select(decided).to_pylist(), ends.tolist(), strict=True):
        rows = slice(begin, end)
        # Copies: what is kept of a window must not keep the whole batch.
        nodes = (ids[rows].copy(), counts[rows].copy(), x[rows].copy())
        yield decision, Nodes(*nodes, decision["t_end"] - decision["t_start"])
        begin = end


class _GrowingCsv:
    """A CSV that grows by whole lines; raises `CanidsError` if it cannot."""

    def __init__(self, stream: FileIO, schema: dict[str, Any]) -> None:
        self._stream, self._schema = stream, schema
        self.add([], header=True)

    def add(self, rows: Any, header: bool = False) -> None:
        rest = pl.DataFrame(rows, schema=self._schema).write_csv(include_header=header).encode()
        try:
            while rest:
                rest = rest[self._stream.write(rest) :]
        except OSError as error:
            raise CanidsError(f"{self._stream.name}: cannot be written ({error.strerror})") from None


class _DriftMessages:
    """Says when the traffic begins to drift from the training's, and when that ends, if the training split is there."""

    def __init__(self, fit: Path | None, names: list[str]) -> None:
        self._recent: drift.RecentDrift | None = None
        self._capture, self._first = "", 0.0
        self._unknown = "the training graphs of this run are not here"
        try:
            self._recent = drift.RecentDrift(drift.TrainingReference(GraphStore(fit), names, _STREAM)) if fit else None
        except CanidsError as error:
            self._unknown = str(error)

    def update(self, batch: pa.RecordBatch, width: int) -> None:
        if (capture := batch["capture"][0].as_py()) != self._capture:
            self._capture, self._first = capture, batch["t_start"][0].as_py()
        # Windows with an alarm are left out: an attack would count as drift.
        normal = ~streams.flat(batch, "alarm")  # [W]
        if self._recent is None or not normal.any():
            return
        nodes = np.repeat(normal, streams.counts(batch, "node_id"))  # [ΣN]
        ids, x = streams.flat(batch, "node_id")[nodes], streams.flat(batch, "x").reshape(-1, width)[nodes]
        if changed := self._recent.update(int(normal.sum()), ids, x):
            after = batch["t_end"][len(batch) - 1].as_py() - self._first
            line = "DRIFT  after {:.2f} s. {}" if self._recent.on else "over   after {:.2f} s: drift. {}"
            print(line.format(after, _plainly(changed)), flush=True)

    def end(self) -> str:
        """The last line: how often drift began, and how large it is now."""
        missing = "every window raises an alarm" if self._capture else "no window has come"
        last = (self._recent.drift() or missing) if self._recent else self._unknown
        return f"{self._recent.times if self._recent else 0} drifts; at the end: {_plainly(last)}"


def _plainly(drifted: drift.Drift | str) -> str:
    return " ".join(drift.in_words(drifted)).replace("**", "")


def _report(event: Event, csv: _GrowingCsv) -> None:
    alarm = event.alarm
    if event.ended:
        csv.add([alarm_tracker.flat(alarm)])
        print(f"over   {alarm_tracker.in_words(alarm)}", flush=True)
    else:
        begin = f"after {alarm['after_s']:.2f} s (score {alarm['fusion_score']:.2f})"
        print(f"ALARM  {begin}. {alarm_tracker.ids_in_words(alarm)}", flush=True)


def main(options: argparse.Namespace) -> None:
    """Entry point."""
    header, stream_schema, batches = streams.received(sys.stdin.buffer, "alarm", "fusion_score")
    detectors, names = declared(header, _STREAM), header["node_features"]
    decided, features = alarm_tracker.decided_columns(detectors), feature_columns(names, _STREAM)
    if absent := [column for column in decided if column not in stream_schema.names]:
        raise CanidsError(f"{_STREAM}: no column '{absent[0]}' (contract {streams.CONTRACT})")
    enrolled = bool(header.get("profiles"))
    tracker = AlarmTracker(options.episode_gap, options.explained_ids, detectors, enrolled)
    drifting = _DriftMessages(options.fit, names)
    per_window = ["window", "t_start", "t_end", *alarm_tracker.scores(detectors), "alarm", "action"]
    seen = ended = 0
    with ExitStack() as stack:

        def growing(path: Path, schema: dict[str, Any]) -> _GrowingCsv:
            path.parent.mkdir(parents=True, exist_ok=True)
            return _GrowingCsv(stack.enter_context(open(path, "wb", buffering=0)), schema)

        csv = growing(options.csv, alarm_tracker.csv_schema(detectors))
        each: _GrowingCsv | None = None
        broken: streams.NeighbourError | None = None
        try:
            for batch in batches:
                if options.windows:
                    table = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch.select(per_window)])))
                    each = each or growing(options.windows, dict(table.schema))
                    each.add(table)
                for decision, nodes in windows(batch, decided, features, len(names)):
                    seen += 1
                    for event in tracker.update(decision, nodes):
                        ended += event.ended
                        _report(event, csv)
                drifting.update(batch, len(names))
        except streams.NeighbourError as error:
            broken = error
        for event in tracker.end():
            ended += 1
            _report(event, csv)
    if seen or not broken:
        log.info("%d windows, %d alarms, %s", seen, ended, drifting.end())
    if broken:
        raise broken


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="canids_evaluate.follow", description=__doc__)
    made.add_argument("--csv", type=Path, required=True, help="file for alarms, one per line")
    made.add_argument("--windows", type=Path, metavar="CSV", help="file for scores, alarm and action of every window")
    made.add_argument("--episode-gap", type=number(0, DAY_S), default=1.0, help="as in config.schema.yaml (s)")
    made.add_argument("--explained-ids", type=whole_number(1, 1000), default=5, help="as in config.schema.yaml")
    made.add_argument("--fit", type=Path, metavar="GRAPHS", help="training split of the run, the reference for drift")
    return made


if __name__ == "__main__":
    streams.run(main, parser())
