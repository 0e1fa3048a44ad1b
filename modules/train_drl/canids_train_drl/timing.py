"""How long a decision of a trained policy takes."""

import numpy as np

from canids_shared.jobs import latency
from canids_train_drl.playing import FREE, Lanes, play
from canids_train_drl.policy import Policy
from canids_train_drl.prepared import as_recorded
from canids_train_drl.states import States

_TIMED, _ROUNDS = 100, 5


def seconds_a_window(policy: Policy, split: States) -> list[float]:
    """How long one decision takes, in several rounds: each the mean over the first windows, decided one after the other."""
    windows = min(_TIMED, int(split.segments[1] - split.segments[0]))
    lane = Lanes(np.zeros(1, np.int64), split.segments[:1], np.array([windows]))
    share = windows / len(split.labels)

    def rounds(_: int) -> None:
        play(policy.network, traffic, lane, policy.actions, FREE)

    seen = latency.measure(lambda _: as_recorded(split, policy.observer), _ROUNDS)
    traffic = as_recorded(split, policy.observer)
    decided = latency.measure(rounds, _ROUNDS)
    return [(share * s + d) / windows for s, d in zip(seen, decided, strict=True)]
