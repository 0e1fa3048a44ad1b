"""Alarms as they begin and end, with the arbitration IDs behind them, of the windows that come on standard input (contract `follow/1`).

    … | python -m canids_train_drl.follow … | python -m canids_evaluate.follow --csv alarms.csv

An alarm that is over is a line of the file, written as in the rule alarms, and at once. With the training split of the run
(`--fit`) it also says when traffic begins to be unlike what the detectors were trained on, and when that is over.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import polars as pl
import pyarrow as pa

from canids_evaluate.watch import drift
from canids_evaluate.watch.alarm_tracker import DECIDED, SCHEMA, Watch, flat, ids_in_words, in_words
from canids_evaluate.watch.attribution import Nodes, columns_of
from canids_shared.contracts import streams
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError

_WINDOWS = ("window", "t_start", "t_end", "vgae_score", "gat_score", "fusion_score", "alarm", "action")
log = logging.getLogger(__name__)


def windows(batch: pa.RecordBatch, columns: list[int], width: int) -> Iterator[tuple[dict[str, Any], Nodes]]:
    """What was decided on every window, and its nodes; `columns` are those of `explanation.FEATURES` among `width`."""
    ends = np.cumsum(streams.counts(batch, "node_id"))
    ids, counts = streams.flat(batch, "node_id"), streams.flat(batch, "node_count")
    x = streams.flat(batch, "x").reshape(-1, width)[:, columns]
    begin = 0
    for decided, end in zip(batch.select(list(DECIDED)).to_pylist(), ends.tolist(), strict=True):
        own = slice(begin, end)
        # Copies: what is kept of a window must not keep the whole batch.
        nodes = (ids[own].copy(), counts[own].copy(), x[own].copy())
        yield decided, Nodes(*nodes, decided["t_end"] - decided["t_start"])
        begin = end


class _Lines:
    """A CSV that grows by whole lines."""

    def __init__(self, stream: TextIO, schema: dict[str, Any]) -> None:
        self._stream, self._schema = stream, schema
        self.add(pl.DataFrame(schema=schema), header=True)

    def add(self, rows: pl.DataFrame, header: bool = False) -> None:
        self._stream.write(rows.write_csv(include_header=header))
        self._stream.flush()

    def add_alarm(self, alarm: dict[str, Any]) -> None:
        self.add(pl.DataFrame([flat(alarm)], schema=self._schema))


class _Drift:
    """Says how far the traffic is from the training's, where that is known."""

    def __init__(self, fit: Path | None, names: list[str]) -> None:
        self.recent: drift.Recent | None = None
        self._first: float | None = None
        self._unknown = "the training graphs of this run are not here"
        try:
            self.recent = drift.Recent(drift.Usual(GraphStore(fit), names, "standard input")) if fit else None
        except CanidsError as error:
            self._unknown = str(error)

    def see(self, batch: pa.RecordBatch, width: int) -> None:
        self._first = batch["t_start"][0].as_py() if self._first is None else self._first
        quiet = ~streams.flat(batch, "alarm")
        if self.recent is None or not quiet.any():
            return
        nodes = np.repeat(quiet, streams.counts(batch, "node_id"))
        ids, x = streams.flat(batch, "node_id")[nodes], streams.flat(batch, "x").reshape(-1, width)[nodes]
        if found := self.recent.see(int(quiet.sum()), ids, x):
            after = batch["t_end"][len(batch) - 1].as_py() - self._first
            begins = "DRIFT  after {:.2f} s. {}" if self.recent.on else "over   after {:.2f} s: drift. {}"
            print(begins.format(after, _plainly(found)), flush=True)

    def end(self) -> str:
        """The last line: how often it began, and how it is now."""
        found = (self.recent.drift() or "every window raises an alarm") if self.recent else self._unknown
        times = self.recent.times if self.recent else 0
        return f"{times} drifts; at the end: {_plainly(found)}"


def _plainly(found: drift.Drift | str) -> str:
    return " ".join(drift.in_words(found)).replace("**", "")


def main(options: argparse.Namespace) -> None:
    """Entry point."""
    header, _, batches = streams.received(sys.stdin.buffer, "alarm", "fusion_score")
    width = len(header["node_features"])
    columns = columns_of(header["node_features"], "standard input")
    watch, seen, over = Watch(options.episode_gap, options.explained_ids), 0, 0
    drifting = _Drift(options.fit, header["node_features"])
    with ExitStack() as stack:

        def lines(path: Path, schema: dict[str, Any]) -> _Lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            return _Lines(stack.enter_context(open(path, "w", encoding="utf-8", newline="")), schema)

        csv = lines(options.csv, {**SCHEMA, "ids": pl.String})
        each = None
        for batch in batches:
            if options.windows:
                table = pl.from_arrow(pa.Table.from_batches([batch.select(list(_WINDOWS))]))
                assert isinstance(table, pl.DataFrame)
                each = each or lines(options.windows, dict(table.schema))
                each.add(table)
            for decided, nodes in windows(batch, columns, width):
                seen += 1
                for alarm, ended in watch.see(decided, nodes):
                    over += ended
                    _tell(alarm, ended, csv)
            drifting.see(batch, width)
        for alarm in watch.end():
            over += 1
            _tell(alarm, True, csv)
    log.info("%d windows, %d alarms, %s", seen, over, drifting.end())


def _tell(alarm: dict[str, Any], over: bool, csv: _Lines) -> None:
    if over:
        csv.add_alarm(alarm)
        print(f"over   {in_words(alarm)}", flush=True)
    else:
        print(
            f"ALARM  after {alarm['after_s']:.2f} s (score {alarm['fusion_score']:.2f}). {ids_in_words(alarm)}",
            flush=True,
        )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="canids_evaluate.follow", description=__doc__)
    made.add_argument("--csv", type=Path, required=True, help="where alarms go, a line each")
    made.add_argument("--windows", type=Path, metavar="CSV", help="where scores, alarm and action of every window go")
    made.add_argument("--episode-gap", type=float, default=1.0, help="as in config.schema.yaml (s)")
    made.add_argument("--explained-ids", type=int, default=5, help="as in config.schema.yaml")
    made.add_argument("--fit", type=Path, metavar="GRAPHS", help="the training split of the run, to tell drift from")
    return made


if __name__ == "__main__":
    streams.run(main, parser())
