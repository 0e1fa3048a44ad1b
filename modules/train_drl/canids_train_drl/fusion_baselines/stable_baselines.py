"""Stable-Baselines3's DQN (Raffin et al. 2021) on the same environment, with the same budget of steps."""

from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from canids_train_drl.environment.fusion_data import FusionData
from canids_train_drl.environment.fusion_environment import Costs, Traffic
from canids_train_drl.environment.fusion_setup import FusionSetup
from canids_train_drl.environment.gymnasium_env import FusionVectorEnv
from canids_train_drl.fusion_baselines.networks import Player, layers_of

Array = np.ndarray[Any, Any]


class FusionVecEnv(VecEnv):
    """The vector environment with the interface that Stable-Baselines3 has for many environments at once."""

    def __init__(self, environment: FusionVectorEnv) -> None:
        self.render_mode = None
        super().__init__(environment.num_envs, environment.single_observation_space, environment.single_action_space)
        self._environment = environment
        self._actions: Array = np.zeros(environment.num_envs, dtype=np.int64)

    def reset(self) -> Array:
        """Begin an episode everywhere."""
        return self._environment.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: Array) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Play the actions of `step_async`."""
        observation, reward, terminated, truncated, info = self._environment.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(terminated | truncated):
            infos[i] = {"terminal_observation": info["final_obs"][i], "TimeLimit.truncated": bool(truncated[i])}
        return observation, reward.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Do nothing: no environment holds a resource."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Value of an attribute, which is the same for all environments."""
        return [getattr(self if attr_name == "render_mode" else self._environment, attr_name, None)] * self.num_envs

    def _refuse(self, name: str, *args: Any, **options: Any) -> Any:
        """Raise `AttributeError`: no attribute or method differs between environments."""
        raise AttributeError(name)

    set_attr = env_method = _refuse  # type: ignore[assignment]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False for each: no environment is wrapped."""
        return [False] * self.num_envs


def dqn(environment: VecEnv, setup: FusionSetup, device: torch.device | str) -> DQN:
    """The agent with the settings of the policy: widths, replay, batch, discount, exploration, one gradient step for each step of all environments."""
    config, exploration = setup.config, setup.config["exploration"]
    return DQN(
        "MlpPolicy",
        environment,
        learning_rate=config["learning_rate"],
        buffer_size=config["replay_size"],
        learning_starts=0,
        batch_size=config["batch_size"],
        tau=config["target_rate"],
        gamma=config["discount"],
        train_freq=1,
        gradient_steps=1,
        # Counted in steps of single environments: the target follows at every step.
        target_update_interval=environment.num_envs,
        exploration_fraction=exploration["share"],
        exploration_initial_eps=exploration["start"],
        exploration_final_eps=exploration["end"],
        max_grad_norm=config["gradient_norm"],
        policy_kwargs={"net_arch": list(setup.hidden)},
        seed=int(config["seed"]),
        device=device,
    )


def agent(traffic: Traffic, setup: FusionSetup) -> DQN:
    """The agent on the vector environment over this traffic."""
    config = setup.config
    size = {"count": config["environments"], "length": config["episode_length"]}
    environment = FusionVecEnv(FusionVectorEnv(traffic, setup.actions, Costs.of(config), **size))
    environment.seed(int(config["seed"]))
    return dqn(environment, setup, traffic.features.device)


def learn(data: FusionData, setup: FusionSetup) -> Player:
    """Train for as many steps as the policy may; this agent does not know `select`, so nothing stops it earlier."""
    trained = agent(data.fuse, setup)
    trained.learn(total_timesteps=setup.config["steps"] * setup.config["environments"])
    linear = [m for m in trained.q_net.q_net if isinstance(m, nn.Linear)]
    with torch.no_grad():
        return Player(layers_of([(m.weight.cpu().numpy(), m.bias.cpu().numpy()) for m in linear]), setup.actions)
