"""Model files of the detectors (contract `detector/2`): weights, scaling, and what is needed to build the model again."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from canids_shared.contracts import model_file
from canids_shared.contracts.torch_store import TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point, run_folder
from canids_shared.jobs.torch_state import from_arrays, to_arrays
from canids_train_gnn.attention import Passing
from canids_train_gnn.models import GAT, VGAE, parameter_count

Detector = TypeVar("Detector", GAT, VGAE)


def facts(store: TorchStore) -> dict[str, Any]:
    """What a split holds: `windows`, how many are `attacked`, and windows by vehicle and by attack; its captures."""
    names, arrays = store.header, store.graphs
    attacked = arrays["y"] == 1

    def counts(kind: str, chosen: np.ndarray) -> dict[str, int]:
        amount = np.bincount(arrays[kind[:-1]][chosen], minlength=len(names[kind]))
        return {name: int(n) for name, n in zip(names[kind], amount, strict=True) if name and n}

    return {
        "windows": len(store),
        "attacked": int(attacked.sum()),
        "vehicles": counts("vehicles", np.ones(len(store), dtype=bool)),
        "attacks": counts("attacks", attacked),
        "captures": list(names["captures"]),
    }


def write_run(
    call: entry_point.Call,
    model: nn.Module,
    size: dict[str, Any],
    fit: TorchStore,
    select: dict[str, Any],
    history: list[dict[str, Any]],
) -> None:
    """Write `model.safetensors`, `config.yaml` and `history.parquet` of a training.

    Args:
        size: the model's own size options.
        fit: what it was trained on.
        select: facts of the split on which the epoch was chosen, and the result there.
    """
    header = {
        "contract": model_file.DETECTOR,
        "kind": type(model).__name__,
        "size": size,
        **{key: fit.header[key] for key in ("node_features", "edge_features", "window", "stride", "window_unit")},
        "parameters": parameter_count(model),
        "fit": facts(fit),
        "select": select,
    }
    run_folder.write_history(call.output["history"], history)
    run_folder.write_config(call.output["config"], call)
    model_file.save_arrays(call.output["model"], to_arrays(model.state_dict()), header)


def load(
    path: Path, kind: type[Detector], graphs: dict[str, Any] | None = None, passing: Passing | None = None
) -> Detector:
    """Read a detector, ready to be applied.

    Args:
        graphs: header of the graph store that it is to be applied to; other features than it learnt on are an error.
        passing: how messages pass; the weights are the same for all ways.
    """
    arrays, header = model_file.load_arrays(path, model_file.DETECTOR)
    if header["kind"] != kind.__name__:
        raise CanidsError(f"{path}: holds a {header['kind']}, not a {kind.__name__}")
    if graphs is not None:
        for key in ("node_features", "edge_features", "window", "window_unit"):
            if graphs[key] != header[key]:
                raise CanidsError(f"{path}: trained with other {key} than these graphs have; train again")
    model = kind(header["node_features"], header["edge_features"], header["size"])
    model.load_state_dict(from_arrays(arrays))
    model.encoder.use(passing or Passing())
    model.eval().requires_grad_(False)
    return model
