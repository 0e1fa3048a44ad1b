"""Rivals that learn: logistic regression, a perceptron, a contextual bandit, and Stable-Baselines3's DQN.

All of them are layers of weights in the end (a linear map, or several with ReLU between), so one file format and one way
of applying them serve them all.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn

from canids_train_drl.environment import Actions, FusionEnvironment, Traffic
from canids_train_drl.playing import FREE, Lanes, play
from canids_train_drl.prepared import Prepared
from canids_train_drl.rivals.thresholds import Ground, squashed, thresholded
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


@dataclass(frozen=True)
class Player:
    """Takes the action with the highest value, as the policy does, in the same environment."""

    layers: Layers
    actions: Actions

    def decide(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [N] in [0, 1] and alarms bool [N], from a quiet alarm at the start of each segment."""
        played = play(network(self.layers), traffic, Lanes.whole(traffic.segments), self.actions, FREE)
        return played.score[0].numpy(), played.alarm[0].numpy()


def _classifier(prepared: Prepared, terms: Terms, model: Any) -> Classifier:
    """Fit on every labelled window of `fuse` in every world, weighted by the world's probability and the costs of an error."""
    fuse, config = prepared.fuse, terms.config
    labels, features = fuse.labels.cpu().numpy(), fuse.features.cpu().numpy()
    cost = np.where(labels == 1, config["reward"]["missed_attack"], config["reward"]["false_alarm"])
    weight = fuse.probability.cpu().numpy()[:, None] * cost
    used = (labels >= 0) & (weight > 0)
    x, y, w = features[used].astype(np.float64), labels[used] == 1, weight[used]
    model.fit(x, y, sample_weight=w / w.mean())
    pairs = (
        list(zip((c.T for c in model.coefs_), model.intercepts_, strict=True))
        if isinstance(model, MLPClassifier)
        else [(model.coef_, model.intercept_)]
    )
    layers = layers_of(pairs)
    raw = Classifier(layers, 0.0)
    ground = Ground.of(prepared, config["false_alarm_budget"])
    return Classifier(layers, thresholded(raw.logits(fuse), raw.logits(prepared.calibrate)[0], ground))


def logistic(prepared: Prepared, terms: Terms) -> Classifier:
    """Logistic regression."""
    return _classifier(prepared, terms, LogisticRegression(max_iter=1000))


def perceptron(prepared: Prepared, terms: Terms) -> Classifier:
    """A multilayer perceptron with the policy's widths, given as many gradient steps as the policy may take."""
    config, rows = terms.config, int((prepared.fuse.labels >= 0).sum())
    epochs = -(-config["steps"] * config["batch_size"] // rows)
    model = MLPClassifier(
        tuple(terms.hidden),
        batch_size=config["batch_size"],
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=config["seed"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the budget ends it, as is meant
        return _classifier(prepared, terms, model)


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
