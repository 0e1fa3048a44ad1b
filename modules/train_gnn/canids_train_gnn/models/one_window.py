"""A trained detector for one window at a time, as it is exported to ONNX: raw arrays in, score out, scaling inside."""

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.columns import ERROR_TERMS
from canids_train_gnn.models.gat_vgae import GAT, VGAE

INPUTS = ("x", "edge_index", "edge_attr")
OUTPUTS = {
    "GAT": {"score": ["gat_logit"], "logits": ["gat_logit_free", "gat_logit_attacked"]},
    "VGAE": {"score": ["vgae_error"], "terms": [f"vgae_{name}" for name in ERROR_TERMS]},
}
"""Kind of model → output of the exported model → the columns of states that it holds."""


def single_window_batch(x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Graphs:
    """A window as a batch of one.

    Args:
        x: [n, F] raw node features.
        edge_index: [2, e] int64, source and target of each edge.
        edge_attr: [e, D] raw edge features.
    """
    n = x.shape[0]
    first = x.new_zeros(n, dtype=torch.int64)
    ends = torch.full((1,), n, dtype=torch.int64, device=x.device)
    return Graphs(
        x=x,
        source=edge_index[0],
        target=edge_index[1],
        edge=edge_attr,
        y=first.new_zeros(1),
        ptr=torch.cat([first.new_zeros(1), ends]),
        graph=first,
        widest=n,
        sizes=ends,
        place=torch.arange(n, device=x.device),
    )


class OneWindow(nn.Module):
    """The outputs of a detector for one window, named as in `OUTPUTS`."""

    def __init__(self, model: GAT | VGAE) -> None:
        super().__init__()
        self.model = model
        model.encoder.use(MessagePassing("dense"))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> tuple[Tensor, ...]:
        """Arguments as of `single_window_batch`; the score is a scalar, other outputs are [their columns]."""
        outputs = self.model.outputs(single_window_batch(x, edge_index, edge_attr))  # [1] each
        return tuple(
            torch.cat([outputs[column] for column in columns]) if len(columns) > 1 else outputs[columns[0]][0]
            for columns in OUTPUTS[type(self.model).__name__].values()
        )
