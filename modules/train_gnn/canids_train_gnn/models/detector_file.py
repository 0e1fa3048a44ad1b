"""Reader of the detectors' model files (contract `detector/3`): weights, scaling, and a header that builds the model again."""

from pathlib import Path
from typing import Any

from canids_shared.contracts import model_file
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError
from canids_shared.jobs.torch_state import built
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.gat_vgae import GAT, VGAE, Model

_KINDS: dict[str, type[GAT | VGAE]] = {"GAT": GAT, "VGAE": VGAE}
_FEATURES = ("node_features", "edge_features", "window", "window_unit")
"""Keys of a graph store's header that a detector depends on."""


def load_any(
    path: Path, graphs: dict[str, Any] | None = None, message_passing: MessagePassing | None = None
) -> GAT | VGAE:
    """Read a detector, ready to be applied.

    Args:
        path: the file.
        graphs: header of the graph store that it is to be applied to; other features than it was trained on are an error.
        message_passing: how messages pass, by default `dense`; the weights are the same for all ways.

    Raises `CanidsError` naming the file if it is absent, damaged, of another contract or of other features.
    """
    arrays, header = model_file.load_arrays(path, model_file.DETECTOR)
    with reading(path, "detector", RuntimeError):
        if differing := [key for key in _FEATURES if graphs is not None and graphs[key] != header[key]]:
            raise CanidsError(f"{path}: trained with other {differing[0]} than these graphs have; train again")
        kind = _KINDS[header["kind"]]
        features = (header["node_features"], header["edge_features"])
        model: GAT | VGAE = built(path, arrays, lambda: kind(*features, header["size"]))
    model.encoder.use(message_passing or MessagePassing())
    return model.eval().requires_grad_(False)


def load(
    path: Path,
    kind: type[Model],
    graphs: dict[str, Any] | None = None,
    message_passing: MessagePassing | None = None,
) -> Model:
    """Read a detector of this kind; arguments and errors as of `load_any`."""
    model = load_any(path, graphs, message_passing)
    if not isinstance(model, kind):
        raise CanidsError(f"{path}: holds a {type(model).__name__}, not a {kind.__name__}")
    return model
