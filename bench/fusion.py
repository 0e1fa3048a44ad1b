"""Speed of the fusion environment and of learning in it, against Stable-Baselines3's DQN on the same environment.

    python bench/fusion.py [--output bench/results.json]

Both agents have the same network, batch and update ratio: a gradient step of 256 windows for every 256 steps of an
environment, which is the module's default. Stable-Baselines3 is measured as it is used with any Gymnasium environment (its
DummyVecEnv over 256 of them) and, besides, fed by our vector environment, so that the agents alone differ.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import figures, one_core, publish, result
from stable_baselines3.common.vec_env import DummyVecEnv

from canids_shared.config import check, load_schema
from canids_train_drl.environment import Actions, FusionEnvironment, Traffic, costs_of
from canids_train_drl.gymnasium_env import FusionEnv
from canids_train_drl.learning import Learning
from canids_train_drl.rivals.stable_baselines import agent, dqn

SCHEMA = Path(__file__).parents[1] / "modules/train_drl/config.schema.yaml"
ACTIONS = Actions("alarm", 0.5)
ENVIRONMENTS, ROUNDS = 4096, 5


def traffic() -> Traffic:
    """Windows like those of a real `fuse` split in all its worlds, with random detector outputs: contents cost no time."""
    rng = np.random.default_rng(0)
    worlds, windows, width = 21, 5000, 10
    return Traffic(
        torch.from_numpy(rng.random((worlds, windows, width), dtype=np.float32)),
        torch.from_numpy(rng.random((worlds, windows, 2), dtype=np.float32)),
        torch.from_numpy((rng.random((worlds, windows)) < 0.2).astype(np.int8)),
        np.arange(0, windows + 1, 250),
        torch.full((worlds,), 1 / worlds),
    )


def rate(count: int, work: Callable[[], Any]) -> float:
    """`count` over the median time of some rounds, after one to warm up."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return count / median(seconds)


def settings() -> dict[str, Any]:
    """The module's defaults, with the small policy's widths."""
    config = check({}, load_schema(SCHEMA), where="train_drl")
    return {**config, "hidden": config["networks"]["small"]}


def environment_alone(steps: int = 100) -> float:
    """Steps of environments a second: observe, act at random, step, begin anew where one is over."""
    config, generator = check({}, load_schema(SCHEMA), where="train_drl"), torch.Generator()
    environment = FusionEnvironment(
        traffic(), ACTIONS, costs_of(config), count=ENVIRONMENTS, length=config["episode_length"], generator=generator
    )

    def play() -> None:
        for _ in range(steps):
            environment.observe()
            _, terminated, truncated = environment.step(torch.randint(2, (ENVIRONMENTS,), generator=generator))
            environment.reset(terminated | truncated)

    return rate(steps * ENVIRONMENTS, play)


def ours(steps: int = 200) -> float:
    """Steps of environments a second while the policy learns, its evaluations left out."""
    config = check({"steps": 10**6, "evaluate_every": 10**6}, load_schema(SCHEMA), where="train_drl")
    split = traffic()
    hidden = config["networks"]["small"]
    learning = Learning(split, split, ACTIONS, costs=costs_of(config), hidden=hidden, config=config)

    def learn() -> None:
        for _ in range(steps):
            learning._step()

    return rate(steps * config["environments"], learn)


def theirs(steps: int, single: bool) -> float:
    """The same of Stable-Baselines3: `single`, on Gymnasium environments one by one; else on the vector environment."""
    config = settings()
    split, costs, length = traffic(), costs_of(config), config["episode_length"]
    if single:
        makers = [lambda: FusionEnv(split, ACTIONS, costs, length=length)] * config["environments"]
        learner = dqn(DummyVecEnv(makers), config, "cpu")  # type: ignore[arg-type]
    else:
        learner = agent(split, config, ACTIONS)
    count = steps * config["environments"]
    return rate(count, lambda: learner.learn(total_timesteps=count, reset_num_timesteps=False))


MEASURED: dict[str, Callable[[], float]] = {
    "environment": environment_alone,
    "ours": ours,
    "theirs": lambda: theirs(10, single=True),
    "theirs_vectorised": lambda: theirs(100, single=False),
}


def main() -> None:
    """Measure every figure in a process of its own, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument("--measure", choices=list(MEASURED))
    arguments = parser.parse_args()
    if arguments.measure:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        one_core()
        print(json.dumps({"value": MEASURED[arguments.measure]()}))
        return
    found = {name: figures(__file__, "--measure", name)["value"] for name in MEASURED}
    unit = "environment steps/s"
    agents, fed = found["ours"] / found["theirs"], found["ours"] / found["theirs_vectorised"]
    rows = [
        result("dqn_env_steps_per_s", found["environment"], unit),
        result("dqn_learning_steps_per_s", found["ours"], unit),
        result("sb3_learning_steps_per_s", found["theirs"], unit),
        result("sb3_vectorised_learning_steps_per_s", found["theirs_vectorised"], unit),
        result("dqn_vs_sb3", agents, "times as fast", "Stable-Baselines3, Gymnasium environments", agents),
        result("dqn_vs_sb3_vectorised", fed, "times as fast", "Stable-Baselines3, our vector environment", fed),
    ]
    publish(rows, arguments.output)


if __name__ == "__main__":
    main()
