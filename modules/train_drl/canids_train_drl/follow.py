"""What a policy decides on every window that comes on standard input (contract `follow/1`).

    … | python -m canids_train_gnn.follow … | python -m canids_train_drl.follow --model MODEL --fusion_baselines MODEL | …

The decisions are those of the rule decisions: the memory of the observation and the state of the alarm go on from window to
window. Where a window is missing (in time, one of fewer than two frames), both begin anew, as they do there.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from canids_shared.contracts import streams
from canids_shared.contracts.tables import KEYS
from canids_shared.errors import CanidsError
from canids_train_drl.decide import recalibrated
from canids_train_drl.environment import AlarmState, Traffic
from canids_train_drl.fusion_baselines import stored
from canids_train_drl.fusion_baselines.stored import FusionBaseline
from canids_train_drl.observation import Past
from canids_train_drl.playing import FREE, Lanes, play
from canids_train_drl.policy import Policy
from canids_train_drl.states import SCORES, States

COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("vgae_score", "gat_score", "fusion_score"), pa.float32()),
    "alarm": pa.bool_(),
    "action": pa.int16(),
}


class Follower:
    """Decides window by window; what it keeps does not grow with their number."""

    def __init__(self, policy: Policy, baseline: FusionBaseline | None) -> None:
        """`baseline` decides in the policy's place, where the run says so."""
        self.policy, self.baseline = policy, baseline
        self._next = -1
        self._observed: Past | None = None
        self._state: AlarmState | Any = None

    def decide(self, number: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
        """`COLUMNS` of the next windows, by their numbers [n] and detector outputs float32 [n, C]."""
        breaks = np.flatnonzero(np.diff(number) != 1) + 1
        parts = [
            self._segment(number[begin:end], values[begin:end])
            for begin, end in pairwise([0, *breaks.tolist(), len(number)])
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}

    def _segment(self, number: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
        if number[0] != self._next:
            self._observed, self._state = None, None
        self._next = int(number[-1]) + 1
        observer = self.policy.observer
        features, self._observed = observer.resumed(values, self._observed)
        scores = observer.scores(values)
        traffic = Traffic(
            torch.from_numpy(features)[None],
            torch.from_numpy(scores)[None],
            torch.full((1, len(values)), -1, dtype=torch.int8),
            np.array([0, len(values)]),
            torch.ones(1),
        )
        if self.baseline:
            score, alarm, self._state = self.baseline.resumed(traffic, self._state)
            action = alarm
        else:
            whole = Lanes.whole(traffic.segments)
            played = play(self.policy.network, traffic, whole, self.policy.actions, FREE, self._state)
            self._state = played.end
            score, alarm, action = (x[0].numpy() for x in (played.score, played.alarm, played.action))
        columns = {"gat_score": scores[:, 0], "vgae_score": scores[:, 1], "fusion_score": score}
        return {**columns, "alarm": alarm, "action": action.astype(np.int16)}


def _states(batch: pa.RecordBatch, columns: tuple[str, ...]) -> States:
    keys = streams.keys(batch)
    values = np.stack([streams.flat(batch, name) for name in columns], axis=1).astype(np.float32)
    labels = keys["label"].cast(pl.Int8).fill_null(-1).to_numpy()
    return States(Path("standard input"), keys, columns, values, labels, np.array([0, len(keys)]))


def _first_seconds(batches: Iterator[pa.RecordBatch], seconds: float) -> list[pa.RecordBatch]:
    """The windows up to the first that ends beyond so many seconds, or all there are."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        begin = min(b.column("t_start")[0].as_py() for b in held)
        if batch.column("t_end")[len(batch) - 1].as_py() - begin > seconds:
            break
    return held


def main(options: argparse.Namespace) -> None:
    """Entry point."""
    torch.set_num_threads(options.threads)
    policy = Policy.load(options.model)
    fusion_baselines, observer = stored.load(options.fusion_baselines)
    if observer != policy.observer:
        raise CanidsError(
            f"{options.fusion_baselines}: learnt from other detectors than the policy was; delete it and run again"
        )
    if options.fusion != "dqn" and options.fusion not in fusion_baselines:
        raise CanidsError(
            f"{options.fusion_baselines}: no baseline '{options.fusion}'; it has {', '.join(fusion_baselines) or 'none'}"
        )
    _, schema, batches = streams.received(sys.stdin.buffer, *SCORES)
    columns = tuple(n for n in schema.names if n not in KEYS and n.startswith(("vgae_", "gat_")))
    policy.observer.check_columns(_states(pa.RecordBatch.from_pylist([], schema), columns))
    wide = streams.widened(schema, COLUMNS)
    held = _first_seconds(batches, options.recalibrate) if options.recalibrate else []
    if held:
        table = pa.Table.from_batches(held).combine_chunks().to_batches()[0]
        policy = recalibrated(policy, _states(table, columns), options.recalibrate)
    baseline = None if options.fusion == "dqn" else fusion_baselines[options.fusion]
    follower = Follower(policy, baseline)
    with streams.sending(sys.stdout.buffer, wide) as send:
        # To get torch going takes half a second, for which the first window of the traffic would wait.
        Follower(policy, baseline).decide(np.zeros(1, np.int64), np.zeros((1, len(columns)), np.float32))
        for source in (held, batches):
            for batch in source:
                states = _states(batch, columns)
                decided = follower.decide(states.keys["window"].to_numpy(), states.values)
                send(streams.extended(batch, wide, decided))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="canids_train_drl.follow", description=__doc__)
    made.add_argument("--model", type=Path, required=True, help="the policy")
    made.add_argument("--fusion_baselines", type=Path, required=True, metavar="MODEL")
    made.add_argument("--fusion", default="dqn", help="who decides: dqn, or a baseline's name")
    made.add_argument("--threads", type=int, default=1, help="torch's threads")
    made.add_argument(
        "--recalibrate", type=float, default=0, metavar="S", help="as in config.schema.yaml; these windows wait"
    )
    return made


if __name__ == "__main__":
    streams.run(main, parser())
