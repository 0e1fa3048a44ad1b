"""Apply a policy and its fusion_baselines to the states of a split (rule decisions).

    python -m canids_train_drl.decide --spec JSON --output decisions.parquet --states states.parquet
        --model model.safetensors --fusion_baselines fusion_baselines.safetensors

Every segment of a capture is played from its beginning with a quiet alarm, window by window: a decision depends on that
window and those before it alone. Runs on the CPU, so that a policy decides alike wherever it was trained. What the config's
`fusion` names becomes the fusion; the policy, where it is not that, is a baseline like the others. With `recalibrate`, the scales
of the detectors' scores are set by each capture's own first seconds, which are then no longer decided on by the past alone. The
splits of the training captures keep the scales that the policy learnt with: it was these captures that they were set by.
"""

from dataclasses import asdict, replace

import numpy as np
import polars as pl
import torch

from canids_shared.contracts import detectors, tables
from canids_shared.contracts.manifest import SPLITS
from canids_shared.contracts.tables import DECISIONS
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of
from canids_shared.jobs import entry_point
from canids_train_drl import states
from canids_train_drl.fusion_baselines import stored
from canids_train_drl.fusion_baselines.stored import FusionBaseline
from canids_train_drl.observation import Observer
from canids_train_drl.playing import FREE, Lanes, play
from canids_train_drl.policy import Policy
from canids_train_drl.prepared import as_recorded
from canids_train_drl.states import States

FEWEST = 50
"""Windows that a scale can be set from."""


def recalibrated(policy: Policy, split: States, seconds: float) -> Policy:
    """The policy with the detectors' scales set anew from the first seconds of a capture, which are taken to be quiet.

    Raises `CanidsError` if they hold too few windows, or windows labelled as attacked.
    """
    first = (split.keys["t_end"] - split.keys["t_start"].min() <= seconds).to_numpy()
    if first.sum() < FEWEST:
        raise CanidsError(
            f"{split.path}: {split.keys['capture'][0]} has {int(first.sum())} windows in its first {seconds:g} s, too few to set scales by; "
            f"set recalibrate to more seconds ({FEWEST} windows at least)"
        )
    if (split.labels[first] == 1).any():
        raise CanidsError(
            f"{split.path}: the first {seconds:g} s of {split.keys['capture'][0]} hold windows labelled as attacked; set recalibrate to fewer seconds"
        )
    quiet = replace(split, values=split.values[first], labels=np.zeros(int(first.sum()), dtype=np.int8))
    observer = policy.observer
    again = Observer.fit(quiet, {"history": asdict(observer), "raw_columns": observer.raw})
    return replace(policy, observer=again)


def decide(
    policy: Policy, fusion_baselines: dict[str, FusionBaseline], split: States, fusion: str = "dqn"
) -> pl.DataFrame:
    """Decisions (contract `decisions/1`) on every window of `split`.

    The columns of a baseline are `baseline_{name}_score` and `baseline_{name}_alarm`; `q_chosen` and `q_other` are the policy's
    values of the action it takes and of the best other one.

    Raises `CanidsError` if the detectors' outputs are not those that the policy was trained on.
    """
    traffic = as_recorded(split, policy.observer)
    played = play(policy.network, traffic, Lanes.whole(split.segments), policy.actions, FREE)
    outcomes = {name: baseline.decide(traffic) for name, baseline in fusion_baselines.items()}
    outcomes["dqn"] = played.score[0].numpy(), played.alarm[0].numpy()
    score, alarm = outcomes.pop(fusion)
    action = played.action[0].numpy() if fusion == "dqn" else alarm
    scores = traffic.scores[0].numpy()
    others = {
        f"baseline_{name}_{what}": pl.Series(column.astype(np.float32))
        for name, outcome in outcomes.items()
        for what, column in zip(("score", "alarm"), outcome, strict=True)
    }
    return split.keys.with_columns(
        vgae_score=pl.Series(scores[:, 1]),
        gat_score=pl.Series(scores[:, 0]),
        fusion_score=pl.Series(score),
        alarm=pl.Series(alarm),
        action=pl.Series(action.astype(np.int16)),
        q_chosen=pl.Series(played.chosen[0].numpy()),
        q_other=pl.Series(played.other[0].numpy()),
        **others,
    )


def main(call: entry_point.Call) -> None:
    """Read states, policy and fusion_baselines, write decisions."""
    torch.set_num_threads(call.config["torch_threads"])
    (model,), (beside,) = call.inputs["model"], call.inputs["fusion_baselines"]
    policy = Policy.load(model)
    fusion_baselines, observer = stored.load(beside)
    if observer != policy.observer:
        raise CanidsError(f"{beside}: learnt from other detectors than the policy was; delete it and run again")
    split = states.read(call.inputs["states"][0])
    fusion, asked = call.config["fusion"], call.config["recalibrate"]
    seconds = 0 if call.wildcards["split"] in SPLITS else asked
    if seconds and len(split):
        own = states.by_capture(split)
        decisions = pl.concat(
            [decide(recalibrated(policy, part, seconds), fusion_baselines, part, fusion) for part in own]
        )
    else:
        decisions = decide(policy, fusion_baselines, split, fusion)
    # On scales of a capture's own the score of even odds is another for each.
    even_odds = {} if asked else {"gat": policy.observer.even_odds()}
    metadata = {
        **call.wildcards,
        "fusion": fusion,
        "recalibrate": asked,
        "policy": sha256_of(model),
        "fusion_baselines": sha256_of(beside),
        "false_alarm_budget": stored.budget_of(beside),
        "even_odds": even_odds,
        "digests": tables.digests(decisions),
        detectors.KEY: detectors.as_json(detectors.DETECTORS),
    }
    tables.write(call.output["output"], DECISIONS, decisions, metadata)


if __name__ == "__main__":
    entry_point.run(main, inputs=["states", "model", "fusion_baselines"])
