"""A detector for callers outside the project: arrays of packed windows in, one score for each window out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from canids_shared.contracts.torch_store import Graphs
from canids_shared.errors import CanidsError
from canids_train_gnn.models.detector_file import load_any

BATCH = 256


class Served:
    """A trained detector on the CPU; messages pass in padded batches, which needs torch alone."""

    def __init__(self, model: Path) -> None:
        """Read a model file; raises `CanidsError` naming it if it is absent, cut off, or of another contract."""
        self._model = load_any(model)

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Scores float32 [W], larger is more anomalous: log-odds of the GAT, anomaly score of the VGAE.

        Args:
            arrays: `node_ptr` [W+1], `edge_ptr` [W+1], `x` [ΣN, F], `edge_index` [2, ΣE], `edge_attr` [ΣE, D] as in the
                graph store (`canids_shared.contracts.graph_store`).

        Raises `CanidsError` if the pointers disagree with the arrays, or an edge leaves its window.
        """
        node_ptr, edge_ptr = (np.asarray(arrays[name]).astype(np.int64) for name in ("node_ptr", "edge_ptr"))
        x, edge_attr = (np.asarray(arrays[name], dtype=np.float32) for name in ("x", "edge_attr"))
        ends = np.asarray(arrays["edge_index"]).astype(np.int64)
        for name, ptr, rows in (("node_ptr", node_ptr, len(x)), ("edge_ptr", edge_ptr, len(edge_attr))):
            if not len(ptr) == len(node_ptr) > 0 or ptr[0] != 0 or ptr[-1] != rows or (np.diff(ptr) < 0).any():
                raise CanidsError(
                    f"{name}: must rise from 0 to {rows}, the number of rows that it points into, and have W + 1 values"
                )
        sizes, degrees = np.diff(node_ptr), np.diff(edge_ptr)
        if (ends < 0).any() or (ends >= np.repeat(sizes, degrees)).any():
            raise CanidsError(
                "edge_index: nodes are counted from 0 within each window; an edge points outside its window"
            )
        scores = [np.zeros(0, dtype=np.float32)]
        with torch.inference_mode():
            for a in range(0, len(sizes), BATCH):
                b = min(a + BATCH, len(sizes))
                nodes, edges = slice(node_ptr[a], node_ptr[b]), slice(edge_ptr[a], edge_ptr[b])
                graphs = Graphs.unlabelled(x[nodes], ends[:, edges], edge_attr[edges], sizes[a:b], degrees[a:b])
                scores.append(self._model.score(graphs).numpy())
        return np.concatenate(scores)
