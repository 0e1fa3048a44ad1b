"""Fusion baselines that are layers of weights: how they decide, and the contextual bandit.

Logistic regression, a perceptron, a contextual bandit and Stable-Baselines3's DQN are layers in the end (a linear map, or
several with ReLU between), so one file format and one way of applying them serve them all. What fits them with other
libraries is in `classifiers.py` and `stable_baselines.py`: deciding does not need these, and they take seconds to import.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canids_train_drl.environment import Actions, AlarmState, FusionEnvironment, Traffic
from canids_train_drl.fusion_baselines.thresholds import squashed
from canids_train_drl.playing import FREE, Lanes, play
from canids_train_drl.prepared import Prepared
from canids_train_drl.terms import Terms

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


def layers_of(pairs: Sequence[tuple[Any, Any]]) -> Layers:
    """Pairs of weights and biases as float32."""
    return tuple((np.asarray(w, dtype=np.float32), np.asarray(b, dtype=np.float32)) for w, b in pairs)


@dataclass(frozen=True)
class Classifier:
    """Alarm where the log odds of an attack, seen from the window and its recent past, exceed the threshold."""

    layers: Layers
    threshold: float

    def logits(self, traffic: Traffic) -> np.ndarray:
        """Log odds, float32 [W, N]."""
        with torch.inference_mode():
            return np.asarray(network(self.layers)(traffic.features.cpu())[..., 0].numpy())

    def decide(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [N] in [0, 1], above one half where the alarm is on, and alarms bool [N]."""
        above = self.logits(traffic)[0] - np.float32(self.threshold)
        return squashed(above), above > 0

    def resumed(self, traffic: Traffic, past: None) -> tuple[np.ndarray, np.ndarray, None]:
        """The same on the next windows of a segment; there is nothing to remember (`stored.FusionBaseline`)."""
        return *self.decide(traffic), None


@dataclass(frozen=True)
class Player:
    """Takes the action with the highest value, as the policy does, in the same environment."""

    layers: Layers
    actions: Actions

    def decide(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [N] in [0, 1] and alarms bool [N], from a quiet alarm at the start of each segment."""
        return self._played(traffic, None)[:2]

    def resumed(self, traffic: Traffic, past: AlarmState | None) -> tuple[np.ndarray, np.ndarray, AlarmState]:
        """The same on the next windows of a segment, from the alarm `past` (`stored.FusionBaseline`)."""
        return self._played(traffic, past)

    def _played(self, traffic: Traffic, past: AlarmState | None) -> tuple[np.ndarray, np.ndarray, AlarmState]:
        played = play(network(self.layers), traffic, Lanes.whole(traffic.segments), self.actions, FREE, past)
        return played.score[0].numpy(), played.alarm[0].numpy(), played.end


def bandit(prepared: Prepared, terms: Terms) -> Player:
    """LinUCB with disjoint linear models (Li et al. 2010, algorithm 1), all environments a step at once.

    It sees what the policy sees and gets the same rewards, but looks no step ahead.
    """
    fuse, actions = prepared.fuse, terms.actions
    environment = FusionEnvironment.seeded(fuse, actions, terms.config)
    device, size = fuse.features.device, fuse.width + 1
    gram = torch.eye(size, dtype=torch.float64, device=device).repeat(actions.count, 1, 1)
    earned = torch.zeros((actions.count, size), dtype=torch.float64, device=device)
    for _ in range(int(terms.config["steps"])):
        context = nn.functional.pad(environment.observe(), (0, 1), value=1.0).double()
        inverse = torch.linalg.inv(gram)
        weight = (inverse @ earned[:, :, None])[:, :, 0]
        spread = torch.einsum("bi,aij,bj->ba", context, inverse, context).clamp(min=0).sqrt()
        action = (context @ weight.T + _CONFIDENCE * spread).argmax(dim=1)
        reward, terminated, truncated = environment.step(action)
        environment.reset(terminated | truncated)
        chosen = nn.functional.one_hot(action, actions.count).double()
        gram += torch.einsum("ba,bi,bj->aij", chosen, context, context)
        earned += torch.einsum("ba,bi->ai", chosen, context * reward.double()[:, None])
    final: Tensor = torch.linalg.solve(gram, earned)
    table = final.cpu().numpy()
    return Player(layers_of([(table[:, :-1], table[:, -1])]), actions)
