"""Curriculum learning (Bengio et al. 2009): a GAT meets easy windows first, as ranked by a trained VGAE."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from canids_shared.contracts.torch_store import TorchStore
from canids_train_gnn.models.batching import scores_of
from canids_train_gnn.models.gat_vgae import VGAE


def difficulty(vgae: VGAE, store: TorchStore, windows: Tensor, batch: int) -> Tensor:
    """Difficulty of the windows ([n] int64): [n] in [0, 1), uniform within each class.

    An attack-free window is hard where its anomaly score is high, an attacked one where it is low.

    Args:
        vgae: the detector that scores them.
        batch: windows in a batch.
    """
    scores = scores_of(vgae, store, windows, batch).cpu()  # [n]
    labels = store.y.cpu()[windows]  # [n]
    ranks = torch.empty(len(windows))
    # Ranks within a class, not scores: the first epochs then hold the same share of both classes.
    for label, sign in ((0, 1.0), (1, -1.0)):
        members = torch.nonzero(labels == label).squeeze(1)
        order = torch.argsort(sign * scores[members], stable=True)
        ranks[members[order]] = torch.arange(len(members)) / max(len(members), 1)
    return ranks


def paced(windows: Tensor, hardness: Tensor, config: dict[str, Any], epochs: int) -> Callable[[int], Tensor]:
    """The windows of each epoch, counted from 0: those below a difficulty that rises linearly, at least one of each class.

    Args:
        windows: all of them, [n] int64.
        hardness: [n], of `difficulty`.
        config: `start`, the share of the first epoch; `whole`, the share of `epochs` after which all are used.
        epochs: epochs of the whole training.
    """

    def windows_of(epoch: int) -> Tensor:
        rise = min(epoch / max(config["whole"] * epochs, 1.0), 1.0)
        share = config["start"] + (1.0 - config["start"]) * rise
        return windows[hardness < share]

    return windows_of
