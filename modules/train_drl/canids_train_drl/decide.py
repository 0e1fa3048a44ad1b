"""Apply a policy and its fusion baselines to the states of a split (rule decisions).

    python -m canids_train_drl.decide --spec JSON --output decisions.parquet --states states.parquet
        [--model model.safetensors] --fusion_baselines fusion_baselines.safetensors

Without a policy, where there was no attack to train one on, the threshold among the fusion baselines decides.

With a list `each` of splits in the spec, as many outputs and tables of states.
Every segment of a capture is played from its beginning, with the alarm off, window by window: a decision depends on that
window and those before it alone. Runs on the CPU, so that decisions do not depend on where a policy was trained. What the config's
`fusion` names becomes the fusion; the policy, where it is not that, is a baseline like the others. With `recalibrate`, the scales
of the detectors' scores are fitted to the first seconds of each capture, whose windows are then not decided on by the past
alone. The splits of the training captures keep the scales that the policy learnt with: these captures are what they were fitted to.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from canids_shared.contracts import detectors, tables
from canids_shared.contracts.manifest import SPLITS
from canids_shared.contracts.model_file import refuse_mixture
from canids_shared.contracts.tables import DECISIONS
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of
from canids_shared.jobs import entry_point
from canids_train_drl.agent.policy import Policy
from canids_train_drl.environment import states
from canids_train_drl.environment.fusion_data import as_recorded
from canids_train_drl.environment.observation import Observer
from canids_train_drl.environment.rollout import Fusion
from canids_train_drl.environment.states import States
from canids_train_drl.fusion_baselines import THRESHOLD
from canids_train_drl.fusion_baselines.stored import FusionBaselines

Decider = Policy | FusionBaselines
"""What has the observer through which windows are seen."""
FEWEST = 50
"""Windows that a scale can be fitted to."""


def recalibrated(policy: Decider, split: States, seconds: float) -> Decider:
    """The policy (or fusion baselines) with scales fitted to the first seconds of a capture, which are taken to be attack-free.

    Raises `CanidsError` if they hold too few windows, or windows labelled as attacked.
    """
    first = np.flatnonzero(split.keys["t_end"] - split.keys["t_start"].min() <= seconds)
    where = f"first {seconds:g} s"
    if len(first) < FEWEST:
        raise CanidsError(
            f"{split.path}: {split.keys['capture'][0]} has {len(first)} windows in its {where}, too few to fit scales to; "
            f"set recalibrate to more seconds ({FEWEST} windows at least)"
        )
    if (split.labels[first] == 1).any():
        raise CanidsError(
            f"{split.path}: the {where} of {split.keys['capture'][0]} hold windows labelled as attacked; set recalibrate to fewer seconds"
        )
    beginning = replace(split.select(first), labels=np.zeros(len(first), dtype=np.int8))
    observer = policy.observer
    again = Observer.fit(beginning, {"history": asdict(observer), "raw_columns": observer.raw})
    return replace(policy, observer=again)


def decide(policy: Decider, fusion_baselines: dict[str, Fusion], split: States, fusion: str = "dqn") -> pl.DataFrame:
    """Decisions (contract `decisions/3`) on every window of `split`.

    The columns of a baseline are `baseline_{name}_score` and `baseline_{name}_alarm`; `q_chosen` and `q_other` are the policy's
    values of the action it takes and of the best other one. Where fusion baselines stand in place of the policy, there are none.

    Raises `CanidsError` if the detectors' outputs are not those that the policy was trained on.
    """
    windows = as_recorded(split, policy.observer)
    deciding: dict[str, Fusion] = {**fusion_baselines, **({"dqn": policy} if isinstance(policy, Policy) else {})}
    outputs = {name: each.step(windows, None)[0] for name, each in deciding.items()}
    if fusion not in outputs:
        raise CanidsError(f"fusion: '{fusion}' is none of the fusion baselines that were fitted ({', '.join(outputs)})")
    played, decided = outputs["dqn"].rollout if "dqn" in outputs else None, outputs.pop(fusion)
    values = {"q_chosen": played.q_chosen, "q_other": played.q_other} if played else {}
    others = {
        f"baseline_{name}_{what}": pl.Series(column.astype(np.float32))
        for name, output in outputs.items()
        for what, column in (("score", output.score), ("alarm", output.alarm))
    }
    scores = windows.scores[0].numpy()
    return split.keys.with_columns(
        *(pl.Series(detector.decided, scores[:, d]) for d, detector in enumerate(split.detectors)),
        fusion_score=pl.Series(decided.score),
        alarm=pl.Series(decided.alarm),
        action=pl.Series(decided.action),
        **{name: pl.Series(value[0].numpy()) for name, value in values.items()},
        **others,
    )


def load(model: Path | None, fusion_baselines: Path) -> tuple[Decider, FusionBaselines]:
    """A policy (or, without one, the fusion baselines in its place) and its fusion baselines.

    Raises `CanidsError` naming the file that is damaged or learnt from other detectors.
    """
    if model is None:
        alone = FusionBaselines.load(fusion_baselines)
        return alone, alone
    refuse_mixture(model, fusion_baselines)
    policy = Policy.load(model)
    return policy, FusionBaselines.load(fusion_baselines, policy.observer)


def main(call: entry_point.Call) -> None:
    """Read states, policy and fusion baselines, write decisions."""
    torch.set_num_threads(call.config["torch_threads"])
    model, (baselines_model,) = next(iter(call.inputs["model"]), None), call.inputs["fusion_baselines"]
    policy, baselines = load(model, baselines_model)
    split = states.read(call.inputs["states"][0], **call.made_for("dataset", "variant", "split"))
    fusion = call.config["fusion"] if model else THRESHOLD
    # Only what is judged or scored: the scales were fitted to the splits of training.
    recalibrate = call.config["recalibrate"] if call.wildcards["split"] not in SPLITS else 0
    if recalibrate and len(split):
        decisions = pl.concat(
            decide(recalibrated(policy, capture, recalibrate), baselines.fusions, capture, fusion)
            for capture in states.by_capture(split)
        )
    else:
        decisions = decide(policy, baselines.fusions, split, fusion)
    metadata = {
        **call.wildcards,
        "fusion": fusion,
        "recalibrate": recalibrate,
        **({"policy": sha256_of(model)} if model else {}),
        "fusion_baselines": sha256_of(baselines_model),
        "false_alarm_budget": baselines.budget,
        # With scales fitted to each capture the score of even odds differs between captures.
        "even_odds": {} if call.config["recalibrate"] else policy.observer.even_odds(),
        detectors.KEY: detectors.as_json(split.detectors),
    }
    tables.write(call.output["output"], DECISIONS, decisions, metadata)


if __name__ == "__main__":
    entry_point.run(main, inputs=["states", "model", "fusion_baselines"], each=["states"])
