"""Stand-ins of this module's files (`stand_in: true`): policies and fusion baselines without weights, and decisions that know the labels.

Nothing here imports torch, whose import takes seconds in each job.
"""

import numpy as np
import polars as pl

from canids_shared.contracts import detectors, model_file, tables
from canids_shared.contracts.tables import DECISIONS, KEYS, STATES
from canids_shared.files import sha256_of
from canids_shared.jobs import run_folder, stand_in_runner
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.stand_in_runner import StandIn
from canids_train_drl.agent import run_record
from canids_train_drl.fusion_baselines import THRESHOLD, names_of


def policy(call: Call) -> None:
    """Model, config, history of one evaluation and record of a training; the model file has its header and no weights."""
    header = tables.read_metadata(call.inputs["fuse"][0], STATES)
    model = {
        **run_folder.run_identity(call, "dqn"),
        "contract": model_file.POLICY,
        "hidden": call.config["networks"][call.scale],
        "layout": [],
        "observer": {"detectors": header[detectors.KEY]},
        "actions": {"kind": call.config["action_set"], "threshold": 0.5, "detectors": len(header[detectors.KEY])},
        "config": call.config,
        "rule": {"threshold": -1.0, "vehicles": {}, "evidence": [1, 1]},
    }
    row = {"step": 1, "epsilon": 0.0, "loss": 1.0, "distillation_loss": 0.0, "reward": 0.0}
    history = [{**row, "select_reward": 0.0, "select_f1": None}]
    model_file.save_arrays(call.output["model"], {}, model)
    run_record.write(call, history, 0, parameters=0, data={}, seconds=[1e-3])


def fusion_baselines(call: Call) -> None:
    """The names of the fusion baselines, and nothing that they learnt."""
    names = names_of(call.config, call.constants.get("attacks", True))
    header = {
        **run_folder.run_identity(call, "fusion_baselines"),
        "contract": model_file.FUSION_BASELINES,
        "fusion_baselines": {name: {} for name in names},
        "observer": {},
        "false_alarm_budget": call.config["false_alarm_budget"],
    }
    model_file.save_arrays(call.output["model"], {}, header)
    run_folder.write_config(call.output["config"], call)


def decisions(call: Call) -> None:
    """Scores are 1 and alarms on in attacked windows, else 0 and off."""
    model, (baselines,) = next(iter(call.inputs["model"]), None), call.inputs["fusion_baselines"]
    _, header = model_file.load_arrays(baselines, model_file.FUSION_BASELINES)
    fusion = call.config["fusion"] if model else THRESHOLD
    others = [
        name
        for name in (*header["fusion_baselines"], *(["dqn"] if model and fusion != "dqn" else []))
        if name != fusion
    ]
    states, states_header = tables.read(call.inputs["states"][0], STATES)
    keys = states.select(list(KEYS))
    attacked = keys["label"].fill_null(0).to_numpy()
    declared = detectors.declared(states_header, call.inputs["states"][0])
    columns = (*(detector.decided for detector in declared), "fusion_score", "q_chosen", "q_other")
    scores = [*columns, *(f"baseline_{name}_{what}" for name in others for what in ("score", "alarm"))]
    frame = keys.with_columns(
        *(pl.Series(name, attacked.astype(np.float32)) for name in scores),
        alarm=pl.Series(attacked == 1),
        action=pl.Series(attacked.astype(np.int16)),
        **{f"unlike_{detector.name}": pl.zeros(len(keys), pl.Float32, eager=True) for detector in declared},
    )
    metadata = {
        **call.wildcards,
        "fusion": fusion,
        "recalibrate": call.config["recalibrate"],
        **({"policy": sha256_of(model)} if model else {}),
        "fusion_baselines": sha256_of(baselines),
        "false_alarm_budget": header["false_alarm_budget"],
        detectors.KEY: states_header[detectors.KEY],
    }
    tables.write(call.output["output"], DECISIONS, frame, metadata)


STAND_INS = {
    "dqn": StandIn(policy, ("model", "config", "history", "run")),
    "fit_baselines": StandIn(fusion_baselines, ("model", "config")),
    "decide": StandIn(decisions, each=("states",)),
}

if __name__ == "__main__":
    stand_in_runner.run(STAND_INS)
