"""The fusion environment: thousands of stretches of traffic played at once, as tensors on one device.

Each step is one window. The policy sees the detectors' scores, their recent past and the state of the alarm
(`observation`), acts, and the alarm is on or off for that window. Actions change the alarm and its history, never the
scores: the traffic goes on as it was recorded, which is why a whole split is one gather away.

Reward of a window with label y (1 attacked), alarm a after the action and alarm p before it:

    r = − missed_attack · y (1 − a) − false_alarm · (1 − y) a − flapping · |a − p| − late_detection · y (1 − a) (1 − d)

with d = 1 once the current attack episode (consecutive attacked windows) has been alarmed. Windows with unknown label
cost only flapping.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canids_train_drl.observation import SINCE_CAP, with_alarm_state

WEIGHTS = tuple(round(0.05 * i, 2) for i in range(21))
"""The fusion weights α of the action set `alpha`: score = α · GAT + (1 − α) · VGAE."""


@dataclass(frozen=True)
class Actions:
    """What the policy can do: `alpha`, choose one of `WEIGHTS` and alarm above `threshold`; `alarm`, silence (0) or alarm (1)."""

    kind: str
    threshold: float

    @property
    def count(self) -> int:
        """Number of actions."""
        return len(WEIGHTS) if self.kind == "alpha" else 2

    def fused(self, action: Tensor, scores: Tensor) -> Tensor:
        """Fused score [B] of `alpha` actions [B] on scores [B, 2] (GAT, VGAE)."""
        weight = torch.tensor(WEIGHTS, device=scores.device)[action]
        return weight * scores[:, 0] + (1 - weight) * scores[:, 1]

    def alarm(self, action: Tensor, scores: Tensor) -> Tensor:
        """Whether the alarm is on, bool [B], after actions int64 [B] on scores [B, 2]."""
        return self.fused(action, scores) > self.threshold if self.kind == "alpha" else action == 1

    def outcomes(self, scores: Tensor) -> Tensor:
        """Whether each action would have the alarm on, bool [B, actions], on scores [B, 2]."""
        if self.kind == "alarm":
            return torch.tensor([False, True], device=scores.device).expand(len(scores), 2)
        weight = torch.tensor(WEIGHTS, device=scores.device)
        return weight * scores[:, :1] + (1 - weight) * scores[:, 1:] > self.threshold


@dataclass(frozen=True)
class Costs:
    """Costs of the reward (see the module's head), all ≥ 0."""

    missed_attack: float
    false_alarm: float
    flapping: float
    late_detection: float


@dataclass
class AlarmState:
    """State of B alarms: on or off, windows since that changed (capped), whether the attack episode was alarmed."""

    alarm: Tensor
    since: Tensor
    detected: Tensor

    @classmethod
    def quiet(cls, count: int, device: torch.device) -> "AlarmState":
        """Alarms that have been off for long."""
        off = torch.zeros(count, dtype=torch.bool, device=device)
        return cls(off, torch.full((count,), SINCE_CAP, device=device), off.clone())

    def advanced(self, alarm: Tensor, label: Tensor, costs: Costs) -> tuple["AlarmState", Tensor]:
        """The state after a window with `alarm` bool [B] and `label` int8 [B], and its reward float32 [B]."""
        attacked, changed = label == 1, alarm != self.alarm
        missed = attacked & ~alarm
        reward = -(
            costs.missed_attack * missed
            + costs.false_alarm * ((label == 0) & alarm)
            + costs.flapping * changed
            + costs.late_detection * (missed & ~self.detected)
        )
        since = torch.where(changed, 0, (self.since + 1).clamp(max=SINCE_CAP))
        return AlarmState(alarm, since, attacked & (self.detected | alarm)), reward

    def reset(self, where: Tensor) -> None:
        """Set the alarms at `where` (bool [B]) back to quiet."""
        self.alarm = self.alarm & ~where
        self.since = torch.where(where, SINCE_CAP, self.since)
        self.detected = self.detected & ~where


@dataclass(frozen=True)
class Traffic:
    """A split in W worlds as tensors on one device.

    Attributes:
        features: float32 [W, N, F], observations without the alarm state.
        scores: float32 [W, N, 2].
        labels: int8 [W, N].
        segments: int64 [S + 1], where each gapless stretch of a capture begins, then N.
        probability: float32 [W], how often an episode is played in each world.
    """

    features: Tensor
    scores: Tensor
    labels: Tensor
    segments: np.ndarray
    probability: Tensor

    @property
    def width(self) -> int:
        """Length of an observation."""
        return self.features.shape[2] + 2

    def observation(self, world: Tensor, row: Tensor, alarm: Tensor, since: Tensor) -> Tensor:
        """Observations [B, width] of windows `row` [B] in `world` [B] with the given alarm states [B]."""
        return with_alarm_state(self.features[world, row], alarm, since)


class FusionEnvironment:
    """B environments over one split; an episode is a stretch of one segment, begun at a random window.

    Attributes:
        world, row: int64 [B], where each environment is; state: its alarm.
    """

    def __init__(
        self, traffic: Traffic, actions: Actions, costs: Costs, *, count: int, length: int, generator: torch.Generator
    ) -> None:
        """`length` windows an episode, all of the segment where it is shorter; `generator` lives on the tensors' device."""
        self.traffic, self.actions, self.costs, self.count, self.length = traffic, actions, costs, count, length
        self.generator = generator
        self._device = traffic.features.device
        begins, ends = traffic.segments[:-1], traffic.segments[1:]
        starts = [np.arange(b, max(e - length, b) + 1) for b, e in zip(begins, ends, strict=True)]
        self._starts = torch.as_tensor(np.concatenate(starts), device=self._device)
        self._segment_end = torch.as_tensor(np.repeat(ends, np.diff(traffic.segments)), device=self._device)
        self.world = torch.zeros(count, dtype=torch.int64, device=self._device)
        self.row, self._left = self.world.clone(), self.world.clone()
        self.state = AlarmState.quiet(count, self._device)
        self.reset()

    @classmethod
    def seeded(cls, traffic: Traffic, actions: Actions, config: dict[str, Any]) -> "FusionEnvironment":
        """As many environments as the module's config says, with a generator of the config's seed."""
        generator = torch.Generator(traffic.features.device)
        generator.manual_seed(int(config["seed"]))
        size = {"count": config["environments"], "length": config["episode_length"]}
        return cls(traffic, actions, costs_of(config), **size, generator=generator)

    def reset(self, where: Tensor | None = None) -> None:
        """Begin a new episode in the environments at `where` (bool [B]), or in all."""
        if where is None:
            where = torch.ones(self.count, dtype=torch.bool, device=self._device)
        new = int(where.sum())
        if not new:
            return
        picks = torch.randint(len(self._starts), (new,), generator=self.generator, device=self._device)
        self.row[where] = self._starts[picks]
        self.world[where] = torch.multinomial(self.traffic.probability, new, replacement=True, generator=self.generator)
        self._left[where] = self.length
        self.state.reset(where)

    def observe(self) -> Tensor:
        """The current observations, float32 [B, width]."""
        return self.traffic.observation(self.world, self.row, self.state.alarm, self.state.since)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Play `action` int64 [B] on the current windows and move on.

        Returns rewards float32 [B]; terminated, where the segment is at its end (the observation is then that of its
        last window, and is no successor to learn from); truncated, where the episode's length is reached. Both bool
        [B]. The caller resets these environments.
        """
        alarm = self.actions.alarm(action, self.traffic.scores[self.world, self.row])
        self.state, reward = self.state.advanced(alarm, self.traffic.labels[self.world, self.row], self.costs)
        self._left -= 1
        terminated = self.row + 1 >= self._segment_end[self.row]
        truncated = (self._left <= 0) & ~terminated
        self.row = torch.where(terminated, self.row, self.row + 1)
        return reward, terminated, truncated

    def state_dict(self) -> dict[str, Tensor]:
        """Where every environment is, for a checkpoint."""
        alarm = {name: getattr(self.state, name) for name in ("alarm", "since", "detected")}
        return {"world": self.world, "row": self.row, "left": self._left, **alarm}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        kept = {name: tensor.to(self._device) for name, tensor in state.items()}
        self.world, self.row, self._left = kept["world"], kept["row"], kept["left"]
        self.state = AlarmState(kept["alarm"], kept["since"], kept["detected"])


def costs_of(config: dict[str, Any]) -> Costs:
    """The costs in the config's `reward`."""
    return Costs(**{name: float(value) for name, value in config["reward"].items()})
