"""Names of the detectors' outputs for a window; imports no torch."""

from collections.abc import Mapping
from typing import Any

from canids_shared.contracts.detectors import DETECTORS, KEY, as_json

ERROR_TERMS = (
    "node_error_mean",
    "node_error_max",
    "edge_error_mean",
    "edge_error_max",
    "divergence_mean",
    "divergence_max",
)
"""Terms of the VGAE's error of a window: mean and largest value over its nodes."""
COLUMNS = (
    "vgae_error",
    *(f"vgae_{name}" for name in ERROR_TERMS),
    "vgae_latent_norm",
    "gat_logit",
    "gat_logit_free",
    "gat_logit_attacked",
    "gat_embedding_norm",
    "gat_embedding_mean",
)
"""The columns of `canids_train_gnn.states.outputs_of`, in their order."""


def declaration(supervised: bool = True) -> dict[str, Any]:
    """The declaration of the detectors in the header of a states file, and of a followed stream; those that learn from labels only
    where they are trained (`supervised`)."""
    return {KEY: as_json([d for d in DETECTORS if supervised or not d.supervised])}


def columns(supervised: bool = True) -> tuple[str, ...]:
    """Those of `COLUMNS` that belong to the declared detectors."""
    prefixes = tuple(d.prefix for d in DETECTORS if supervised or not d.supervised)
    return tuple(name for name in COLUMNS if name.startswith(prefixes))


def states_metadata(wildcards: Mapping[str, str], supervised: bool = True) -> dict[str, Any]:
    """Metadata of a states file: dataset, split, variant and instance, and the detectors whose columns it has."""
    made_for = {key: wildcards[key] for key in ("dataset", "split", "variant", "instance") if key in wildcards}
    return {**made_for, **declaration(supervised)}
