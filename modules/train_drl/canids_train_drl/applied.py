"""A trained policy applied to recorded states: what decisions are made from, and how long one takes."""

import numpy as np
import torch

from canids_shared import latency
from canids_train_drl.environment import Costs, Traffic
from canids_train_drl.playing import Lanes, play
from canids_train_drl.policy import Policy
from canids_train_drl.states import States

FREE = Costs(0.0, 0.0, 0.0, 0.0)
_TIMED, _ROUNDS = 100, 5


def traffic_of(policy: Policy, split: States) -> Traffic:
    """The windows of `split` as the policy sees them, on the CPU.

    Raises `CanidsError` if its columns are not those that the policy was trained on.
    """
    policy.observer.check_columns(split)
    return Traffic(
        torch.as_tensor(policy.observer.features(split.values, split.segment_of))[None],
        torch.as_tensor(policy.observer.scores(split.values))[None],
        torch.tensor(split.labels),
        split.segments,
        torch.ones(1),
    )


def seconds_a_window(policy: Policy, split: States) -> list[float]:
    """How long one decision takes, in several rounds: each the mean over the first windows, decided one after the other."""
    windows = min(_TIMED, int(split.segments[1] - split.segments[0]))
    lane = Lanes(np.zeros(1, np.int64), split.segments[:1], np.array([windows]))
    share = windows / len(split.labels)

    def rounds(_: int) -> None:
        play(policy.network, traffic, lane, policy.actions, FREE)

    seen = latency.measure(lambda _: traffic_of(policy, split), _ROUNDS)
    traffic = traffic_of(policy, split)
    decided = latency.measure(rounds, _ROUNDS)
    return [(share * s + d) / windows for s, d in zip(seen, decided, strict=True)]
