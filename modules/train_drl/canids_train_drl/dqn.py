"""Train the fusion policy of one variant (rules dqn_large, dqn_small_kd, dqn_small_nokd).

    python -m canids_train_drl.dqn --spec JSON --model model.safetensors --config config.yaml --history history.parquet
        --run run.json --fuse fuse.parquet --select select.parquet --calibrate calibrate.parquet
        [--teacher model.safetensors --teacher_fuse fuse.parquet]

Learns on `fuse`, which the detectors have never seen; stops by `select`; scales come from attack-free `calibrate`. With
a teacher (distillation) also its own detectors' outputs of the same `fuse` windows are read.
"""

from dataclasses import replace

import numpy as np
import torch

from canids_shared.contracts.torch_store import device_of
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point, latency
from canids_shared.jobs.run_folder import Checkpoint, run_identity
from canids_train_drl.agent import run_record
from canids_train_drl.agent.double_dqn import DoubleDQN, Teacher
from canids_train_drl.agent.policy import Policy
from canids_train_drl.environment import states
from canids_train_drl.environment.fusion_data import FusionData, as_recorded, split_summary, traffic_of
from canids_train_drl.environment.fusion_environment import Actions
from canids_train_drl.environment.fusion_setup import FusionSetup
from canids_train_drl.environment.holding import rule_of
from canids_train_drl.environment.states import States

INPUTS = ["fuse", "select", "calibrate", "teacher", "teacher_fuse"]
OUTPUTS = ["model", "config", "history", "run"]
_TIMED, _ROUNDS = 100, 5


def _teacher(call: entry_point.Call, data: FusionData, actions: Actions) -> Teacher | None:
    """The teacher with its view of `fuse`, if the rule names one."""
    if not call.inputs["teacher"]:
        return None
    path, device = call.inputs["teacher"][0], data.fuse.features.device
    policy = Policy.load(path)
    if policy.actions.kind != actions.kind:
        raise CanidsError(
            f"{path}: action set '{policy.actions.kind}', the student's is '{actions.kind}'; train both with one"
        )
    windows = states.read(call.inputs["teacher_fuse"][0])
    if count := call.config["overfit_windows"]:
        windows = states.stretch(windows, count)
    states.require_same_windows(data.windows, windows)
    traffic = traffic_of(windows, policy.observer, data.augmentation, device)
    network = policy.network.to(device).requires_grad_(False)
    return Teacher(network, traffic, call.config["distillation"]["weight"])


def _seconds_per_window(policy: Policy, split: States) -> list[float]:
    """Time of one decision, from detector outputs, in several rounds: each the mean over the first windows of a segment, observed together."""
    first = split.select(np.arange(min(_TIMED, int(split.segments[1]))))

    def decide(_: int) -> None:
        policy.step(as_recorded(first, policy.observer), None)

    return [seconds / len(first) for seconds in latency.measure(decide, _ROUNDS)]


def main(call: entry_point.Call) -> None:
    """Train and write model, config, history and record; an interrupted training goes on from its checkpoint."""
    config = call.config
    torch.set_num_threads(config["torch_threads"])
    device = device_of(config["accelerator"], "train_drl.accelerator")
    wanted = {**call.made_for("dataset"), "variant": call.constants["variant"]}
    data = FusionData.read(call.inputs, config, device, **wanted)
    setup = FusionSetup.of(call, data)
    checkpoint = Checkpoint(call, call.output["model"].parent, device=device.type)
    training = DoubleDQN(data.fuse, data.select, setup, _teacher(call, data, setup.actions), checkpoint)
    network, history = training.run()
    policy = Policy(network, setup.hidden, data.observer, setup.actions, config)
    policy = replace(policy, rule=rule_of(policy, data.observer, data.splits["calibrate"], config))
    policy.save(call.output["model"], run_identity(call, "dqn"))
    run_record.write(
        call,
        history,
        training.progress.best,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        data={name: split_summary(split) for name, split in data.splits.items()},
        seconds=_seconds_per_window(policy, data.splits["calibrate"]),
    )
    checkpoint.remove()


if __name__ == "__main__":
    entry_point.run(main, inputs=INPUTS, outputs=OUTPUTS, alone="model")
