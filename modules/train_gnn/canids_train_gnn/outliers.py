"""Outlier exposure (Hendrycks, Mazeika and Dietterich 2019): attack-free windows, disturbed, as further attacks.

A classifier that has seen two kinds of attack learns what tells these two; shown windows in which any quantity of any
ID deviates in any direction, it learns that deviation from the ordinary is what counts.
"""

from dataclasses import replace

import torch
from torch import Tensor

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn.layers import FeatureDropout, Scaling


def exposed(
    graphs: Graphs, scaling: Scaling, groups: FeatureDropout, rate: float, strength: tuple[float, float]
) -> Graphs:
    """Disturb a share `rate` of the attack-free windows and call them attacked.

    In a disturbed window some nodes (from one to all) and some quantities (each with probability 0.2) are shifted by
    `strength` (lowest, highest) standard deviations; columns of one quantity move together by random parts of it.
    """
    (n, width), b = graphs.x.shape, len(graphs.y)
    device = graphs.x.device
    chosen = (graphs.y == 0) & (torch.rand(b, device=device) < rate)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device)

    share = uniform(b) ** 2  # mostly few nodes
    hit = uniform(n) < share[graphs.graph]
    hit[graphs.ptr[:-1] + (uniform(b) * graphs.sizes).long()] = True
    moved = uniform(b, groups.groups) < 0.2
    moved[torch.arange(b, device=device), (uniform(b) * groups.groups).long()] = True
    low, high = strength
    shift = torch.where(uniform(b, groups.groups) < 0.5, -1.0, 1.0) * (low + (high - low) * uniform(b, groups.groups))
    shift = (shift * moved)[:, groups.group] * (0.3 + 0.7 * uniform(b, width))  # [B, F]
    hit &= chosen[graphs.graph]
    far = shift[graphs.graph] * scaling.scale * (0.5 + uniform(n, 1))
    x = torch.where(hit[:, None], graphs.x + far, graphs.x)
    return replace(graphs, x=x, y=torch.where(chosen, 1, graphs.y))
