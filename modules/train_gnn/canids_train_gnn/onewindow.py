"""A trained detector for one window at a time, as it is exported to ONNX: raw arrays in, score out, scaling inside."""

import torch
from torch import Tensor, nn

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn.attention import Passing
from canids_train_gnn.models import GAT, VGAE

INPUTS = ("x", "edge_index", "edge_attr")
OUTPUTS = {"GAT": ("score", "logits"), "VGAE": ("score", "terms")}


def alone(x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Graphs:
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


class OneGAT(nn.Module):
    """`score` [] log odds of an attack, and `logits` [2] (attack-free, attacked), of a window."""

    def __init__(self, gat: GAT) -> None:
        super().__init__()
        self.gat = gat
        gat.encoder.use(Passing("dense"))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as of `alone`."""
        layers = self.gat.encoder(alone(x, edge_index, edge_attr))
        whole = torch.cat([*(h.mean(0) for h in layers), *(h.amax(0) for h in layers)])
        logits = self.gat.classify(self.gat.embed(whole))
        return logits[1] - logits[0], logits


class OneVGAE(nn.Module):
    """`score` [] anomaly, and its `terms` [6] (`columns.ERROR_TERMS`), of a window."""

    def __init__(self, vgae: VGAE) -> None:
        super().__init__()
        self.vgae = vgae
        vgae.encoder.use(Passing("dense"))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as of `alone`."""
        made = self.vgae(alone(x, edge_index, edge_attr))
        values = torch.stack([made.node_error, made.edge_error, made.divergence], -1)
        terms = torch.stack([values.mean(0), values.amax(0)], -1).flatten()
        return self.vgae.anomaly(terms[None])[0], terms


def one_window(model: GAT | VGAE) -> nn.Module:
    """The detector for one window."""
    return OneGAT(model) if isinstance(model, GAT) else OneVGAE(model)
