"""Stand-ins of this module's files (`stand_in: true`): models without weights, and detectors that know the labels.

Nothing here imports torch, which alone would take seconds in each job.
"""

from functools import partial
from typing import Any

import numpy as np
import polars as pl

from canids_shared.contracts import tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.jobs import stand_in_runner
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.stand_in_runner import StandIn
from canids_train_gnn.models.columns import columns, states_metadata
from canids_train_gnn.training import run_record


def detector(name: str, call: Call) -> None:
    """A training's files, with a history of one epoch and a model file that holds no weights."""
    epoch = {"epoch": 1, "fit_loss": 1.0, "select_loss": 1.0, "learning_rate": 0.0, "seconds": 1.0, "graphs_per_s": 1.0}
    history = [{**epoch, "peak_rss_mb": None, "peak_gpu_mb": None}]
    fit, select = (GraphStore(path) for path in call.inputs["graphs"])
    empty: dict[str, Any] = {"weights": {}, "parameters": 0, "auroc": None}
    run_record.write(call, name, fit, select, history=history, seconds=[1e-3], device="cpu", **empty)


def states(call: Call) -> None:
    """All outputs of the detectors are 1 in attacked windows, else 0."""
    keys = GraphStore(call.inputs["graphs"][0]).keys()
    known = keys["label"].fill_null(0).to_numpy().astype(np.float32)
    supervised = bool(call.inputs["gat"])
    frame = keys.with_columns(pl.Series(name, known) for name in columns(supervised))
    tables.write(call.output["output"], tables.STATES, frame, states_metadata(call.wildcards, supervised))


_TRAINED = ("model", "config", "history", "run")
STAND_INS = {
    **{kind: StandIn(partial(detector, kind), _TRAINED) for kind in ("gat", "vgae")},
    "states": StandIn(states, each=("graphs",)),
}

if __name__ == "__main__":
    stand_in_runner.run(STAND_INS)
