"""The fusion environment: thousands of stretches of traffic played at once, as tensors on one device.

Each step is one window. The policy sees the detectors' scores, their recent past and the state of the alarm
(`observation`), acts, and the alarm is on or off for that window. Actions change the alarm and its history, never the
scores: the traffic is recorded, which is why a whole split is one gather.

Reward of a window with label y (1 attacked), alarm a after the action and alarm p before it:

    r = − missed_attack · y (1 − a) − false_alarm · (1 − y) a − flapping · |a − p| − late_detection · y (1 − a) (1 − d)

with d = 1 once the current attack episode (consecutive attacked windows) has been alarmed. Windows with unknown label
cost only flapping.
"""

from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canids_train_drl.environment.observation import AGE_CAP, with_alarm_state

MOST_WEIGHTS = 21


@cache
def fusion_weights(detectors: int) -> tuple[tuple[float, ...], ...]:
    """All mixtures of D detectors: weights in multiples of a step, their sum 1, with the finest step that gives at most 21.

    Of two detectors the published set: (α, 1 − α) with α = 0, 0.05, …, 1. Of three the step is 1/5 (21 mixtures), of four 1/3
    (20), of five 1/2 (15); a single detector has the weight 1.
    """
    steps = max(m for m in range(1, MOST_WEIGHTS) if m == 1 or comb(m + detectors - 1, m) <= MOST_WEIGHTS)

    def mixtures(count: int, left: int) -> list[tuple[int, ...]]:
        """All ways to share `left` steps among `count` detectors, the first one's share rising."""
        if count == 1:
            return [(left,)]
        return [(first, *rest) for first in range(left + 1) for rest in mixtures(count - 1, left - first)]

    return tuple(tuple(share / steps for share in mixture) for mixture in mixtures(detectors, steps))


@dataclass(frozen=True)
class Actions:
    """What the policy can do in a window.

    Attributes:
        kind: `alpha`, choose one of `fusion_weights` and alarm above `threshold`; `alarm`, silence (0) or alarm (1).
        threshold: on the mixture, of `alpha`.
        detectors: how many detectors there are, D.
    """

    kind: str
    threshold: float
    detectors: int

    @property
    def count(self) -> int:
        """Number of actions, A."""
        return len(fusion_weights(self.detectors)) if self.kind == "alpha" else 2

    def _weights(self, device: torch.device) -> Tensor:
        """Weights of the `alpha` actions, float32 [A, D]; the last detector's completes the sum in that precision."""
        # The last weight is computed from the rounded others, as in α · a + (1 − α) · b.
        first = torch.tensor(fusion_weights(self.detectors), device=device)[:, :-1]
        return torch.cat([first, 1 - first.sum(dim=1, keepdim=True)], dim=1)

    def fused(self, action: Tensor, scores: Tensor) -> Tensor:
        """Mixture [B] of `alpha` actions [B] on scores [B, D]."""
        weight = self._weights(scores.device)[action]
        mixture: Tensor = sum(weight[:, d] * scores[:, d] for d in range(self.detectors))  # type: ignore[assignment]
        return mixture

    def alarm(self, action: Tensor, scores: Tensor) -> Tensor:
        """Whether the alarm is on, bool [B], after actions int64 [B] on scores [B, D]."""
        return self.fused(action, scores) > self.threshold if self.kind == "alpha" else action == 1

    def outcomes(self, scores: Tensor) -> Tensor:
        """Whether each action would have the alarm on, bool [B, A], on scores [B, D]."""
        if self.kind == "alarm":
            return torch.tensor([False, True], device=scores.device).expand(len(scores), 2)
        # Each row of scores A times, beside the actions 0 … A − 1.
        every = torch.arange(self.count, device=scores.device).repeat(len(scores))
        return self.alarm(every, scores.repeat_interleave(self.count, dim=0)).view(len(scores), self.count)


@dataclass(frozen=True)
class Costs:
    """Costs of the reward (see the module's docstring), all ≥ 0."""

    missed_attack: float
    false_alarm: float
    flapping: float
    late_detection: float

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Costs":
        """The costs in the config's `reward`."""
        return cls(**{name: float(value) for name, value in config["reward"].items()})


@dataclass
class AlarmState:
    """State of B alarms: on or off, windows since that changed (capped), whether the attack episode was alarmed."""

    alarm: Tensor
    age: Tensor
    detected: Tensor

    @classmethod
    def off(cls, count: int, device: torch.device) -> "AlarmState":
        """Alarms that have been off for long."""
        off = torch.zeros(count, dtype=torch.bool, device=device)
        return cls(off, torch.full((count,), AGE_CAP, device=device), off.clone())

    def select(self, which: Any) -> "AlarmState":
        """Some of the alarms, by an index or a slice."""
        return AlarmState(self.alarm[which], self.age[which], self.detected[which])

    def put(self, where: slice, others: "AlarmState") -> None:
        """Replace the alarms at `where`, in place."""
        for name, tensor in vars(others).items():
            getattr(self, name)[where] = tensor

    def advanced(self, alarm: Tensor, label: Tensor, costs: Costs) -> tuple["AlarmState", Tensor]:
        """The state after a window with `alarm` bool [B] and `label` int8 [B], and its reward float32 [B]."""
        attacked, changed = label == 1, alarm != self.alarm
        missed = attacked & ~alarm
        # Labels are 1, 0 or unknown (-1): an unknown window is neither missed nor a false alarm.
        reward = -(
            costs.missed_attack * missed
            + costs.false_alarm * ((label == 0) & alarm)
            + costs.flapping * changed
            + costs.late_detection * (missed & ~self.detected)
        )
        age = torch.where(changed, 0, (self.age + 1).clamp(max=AGE_CAP))
        # An episode counts as detected from its first alarm until it ends.
        return AlarmState(alarm, age, attacked & (self.detected | alarm)), reward

    def reset(self, where: Tensor) -> None:
        """Switch the alarms at `where` (bool [B]) off, as if they had been so for long."""
        self.alarm = self.alarm & ~where
        self.age = torch.where(where, AGE_CAP, self.age)
        self.detected = self.detected & ~where


