"""Outlier exposure (Hendrycks, Mazeika and Dietterich 2019): disturbed attack-free windows as further attacks.

A classifier trained on two kinds of attack learns to recognise these two. Disturbed windows, in which any quantity of any ID
deviates in any direction, teach it that deviation from the ordinary is what counts.
"""

from dataclasses import replace

import torch
from torch import Tensor

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn.models.layers import FeatureDropout, Scaling


def exposed(
    graphs: Graphs, scaling: Scaling, quantities: FeatureDropout, rate: float, strength: tuple[float, float]
) -> Graphs:
    """Disturb a share of the attack-free windows and label them attacked.

    In a disturbed window some nodes (from one to all) and some quantities (each with probability 0.2, one at least) are
    shifted.

    Args:
        graphs: a batch of B graphs with N nodes and F features.
        scaling: its standard deviations are the unit of a shift.
        quantities: groups the Q quantities' columns (mean, minimum, maximum); they move together, each by its own part.
        rate: share of the attack-free windows that is disturbed.
        strength: lowest and highest shift, in standard deviations.
    """
    (n, width), b = graphs.x.shape, len(graphs.y)
    device = graphs.x.device
    chosen = (graphs.y == 0) & (torch.rand(b, device=device) < rate)  # [B] the windows to disturb

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device)

    # Which nodes of each window: a random share of them, squared so that it is small in most, and one node in any case.
    share = uniform(b) ** 2  # [B]
    hit = uniform(n) < share[graphs.graph]  # [N]
    hit[graphs.ptr[:-1] + (uniform(b) * graphs.sizes).long()] = True
    # Which quantities, and by how much in which direction: the same for all nodes of a window.
    moved = uniform(b, quantities.groups) < 0.2  # [B, Q]
    moved[torch.arange(b, device=device), (uniform(b) * quantities.groups).long()] = True
    low, high = strength
    sign = torch.where(uniform(b, quantities.groups) < 0.5, -1.0, 1.0)
    shift = sign * (low + (high - low) * uniform(b, quantities.groups))  # [B, Q]
    # From quantities to columns, each of which moves by 30 to 100 % of its quantity's shift.
    shift = (shift * moved)[:, quantities.group] * (0.3 + 0.7 * uniform(b, width))  # [B, F]
    hit &= chosen[graphs.graph]
    # In raw units, since the encoder scales; nodes move by 50 to 150 % of it.
    offset = shift[graphs.graph] * scaling.scale * (0.5 + uniform(n, 1))  # [N, F]
    x = torch.where(hit[:, None], graphs.x + offset, graphs.x)
    return replace(graphs, x=x, y=torch.where(chosen, 1, graphs.y))
