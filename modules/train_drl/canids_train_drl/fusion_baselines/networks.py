"""Fusion baselines that are layers of weights: how they decide, and the contextual bandit.

Logistic regression, a perceptron, a contextual bandit and Stable-Baselines3's DQN are layers in the end (a linear map, or
several with ReLU between), so one file format and one way of applying them serve them all. What fits them with other
libraries is in `classifiers.py` and `stable_baselines.py`: deciding does not need these, and they take seconds to import.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canids_train_drl.environment.fusion_data import FusionData
from canids_train_drl.environment.fusion_environment import Actions, AlarmState, FusionEnvironment, Traffic
from canids_train_drl.environment.fusion_setup import FusionSetup
from canids_train_drl.environment.rollout import FusionOutput, greedy_step
from canids_train_drl.environment.threshold_search import squashed

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Weights float32 [out, in] and biases [out], first layer first."""
_CONFIDENCE = 1.0
"""LinUCB: width of the confidence bound, in standard deviations of the estimate."""


def network(layers: Layers) -> nn.Sequential:
    """The layers with ReLU between them, as a module."""
    linear = [nn.Linear(w.shape[1], w.shape[0]) for w, _ in layers]
    for module, (weight, bias) in zip(linear, layers, strict=True):
        module.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    return nn.Sequential(*list(chain.from_iterable((m, nn.ReLU()) for m in linear))[:-1]).eval().requires_grad_(False)


def layers_of(pairs: Iterable[tuple[Any, Any]]) -> Layers:
    """Pairs of weights and biases as float32."""
    return tuple((np.asarray(w, dtype=np.float32), np.asarray(b, dtype=np.float32)) for w, b in pairs)


@dataclass(frozen=True)
class Classifier:
    """Alarm where the log odds of an attack, given the window and its recent past, exceed the threshold."""

    layers: Layers
    threshold: float

    def logits(self, traffic: Traffic) -> np.ndarray:
        """Log odds, float32 [W, N]."""
        with torch.inference_mode():
            return np.asarray(network(self.layers)(traffic.features.cpu())[..., 0].numpy())

    def step(self, windows: Traffic, state: None) -> tuple[FusionOutput, None]:
        """Decide on the next windows (`rollout.Fusion`); the observation has their past. A score above one half is an alarm."""
        above = self.logits(windows)[0] - np.float32(self.threshold)
        return FusionOutput(squashed(above), above > 0), None


@dataclass(frozen=True)
class Player:
    """Takes the action with the highest value, as the policy does, in the same environment."""

    layers: Layers
    actions: Actions

    def step(self, windows: Traffic, state: AlarmState | None) -> tuple[FusionOutput, AlarmState]:
        """Decide on the next windows (`rollout.Fusion`); remembered are the alarms."""
        output, alarms = greedy_step(network(self.layers), self.actions, windows, state)
        return FusionOutput(output.score, output.alarm), alarms


def bandit(data: FusionData, setup: FusionSetup) -> Player:
    """LinUCB with disjoint linear models (Li et al. 2010, algorithm 1), all environments a step at once.

    It sees what the policy sees and gets the same rewards, but looks no step ahead.
    """
    fuse, actions = data.fuse, setup.actions
    environment = FusionEnvironment.seeded(fuse, actions, setup.config)
    device, size = fuse.features.device, fuse.width + 1
    # Of each action a: A_a = I + Σ x xᵀ [A, size, size] and b_a = Σ r x [A, size], over the contexts x in which it was taken.
    gram = torch.eye(size, dtype=torch.float64, device=device).repeat(actions.count, 1, 1)
    earned = torch.zeros((actions.count, size), dtype=torch.float64, device=device)
    for _ in range(int(setup.config["steps"])):
        # A constant component gives each linear model an intercept.
        context = nn.functional.pad(environment.observe(), (0, 1), value=1.0).double()
        inverse = torch.linalg.inv(gram)
        weight = (inverse @ earned[:, :, None])[:, :, 0]
        # Upper confidence bound: the estimate θᵀx and so many standard deviations √(xᵀ A⁻¹ x) above it, [B, A].
        spread = torch.einsum("bi,aij,bj->ba", context, inverse, context).clamp(min=0).sqrt()
        action = (context @ weight.T + _CONFIDENCE * spread).argmax(dim=1)
        reward, terminated, truncated = environment.step(action)
        environment.reset(terminated | truncated)
        # The one-hot actions route each environment's context to the model of the action that it took.
        chosen = nn.functional.one_hot(action, actions.count).double()
        gram += torch.einsum("ba,bi,bj->aij", chosen, context, context)
        earned += torch.einsum("ba,bi->ai", chosen, context * reward.double()[:, None])
    # Exploration ends here: the estimates without their confidence bounds are the baseline.
    final: Tensor = torch.linalg.solve(gram, earned)
    table = final.cpu().numpy()
    return Player(layers_of([(table[:, :-1], table[:, -1])]), actions)
