"""Playing a policy greedily over recorded traffic: how it is evaluated, and how decisions are made."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from canids_train_drl.environment import Actions, AlarmState, Costs, Traffic

FREE = Costs(0.0, 0.0, 0.0, 0.0)
"""For deciding, where rewards are of no interest."""
Network = Callable[[Tensor], Tensor]
"""Observations [B, width] to Q-values [B, actions]."""


def f1(alarm: np.ndarray, attacked: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
    """F1 of alarms bool [..., W, N] against `attacked` bool [N] or [W, N], worlds weighted by `weight` [W]; 0 without any hit."""
    hits = ((alarm & attacked).sum(-1) * weight).sum(-1)
    total = ((alarm.sum(-1) + attacked.sum(-1)) * weight).sum(-1)
    return np.asarray(2 * hits / np.maximum(total, 1e-9))


@dataclass(frozen=True)
class Lanes:
    """L stretches of traffic to be played side by side, int64 [L] each: world, first row, number of rows."""

    world: np.ndarray
    first: np.ndarray
    length: np.ndarray

    @classmethod
    def whole(cls, segments: np.ndarray) -> "Lanes":
        """Every segment from its beginning to its end, in world 0."""
        return cls(np.zeros(len(segments) - 1, dtype=np.int64), segments[:-1], np.diff(segments))

    @classmethod
    def stretches(cls, segments: np.ndarray, length: int, worlds: int) -> "Lanes":
        """Every segment cut into stretches of at most `length` rows, in each of `worlds` worlds."""
        cuts = [np.arange(b, e, length) for b, e in pairwise(segments)]
        ends = [np.append(c[1:], e) for c, e in zip(cuts, segments[1:], strict=True)]
        first, end = np.concatenate(cuts), np.concatenate(ends)
        world = np.repeat(np.arange(worlds), len(first))
        return cls(world, np.tile(first, worlds), np.tile(end - first, worlds))


@dataclass(frozen=True)
class Played:
    """What a policy did, by world and window [W, N].

    Attributes:
        action, alarm, score, reward: of the window; the score is fused, in [0, 1].
        chosen, other: Q-value of the action taken, and the highest among the others.
        end: the alarms behind the last windows of the longest lanes.
    """

    action: Tensor
    alarm: Tensor
    score: Tensor
    reward: Tensor
    chosen: Tensor
    other: Tensor
    end: AlarmState


def fused_score(q: Tensor, action: Tensor, actions: Actions, scores: Tensor) -> Tensor:
    """Score [B] in [0, 1] of Q-values [B, A], chosen `action` [B] and detector `scores` [B, 2].

    With the action set `alpha` the chosen mixture of both; with `alarm` the advantage d of alarm over silence, as
    ½ (1 + d / (1 + |d|)): above one half where the alarm is on, and without the early saturation of a logistic function.
    """
    if actions.kind == "alpha":
        return actions.fused(action, scores)
    advantage = q[:, 1] - q[:, 0]
    return 0.5 * (1 + advantage / (1 + advantage.abs()))


@torch.inference_mode()
def play(
    network: Network, traffic: Traffic, lanes: Lanes, actions: Actions, costs: Costs, begin: AlarmState | None = None
) -> Played:
    """Play greedily along all lanes, each from a quiet alarm, or a single lane from the alarm `begin`."""
    device = traffic.features.device
    shape = traffic.features.shape[:2]
    action_at = torch.zeros(shape, dtype=torch.int64, device=device)
    alarm_at = torch.zeros(shape, dtype=torch.bool, device=device)
    score_at = torch.zeros(shape, device=device)
    reward_at, chosen_at, other_at = (torch.zeros(shape, device=device) for _ in range(3))
    # Longest first: the lanes still running are always the first ones.
    order = np.argsort(-lanes.length, kind="stable")
    lengths = lanes.length[order]
    worlds, rows = (torch.as_tensor(x[order], device=device) for x in (lanes.world, lanes.first))
    state = begin or AlarmState.quiet(len(order), device)
    for step in range(int(lengths.max(initial=0))):
        running = int(np.searchsorted(-lengths, -step))
        world, row = worlds[:running], rows[:running] + step
        state = AlarmState(state.alarm[:running], state.since[:running], state.detected[:running])
        q = network(traffic.observation(world, row, state.alarm, state.since))
        action = q.argmax(dim=1)
        scores = traffic.scores[world, row]
        alarm = actions.alarm(action, scores)
        state, reward = state.advanced(alarm, traffic.labels[world, row], costs)
        action_at[world, row], alarm_at[world, row], reward_at[world, row] = action, alarm, reward
        score_at[world, row] = fused_score(q, action, actions, scores)
        chosen_at[world, row], other_at[world, row] = q.topk(2, dim=1).values.unbind(1)
    return Played(action_at, alarm_at, score_at, reward_at, chosen_at, other_at, state)


@dataclass(frozen=True)
class Evaluation:
    """Mean reward a window over the worlds by their probability; F1 in the world of the windows as they were recorded."""

    reward: float
    f1: float


def evaluate(network: Network, traffic: Traffic, actions: Actions, costs: Costs, length: int) -> Evaluation:
    """Play all stretches of `length` windows in all worlds and sum up."""
    lanes = Lanes.stretches(traffic.segments, length, len(traffic.probability))
    played = play(network, traffic, lanes, actions, costs)
    reward = float((played.reward.double().mean(dim=1) * traffic.probability.double()).sum())
    known, attacked = ((traffic.labels[0] >= 0).cpu().numpy(), (traffic.labels[0] == 1).cpu().numpy())
    alarm = played.alarm[:1].cpu().numpy()
    return Evaluation(reward, float(f1(alarm & known, attacked)))