@dataclass(frozen=True)
class Traffic:
    """Windows of a split in W worlds as tensors on one device.

    Attributes:
        features: float32 [W, N, F], observations without the alarm state; the D scores come first.
        detectors: D.
        labels: int8 [W, N].
        segments: int64 [S + 1], where each gapless stretch of a capture begins, then N.
        probability: float32 [W], how often an episode is played in each world.
    """

    features: Tensor
    detectors: int
    labels: Tensor
    segments: np.ndarray
    probability: Tensor

    @property
    def scores(self) -> Tensor:
        """Scores of the detectors, float32 [W, N, D]."""
        return self.features[..., : self.detectors]

    @property
    def width(self) -> int:
        """Length of an observation."""
        return self.features.shape[2] + 2

    def observation(self, world: Tensor, row: Tensor, alarm: Tensor, age: Tensor) -> Tensor:
        """Observations [B, width] of windows `row` [B] in `world` [B] with the given alarm states [B]."""
        return with_alarm_state(self.features[world, row], alarm, age)


class FusionEnvironment:
    """B environments over one split; an episode is a stretch of one segment, begun at a random window.

    Attributes:
        world, row: int64 [B], where each environment is.
        state: the alarms.
    """

    def __init__(
        self, traffic: Traffic, actions: Actions, costs: Costs, *, count: int, length: int, generator: torch.Generator
    ) -> None:
        """`length` windows an episode, all of the segment where it is shorter; `generator` lives on the tensors' device."""
        self.traffic, self.actions, self.costs, self.count, self.length = traffic, actions, costs, count, length
        self.generator = generator
        self._device = traffic.features.device
        # An episode may start wherever its full length fits before the segment's end, or else at the segment's beginning.
        begins, ends = traffic.segments[:-1], traffic.segments[1:]
        starts = [np.arange(b, max(e - length, b) + 1) for b, e in zip(begins, ends, strict=True)]
        self._starts = torch.as_tensor(np.concatenate(starts), device=self._device)
        self._segment_end = torch.as_tensor(np.repeat(ends, np.diff(traffic.segments)), device=self._device)
        self.world = torch.zeros(count, dtype=torch.int64, device=self._device)
        self.row, self._left = self.world.clone(), self.world.clone()
        self.state = AlarmState.off(count, self._device)
        self.reset()

    @classmethod
    def seeded(cls, traffic: Traffic, actions: Actions, config: dict[str, Any]) -> "FusionEnvironment":
        """As many environments as the module's config asks for, with a generator of the config's seed."""
        generator = torch.Generator(traffic.features.device)
        generator.manual_seed(int(config["seed"]))
        size = {"count": config["environments"], "length": config["episode_length"]}
        return cls(traffic, actions, Costs.of(config), **size, generator=generator)

    def reset(self, where: Tensor | None = None) -> None:
        """Begin a new episode in the environments at `where` (bool [B]), or in all."""
        if where is None:
            where = torch.ones(self.count, dtype=torch.bool, device=self._device)
        new = int(where.sum())
        if not new:
            return
        # All starts are equally likely, so longer captures are played more often; worlds by their probability.
        picks = torch.randint(len(self._starts), (new,), generator=self.generator, device=self._device)
        self.row[where] = self._starts[picks]
        self.world[where] = torch.multinomial(self.traffic.probability, new, replacement=True, generator=self.generator)
        self._left[where] = self.length
        self.state.reset(where)

    def observe(self) -> Tensor:
        """The current observations, float32 [B, width]."""
        return self.traffic.observation(self.world, self.row, self.state.alarm, self.state.age)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Play `action` int64 [B] on the current windows and move on; the caller resets environments that are over.

        Returns:
            Rewards float32 [B]; terminated, where the segment is at its end (the observation is then that of its last
            window, and is no successor to learn from); truncated, where the episode's length is reached. Both bool [B].
        """
        alarm = self.actions.alarm(action, self.traffic.scores[self.world, self.row])
        self.state, reward = self.state.advanced(alarm, self.traffic.labels[self.world, self.row], self.costs)
        self._left -= 1
        # The end of a recording is an end (nothing follows it), the end of an episode is a cut (the traffic goes on).
        terminated = self.row + 1 >= self._segment_end[self.row]
        truncated = (self._left <= 0) & ~terminated
        self.row = torch.where(terminated, self.row, self.row + 1)
        return reward, terminated, truncated

    def state_dict(self) -> dict[str, Tensor]:
        """Where every environment is, for a checkpoint."""
        return {"world": self.world, "row": self.row, "left": self._left, **vars(self.state)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        kept = {name: tensor.to(self._device) for name, tensor in state.items()}
        self.world, self.row, self._left = kept.pop("world"), kept.pop("row"), kept.pop("left")
        self.state = AlarmState(**kept)
