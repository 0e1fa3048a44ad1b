"""What the two detectors of a variant say of every window of a split (contract `states/1`).

`python -m canids_train_gnn.states --spec JSON --output X.parquet --graphs SPLIT --vgae MODEL --gat MODEL`
"""

import logging

import polars as pl
import torch
from torch import Tensor

from canids_shared.contracts import detectors, tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import Graphs, TorchStore, device_of
from canids_shared.jobs import entry_point
from canids_train_gnn import modelfile
from canids_train_gnn.attention import Passing
from canids_train_gnn.batching import batches, repeatable
from canids_train_gnn.columns import ERROR_TERMS
from canids_train_gnn.layers import node_mean
from canids_train_gnn.models import GAT, VGAE

BATCH = 256
log = logging.getLogger(__name__)


@torch.inference_mode()
def outputs_of(vgae: VGAE, gat: GAT, graphs: Graphs) -> dict[str, Tensor]:
    """Raw, uncalibrated outputs per window, each [B] float32.

    `vgae_error` (the anomaly score) and its terms, `vgae_latent_norm`; `gat_logit` (attacked minus attack-free), both
    logits, and norm and mean of the graph embedding.
    """
    made = vgae(graphs)
    terms = made.terms(graphs)
    logits, embedding = gat(graphs)
    found = {
        "vgae_error": vgae.anomaly(terms),
        **{f"vgae_{name}": terms[:, i] for i, name in enumerate(ERROR_TERMS)},
        "vgae_latent_norm": node_mean(made.mean.norm(dim=-1), graphs),
        "gat_logit": logits[:, 1] - logits[:, 0],
        "gat_logit_free": logits[:, 0],
        "gat_logit_attacked": logits[:, 1],
        "gat_embedding_norm": embedding.norm(dim=-1),
        "gat_embedding_mean": embedding.mean(-1),
    }
    return {name: values.float() for name, values in found.items()}


def detector_outputs(vgae: VGAE, gat: GAT, store: TorchStore) -> dict[str, Tensor]:
    """The outputs (`outputs_of`) on every window of a store, each [W]."""
    rows = [outputs_of(vgae, gat, graphs) for graphs in batches(store, torch.arange(len(store)), BATCH)]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def main(call: entry_point.Call) -> None:
    """Entry point."""
    device = device_of(call.config["accelerator"], "train_gnn.accelerator")
    repeatable(call.config["torch_threads"], device)
    store = GraphStore(call.inputs["graphs"][0])
    passing = Passing.of(call.config, device, training=False)
    vgae = modelfile.load(call.inputs["vgae"][0], VGAE, store.header, passing).to(device)
    gat = modelfile.load(call.inputs["gat"][0], GAT, store.header, passing).to(device)
    outputs = detector_outputs(vgae, gat, TorchStore(store, device))
    columns = [pl.Series(name, values.cpu().numpy()) for name, values in outputs.items()]
    frame = store.keys().hstack(columns)
    metadata = {
        "dataset": call.wildcards["dataset"],
        "split": call.wildcards["split"],
        "variant": call.wildcards["variant"],
        detectors.KEY: detectors.as_json(detectors.DETECTORS),
    }
    tables.write(call.output["output"], tables.STATES, frame, metadata)
    log.info("%d windows", len(frame))


if __name__ == "__main__":
    entry_point.run(main, inputs=["graphs", "vgae", "gat"])
