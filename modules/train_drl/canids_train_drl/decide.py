"""Apply a policy and its rivals to the states of a split (rule decisions).

    python -m canids_train_drl.decide --spec JSON --output decisions.parquet --states states.parquet --model model.safetensors

Every segment of a capture is played from its beginning with a quiet alarm, window by window: a decision depends on that
window and those before it alone. Runs on the CPU, so that a policy decides alike wherever it was trained.
"""

import numpy as np
import polars as pl
import torch

from canids_shared import cli, tables
from canids_shared.files import sha256_of
from canids_shared.tables import DECISIONS
from canids_train_drl import rivals, states
from canids_train_drl.applied import FREE, traffic_of
from canids_train_drl.playing import Lanes, play
from canids_train_drl.policy import Policy
from canids_train_drl.states import States


def decide(policy: Policy, split: States) -> pl.DataFrame:
    """Decisions (contract `decisions/1`) on every window of `split`.

    Raises `CanidsError` if its columns are not those that the policy was trained on.
    """
    traffic = traffic_of(policy, split)
    played = play(policy.network, traffic, Lanes.whole(split.segments), policy.actions, FREE)
    scores = traffic.scores[0].numpy()
    return split.keys.with_columns(
        vgae_score=pl.Series(scores[:, 1]),
        gat_score=pl.Series(scores[:, 0]),
        fusion_score=pl.Series(played.score[0].numpy()),
        alarm=pl.Series(played.alarm[0].numpy()),
        action=pl.Series(played.action[0].numpy().astype(np.int16)),
        **{name: pl.Series(column) for name, column in rivals.applied(policy.rivals, scores, split.segments).items()},
    )


def main(call: cli.Call) -> None:
    """Read states and policy, write decisions."""
    torch.set_num_threads(call.config["torch_threads"])
    model = call.inputs["model"][0]
    decisions = decide(Policy.load(model), states.read(call.inputs["states"][0]))
    metadata = {**call.wildcards, "policy": sha256_of(model), "digests": tables.digests(decisions)}
    tables.write(call.output["output"], DECISIONS, decisions, metadata)


if __name__ == "__main__":
    cli.run(main, inputs=["states", "model"])
