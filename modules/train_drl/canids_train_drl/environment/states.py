"""Detector outputs of one split as arrays: the reader of the contract `states` for the fusion."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_shared.contracts import tables
from canids_shared.contracts.detectors import Detector, declared
from canids_shared.contracts.tables import KEYS, STATES
from canids_shared.errors import CanidsError


@dataclass(frozen=True)
class States:
    """The windows of one split, in time order within each segment.

    A segment is a stretch of one capture without a gap: windows with consecutive numbers. N windows, C columns.

    Attributes:
        path: the file, for messages.
        detectors: the D detectors that the file declares, in its order.
        keys: the key columns of every window.
        columns: names of the C detector outputs, in the file's order.
        values: float32 [N, C], raw.
        labels: int8 [N], 1 attacked, 0 attack-free, -1 unknown.
        segments: int64 [S + 1], first window of each segment, then N.
    """

    path: Path
    detectors: tuple[Detector, ...]
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
        """int64 [N], number of the segment of each window."""
        return np.repeat(np.arange(len(self.segments) - 1), np.diff(self.segments))

    def select(self, rows: np.ndarray) -> "States":
        """Some windows, by their rows int64 [n], with the segments that they form."""
        keys = self.keys[rows]
        segments = _segments(_consecutive(keys))
        return replace(self, keys=keys, values=self.values[rows], labels=self.labels[rows], segments=segments)


def read(path: Path, **wanted: Any) -> States:
    """Read and check a states file; `wanted` is what it must say: `dataset`, `split`, `variant`.

    Raises `CanidsError` naming the file if it is another one, declares no detectors, lacks the score of one, holds a value that is
    not finite, or if time runs backwards.
    """
    frame, header = tables.read(path, STATES, **wanted)
    columns = tuple(name for name in frame.columns if name not in KEYS)
    keys = frame.select(list(KEYS))
    consecutive = _consecutive(keys)
    backwards = np.flatnonzero(consecutive[1:] & (np.diff(keys["t_start"].to_numpy()) < 0))
    if len(backwards):
        row = int(backwards[0]) + 1
        raise CanidsError(f"{path}: row {row} ({keys['capture'][row]}): windows are not in time order")
    values = frame.select(columns).to_numpy().astype(np.float32)
    labels = frame["label"].cast(pl.Int8).fill_null(-1).to_numpy()
    return States(path, declared(header, path), keys, columns, values, labels, _segments(consecutive))


def _consecutive(keys: pl.DataFrame) -> np.ndarray:
    """Whether each window comes right after the one above it, bool [N]; the first does not."""
    capture, window = keys["capture"].rle_id().to_numpy(), keys["window"].to_numpy().astype(np.int64)
    return np.append(False, (np.diff(capture) == 0) & (np.diff(window) == 1))[: len(keys)]


def _segments(consecutive: np.ndarray) -> np.ndarray:
    """First window of each segment, then N."""
    return np.append(np.flatnonzero(~consecutive), len(consecutive))


def by(column: str, states: States) -> dict[str, States]:
    """The states of every `capture`, or `vehicle`, by itself, in their order."""
    names = states.keys[column]
    return {name: states.select(np.flatnonzero(names == name)) for name in names.unique(maintain_order=True)}


def stretch(states: States, count: int) -> States:
    """`count` windows without a gap, in whose middle the first attack begins or ends; fewer where its segment is shorter.

    Raises `CanidsError` naming the file if no attack begins or ends beside an attack-free window.
    """
    # Neighbours in one segment, both labelled, of which one is attacked and the other is not.
    before, after, segment = states.labels[:-1], states.labels[1:], states.segment_of
    known = (np.minimum(before, after) == 0) & (segment[1:] == segment[:-1])
    changes = np.flatnonzero(known & (before != after)) + 1
    if not len(changes):
        raise CanidsError(
            f"{states.path}: no attack begins or ends in it, so overfit_windows has no stretch to take; unset it"
        )
    # Around the first change, moved so far that the stretch stays within the segment.
    first, last = states.segments[segment[changes[0]] :][:2]
    begin = max(first, min(changes[0] - count // 2, last - count))
    return states.select(np.arange(begin, min(begin + count, last)))


def require(states: States, *, attacked: bool, attack_free: bool) -> States:
    """Return `states` if it has labelled windows of the required classes; else raise `CanidsError` naming file and class."""
    for required, label, name in ((attack_free, 0, "attack-free"), (attacked, 1, "attacked")):
        if required and not (states.labels == label).any():
            raise CanidsError(
                f"{states.path}: no {name} windows, without which no policy can be trained; "
                "add training captures, or change how preprocess cuts them into splits"
            )
    return states


def require_same_windows(states: States, other: States) -> None:
    """Raise `CanidsError` unless both files hold the same windows, row by row."""
    names = ["capture", "window", "t_start", "t_end", "label"]
    if not states.keys.select(names).equals(other.keys.select(names)):
        raise CanidsError(f"{other.path}: not the same windows as {states.path}; delete both and run train_gnn again")
