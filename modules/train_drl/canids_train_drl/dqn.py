"""Train the fusion policy of one variant (rules dqn_large, dqn_small_kd, dqn_small_nokd).

    python -m canids_train_drl.dqn --spec JSON --model model.safetensors --config config.yaml --history history.parquet
        --latency latency.json
        --fuse fuse.parquet --select select.parquet --calibrate calibrate.parquet
        [--teacher model.safetensors --teacher_fuse fuse.parquet]

Learns on `fuse`, which the detectors have never seen; stops by `select`; scales come from attack-free `calibrate`. With
a teacher (distillation) also its own detectors' outputs of the same `fuse` windows are read.
"""

from typing import Any

import numpy as np
import torch

from canids_shared import cli, latency
from canids_shared.errors import CanidsError
from canids_shared.runs import write_config, write_history
from canids_shared.torchstore import device_of
from canids_train_drl import rivals, states, worlds
from canids_train_drl.applied import seconds_a_window
from canids_train_drl.environment import Actions, Traffic, costs_of
from canids_train_drl.learning import Teacher, learn
from canids_train_drl.observation import Observer
from canids_train_drl.policy import Policy
from canids_train_drl.states import States
from canids_train_drl.worlds import Worlds

INPUTS = ["fuse", "select", "calibrate", "teacher", "teacher_fuse"]
OUTPUTS = ["model", "config", "history", "latency"]


def traffic_of(split: States, observer: Observer, alike: Worlds, device: torch.device) -> Traffic:
    """A split's windows in all its worlds, on the device."""
    observer.check_columns(split)
    values = [alike.values(split, world) for world in range(len(alike))]
    features = np.stack([observer.features(v, split.segment_of) for v in values])
    scores = np.stack([observer.scores(v) for v in values])
    return Traffic(
        torch.as_tensor(features, device=device),
        torch.as_tensor(scores, device=device),
        torch.tensor(split.labels, device=device),
        split.segments,
        torch.as_tensor(alike.probability.astype(np.float32), device=device),
    )


def _teacher(call: cli.Call, fuse: States, alike: Worlds, actions: Actions, device: torch.device) -> Teacher | None:
    """The teacher and its view of `fuse`, if the rule names one."""
    if not call.inputs["teacher"]:
        return None
    path = call.inputs["teacher"][0]
    policy = Policy.load(path)
    if policy.actions.kind != actions.kind:
        raise CanidsError(
            f"{path}: action set '{policy.actions.kind}', the student's is '{actions.kind}'; train both with one"
        )
    own = states.read(call.inputs["teacher_fuse"][0])
    states.same_windows(fuse, own)
    network = policy.network.to(device).requires_grad_(False)
    return Teacher(network, traffic_of(own, policy.observer, alike, device), call.config["distillation"]["weight"])


def train(call: cli.Call, fuse: States, select: States, calibrate: States) -> tuple[Policy, list[dict[str, Any]]]:
    """Train on loaded splits; returns the policy and its history."""
    config = call.config
    device = device_of(config["accelerator"], "train_drl.accelerator")
    rng = np.random.default_rng(np.random.SeedSequence([config["seed"]]))
    observer = Observer.fit(calibrate, config)
    for split in (fuse, select):
        observer.check_columns(split)
    alike, alike_select = (worlds.draw(split, config["blind"], rng) for split in (fuse, select))
    scores = np.stack([observer.scores(alike.values(fuse, world)) for world in range(len(alike))])
    quiet = observer.scores(calibrate.values)
    chosen = rivals.choose(fuse, scores, alike.probability, calibrate, quiet, budget=config["false_alarm_budget"])
    actions = Actions(config["action_set"], chosen.threshold)
    hidden = config["networks"]["large" if call.constants["variant"] == "large" else "small"]
    network, history = learn(
        traffic_of(fuse, observer, alike, device),
        traffic_of(select, observer, alike_select, device),
        actions,
        costs=costs_of(config),
        hidden=hidden,
        config=config,
        teacher=_teacher(call, fuse, alike, actions, device),
    )
    return Policy(network, hidden, observer, actions, chosen, config), history


def main(call: cli.Call) -> None:
    """Train and write model, config, history and latency."""
    torch.set_num_threads(call.config["torch_threads"])
    fuse = states.require(states.read(call.inputs["fuse"][0]), attacked=True, attack_free=True)
    select = states.require(states.read(call.inputs["select"][0]), attacked=False, attack_free=True)
    calibrate = states.require(states.read(call.inputs["calibrate"][0]), attacked=False, attack_free=True)
    policy, history = train(call, fuse, select, calibrate)
    write_config(call.output["config"], call)
    write_history(call.output["history"], history)
    policy.save(call.output["model"])
    latency.write(call.output["latency"], seconds_a_window(policy, calibrate), "cpu")


if __name__ == "__main__":
    cli.run(main, inputs=INPUTS, outputs=OUTPUTS)
