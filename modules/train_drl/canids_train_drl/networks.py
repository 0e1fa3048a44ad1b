"""The Q-network: dueling heads on a plain multilayer perceptron (Wang et al. 2016, section 3)."""

from itertools import pairwise

from torch import Tensor, nn


class DuelingNetwork(nn.Module):
    """Q(s, a) = V(s) + A(s, a) − mean over a' of A(s, a').

    `forward` takes observations [B, width] and returns Q-values [B, actions].
    """

    def __init__(self, width: int, hidden: list[int], actions: int) -> None:
        super().__init__()
        sizes = [width, *hidden]
        self.trunk = nn.Sequential(*(layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())))
        self.value = nn.Linear(sizes[-1], 1)
        self.advantage = nn.Linear(sizes[-1], actions)

    def forward(self, observation: Tensor) -> Tensor:
        """Q-values [B, actions] of observations [B, width]."""
        trunk = self.trunk(observation)
        advantage = self.advantage(trunk)
        q: Tensor = self.value(trunk) + advantage - advantage.mean(dim=1, keepdim=True)
        return q
