"""Rollouts of a greedy policy over recorded traffic: how it is evaluated, and how decisions are made."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from canids_train_drl.environment.fusion_environment import Actions, AlarmState, Costs, Traffic

_FREE = Costs(0.0, 0.0, 0.0, 0.0)
Network = Callable[[Tensor], Tensor]
"""Observations [B, width] to Q-values [B, A]."""


def f1(alarm: np.ndarray, attacked: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
    """F1 of alarms bool [..., W, N] against `attacked` bool [N] or [W, N], worlds weighted by `weight` [W]; 0 without any hit."""
    # 2 TP / (2 TP + FP + FN), where alarms are TP + FP and attacked windows TP + FN.
    hits = ((alarm & attacked).sum(-1) * weight).sum(-1)
    total = ((alarm.sum(-1) + attacked.sum(-1)) * weight).sum(-1)
    return np.asarray(2 * hits / np.maximum(total, 1e-9))


@dataclass(frozen=True)
class RolloutBatch:
    """L stretches of traffic to be played side by side, int64 [L] each: world, first row, number of rows."""

    world: np.ndarray
    first: np.ndarray
    length: np.ndarray

    @classmethod
    def segments(cls, segments: np.ndarray) -> "RolloutBatch":
        """Every segment [S + 1] from its beginning to its end, in world 0."""
        return cls(np.zeros(len(segments) - 1, dtype=np.int64), segments[:-1], np.diff(segments))

    @classmethod
    def stretches(cls, segments: np.ndarray, length: int, worlds: int) -> "RolloutBatch":
        """Every segment cut into stretches of at most `length` rows, in each of `worlds` worlds."""
        # First rows of the stretches, segment by segment, and their ends: the next stretch, or the end of the segment.
        cuts = [np.arange(b, e, length) for b, e in pairwise(segments)]
        ends = [np.append(c[1:], e) for c, e in zip(cuts, segments[1:], strict=True)]
        first, end = np.concatenate(cuts), np.concatenate(ends)
        world = np.repeat(np.arange(worlds), len(first))
        return cls(world, np.tile(first, worlds), np.tile(end - first, worlds))


@dataclass(frozen=True)
class Rollout:
    """What a policy did, by world and window [W, N].

    Attributes:
        action, alarm, score, reward: of the window; the score is fused, in [0, 1].
        q_chosen, q_other: Q-value of the action taken, and the highest among the others (where there are any).
    """

    action: Tensor
    alarm: Tensor
    score: Tensor
    reward: Tensor
    q_chosen: Tensor
    q_other: Tensor


def fused_score(q: Tensor, action: Tensor, actions: Actions, scores: Tensor) -> Tensor:
    """Score [B] in [0, 1] of Q-values [B, A], chosen `action` [B] and detector `scores` [B, D].

    With the action set `alpha` the chosen mixture; with `alarm` the advantage d of alarm over silence, as
    ½ (1 + d / (1 + |d|)): above one half where the alarm is on, and without the early saturation of a logistic function.
    """
    if actions.kind == "alpha":
        return actions.fused(action, scores)
    advantage = q[:, 1] - q[:, 0]
    return 0.5 * (1 + advantage / (1 + advantage.abs()))


@torch.inference_mode()
def rollout(
    network: Network,
    traffic: Traffic,
    batch: RolloutBatch,
    actions: Actions,
    costs: Costs = _FREE,
    state: AlarmState | None = None,
) -> tuple[Rollout, AlarmState]:
    """Play greedily along L stretches, each from its alarm in `state` [L], or from an alarm that is off.

    Returns what was done and the alarms after the last window of each stretch. Costs matter for the rewards alone.
    """
    device, shape = traffic.features.device, traffic.features.shape[:2]
    played = Rollout(
        torch.zeros(shape, dtype=torch.int64, device=device),
        torch.zeros(shape, dtype=torch.bool, device=device),
        *(torch.zeros(shape, device=device) for _ in range(4)),
    )
    # Longest first: the stretches still running are always the first ones.
    order = np.argsort(-batch.length, kind="stable")
    lengths = batch.length[order]
    worlds, rows, places = (torch.as_tensor(x, device=device) for x in (batch.world[order], batch.first[order], order))
    alarms = (state or AlarmState.off(len(order), device)).select(places)
    for step in range(int(lengths.max(initial=0))):
        # Lengths fall, so the number of stretches with more than `step` windows is where −step would be sorted in.
        running = slice(int(np.searchsorted(-lengths, -step)))
        world, row, now = worlds[running], rows[running] + step, alarms.select(running)
        # Observe, act, and advance the alarms: each stretch by one window, all of them in one call.
        q = network(traffic.observation(world, row, now.alarm, now.age))
        action, scores = q.argmax(dim=1), traffic.scores[world, row]
        now, reward = now.advanced(actions.alarm(action, scores), traffic.labels[world, row], costs)
        alarms.put(running, now)
        played.action[world, row], played.alarm[world, row], played.reward[world, row] = action, now.alarm, reward
        played.score[world, row] = fused_score(q, action, actions, scores)
        # The highest value is that of the action taken; with a single action it also stands for the others.
        best = q.topk(min(2, actions.count), dim=1).values
        played.q_chosen[world, row], played.q_other[world, row] = best[:, 0], best[:, -1]
    # Back from "longest first" to the order of the batch.
    return played, alarms.select(places.argsort())


@dataclass(frozen=True)
class FusionOutput:
    """What a fusion decides on N windows: scores float32 [N] in [0, 1] and alarms bool [N]; of the policy also its `Rollout`."""

    score: np.ndarray
    alarm: np.ndarray
    rollout: Rollout | None = None

    @property
    def action(self) -> np.ndarray:
        """int16 [N], the policy's actions; of any other fusion its alarms."""
        action = self.alarm if self.rollout is None else self.rollout.action[0].numpy()
        return np.asarray(action.astype(np.int16))


