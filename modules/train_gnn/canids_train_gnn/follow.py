"""Outputs of the two detectors of a run for every window that arrives on standard input (contract `follow/2`).

    python -m canids_preprocess.follow SOURCE | python -m canids_train_gnn.follow --vgae MODEL [--gat MODEL] | …

The numbers are those of the rule states.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from canids_shared.contracts import streams
from canids_shared.contracts.torch_store import Graphs, device_of
from canids_shared.jobs.options import whole_number
from canids_train_gnn.models.batching import repeatable
from canids_train_gnn.models.columns import columns, declaration
from canids_train_gnn.states import BATCH, load_both, outputs_of


def graphs_of(batch: pa.RecordBatch, header: dict[str, Any], device: torch.device) -> Graphs:
    """Some windows of a stream as one batch of graphs."""
    width, edge_width = len(header["node_features"]), len(header["edge_features"])
    return Graphs.unlabelled(
        streams.flat(batch, "x").reshape(-1, width),
        np.stack([streams.flat(batch, name) for name in ("edge_source", "edge_target")]),
        streams.flat(batch, "edge_attr").reshape(-1, edge_width),
        streams.counts(batch, "node_id"),
        streams.counts(batch, "edge_source"),
        device,
    )


def _warm_up(schema: pa.Schema, header: dict[str, Any]) -> pa.RecordBatch:
    """A window of one node, to be computed before there is traffic: torch's first run takes a second or two."""
    one = {"x": [0.0] * len(header["node_features"]), "edge_attr": [0.0] * len(header["edge_features"])}
    row = {name: one.get(name, [0]) for name in streams.GRAPHS}
    return pa.RecordBatch.from_pylist([row], schema=schema)


def widened(schema: pa.Schema, supervised: bool = True) -> pa.Schema:
    """The schema of a stream with the detectors' columns, and their declaration in its metadata."""
    return streams.widened(schema, dict.fromkeys(columns(supervised), pa.float32()), **declaration(supervised))


def main(options: argparse.Namespace) -> None:
    """Entry point."""
    device = device_of(options.accelerator, "--accelerator")
    repeatable(options.threads, device)
    header, schema, batches = streams.received(sys.stdin.buffer)
    models = load_both(options.vgae, options.gat, header, {"backend": options.backend}, device)
    wide = widened(schema, supervised=options.gat is not None)
    with streams.sending(sys.stdout.buffer, wide) as send:
        outputs_of(*models, graphs_of(_warm_up(schema, header), header, device))
        for batch in batches:
            for begin in range(0, len(batch), BATCH):
                some = batch.slice(begin, BATCH)
                outputs = outputs_of(*models, graphs_of(some, header, device))
                send(streams.extended(some, wide, {name: v.cpu().numpy() for name, v in outputs.items()}))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="canids_train_gnn.follow", description=__doc__)
    made.add_argument("--vgae", type=Path, required=True, metavar="MODEL")
    made.add_argument("--gat", type=Path, metavar="MODEL", help="absent where there was no attack to train one on")
    made.add_argument("--threads", type=whole_number(1, 1024), default=1, help="torch's threads")
    made.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="cpu")
    made.add_argument("--backend", choices=["auto", "dense", "csr", "pyg", "dgl"], default="auto")
    return made


if __name__ == "__main__":
    streams.run(main, parser())
