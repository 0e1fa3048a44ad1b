"""Outputs of the three detectors of a variant on every window of a split (contract `states/3`).

`python -m own_detector.states --spec JSON --output X.parquet --graphs SPLIT --model MODEL`
"""

import logging

import numpy as np
import polars as pl

from canids_shared.contracts import detectors, tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.jobs import entry_point
from own_detector.model import DETECTORS, load

log = logging.getLogger(__name__)


def main(call: entry_point.Call) -> None:
    """Entry point."""
    store = GraphStore(call.inputs["graphs"][0])
    outputs = load(call.inputs["model"][0], store).outputs(np.array(store["statistics"]))
    frame = store.keys().hstack([pl.Series(name, column) for name, column in outputs.items()])
    metadata = {key: call.wildcards[key] for key in ("dataset", "split", "variant")}
    declaration = {detectors.KEY: detectors.as_json(DETECTORS)}
    tables.write(call.output["output"], tables.STATES, frame, {**metadata, **declaration})
    log.info("%d windows", len(frame))


if __name__ == "__main__":
    entry_point.run(main, inputs=["graphs", "model"])
