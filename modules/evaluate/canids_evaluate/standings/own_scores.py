"""Scores of anyone's detector: a folder of Parquet files, one for each split, a row for each window of the split's graphs.

Its columns are `capture`, `window`, `t_start` and a score, larger where a window is more anomalous (`SCORES`), on any scale; further columns are not
read, so `states` of a module in the place of train_gnn are such files. Labels come from the graphs and from nowhere else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from canids_evaluate.judging.scores import Scores
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import ENROLMENT
from canids_shared.contracts.tables import opened
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

SCORES: dict[str, Any] = {"capture": pl.String, "window": pl.Int32, "t_start": pl.Float64}
"""Columns beside the score, by which a row is held against its window."""
_BEYOND = 0.1
"""Share of [0, 1] for scores below, and as much for those above, all of `calibrate`."""
_REMEDY = "write it again, a row for each window of the graphs"


def reader(call: Call) -> Callable[[Path], Scores]:
    """Reader of the files of a call, each with the graphs of its split (inputs `graphs`: of calibrate, the scenarios, enrolment).

    Scores are those of the file on the scale of `ranked`, as thresholds are then too.

    Raises `CanidsError` naming the file if it is absent or damaged, lacks a column, has a score that is no finite number, or another
    window than the graphs have in its place.
    """
    enrolment = call.inputs.get(ENROLMENT, [])
    splits = ["calibrate", *call.constants["scenarios"], *(ENROLMENT for _ in enrolment)]
    files = [*call.inputs["calibrate"], *call.inputs["scenarios"], *enrolment]
    graphs = {f: (g, s) for f, g, s in zip(files, call.inputs["graphs"], splits, strict=True)}

    def read_of(path: Path) -> tuple[pl.DataFrame, np.ndarray]:
        store, split = graphs[path]
        keys = GraphStore(store, dataset=call.wildcards["dataset"], split=split).keys()
        return keys, read(path, call.constants["column"], keys)

    _, reference = read_of(files[0])

    def scores_of(path: Path) -> Scores:
        keys, score = read_of(path)
        return Scores(path, keys, {call.constants["own"]: ranked(score, reference)}, alarm={})

    return scores_of


def ranked(score: np.ndarray, calibrate: np.ndarray) -> np.ndarray:
    """Scores [N] by their place among those of `calibrate` [M], in [0, 1], in which alarm rules count: their order stays.

    Between two scores of `calibrate` it is linear in the score; scores beyond all of them come nearer to 0 or 1 the farther they are.
    """
    if not len(calibrate):  # which `calibrated` refuses
        return np.zeros(len(score))
    values, counts = np.unique(calibrate / 4, return_counts=True)  # a quarter, so that no difference overflows
    score = score / 4
    levels = _BEYOND + (1 - 2 * _BEYOND) * (np.cumsum(counts) - counts / 2) / len(calibrate)
    within = np.interp(score, values, levels)
    # The logarithm leaves scores apart that are many times as far from the others as these are from each other.
    width = values[-1] - values[0] or 1.0
    below, above = (1 / (1 + np.log1p(np.maximum(d, 0) / width)) for d in (values[0] - score, score - values[-1]))
    lowest, highest = levels[0], 1 - levels[-1]
    return np.where(score < values[0], lowest * below, np.where(score > values[-1], 1 - highest * above, within))


def read(path: Path, column: str, keys: pl.DataFrame) -> np.ndarray:
    """The scores [W] of the windows `keys`, f64."""
    wanted: dict[str, Any] = {**SCORES, column: pl.Float64}
    with (
        reading(path, "table of scores", pa.ArrowException, pl.exceptions.PolarsError, again=_REMEDY),
        opened(path) as file,
    ):
        if absent := [name for name in wanted if name not in file.schema_arrow.names]:
            has = ", ".join(file.schema_arrow.names[:20])
            raise CanidsError(
                f"{path}: no column '{absent[0]}', it has {has}; name the column of the score in own_scores, or add it"
            )
        table = file.read(columns=list(wanted))
        frame = pl.DataFrame({name: pl.Series(name, table[name].to_pylist(), strict=False) for name in wanted}).cast(
            pl.Schema(wanted)
        )
    if len(frame) != len(keys):
        raise CanidsError(f"{path}: {len(frame):,} rows, and the graphs have {len(keys):,} windows; {_REMEDY}")
    same = pl.all_horizontal(*(pl.col(name).eq_missing(pl.col(f"{name}_right")) for name in SCORES))
    matched = (
        pl.concat([frame, keys.select(pl.col(list(SCORES)).name.suffix("_right"))], how="horizontal")
        .select(same)
        .to_series()
    )
    if not matched.all():
        row = int((~matched).arg_max() or 0)
        here, there = (", ".join(map(str, f.select(list(SCORES)).row(row))) for f in (frame, keys))
        raise CanidsError(f"{path}: row {row} is of window ({here}), and the graphs have ({there}) there; {_REMEDY}")
    if not (finite := frame[column].is_finite().fill_null(value=False)).all():
        raise CanidsError(
            f"{path}: row {int((~finite).arg_max() or 0)}: column '{column}' holds no finite number; {_REMEDY}"
        )
    return frame[column].to_numpy()