class Fusion(Protocol):
    """A trained fusion: one definition for whole files and for a stream."""

    def step(self, windows: Traffic, state: Any) -> tuple[FusionOutput, Any]:
        """Decide on the next windows of S segments that lie one behind the other, as they were recorded.

        Args:
            windows: in one world; each of the S segments begins at a row of `windows.segments`.
            state: what the windows before left, one entry a segment; None where all segments begin here.

        Returns:
            What is decided, and the state after these windows. A batch is one call with all segments of a file; a stream is a call
            for each window, or for some, of the one segment in progress.
        """
        ...


def greedy_step(
    network: Network, actions: Actions, windows: Traffic, state: AlarmState | None
) -> tuple[FusionOutput, AlarmState]:
    """`Fusion.step` of a network that takes the action with the highest Q-value."""
    played, alarms = rollout(network, windows, RolloutBatch.segments(windows.segments), actions, state=state)
    return FusionOutput(played.score[0].numpy(), played.alarm[0].numpy(), played), alarms


class Evaluation(NamedTuple):
    """Mean reward a window over the worlds by their probability; F1 in the world of the windows as they were recorded."""

    reward: float
    f1: float


def evaluate(network: Network, traffic: Traffic, actions: Actions, costs: Costs, length: int) -> Evaluation:
    """Play all stretches of `length` windows in all worlds, and summarise rewards and alarms."""
    batch = RolloutBatch.stretches(traffic.segments, length, len(traffic.probability))
    played, _ = rollout(network, traffic, batch, actions, costs)
    reward = float((played.reward.double().mean(dim=1) * traffic.probability.double()).sum())
    known, attacked = ((traffic.labels[0] >= 0).cpu().numpy(), (traffic.labels[0] == 1).cpu().numpy())
    alarm = played.alarm[:1].cpu().numpy()
    return Evaluation(reward, float(f1(alarm & known, attacked)))
