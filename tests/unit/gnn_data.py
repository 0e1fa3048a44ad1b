"""Random graph stores for the tests of the module train_gnn, made with the shared writer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from canids_shared.contracts.graph_store import GraphStore, writing
from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.jobs.entry_point import Call
from canids_train_gnn.models.batching import repeatable
from canids_train_gnn.training.job import TrainingJob

NODE_FEATURES = ["gap_mean", "gap_min", "gap_max", "flips_mean", "flips_min", "flips_max", "share"]
EDGE_FEATURES = ["count", "gap_mean"]
SMALL: dict[str, Any] = {"channels": 4, "heads": 2, "layers": 2, "dropout": 0.1, "feature_dropout": 0.2, "latent": 3}
GAT: dict[str, Any] = {
    "large": SMALL,
    "small": {**SMALL, "channels": 2},
    "epochs": 4,
    "patience": 4,
    "batch": 16,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "clip": 1.0,
    "label_smoothing": 0.02,
    "curriculum": {"by": "none", "start": 0.3, "whole": 0.5},
    "exposure": {"rate": 0.3, "lowest": 4.0, "highest": 12.0},
    "distillation": {"temperature": 4.0, "logits": 1.0, "embeddings": 0.1},
}
VGAE: dict[str, Any] = {
    **{k: v for k, v in GAT.items() if k not in ("label_smoothing", "exposure", "curriculum")},
    "edge_weight": 0.2,
    "divergence_weight": 0.02,
    "distillation": {"latents": 0.5, "reconstructions": 0.5},
}


def write(
    path: Path,
    labels: list[int],
    rng: np.random.Generator,
    sizes: list[int] | None = None,
    auxiliary_captures: list[int] | None = None,
) -> Path:
    """A store with one window a label; attacked windows have one node whose features lie far out.

    Windows with 1 in `auxiliary_captures` belong to a second capture, an auxiliary one.
    """
    sizes = sizes or [int(n) for n in rng.integers(2, 7, len(labels))]
    nodes = sum(sizes)
    x = rng.normal(size=(nodes, len(NODE_FEATURES))).astype(np.float32)
    first = np.cumsum([0, *sizes])
    for w, label in enumerate(labels):
        if label == 1:
            x[first[w]] += 6.0
    edges = [max(n - 1, 0) for n in sizes]
    windows = len(labels)
    chunk: dict[str, np.ndarray] = {
        "x": x,
        "node_id": rng.integers(0, 2048, nodes),
        "node_count": np.ones(nodes),
        "edge_source": np.concatenate([np.arange(n - 1) for n in sizes]),
        "edge_target": np.concatenate([np.arange(1, n) for n in sizes]),
        "edge_attr": rng.normal(size=(sum(edges), len(EDGE_FEATURES))),
        "node_counts": np.array(sizes),
        "edge_counts": np.array(edges),
        "y": np.array(labels),
        "n_attacked": np.maximum(labels, 0),
        "attack": np.maximum(labels, 0),
        "capture": np.array(auxiliary_captures or [0] * windows),
        "vehicle": np.zeros(windows),
        "window": np.arange(windows),
        "t_start": np.arange(windows, dtype=float),
        "t_end": np.arange(windows) + 0.9,
        "statistics": np.zeros((windows, 1)),
    }
    header = {
        "node_features": NODE_FEATURES,
        "edge_features": EDGE_FEATURES,
        "statistics": ["none"],
        "attacks": ["", "dos"],
        "captures": ["c", "fleet.c"] if auxiliary_captures else ["c"],
        "auxiliary_captures": ["fleet.c"] if auxiliary_captures else [],
        "vehicles": ["van"],
        "window": 10,
        "stride": 10,
        "window_unit": "frames",
    }
    with writing(path, header, windows=windows, nodes=nodes, edges=sum(edges)) as writer:
        writer.append(chunk)
    return path


def store(path: Path) -> TorchStore:
    """Open a store on the CPU."""
    return TorchStore(GraphStore(path), torch.device("cpu"))


def batch_of(sizes: list[int], sources: list[int], targets: list[int], seed: int = 0) -> Graphs:
    """A batch of graphs with so many nodes each, these edges (nodes counted through the batch) and random features."""
    draw = torch.Generator().manual_seed(seed)
    counts = torch.tensor(sizes)
    return Graphs.of(
        x=torch.randn(sum(sizes), len(NODE_FEATURES), generator=draw),
        source=torch.tensor(sources, dtype=torch.int64),
        target=torch.tensor(targets, dtype=torch.int64),
        edge=torch.randn(len(sources), len(EDGE_FEATURES), generator=draw),
        y=torch.arange(len(sizes)) % 2,
        sizes=counts,
        widest=max(sizes),
    )


MIXED = [0, 1] * 32
STILL = {
    **GAT,
    "epochs": 2,
    "exposure": {"rate": 0.0, "lowest": 4.0, "highest": 12.0},
    **{scale: {**SMALL, "dropout": 0.0, "feature_dropout": 0.0} for scale in ("large", "small")},
}
"""Nothing drawn at random but the order of the windows."""
COMMON: dict[str, Any] = {
    "torch_threads": 1,
    "accelerator": "cpu",
    "precision": "32-true",
    "backend": "dense",
    "compile": "never",
    "overfit_windows": None,
}
"""Options of a training beside its detector's section."""
OUTPUTS = {
    "model": "model.safetensors",
    "config": "config.yaml",
    "history": "history.parquet",
    "run": "run.json",
}


def call(
    graphs: Sequence[Path], folder: Path, kind: str, scale: str = "small", accelerator: str = "cpu", **config: Any
) -> Call:
    """What a training rule hands to `gat` or `vgae`: the stores of fit and select, a run folder, options that differ."""
    section = {**{"gat": GAT, "vgae": VGAE}[kind], **config}
    constants = {"variant": "large" if scale == "large" else "small_nokd", "code": "x"}
    spec: dict[str, Any] = {
        "wildcards": {"dataset": "d", "instance": ""},
        "config": {**COMMON, "accelerator": accelerator, "seed": 3, kind: section},
        **constants,
    }
    return Call(
        wildcards=spec["wildcards"],
        config=spec["config"],
        constants=constants,
        output={name: folder / file for name, file in OUTPUTS.items()},
        inputs={"graphs": list(graphs), "teacher": [], "curriculum_vgae": []},
        spec=json.dumps(spec),
    )


def job(
    stores: Sequence[Path | TorchStore], config: dict[str, Any], scale: str = "small", **how: Any
) -> TrainingJob[Any]:
    """A training on the stores of fit and select with seed 0, on the CPU."""
    repeatable(
        COMMON["torch_threads"], torch.device("cpu")
    )  # as the rule does, so that bytes do not depend on other tests
    fit, select = (s if isinstance(s, TorchStore) else store(s) for s in stores)
    return TrainingJob(fit, select, scale, config, 0, **how)


def weights(folder: Path) -> bytes:
    """The model file of a run."""
    return (folder / "model.safetensors").read_bytes()
