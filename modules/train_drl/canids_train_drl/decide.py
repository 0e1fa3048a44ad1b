"""Apply a policy and its rivals to the states of a split (rule decisions).

    python -m canids_train_drl.decide --spec JSON --output decisions.parquet --states states.parquet --model model.safetensors

Every segment of a capture is played from its beginning with a quiet alarm, window by window: a decision depends on that
window and those before it alone. Runs on the CPU, so that a policy decides alike wherever it was trained.
"""

import numpy as np
import polars as pl
import torch

from canids_shared import cli, latency, tables
from canids_shared.files import sha256_of
from canids_shared.tables import DECISIONS
from canids_train_drl import rivals, states
from canids_train_drl.environment import Costs, Traffic
from canids_train_drl.playing import Lanes, play
from canids_train_drl.policy import Policy
from canids_train_drl.states import States

_FREE = Costs(0.0, 0.0, 0.0, 0.0)
_TIMED, _ROUNDS = 100, 5


def _traffic(policy: Policy, split: States) -> Traffic:
    policy.observer.check_columns(split)
    return Traffic(
        torch.as_tensor(policy.observer.features(split.values, split.segment_of))[None],
        torch.as_tensor(policy.observer.scores(split.values))[None],
        torch.tensor(split.labels),
        split.segments,
        torch.ones(1),
    )


def decide(policy: Policy, split: States) -> pl.DataFrame:
    """Decisions (contract `decisions/1`) on every window of `split`.

    Raises `CanidsError` if its columns are not those that the policy was trained on.
    """
    traffic = _traffic(policy, split)
    played = play(policy.network, traffic, Lanes.whole(split.segments), policy.actions, _FREE)
    scores = traffic.scores[0].numpy()
    return split.keys.with_columns(
        vgae_score=pl.Series(scores[:, 1]),
        gat_score=pl.Series(scores[:, 0]),
        fusion_score=pl.Series(played.score[0].numpy()),
        alarm=pl.Series(played.alarm[0].numpy()),
        action=pl.Series(played.action[0].numpy().astype(np.int16)),
        **{name: pl.Series(column) for name, column in rivals.applied(policy.rivals, scores, split.segments).items()},
    )


def seconds_a_window(policy: Policy, split: States) -> list[float]:
    """How long one decision takes, over and over: the mean over the first windows of `split`, played one by one."""
    traffic = _traffic(policy, split)
    windows = min(_TIMED, int(split.segments[1] - split.segments[0]))
    lane = Lanes(np.zeros(1, np.int64), split.segments[:1], np.array([windows]))
    rounds = latency.measure(lambda _: play(policy.network, traffic, lane, policy.actions, _FREE), _ROUNDS)
    return [seconds / windows for seconds in rounds]


def main(call: cli.Call) -> None:
    """Read states and policy, write decisions."""
    torch.set_num_threads(call.config["torch_threads"])
    model = call.inputs["model"][0]
    decisions = decide(Policy.load(model), states.read(call.inputs["states"][0]))
    metadata = {**call.wildcards, "policy": sha256_of(model), "digests": tables.digests(decisions)}
    tables.write(call.output["output"], DECISIONS, decisions, metadata)


if __name__ == "__main__":
    cli.run(main, inputs=["states", "model"])
