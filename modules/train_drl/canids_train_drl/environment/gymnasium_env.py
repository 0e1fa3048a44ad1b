"""The fusion environment with Gymnasium's interface, for its wrappers and for other libraries' agents."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from canids_train_drl.environment.fusion_environment import Actions, Costs, FusionEnvironment, Traffic
from canids_train_drl.environment.observation import CLIP

Array = np.ndarray[Any, Any]


class FusionVectorEnv(VectorEnv[Array, Array, Array]):
    """B fusion environments with Gymnasium's vector interface; a finished one restarts within the same step (`AutoresetMode.SAME_STEP`).

    The observation returned is then the new episode's first; the last one of the finished episode is `info["final_obs"]`.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (declared so by Gymnasium)

    def __init__(self, traffic: Traffic, actions: Actions, costs: Costs, *, count: int, length: int) -> None:
        self.num_envs = count
        self._generator = torch.Generator(traffic.features.device)
        self._core = FusionEnvironment(traffic, actions, costs, count=count, length=length, generator=self._generator)
        self.single_observation_space = gym.spaces.Box(-CLIP, CLIP, (traffic.width,), np.float32)
        self.single_action_space = gym.spaces.Discrete(actions.count)
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode everywhere; returns observations float32 [B, width]."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._generator.manual_seed(seed)
        self._core.reset()
        return self._observe(), {}

    def _observe(self) -> Array:
        return self._core.observe().cpu().numpy()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Play `actions` [B]; returns observations, rewards, terminated, truncated, info."""
        device = self._core.world.device
        reward, terminated, truncated = self._core.step(torch.as_tensor(actions, dtype=torch.int64, device=device))
        over = terminated | truncated
        info: dict[str, Any] = {}
        if bool(over.any()):
            # Gymnasium's form: an object array with the last observation of each finished episode, and a mask of these.
            final, finished = self._observe(), over.cpu().numpy()
            info = {"final_obs": np.full(self.num_envs, None, dtype=object), "_final_obs": finished}
            for i in np.flatnonzero(finished):
                info["final_obs"][i] = final[i]
            self._core.reset(over)
        rewards, ends, cuts = (x.cpu().numpy() for x in (reward, terminated, truncated))
        return self._observe(), rewards.astype(np.float64), ends, cuts, info


class FusionEnv(gym.Env[Array, np.int64]):
    """One fusion environment, for agents that take no vector environment."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (declared so by Gymnasium)

    def __init__(self, traffic: Traffic, actions: Actions, costs: Costs, *, length: int) -> None:
        self._vector = FusionVectorEnv(traffic, actions, costs, count=1, length=length)
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode; returns the observation float32 [width]."""
        super().reset(seed=seed)
        observation, info = self._vector.reset(seed=seed)
        return observation[0], info

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Play `action`; returns observation, reward, terminated, truncated, info."""
        observation, reward, terminated, truncated, info = self._vector.step(np.array([action]))
        over = bool(terminated[0] or truncated[0])
        last = info["final_obs"][0] if over else observation[0]
        return last, float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}
