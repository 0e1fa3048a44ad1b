"""Speed of the fusion environment and of learning in it, against Stable-Baselines3's DQN on the same environment.

    python bench/fusion.py [--output bench/results.json] [--pufferlib .venv-pufferlib]

Both agents have the same network, batch and update ratio: a gradient step of 256 windows for every 256 steps of an
environment, which is the module's default. Stable-Baselines3 is measured as it is used with any Gymnasium environment (its
DummyVecEnv over 256 of them) and, besides, fed by our vector environment, so that the agents alone differ.

PufferLib, which is made for speed, steps the same Gymnasium environments at random, where it is installed in a folder of its own:
`pip install --no-deps --target .venv-pufferlib pufferlib-core`. (EnvPool steps environments in C++ alone.)
"""

import argparse
import json
import sys
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

from canids_shared.contracts.config import check, load_schema
from canids_train_drl.agent.double_dqn import DoubleDQN
from canids_train_drl.environment.fusion_environment import Costs, FusionEnvironment, Traffic
from canids_train_drl.environment.fusion_setup import FusionSetup
from canids_train_drl.environment.gymnasium_env import FusionEnv
from canids_train_drl.fusion_baselines.stable_baselines import agent, dqn

SCHEMA = Path(__file__).parents[1] / "modules/train_drl/config.schema.yaml"
ENVIRONMENTS, ROUNDS = 4096, 5
PUFFERLIB = Path(__file__).parents[1] / ".venv-pufferlib"


def traffic() -> Traffic:
    """Windows like those of a real `fuse` split in all its worlds, with random detector outputs: contents cost no time."""
    rng = np.random.default_rng(0)
    worlds, windows, width = 21, 5000, 10
    return Traffic(
        torch.from_numpy(rng.random((worlds, windows, width), dtype=np.float32)),
        2,
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


def setup(**options: Any) -> FusionSetup:
    """The module's defaults, with the small policy's widths."""
    config = check(options, load_schema(SCHEMA), where="train_drl")
    return FusionSetup(config, config["networks"]["small"], (0.5, 0.5), 0.5)


def environment_alone(steps: int = 100) -> float:
    """Steps of environments a second: observe, act at random, step, begin a new episode where one is over."""
    defaults = setup(environments=ENVIRONMENTS)
    environment = FusionEnvironment.seeded(traffic(), defaults.actions, defaults.config)

    def play() -> None:
        for _ in range(steps):
            environment.observe()
            _, terminated, truncated = environment.step(
                torch.randint(2, (ENVIRONMENTS,), generator=environment.generator)
            )
            environment.reset(terminated | truncated)

    return rate(steps * ENVIRONMENTS, play)


def ours(steps: int = 200) -> float:
    """Steps of environments a second while the policy learns, its evaluations left out."""
    defaults, split = setup(steps=10**6, evaluate_every=10**6), traffic()
    training = DoubleDQN(split, split, defaults)

    def learn() -> None:
        for _ in range(steps):
            training._step()

    return rate(steps * defaults.config["environments"], learn)


def theirs(steps: int, single: bool) -> float:
    """The same rate of Stable-Baselines3: `single`, on Gymnasium environments one by one; else on the vector environment."""
    defaults, split = setup(), traffic()
    count = defaults.config["environments"]
    if single:
        costs, length = Costs.of(defaults.config), defaults.config["episode_length"]
        makers = [lambda: FusionEnv(split, defaults.actions, costs, length=length)] * count
        learner = dqn(DummyVecEnv(makers), defaults, "cpu")  # type: ignore[arg-type]
    else:
        learner = agent(split, defaults)
    return rate(steps * count, lambda: learner.learn(total_timesteps=steps * count, reset_num_timesteps=False))


def puffer(folder: Path, steps: int = 2) -> float:
    """Steps of environments a second of PufferLib's vector environment, with as many of ours as the policy learns in, acting at random."""
    sys.path.append(str(folder))
    from pufferlib import emulation, vector  # noqa: PLC0415 (in a folder of its own)

    defaults, split = setup(), traffic()
    count, costs = defaults.config["environments"], Costs.of(defaults.config)

    def environment(buf: Any = None, seed: int = 0) -> Any:
        made = FusionEnv(split, defaults.actions, costs, length=defaults.config["episode_length"])
        return emulation.GymnasiumPufferEnv(env=made, buf=buf, seed=seed)

    together = vector.make(environment, num_envs=count, backend=vector.Serial)
    together.reset(seed=0)
    rng = np.random.default_rng(0)

    def play() -> None:
        for _ in range(steps):
            together.step(rng.integers(defaults.actions.count, size=count))

    return rate(steps * count, play)


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
    parser.add_argument("--pufferlib", type=Path, default=PUFFERLIB, help="folder in which PufferLib is installed")
    parser.add_argument("--measure", choices=[*MEASURED, "puffer"])
    arguments = parser.parse_args()
    if arguments.measure:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        one_core()
        measured = {**MEASURED, "puffer": lambda: puffer(arguments.pufferlib)}
        print(json.dumps({"value": measured[arguments.measure]()}))
        return
    rates = {name: figures(__file__, "--measure", name)["value"] for name in MEASURED}
    unit = "environment steps/s"
    agents, fed = rates["ours"] / rates["theirs"], rates["ours"] / rates["theirs_vectorised"]
    rows = [
        result(
            "dqn_env_steps_per_s", rates["environment"], unit, "learning in it", rates["environment"] / rates["ours"]
        ),
        result("dqn_learning_steps_per_s", rates["ours"], unit, "Stable-Baselines3, Gymnasium environments", agents),
        result("sb3_learning_steps_per_s", rates["theirs"], unit, "our agent", 1 / agents),
        result("sb3_vectorised_learning_steps_per_s", rates["theirs_vectorised"], unit, "our agent", 1 / fed),
        result("dqn_vs_sb3", agents, "ratio", "Stable-Baselines3, Gymnasium environments", agents, least=22),
        result("dqn_vs_sb3_vectorised", fed, "ratio", "Stable-Baselines3, our vector environment", fed),
    ]
    if (arguments.pufferlib / "pufferlib").is_dir():
        folder = ["--pufferlib", str(arguments.pufferlib)]
        peer = figures(__file__, "--measure", "puffer", *folder)["value"]
        ratio = rates["environment"] / peer
        rows.append(result("dqn_env_vs_pufferlib", ratio, "ratio", "PufferLib, Gymnasium environments", ratio))
    else:
        print(
            f"PufferLib is left out: {arguments.pufferlib} does not hold it (see the top of this file)", file=sys.stderr
        )
    publish(rows, arguments.output)


if __name__ == "__main__":
    main()
