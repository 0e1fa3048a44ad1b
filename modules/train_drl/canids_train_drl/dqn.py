"""Train the fusion policy of one variant (rules dqn_large, dqn_small_kd, dqn_small_nokd).

    python -m canids_train_drl.dqn --spec JSON --model model.safetensors --config config.yaml --history history.parquet
        --latency latency.json
        --fuse fuse.parquet --select select.parquet --calibrate calibrate.parquet
        [--teacher model.safetensors --teacher_fuse fuse.parquet]

Learns on `fuse`, which the detectors have never seen; stops by `select`; scales come from attack-free `calibrate`. With
a teacher (distillation) also its own detectors' outputs of the same `fuse` windows are read.
"""

import torch

from canids_shared.contracts.torch_store import device_of
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point, latency
from canids_shared.jobs.run_folder import Checkpoint, write_config, write_history
from canids_train_drl import states
from canids_train_drl.environment import Actions
from canids_train_drl.learning import Learning, Teacher
from canids_train_drl.policy import Policy
from canids_train_drl.prepared import Prepared, prepare, traffic_of
from canids_train_drl.terms import Terms
from canids_train_drl.timing import seconds_a_window

INPUTS = ["fuse", "select", "calibrate", "teacher", "teacher_fuse"]
OUTPUTS = ["model", "config", "history", "latency"]


def _teacher(call: entry_point.Call, prepared: Prepared, actions: Actions) -> Teacher | None:
    """The teacher and its view of `fuse`, if the rule names one."""
    if not call.inputs["teacher"]:
        return None
    path, device = call.inputs["teacher"][0], prepared.fuse.features.device
    policy = Policy.load(path)
    if policy.actions.kind != actions.kind:
        raise CanidsError(
            f"{path}: action set '{policy.actions.kind}', the student's is '{actions.kind}'; train both with one"
        )
    own = states.read(call.inputs["teacher_fuse"][0])
    if count := call.config["overfit_windows"]:
        own = states.stretch(own, count)
    states.same_windows(prepared.windows, own)
    traffic = traffic_of(own, policy.observer, prepared.alike, device)
    network = policy.network.to(device).requires_grad_(False)
    return Teacher(network, traffic, call.config["distillation"]["weight"])


def main(call: entry_point.Call) -> None:
    """Train and write model, config, history and latency; an interrupted training goes on from its checkpoint."""
    config = call.config
    torch.set_num_threads(config["torch_threads"])
    device = device_of(config["accelerator"], "train_drl.accelerator")
    prepared = prepare(call.inputs, config, device)
    terms = Terms.of(call, prepared)
    checkpoint = Checkpoint(call, call.output["model"].parent, device=device.type)
    learning = Learning(
        prepared.fuse,
        prepared.select,
        terms.actions,
        hidden=terms.hidden,
        config=config,
        teacher=_teacher(call, prepared, terms.actions),
        checkpoint=checkpoint,
    )
    network, history = learning.run()
    policy = Policy(network, terms.hidden, prepared.observer, terms.actions, config)
    write_config(call.output["config"], call)
    write_history(call.output["history"], history)
    policy.save(call.output["model"])
    calibrate = states.read(call.inputs["calibrate"][0])
    latency.write(call.output["latency"], seconds_a_window(policy, calibrate), "cpu")
    checkpoint.remove()


if __name__ == "__main__":
    entry_point.run(main, inputs=INPUTS, outputs=OUTPUTS, alone="model")
