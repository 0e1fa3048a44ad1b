"""Outputs of the two detectors of a variant for every window of a split (contract `states/3`).

`python -m canids_train_gnn.states --spec JSON --output X.parquet --graphs SPLIT --vgae MODEL [--gat MODEL]`

Without a GAT, where there was no attack to train one on, they are those of the VGAE alone. With a list `each` of splits in the spec, as
many outputs and graph stores.
"""

import logging
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from canids_shared.contracts import model_file, tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import Graphs, TorchStore, device_of
from canids_shared.jobs import entry_point
from canids_train_gnn.models import detector_file
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.batching import batches, repeatable
from canids_train_gnn.models.columns import states_metadata
from canids_train_gnn.models.gat_vgae import GAT, VGAE

BATCH = 256
log = logging.getLogger(__name__)


@torch.inference_mode()
def outputs_of(vgae: VGAE, gat: GAT | None, graphs: Graphs) -> dict[str, Tensor]:
    """Raw, uncalibrated outputs per window, each [B] float32, in the order of `columns.COLUMNS`; without a GAT only the VGAE's.

    The one definition for splits, followed buses and exported models, which take them from the models' own `outputs`.
    """
    outputs = {**vgae.outputs(graphs), **(gat.outputs(graphs) if gat else {})}
    return {name: values.float() for name, values in outputs.items()}


def load_both(
    vgae: Path, gat: Path | None, graphs: dict[str, Any], config: dict[str, Any], device: torch.device
) -> tuple[VGAE, GAT | None]:
    """Read both detectors of a variant, ready to be applied.

    Args:
        vgae, gat: model files; None where no GAT was trained.
        graphs: header of the graph store, or of the stream, that they are to be applied to.
        config: its key `backend` is used.
        device: where they are applied.

    Raises `CanidsError` naming the file that is absent or damaged, of another run or kind, or of other features than `graphs`.
    """
    model_file.refuse_mixture(vgae, *([gat] if gat else []))
    passing = MessagePassing.of(config, device, training=False)
    return (
        detector_file.load(vgae, VGAE, graphs, passing).to(device),
        detector_file.load(gat, GAT, graphs, passing).to(device) if gat else None,
    )


def detector_outputs(vgae: VGAE, gat: GAT | None, store: TorchStore) -> dict[str, Tensor]:
    """The outputs (`outputs_of`) for every window of a store, each [W]."""
    rows = [outputs_of(vgae, gat, graphs) for graphs in batches(store, torch.arange(len(store)), BATCH)]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def main(call: entry_point.Call) -> None:
    """Entry point."""
    device = device_of(call.config["accelerator"], "train_gnn.accelerator")
    repeatable(call.config["torch_threads"], device)
    store = GraphStore(call.inputs["graphs"][0], **call.made_for("dataset", "split"))
    (vgae,), gat = call.inputs["vgae"], next(iter(call.inputs["gat"]), None)
    models = load_both(vgae, gat, store.header, call.config, device)
    outputs = detector_outputs(*models, TorchStore(store, device))
    frame = store.keys().hstack([pl.Series(name, values.cpu().numpy()) for name, values in outputs.items()])
    tables.write(
        call.output["output"], tables.STATES, frame, states_metadata(call.wildcards, supervised=gat is not None)
    )
    log.info("%d windows", len(frame))


if __name__ == "__main__":
    entry_point.run(main, inputs=["graphs", "vgae", "gat"], each=["graphs"])
