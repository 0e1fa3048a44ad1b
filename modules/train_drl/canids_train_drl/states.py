"""Detector outputs of one split, as arrays: the `states` contract seen from the policy's side."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from canids_shared.contracts import tables
from canids_shared.contracts.tables import KEYS, STATES
from canids_shared.errors import CanidsError

SCORES = ("gat_logit", "vgae_error")
"""The raw anomaly score of each detector, larger = more anomalous: logit difference attack − benign, total error."""


@dataclass(frozen=True)
class States:
    """The windows of one split, in time order within each segment.

    A segment is a stretch of one capture without a gap: windows numbered one after another. N windows, C columns.

    Attributes:
        path: the file, for messages.
        keys: the key columns of every window.
        columns: names of the C detector outputs, in the file's order.
        values: float32 [N, C], raw.
        labels: int8 [N], 1 attacked, 0 not, -1 unknown.
        segments: int64 [S + 1], where each segment begins, then N.
    """

    path: Path
    keys: pl.DataFrame
    columns: tuple[str, ...]
    values: np.ndarray
    labels: np.ndarray
    segments: np.ndarray

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.labels)

    @property
    def segment_of(self) -> np.ndarray:
        """int64 [N], the number of each window's segment."""
        return np.repeat(np.arange(len(self.segments) - 1), np.diff(self.segments))


def read(path: Path) -> States:
    """Read and check a states file.

    Raises `CanidsError` naming the file if a detector's score is absent, a value is not finite, or time runs backwards.
    """
    frame, _ = tables.read(path, STATES)
    columns = tuple(c for c in frame.columns if c not in KEYS)
    for name in SCORES:
        if name not in columns:
            raise CanidsError(f"{path}: column '{name}' is missing; run the states rule of train_gnn again")
    keys = frame.select(list(KEYS))
    follows = _follows(keys)
    backwards = np.flatnonzero(follows & (np.diff(keys["t_start"].to_numpy()) < 0))
    if len(backwards):
        row = int(backwards[0]) + 1
        raise CanidsError(f"{path}: row {row} ({keys['capture'][row]}): windows are not in time order")
    values = frame.select(columns).to_numpy().astype(np.float32)
    labels = frame["label"].cast(pl.Int8).fill_null(-1).to_numpy()
    return States(path, keys, columns, values, labels, _segments(follows) if len(keys) else np.zeros(1, np.int64))


def _follows(keys: pl.DataFrame) -> np.ndarray:
    """Whether each window but the first comes right after the one above, bool [N − 1]."""
    capture, window = keys["capture"].rle_id().to_numpy(), keys["window"].to_numpy().astype(np.int64)
    return np.asarray((np.diff(capture) == 0) & (np.diff(window) == 1))


def _segments(follows: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.flatnonzero(~follows) + 1, [len(follows) + 1]])


def by_capture(states: States) -> list[States]:
    """The states of every capture on its own, in their order."""
    parts = []
    for name in states.keys["capture"].unique(maintain_order=True):
        rows = np.flatnonzero(states.keys["capture"].to_numpy() == name)
        keys = states.keys[rows.tolist()]
        values, labels = states.values[rows], states.labels[rows]
        parts.append(States(states.path, keys, states.columns, values, labels, _segments(_follows(keys))))
    return parts


def stretch(states: States, count: int) -> States:
    """`count` windows without a gap, in whose middle an attack begins or ends for the first time; fewer where its segment is shorter.

    Raises `CanidsError` naming the file if none does so next to an attack-free window.
    """
    before, after, segment = states.labels[:-1], states.labels[1:], states.segment_of
    known = (np.minimum(before, after) == 0) & (segment[1:] == segment[:-1])
    changes = np.flatnonzero(known & (before != after)) + 1
    if not len(changes):
        raise CanidsError(
            f"{states.path}: no attack begins or ends in it, so overfit_windows has no stretch to take; unset it"
        )
    first, last = states.segments[segment[changes[0]] :][:2]
    begin = max(first, min(changes[0] - count // 2, last - count))
    rows = slice(begin, min(begin + count, last))
    keys = states.keys[rows]
    return States(states.path, keys, states.columns, states.values[rows], states.labels[rows], np.array([0, len(keys)]))


def require(states: States, *, attacked: bool, attack_free: bool) -> States:
    """Return `states` if it has labelled windows of the classes asked for; else `CanidsError` naming file and class."""
    for wanted, label, name in ((attack_free, 0, "attack-free"), (attacked, 1, "attacked")):
        if wanted and not (states.labels == label).any():
            raise CanidsError(
                f"{states.path}: no {name} windows, and the policy cannot be learned without; "
                "add training captures, or change how preprocess cuts them into splits"
            )
    return states


def same_windows(own: States, other: States) -> None:
    """Raise `CanidsError` unless both files hold the same windows, row by row."""
    names = ["capture", "window", "t_start", "t_end", "label"]
    if not own.keys.select(names).equals(other.keys.select(names)):
        raise CanidsError(f"{other.path}: not the same windows as {own.path}; delete both and run train_gnn again")
