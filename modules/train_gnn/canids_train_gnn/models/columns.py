"""Names of the detectors' outputs for a window; imports no torch."""

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
