"""Decide on every window that comes on standard input (contract `follow/2`).

    … | python -m canids_train_gnn.follow … | python -m canids_train_drl.follow --model MODEL --fusion_baselines MODEL | …

The decisions are those of the rule decisions: the state of the observer and that of the fusion go on from window to window.
Where a window is missing (in time, one of fewer than two frames), a new segment begins, as it does there.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from canids_shared.alarm_rule import FEWEST_WINDOWS, AlarmRule
from canids_shared.contracts import streams
from canids_shared.contracts.detectors import Detector, declared
from canids_shared.contracts.tables import KEYS
from canids_shared.errors import CanidsError
from canids_shared.jobs.options import DAY_S, number, whole_number
from canids_train_drl.agent.policy import Policy
from canids_train_drl.decide import UNLIKE, load, recalibrated
from canids_train_drl.environment import unlike
from canids_train_drl.environment.fusion_environment import Traffic
from canids_train_drl.environment.observation import Observer, ObserverState
from canids_train_drl.environment.rollout import Fusion
from canids_train_drl.environment.states import States

log = logging.getLogger(__name__)


class Follower:
    """Decides window by window; what it remembers does not grow with their number."""

    def __init__(self, observer: Observer, fusion: Fusion, rule: AlarmRule) -> None:
        """`fusion` is the policy or a fusion baseline, whichever the run decides by; `rule` is what its alarms are held to."""
        self.observer, self.fusion, self.rule = observer, fusion, rule
        self._next = -1
        self._observed: ObserverState | None = None
        self._state: Any = None
        self._past: np.ndarray | None = None
        self._likeness: unlike.Likeness | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Names and Arrow types of what it adds to each window."""
        names = [*(detector.decided for detector in self.observer.detectors), "fusion_score"]
        likeness = [f"{UNLIKE}{detector.name}" for detector in self.observer.detectors]
        return {**dict.fromkeys([*names, *likeness], pa.float32()), "alarm": pa.bool_(), "action": pa.int16()}

    def decide(self, number: np.ndarray, values: np.ndarray, vehicle: str = "") -> dict[str, np.ndarray]:
        """`columns` of the next windows of a vehicle, by their numbers [n] and detector outputs float32 [n, C]."""
        threshold = self.rule.vehicles.get(vehicle, self.rule.threshold)
        breaks = np.flatnonzero(np.diff(number) != 1) + 1
        parts = [
            self._segment(number[begin:end], values[begin:end], threshold)
            for begin, end in pairwise([0, *breaks.tolist(), len(number)])
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.columns}

    def _segment(self, number: np.ndarray, values: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
        """`columns` of the next windows without a gap among them."""
        if number[0] != self._next:
            self._observed, self._state, self._past, self._likeness = None, None, None, None
        self._next, count = int(number[-1]) + 1, len(number)
        is_unlike, voting, self._likeness = unlike.step(self.observer, values, self._likeness)
        features, self._observed = self.observer.step(voting, self._observed)
        unknown, once = torch.full((1, count), -1, dtype=torch.int8), torch.ones(1)
        detectors = self.observer.detectors
        windows = Traffic(torch.from_numpy(features)[None], len(detectors), unknown, np.array([0, count]), once)
        output, self._state = self.fusion.step(windows, self._state)
        real = self.observer.scores(values)
        scores = {detector.decided: real[:, d] for d, detector in enumerate(detectors)}
        scores |= {f"{UNLIKE}{d.name}": is_unlike[:, n].astype(np.float32) for n, d in enumerate(detectors)}
        # As `holding.held`, from window to window.
        score, self._past = self.rule.evidence.step(output.score, self._past)
        output = replace(output, score=score, alarm=output.alarm & (score > threshold))
        return {**scores, "fusion_score": output.score, "alarm": output.alarm, "action": output.action}


def _values(batch: pa.RecordBatch, columns: tuple[str, ...]) -> np.ndarray:
    """Detector outputs float32 [n, C]."""
    return np.stack([streams.flat(batch, name) for name in columns], axis=1).astype(np.float32)


def _states(batch: pa.RecordBatch, detectors: tuple[Detector, ...]) -> States:
    """The windows of a batch, as if they were one segment."""
    keys = streams.keys(batch)
    prefixes = tuple(detector.prefix for detector in detectors)
    columns = tuple(name for name in batch.schema.names if name not in KEYS and name.startswith(prefixes))
    labels = keys["label"].cast(pl.Int8).fill_null(-1).to_numpy()
    values, segments = _values(batch, columns), np.array([0, len(keys)])
    return States(Path("standard input"), detectors, keys, columns, values, labels, segments)


def _first_seconds(batches: Iterator[pa.RecordBatch], seconds: float) -> tuple[list[pa.RecordBatch], int]:
    """The windows up to the first that ends beyond so many seconds of its capture, or all there are.

    Returns them, and the position of the first one of that capture: where the clock jumps another one begins.
    """
    held: list[pa.RecordBatch] = []
    first = 0
    for batch in batches:
        if held and batch["capture"][0] != held[-1]["capture"][0]:
            first = len(held)
        held.append(batch)
        if batch["t_end"][len(batch) - 1].as_py() - held[first]["t_start"][0].as_py() > seconds:
            break
    return held, first


def main(options: argparse.Namespace) -> None:
    """Entry point."""
    torch.set_num_threads(options.threads)
    policy, baselines = load(options.model, options.fusion_baselines)
    if options.fusion not in (*(["dqn"] if options.model else []), *baselines.fusions):
        names = ", ".join(baselines.fusions) or "none"
        raise CanidsError(f"{options.fusion_baselines}: no baseline '{options.fusion}'; it has {names}")
    header, schema, batches = streams.received(sys.stdin.buffer)
    detectors = declared(header, "standard input")
    if absent := [detector.score for detector in detectors if detector.score not in schema.names]:
        raise CanidsError(f"standard input: no column '{absent[0]}' (contract {streams.CONTRACT})")
    policy.observer.check_columns(_states(pa.RecordBatch.from_pylist([], schema), detectors))
    held, first = _first_seconds(batches, options.recalibrate) if options.recalibrate else ([], 0)
    if held:
        table = pa.Table.from_batches(held[first:]).combine_chunks().to_batches()[0]
        seconds = table["t_end"][len(table) - 1].as_py() - table["t_start"][0].as_py()
        if seconds <= options.recalibrate and len(table) < FEWEST_WINDOWS:
            # Someone stopped it, or the log is short: no fault, but nothing to decide by either.
            text = "ended after %.1f of the %g s that set the scales: no decision on its %d windows"
            log.warning(text, seconds, options.recalibrate, sum(map(len, held)))
            held = []
        else:
            policy = recalibrated(policy, _states(table, detectors), options.recalibrate)
    fusion: Fusion = baselines.fusions[options.fusion] if options.fusion != "dqn" else cast(Policy, policy)
    rule = baselines.rules[options.fusion] if options.fusion != "dqn" else cast(Policy, policy).rule
    follower = Follower(policy.observer, fusion, rule)
    wide = streams.widened(schema, follower.columns)
    with streams.sending(sys.stdout.buffer, wide) as send:
        # The first call of torch takes half a second, for which the first window of the traffic would wait.
        no_outputs = np.zeros((1, len(policy.observer.columns)), np.float32)
        Follower(policy.observer, fusion, rule).decide(np.zeros(1, np.int64), no_outputs)
        for source in (held, batches):
            for batch in source:
                # A batch is of one capture, hence of one vehicle.
                vehicle = batch["vehicle"][0].as_py() if len(batch) else ""
                values = _values(batch, policy.observer.columns)
                decided = follower.decide(streams.flat(batch, "window"), values, vehicle)
                send(streams.extended(batch, wide, decided))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="canids_train_drl.follow", description=__doc__)
    made.add_argument("--model", type=Path, help="the policy; without one --fusion must name a baseline")
    made.add_argument("--fusion_baselines", type=Path, required=True, metavar="MODEL")
    made.add_argument("--fusion", default="dqn", help="which fusion decides: dqn, or a baseline's name")
    made.add_argument("--threads", type=whole_number(1, 1024), default=1, help="threads of torch")
    made.add_argument(
        "--recalibrate",
        type=number(0, DAY_S),
        default=0,
        metavar="S",
        help="as in config.schema.yaml; these windows wait",
    )
    return made


if __name__ == "__main__":
    streams.run(main, parser())
