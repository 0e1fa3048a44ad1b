"""Stand-ins of this module's files (`stand_in: true`): policies and rivals without weights, and decisions that know the labels.

Nothing here imports torch, which alone takes seconds a job.
"""

import numpy as np
import polars as pl

from canids_shared.contracts import model_file, tables
from canids_shared.contracts.tables import DECISIONS, KEYS, STATES
from canids_shared.files import sha256_of
from canids_shared.jobs import latency, run_folder, stand_in_runner
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.stand_in_runner import StandIn


def policy(call: Call) -> None:
    """A training's model, config, history of one evaluation and latency; the model file has its header and no weights."""
    tables.read_metadata(call.inputs["fuse"][0], STATES)
    header = {
        "contract": model_file.POLICY,
        "hidden": call.config["networks"]["large" if call.constants["variant"] == "large" else "small"],
        "layout": [],
        "observer": {},
        "actions": {"kind": call.config["action_set"], "threshold": 0.5},
        "config": call.config,
    }
    row = {"step": 1, "epsilon": 0.0, "loss": 1.0, "distillation_loss": 0.0, "reward": 0.0}
    model_file.save_arrays(call.output["model"], {}, header)
    run_folder.write_config(call.output["config"], call)
    run_folder.write_history(call.output["history"], [{**row, "select_reward": 0.0, "select_f1": None}])
    latency.write(call.output["latency"], [1e-3], "cpu")


def rivals(call: Call) -> None:
    """The rivals' names, and nothing that they learnt."""
    fusion = call.config["fusion"]
    names = dict.fromkeys([*call.config["rivals"], *([] if fusion == "dqn" else [fusion])])
    header = {"contract": model_file.RIVALS, "rivals": {name: {} for name in names}, "observer": {}}
    header["false_alarm_budget"] = call.config["false_alarm_budget"]
    model_file.save_arrays(call.output["model"], {}, header)
    run_folder.write_config(call.output["config"], call)


def decisions(call: Call) -> None:
    """Scores are 1 and alarms on in attacked windows, else 0 and off."""
    (model,), (beside,) = call.inputs["model"], call.inputs["rivals"]
    _, head = model_file.load_arrays(beside, model_file.RIVALS)
    fusion = call.config["fusion"]
    others = [name for name in (*head["rivals"], *(["dqn"] if fusion != "dqn" else [])) if name != fusion]
    keys = tables.read(call.inputs["states"][0], STATES)[0].select(list(KEYS))
    attacked = keys["label"].fill_null(0).to_numpy()
    columns = ("vgae_score", "gat_score", "fusion_score", "q_chosen", "q_other")
    scores = [*columns, *(f"rival_{name}_{what}" for name in others for what in ("score", "alarm"))]
    frame = keys.with_columns(
        *(pl.Series(name, attacked.astype(np.float32)) for name in scores),
        alarm=pl.Series(attacked == 1),
        action=pl.Series(attacked.astype(np.int16)),
    )
    metadata = {
        **call.wildcards,
        "fusion": fusion,
        "recalibrate": call.config["recalibrate"],
        "policy": sha256_of(model),
        "rivals": sha256_of(beside),
        "false_alarm_budget": head["false_alarm_budget"],
        "digests": tables.digests(frame),
    }
    tables.write(call.output["output"], DECISIONS, frame, metadata)


STAND_INS = {
    "dqn": StandIn(policy, ("model", "config", "history", "latency")),
    "rivals.learn": StandIn(rivals, ("model", "config")),
    "decide": StandIn(decisions),
}

if __name__ == "__main__":
    stand_in_runner.run(STAND_INS)
