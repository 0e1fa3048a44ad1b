"""Curriculum: a GAT meets easy windows first (Bengio et al. 2009), as a trained VGAE finds them easy or hard."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from canids_shared.contracts.torch_store import TorchStore
from canids_train_gnn.batching import scores_of
from canids_train_gnn.models import VGAE


def difficulty(vgae: VGAE, store: TorchStore, windows: Tensor, size: int) -> Tensor:
    """How hard each of the windows ([n] int64) is, [n] in [0, 1), uniform within each class.

    An attack-free window is hard where the VGAE finds it anomalous, an attacked one where it finds it ordinary.

    Args:
        size: windows in a batch.
    """
    scores = scores_of(vgae, store, windows, size).cpu()
    labels = store.y.cpu()[windows]
    out = torch.empty(len(windows))
    for label, sign in ((0, 1.0), (1, -1.0)):
        members = torch.nonzero(labels == label).squeeze(1)
        order = torch.argsort(sign * scores[members], stable=True)
        out[members[order]] = torch.arange(len(members)) / max(len(members), 1)
    return out


def paced(windows: Tensor, hardness: Tensor, config: dict[str, Any], epochs: int) -> Callable[[int], Tensor]:
    """Which windows an epoch, counted from 0, uses: those below a hardness that rises linearly; of each class one at least.

    Args:
        windows: all of them, [n] int64.
        hardness: [n], of `difficulty`.
        config: `start`, the share of the first epoch; `whole`, the share of `epochs` after which all are used.
    """

    def of(epoch: int) -> Tensor:
        rise = min(epoch / max(config["whole"] * epochs, 1.0), 1.0)
        share = config["start"] + (1.0 - config["start"]) * rise
        return windows[hardness < share]

    return of
